from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from awpbench import checkpoints, models
from awpbench.attack_model import AttackModel
from awpbench.errors import UsageError

CONVOLUTIONS = (0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49)  # places in `features`; pools between
CHANNELS = (64, 64, 128, 128, *[256] * 4, *[512] * 8)


def small(shape: tuple[int, int, int] = (3, 32, 32), width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    net = models.build("vgg19", classes=7, shape=shape, width=width)
    for buffer in net.buffers():  # as after training
        if buffer.is_floating_point() and buffer.ndim == 1:
            buffer.uniform_(0.5, 1.5)
    return net.eval()


def test_vgg19_has_the_published_keys_shapes_and_size() -> None:
    with torch.device("meta"):
        net = models.build("vgg19", classes=10, shape=(3, 32, 32))
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {"classifier.weight": (10, 512), "classifier.bias": (10,)}
    before = 3
    for place, channels in zip(CONVOLUTIONS, CHANNELS, strict=True):
        expected[f"features.{place}.weight"] = (channels, before, 3, 3)
        expected[f"features.{place}.bias"] = (channels,)
        for name in ("weight", "bias", "running_mean", "running_var"):
            expected[f"features.{place + 1}.{name}"] = (channels,)
        expected[f"features.{place + 1}.num_batches_tracked"] = ()
        before = channels
    assert shapes == expected
    assert sum(parameter.numel() for parameter in net.parameters()) == 20_040_522


def test_the_net_is_the_sequence_of_its_layers_and_normalises_first() -> None:
    net = small()
    x = torch.rand(2, 3, 32, 32)
    by_hand = x
    for layer in net.get_submodule("features"):  # type: ignore[attr-defined]
        by_hand = layer(by_hand)
    assert by_hand.shape == (2, 32, 1, 1)
    assert torch.equal(net(x), net.get_submodule("classifier")(by_hand.flatten(1)))
    normalising = models.build("vgg19", classes=7, shape=(3, 32, 32), width=4, mean=[0.5] * 3, std=[0.25] * 3).eval()
    normalising.load_state_dict(net.state_dict())
    assert torch.equal(normalising(x), net((x - 0.5) / 0.25))


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 33, 47), (3, 64, 64)])
def test_larger_images_and_other_channels_are_taken(shape: tuple[int, int, int]) -> None:
    assert small(shape)(torch.rand(2, *shape)).shape == (2, 7)


def test_images_that_cannot_be_halved_five_times_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        models.build("vgg19", classes=10, shape=(1, 28, 28))
    assert caught.value.what == "vgg19 halves its images five times, and 28x28 is too small for that"
    assert caught.value.mend == "Choose another model, or images of at least 32x32."


def mair(key: str) -> str:
    return key.replace("features.", "conv_layer.").replace("classifier.", "fc_layer.0.")


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "1."])
@pytest.mark.parametrize("dialect", [str, mair], ids=["kuangliu", "MAIR"])
def test_a_state_dict_of_either_dialect_is_recognised(tmp_path: Path, dialect: type[str], prefix: str) -> None:
    net, path = small(), tmp_path / "x.pt"
    torch.save({"state_dict": {prefix + dialect(key): value for key, value in net.state_dict().items()}}, path)
    loaded = checkpoints.load(path)
    spec = loaded.model_spec
    assert (spec.architecture, spec.width, spec.classes, spec.shape) == ("vgg19", 4, 7, (3, 32, 32))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.build()(x), net(x))


def test_the_net_under_attack_gives_the_same_logits_and_gradients() -> None:
    net = small()
    x = torch.rand(4, 3, 32, 32, requires_grad=True)
    fast = AttackModel(net)
    assert torch.allclose(fast(x), net(x), atol=1e-5)
    ours, theirs = (torch.autograd.grad(f(x).logsumexp(1).sum(), x)[0] for f in (fast, net))
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("name", ["prn18", "wrn-10-1", "wrn-16-3", "resnet18", "small-cnn"])
@pytest.mark.parametrize("shape", [(3, 33, 47), (4, 5, 7), (3, 64, 48)])
def test_the_other_models_take_images_of_any_size(name: str, shape: tuple[int, int, int]) -> None:
    net = models.build(name, classes=2, shape=shape, width=3)
    assert net(torch.zeros(2, *shape)).shape == (2, 2)
