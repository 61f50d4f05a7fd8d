from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awpbench import models
from awpbench.attack_model import AttackModel
from awpbench.errors import UsageError
from tests.rules import fill, images

MEAN, STD = [0.49, 0.48, 0.44], [0.2, 0.25, 0.3]


def trained(name: str = "prn18", width: int = 8) -> nn.Module:
    """A net in float64 whose batch norms are far from the identity."""
    net = models.build(name, classes=10, shape=(3, 32, 32), width=width, mean=MEAN, std=STD).double()
    net.load_state_dict(fill(net.state_dict()))
    return net


def gradient(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    logits = model(x)
    (grad,) = torch.autograd.grad(F.cross_entropy(logits, torch.arange(len(x)) % logits.shape[1], reduction="sum"), x)
    return grad


def snapshot(net: nn.Module) -> tuple[object, ...]:
    return (
        {key: (value.clone(), value.stride(), value.data_ptr()) for key, value in net.state_dict().items()},
        [module.training for module in net.modules()],
        [(parameter.requires_grad, parameter.grad) for parameter in net.parameters()],
        [type(module) for module in net.modules()],
    )


def same(before: tuple[object, ...], after: tuple[object, ...]) -> bool:
    first, second = before[0], after[0]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    equal = [first[k][0].equal(second[k][0]) and first[k][1:] == second[k][1:] for k in first]
    return all(equal) and first.keys() == second.keys() and before[1:] == after[1:]


class Hidden(nn.Module):
    """A net that torch.fx cannot trace: its forward looks at the values."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x) if x.min() >= -1e9 else x
        return out


class Viewing(nn.Module):
    """A net that flattens its activations with view, which channels_last forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8 * 32 * 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn(self.conv(x))
        return self.fc(out.view(out.size(0), -1))


class Sharing(nn.Module):
    """One convolution and one batch norm used twice, a convolution used by two, statistics or affine parts missing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=True), nn.BatchNorm2d(6, affine=False)
        self.twice, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.strided = nn.Conv2d(6, 8, 3, 2, padding=1, padding_mode="reflect", groups=2)
        self.bn3, self.bn4 = nn.BatchNorm2d(8), nn.BatchNorm2d(8, track_running_stats=False)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.twice(out)))
        out = F.relu(self.bn2(self.twice(out)))
        out = self.strided(out)
        out = self.bn3(out) + out
        return self.fc(F.relu(self.bn4(out)).mean((2, 3)))


@pytest.mark.parametrize("name", ["prn18", "wrn-10-1", "wrn-16-2", "resnet18", "small-cnn"])
@pytest.mark.parametrize("training", [False, True])
def test_the_folded_copy_gives_the_logits_and_gradients_of_the_net_in_eval_mode(name: str, training: bool) -> None:
    net = trained(name)
    x = images(4)
    reference = copy.deepcopy(net).eval()
    fast = AttackModel(net.train(training))
    logits, expected = fast(x), reference(x)
    assert fast.folded
    assert logits.dtype == torch.float64
    assert logits.is_contiguous()
    assert (logits - expected).abs().max() <= 1e-12 * expected.abs().max()
    ours, theirs = gradient(fast, x), gradient(reference, x)
    assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max()


def test_every_batch_norm_after_a_convolution_of_its_own_is_folded_and_the_others_are_affine() -> None:
    fast = AttackModel(trained("prn18"))
    assert fast._fast is not None
    kinds = [type(module).__name__ for module in fast._fast.modules()]
    assert kinds.count("BatchNorm2d") == 0
    assert kinds.count("Affine") == 8 + 1  # bn1 of each block, which also feeds the shortcut's sum, and the last
    assert sum(fold.conv != "" for fold in fast._folds) == 8  # bn2 of each block


def test_the_input_is_normalised_before_the_padding() -> None:
    net = trained("small-cnn").eval()
    x = torch.ones(1, 3, 32, 32, dtype=torch.float64)  # normalised ones differ from the padding's zeros at the border
    assert torch.allclose(AttackModel(net)(x), net(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_the_net_is_never_changed(training: bool) -> None:
    net = trained().train(training)
    net.bn.eval()  # a mixed mode is kept too
    before = snapshot(net)
    fast = AttackModel(net)
    x = images(4).requires_grad_()
    fast(x).sum().backward()
    fast.verify(x)
    fast.refresh()
    assert x.grad is not None
    assert same(before, snapshot(net))


def test_verify_is_the_untouched_net_in_eval_mode_bit_for_bit() -> None:
    net = trained("wrn-10-1").float().train()
    x = images(4).float()
    logits = AttackModel(net).verify(x.requires_grad_())
    assert not logits.requires_grad
    with torch.no_grad():
        assert logits.equal(copy.deepcopy(net).eval()(x))


def test_verify_follows_the_weights_and_the_copy_waits_for_refresh() -> None:
    net = trained()
    fast, x = AttackModel(net), images(2)
    before = fast(x)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    net.train()
    F.cross_entropy(net(x), torch.tensor([0, 1])).backward()
    optimizer.step()
    expected = copy.deepcopy(net).eval()(x)
    assert not torch.allclose(expected, before)
    assert fast(x).equal(before)
    assert fast.verify(x).equal(expected)
    fast.refresh()
    assert torch.allclose(fast(x), expected, rtol=1e-11, atol=1e-11)
    assert fast.folded


def test_weights_that_change_before_the_first_call_do_not_spoil_the_comparison() -> None:
    net = trained()
    fast, x = AttackModel(net), images(2)
    before = copy.deepcopy(net).eval()(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    assert torch.allclose(fast(x), before, rtol=1e-11, atol=1e-11)
    assert fast.folded


def test_refresh_writes_into_the_tensors_it_has() -> None:
    fast = AttackModel(trained())
    assert fast._fast is not None
    before = {key: value.data_ptr() for key, value in fast._fast.state_dict().items()}
    fast.refresh()
    assert {key: value.data_ptr() for key, value in fast._fast.state_dict().items()} == before


def test_a_net_behind_a_normalisation_is_folded() -> None:
    class Normalize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(MEAN, dtype=torch.float64).view(3, 1, 1))
            self.register_buffer("std", torch.tensor(STD, dtype=torch.float64).view(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return (x - self.get_buffer("mean")) / self.get_buffer("std")

    net = nn.Sequential(Normalize(), trained("wrn-10-1")).eval()
    fast, x = AttackModel(net), images(2)
    assert torch.allclose(fast(x), net(x), rtol=1e-11, atol=1e-11)
    assert fast.folded
    net[0].mean.add_(0.1)
    fast.refresh()
    assert torch.allclose(fast(x), net(x), rtol=1e-11, atol=1e-11)


def test_shared_and_incomplete_layers_are_folded_only_where_legal() -> None:
    torch.manual_seed(0)
    net = Sharing().double()
    net.load_state_dict(fill(net.state_dict()))
    net.eval()
    fast, x = AttackModel(net), images(3)
    assert torch.allclose(fast(x), net(x), rtol=1e-11, atol=1e-11)
    assert torch.allclose(gradient(fast, x), gradient(net, x), rtol=1e-9, atol=1e-12)
    assert fast.folded
    assert [(fold.norm, fold.conv) for fold in fast._folds] == [("bn1", "conv1"), ("bn2", ""), ("bn2", ""), ("bn3", "")]


def test_a_net_without_batch_norm_works() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 10)).double()
    fast, x = AttackModel(net), images(2)
    assert torch.allclose(fast(x), net(x), rtol=1e-12, atol=1e-12)
    assert fast.folded


def test_a_linear_net_on_flat_input_works() -> None:
    net = nn.Linear(6, 3).double()
    x = images(1).flatten()[:12].view(2, 6)
    assert torch.allclose(AttackModel(net)(x), net(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "make", [lambda: Hidden(trained()), lambda: Viewing().double()], ids=["untraceable", "viewing"]
)
def test_what_cannot_be_folded_is_used_as_it_is(make: Callable[[], nn.Module]) -> None:
    net = make().train()
    reference, before = copy.deepcopy(net).eval(), snapshot(net)
    fast, x = AttackModel(net), images(2)
    assert fast(x).equal(reference(x))
    assert gradient(fast, x).equal(gradient(reference, x))
    assert not fast.folded
    assert same(before, snapshot(net))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
    assert fast(x).equal(reference(x))
    fast.refresh()
    assert fast(x).equal(copy.deepcopy(net).eval()(x))


def test_a_fold_that_changes_the_logits_is_not_used() -> None:
    net = trained().eval()
    fast, x = AttackModel(net), images(2)
    fast._folds[0].bias.add_(1.0)
    assert fast(x).equal(net(x))
    assert not fast.folded


def test_a_net_whose_logits_are_no_numbers_is_used_as_it_is() -> None:
    net = trained().eval()
    with torch.no_grad():
        net.linear.bias.fill_(float("nan"))
    fast = AttackModel(net)
    assert fast(images(1)).isnan().all()
    assert not fast.folded


def test_hooks_and_parametrisations_keep_working() -> None:
    net = trained("small-cnn").eval()
    torch.nn.utils.parametrizations.weight_norm(net.conv2)
    net.bn3.register_forward_hook(lambda module, args, out: 2 * out)
    fast, x = AttackModel(net), images(2)
    assert torch.allclose(fast(x), net(x), rtol=1e-11, atol=1e-11)


def test_a_net_that_keeps_activations_can_be_copied() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = trained("small-cnn")

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.net(x)
            return self.kept

    net, x = Keeping().eval(), images(2)
    net(x)  # net.kept has a history now, which a plain deepcopy refuses
    with pytest.raises(RuntimeError):
        copy.deepcopy(net)
    assert torch.allclose(AttackModel(net)(x), net(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_have_the_layout_of_the_images(channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = images(4).contiguous(memory_format=layout)
    grad = gradient(AttackModel(trained()), x)
    assert grad.is_contiguous(memory_format=layout)
    if not channels_last:
        grad.view(4, -1)


def test_calling_twice_on_the_same_images_leaves_no_hooks_on_them() -> None:
    fast, x = AttackModel(trained()), images(2).requires_grad_()
    first = torch.autograd.grad(fast(x).sum(), x)[0]
    for _ in range(3):
        assert torch.autograd.grad(fast(x).sum(), x)[0].equal(first)
    assert not x._backward_hooks


def test_nothing_but_the_images_asks_for_a_gradient() -> None:
    fast = AttackModel(trained())
    assert not fast(images(1)).requires_grad
    fast = AttackModel(Hidden(trained()))
    assert not fast(images(1)).requires_grad


@pytest.mark.parametrize("name", ["prn18", "wrn-10-1", "resnet18", "small-cnn"])
def test_it_runs_on_the_meta_device(name: str) -> None:
    net = trained(name).to("meta")
    fast, x = AttackModel(net), images(2).to("meta").requires_grad_()
    assert torch.autograd.grad(fast(x).sum(), x)[0].shape == x.shape
    assert fast.verify(x).shape == (2, 10)
    fast.refresh()
    assert fast.folded


def test_the_global_generator_is_left_alone() -> None:
    net = trained("small-cnn")
    before = torch.get_rng_state()
    AttackModel(net)(images(2))
    assert torch.get_rng_state().equal(before)


def test_the_bf16_copy_answers_in_fp32_and_its_gradients_point_the_way_of_the_nets() -> None:
    net, x = trained("prn18", width=16).float().eval(), images(8).float()
    fast = AttackModel(net, "bf16-attack")
    logits, expected = fast(x), net(x)
    assert logits.dtype == torch.float32
    assert 0 < (logits - expected).abs().max() <= 0.05 * expected.abs().max()
    ours, theirs = gradient(fast, x).flatten(1), gradient(net, x).flatten(1)
    assert F.cosine_similarity(ours, theirs).min() > 0.95  # 0.999 on a trained net
    assert fast.verify(x).equal(net(x))


def test_the_bf16_copy_keeps_its_first_convolution_and_last_layer_in_fp32() -> None:
    fast, x = AttackModel(trained().float(), "bf16-attack"), images(2).float()
    fast(x)
    assert fast._fast is not None
    kept = {name for name, tensor in fast._fast.named_parameters() if tensor.dtype == torch.float32}
    assert kept == {"conv1.weight", "linear.weight", "linear.bias"}
    assert all(tensor.dtype == torch.bfloat16 for name, tensor in fast._fast.named_buffers() if "normalize" not in name)


def test_the_bf16_copy_follows_the_weights_on_refresh() -> None:
    net, x = trained().float().eval(), images(4).float()
    fast = AttackModel(net, "bf16-attack")
    fast(x)
    with torch.no_grad():
        for tensor in (*net.parameters(), net.bn.running_mean):
            tensor.mul_(1.2)
    fast.refresh()
    assert fast(x).equal(AttackModel(net, "bf16-attack")(x))


def test_a_net_that_cannot_be_traced_is_refused_in_bf16() -> None:
    with pytest.raises(UsageError) as caught:
        AttackModel(Hidden(trained().float()), "bf16-attack")(images(2).float())
    assert caught.value.what == "bf16 needs a net that torch.fx can trace, with a convolution to start from"
    assert caught.value.mend == "Attack it with --precision fp32."


def test_a_net_that_uses_one_convolution_first_and_later_is_refused_in_bf16() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(self.conv(x)).mean((2, 3)))

    with pytest.raises(UsageError, match="the logits in bf16 are not those of the net"):
        AttackModel(Again(), "bf16-attack")(torch.rand(2, 8, 4, 4))


def test_the_bf16_copy_runs_on_the_meta_device() -> None:
    fast = AttackModel(trained().float().to("meta"), "bf16-attack")
    x = torch.zeros(2, 3, 32, 32, device="meta", requires_grad=True)
    (grad,) = torch.autograd.grad(fast(x).sum(), x)
    assert (grad.shape, grad.dtype) == (x.shape, torch.float32)


class Straight(torch.autograd.Function):
    """Rounds, and lets the gradient through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (255 * x).round() / 255

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class StraightThrough(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = Straight.apply(x)  # type: ignore[no-untyped-call]
        logits: Tensor = self.fc(self.conv(rounded).relu().mean((2, 3)))
        return logits


def test_a_net_with_a_backward_pass_of_its_own_keeps_it() -> None:
    net = StraightThrough().eval()
    attacked, x = AttackModel(net), torch.rand(4, 3, 8, 8)
    assert torch.allclose(attacked(x), net(x), atol=1e-5)
    assert not attacked.folded
    gradients = []
    for model in (attacked, net):
        images = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(model(images).amax(1).sum(), images)[0])
    assert torch.allclose(*gradients, atol=1e-6)
    assert float(gradients[0].abs().sum()) > 0
