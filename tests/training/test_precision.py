"""What a step calls in place of the net: bfloat16 views share its weights and statistics, compiled ones its results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from awpbench import checkpoints, data, models
from awpbench.attack_model import AttackModel
from awpbench.config import TrainConfig
from awpbench.data.images import DataSet
from awpbench.defaults import resolve_training
from awpbench.errors import Interrupted, UsageError
from awpbench.training import loop
from awpbench.training.precision import Bf16Net, views
from awpbench.training.step import frozen
from tests.training.test_loop import CPU, Silent, after

METHODS = ["standard", "at", "trades", "mart"]
PRECISIONS = ["bf16-attack", "bf16"]
LEAST_COSINE = 0.92  # of a fresh net on noise; torch.autocast reaches 0.940 to 0.988, as we do


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return data.load("digits", validation=50, train_examples=100)


def config(**changed: Any) -> TrainConfig:
    small: dict[str, Any] = {"architecture": "small-cnn", "width": 8, "dataset": "digits", "train_examples": 100}
    small |= {"validation_examples": 50, "epochs": 2, "batch_size": 40, "steps": 2, "track_steps": 1}
    return resolve_training(small | {"track_examples": 20} | changed)[0]


def net(name: str = "small-cnn", width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, classes=10, shape=(1, 16, 16), width=width, mean=[0.5], std=[0.25])


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(32, 1, 16, 16), torch.arange(32) % 10


def cosine(one: Tensor, other: Tensor) -> float:
    return float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0))


@pytest.mark.parametrize("architecture", ["small-cnn", "resnet18", "prn18", "wrn-10-1"])
def test_gradients_in_bf16_point_where_those_in_fp32_do(architecture: str) -> None:
    model = net(architecture)
    x, y = batch()
    parameters = list(model.parameters())
    to_weights, to_images = [], []
    for view in (model, Bf16Net(model)):
        to_weights.append(torch.autograd.grad(F.cross_entropy(view(x), y), parameters))
        images = x.clone().requires_grad_()
        to_images += torch.autograd.grad(F.cross_entropy(view(images), y), images)
    assert {gradient.dtype for gradient in to_weights[1]} == {torch.float32}
    assert cosine(*(torch.cat([g.flatten() for g in gradients]) for gradients in to_weights)) > LEAST_COSINE
    assert cosine(*to_images) > LEAST_COSINE


def test_the_convolutions_compute_in_bfloat16_and_batch_norm_and_logits_stay_in_fp32() -> None:
    view = Bf16Net(net())
    inside: dict[str, list[torch.dtype]] = {}
    for name in ("conv1", "conv2", "bn2", "conv3", "fc"):
        module = view.net.get_submodule(name)
        module.register_forward_hook(lambda _, args, out, name=name: inside.update({name: [args[0].dtype, out.dtype]}))
    low, full = torch.bfloat16, torch.float32
    assert view(batch()[0]).dtype == full
    assert inside == {
        "conv1": [full, low],
        "conv2": [low, low],
        "bn2": [low, low],
        "conv3": [low, low],
        "fc": [full, full],
    }
    assert {tensor.dtype for name, tensor in view.state_dict().items() if "bn" in name} == {full, torch.int64}


def test_a_view_shares_weights_and_statistics_and_the_net_keeps_its_layers() -> None:
    model = net()
    before = {name: type(module) for name, module in model.named_modules()}
    view = Bf16Net(model)
    view.train()(batch()[0])
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert [id(p) for p in view.parameters()] == [id(p) for p in model.parameters()]
    assert int(model.get_buffer("bn2.num_batches_tracked")) == 1
    assert view.net.get_submodule("bn2") is model.get_submodule("bn2")
    model.eval()
    assert not view.net.get_submodule("bn2").training


def test_running_statistics_in_bf16_are_those_of_fp32_up_to_rounding() -> None:
    model, lowered = net(), net()
    x = batch()[0]
    model.train()(x)
    views(lowered, "bf16-attack").attacked(train=True)(x)
    for key, value in model.state_dict().items():
        if "running" in key:
            assert torch.allclose(lowered.state_dict()[key], value, rtol=0.02, atol=2e-3), key
        assert lowered.state_dict()[key].dtype == value.dtype


def test_an_attack_uses_the_weights_of_the_moment_in_which_it_starts() -> None:
    model = net()
    both = views(model, "bf16-attack")
    x = batch()[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    expected = Bf16Net(model).eval()(x)
    with frozen(model):
        assert torch.equal(both.attacked(train=False)(x), expected)


def test_the_update_is_in_bf16_only_where_all_of_training_is() -> None:
    model = net()
    assert views(model, "fp32").attack is views(model, "fp32").update is model
    assert views(model, "bf16-attack").update is model
    assert isinstance(views(model, "bf16").update, Bf16Net)


def test_a_net_without_convolution_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        views(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "bf16")
    assert caught.value.what == "bf16 needs a net with a convolution to start from"
    assert caught.value.mend == "Leave --precision out."


@pytest.mark.parametrize("awp", [False, True])
@pytest.mark.parametrize("precision", ["fp32", *PRECISIONS])
@pytest.mark.parametrize("method", METHODS)
def test_every_defense_steps_in_every_precision(method: str, precision: str, awp: bool, digits: DataSet) -> None:
    cfg = config(defense=method, precision=precision, awp=awp, awp_warmup=0 if awp else None)
    state = loop.fresh(cfg, digits, CPU)
    before = [p.detach().clone() for p in state.model.parameters()]
    copy = loop.eval_mode_copy(state, cfg)
    outcome = loop.one_step(state, cfg, digits.train, torch.arange(40), copy, steps_per_epoch=3)
    assert outcome.loss.dtype == torch.float32
    assert math.isfinite(float(outcome.loss))
    after_it = list(state.model.parameters())
    assert all(p.isfinite().all() and not torch.equal(p, old) for p, old in zip(after_it, before, strict=True))
    updates = {"standard": 1, "at": 2 + 1, "trades": 2, "mart": 2}[method]  # as in fp32
    assert int(state.model.get_buffer("bn1.num_batches_tracked")) == updates


@pytest.mark.parametrize(
    ("method", "precision"), [("at", "bf16"), ("at", "bf16-attack"), ("trades", "bf16"), ("mart", "bf16")]
)
def test_a_run_in_bf16_resumes_bit_for_bit(method: str, precision: str, digits: DataSet, tmp_path: Path) -> None:
    cfg = config(defense=method, precision=precision, awp=True, awp_warmup=0)
    stopped_and_resumed_equals_whole(cfg, digits, tmp_path)


def stopped_and_resumed_equals_whole(cfg: TrainConfig, digits: DataSet, folder: Path) -> None:
    loop.train(cfg, digits, folder / "whole", device=CPU, progress=Silent())
    watcher = Silent()
    with pytest.raises(Interrupted):
        loop.train(cfg, digits, folder / "parts", device=CPU, progress=watcher, stop=after(watcher, 2))
    loop.train(cfg, digits, folder / "parts", device=CPU, progress=Silent(), resume=True)
    one, other = (checkpoints.load(folder / part / "last.pt") for part in ("whole", "parts"))
    assert all(torch.equal(tensor, other.state_dict[key]) for key, tensor in one.state_dict.items())
    assert (folder / "parts/metrics.jsonl").read_bytes() == (folder / "whole/metrics.jsonl").read_bytes()
    assert all(tensor.dtype != torch.bfloat16 for tensor in one.state_dict.values())


def with_backend(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch.compile capture graphs as ever, and hand them to another backend than the one that needs a compiler."""
    compile_net = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, **more: compile_net(net, backend=backend, **more))
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "precision"), [("at", "fp32"), ("trades", "fp32"), ("at", "bf16")])
def test_a_compiled_run_resumes_bit_for_bit_and_equals_one_that_is_not_compiled(
    method: str, precision: str, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with_backend(counting, monkeypatch)
    cfg = config(defense=method, precision=precision, awp=True, awp_warmup=0, compile=True)
    stopped_and_resumed_equals_whole(cfg, digits, tmp_path)
    assert graphs
    plain = cfg.model_copy(update={"compile": False})
    loop.train(plain, digits, tmp_path / "plain", device=CPU, progress=Silent())
    one, other = (checkpoints.load(tmp_path / part / "last.pt") for part in ("whole", "plain"))
    assert all(torch.equal(tensor, other.state_dict[key]) for key, tensor in one.state_dict.items())


@pytest.mark.parametrize("method", ["at", "trades"])
def test_a_failure_to_compile_is_one_line(method: str, digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler was found\nand many lines more")

    with_backend(broken, monkeypatch)
    cfg = config(defense=method, compile=True)
    state = loop.fresh(cfg, digits, CPU)
    copy = loop.eval_mode_copy(state, cfg)
    with pytest.raises(UsageError) as caught:
        loop.one_step(state, cfg, digits.train, torch.arange(40), copy, steps_per_epoch=3)
    assert caught.value.what == (
        "torch.compile failed: backend='broken' raised: RuntimeError: no C++ compiler was found"
    )
    assert caught.value.mend == "Leave --compile out; it changes nothing but time."


@pytest.mark.slow
def test_a_step_that_is_really_compiled_does_what_the_plain_one_does(digits: DataSet) -> None:
    ends = []
    for compiled in (False, True):
        cfg = config(defense="at", awp=True, compile=compiled)
        state = loop.fresh(cfg, digits, CPU)
        loop.one_step(state, cfg, digits.train, torch.arange(40), None, steps_per_epoch=3)
        ends.append(torch.cat([p.detach().flatten() for p in state.model.parameters()]))
    assert cosine(*ends) > 0.999


def test_a_compiled_copy_answers_as_the_copy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend("eager", monkeypatch)
    model = net().eval()
    x = batch()[0]
    compiled = AttackModel(model, compile=True)
    assert torch.equal(compiled(x), AttackModel(model)(x))
    with torch.no_grad():
        model.get_parameter("fc.weight").mul_(3.0)
    compiled.refresh()
    assert torch.equal(compiled(x), AttackModel(model)(x))
