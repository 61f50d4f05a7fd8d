"""Weights of a file in a net of RobustBench's zoo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from awpbench import checkpoints, models
from awpbench.errors import InputError, UsageError
from awpbench.evaluation.zoo import fill, from_robustbench
from awpbench.robustbench_compat import ZooEntry
from tests import zoo
from tests.zoo import Tiny

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _tiny_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.install(monkeypatch)


def trained() -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Tiny().eval()
    net.mu.fill_(0.125)
    return net


def without(state: State, *keys: str) -> State:
    return {key: value for key, value in state.items() if key not in keys}


LAYOUTS: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "RobustBench's own": lambda state: {"state_dict": {f"module.model.{key}": value for key, value in state.items()}},
    "best and last": lambda state: {"best": {key: value * 0 for key, value in state.items()}, "last": state},
    "with what RobustBench ignores": lambda state: {
        **state,
        "features.scores": torch.ones(1),
        "model_preact_hl1.1.weight": torch.ones(1),
        "sub_block1.layer.0.bn1.weight": torch.ones(1),
        "n_averaged": torch.tensor(3),
    },
    "in half precision": lambda state: {key: value.half() for key, value in state.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_net_of_a_file_gives_its_logits(tmp_path: Path, layout: str) -> None:
    net = trained()
    torch.save(LAYOUTS[layout](net.state_dict()), tmp_path / "x.pt")
    subject = from_robustbench("One2020Tiny", tmp_path / "x.pt", dataset=None, norm=None)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not subject.net.training
    assert torch.allclose(subject.net(x), net(x), atol=2e-3 if "half" in layout else 0, rtol=0)
    assert subject.description == {
        "source": "robustbench",
        "name": "One2020Tiny",
        "architecture": "Tiny",
        "width": None,
    }
    assert subject.checkpoint == checkpoints.load_weights(tmp_path / "x.pt")[1]
    assert subject.brings == {"dataset": "digits", "norm": "Linf"}
    assert (subject.origin, subject.folder, subject.untold) == ("robustbench", Path("results/One2020Tiny"), None)


def test_a_file_without_normalisation_takes_robustbenchs_constants(tmp_path: Path) -> None:
    torch.save(without(trained().state_dict(), "mu", "sigma"), tmp_path / "x.pt")
    net = from_robustbench("One2020Tiny", tmp_path / "x.pt", dataset=None, norm=None).net
    assert net.mu.item() == 0.25
    assert net.features.weight.equal(trained().features.weight)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda state: without(state, "logits.bias"), "missing logits.bias"),
        (lambda state: {**state, "extra": torch.ones(1)}, "unexpected extra"),
        (
            lambda state: {**state, "logits.weight": torch.ones(10, 71)},
            "mis-shaped logits.weight [10, 71] for [10, 72]",
        ),
        # RobustBench cuts a prefix off every key that contains it, here `features.mo`
        (
            lambda state: {**without(state, "logits.bias"), "features.model.logits.bias": state["logits.bias"]},
            "missing logits.bias; unexpected features.model.logits.bias",
        ),
    ],
)
def test_weights_of_another_net_are_refused(tmp_path: Path, change: Callable[[State], State], problem: str) -> None:
    path = tmp_path / "x.pt"
    torch.save(change(trained().state_dict()), path)
    with pytest.raises(InputError) as caught:
        from_robustbench("One2020Tiny", path, dataset=None, norm=None)
    assert caught.value.what == f"{path} does not hold the weights of RobustBench's One2020Tiny: {problem}"
    assert caught.value.mend == "Check the model's name, --dataset and --norm."


def test_one_file_of_an_ensemble_is_refused_and_the_whole_one_loads(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(trained().state_dict(), path)
    with pytest.raises(InputError) as caught:
        from_robustbench("Deck2020Ensemble", path, dataset=None, norm=None)
    assert caught.value.mend == "It is an ensemble of 2 files: save the state dict of the whole net in one."
    torch.save(nn.ModuleList([trained(), trained()]).state_dict(), path)
    subject = from_robustbench("Deck2020Ensemble", path, dataset=None, norm=None)
    assert subject.net.get_buffer("1.mu").item() == 0.125


def test_a_checkpoint_of_ours_is_no_weights_file_for_robustbench(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    checkpoints.save(path, {"state_dict": trained().state_dict()})
    with pytest.raises(UsageError) as caught:
        from_robustbench("One2020Tiny", path, dataset=None, norm=None)
    assert caught.value.what == f"{path} is a checkpoint of awpbench, which says itself what it is"
    assert caught.value.mend == "Give it with --ckpt."


def test_prefixes_within_the_net_itself_are_matched(tmp_path: Path) -> None:
    wrapped = nn.Sequential(nn.Identity(), nn.ModuleDict({"model": trained()}))  # 1.model.features.weight
    empty = nn.Sequential(nn.Identity(), nn.ModuleDict({"model": Tiny()}))
    entry = ZooEntry("x", "digits", "Linf", None, 1, Tiny)
    fill(empty, trained().state_dict(), tmp_path, entry)
    assert all(a.equal(b) for a, b in zip(empty.state_dict().values(), wrapped.state_dict().values(), strict=True))
    with pytest.raises(InputError) as caught:
        fill(nn.ModuleDict({"model": Tiny(), "module": Tiny()}), {}, tmp_path, entry)
    assert caught.value.what == "RobustBench's x has keys that differ only by a prefix"


def test_a_net_with_our_keys_and_shapes_has_our_architecture_for_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wide() -> nn.Module:
        net = models.build("wrn-16-2", classes=10, shape=(3, 32, 32))
        net.register_buffer("mu", torch.zeros(3))
        net.register_buffer("sigma", torch.ones(3))
        return net

    def odd() -> nn.Module:
        net = wide()
        net.register_parameter("slope", nn.Parameter(torch.ones(1)))
        return net

    named = []
    for make in (wide, odd):
        monkeypatch.setitem(zoo.ZOO["digits"]["Linf"]["One2020Tiny"], "model", make)
        torch.save(make().state_dict(), tmp_path / "x.pt")
        described = from_robustbench("One2020Tiny", tmp_path / "x.pt", dataset=None, norm=None).description
        named.append((described["architecture"], described["width"]))
    assert named == [("wrn-16-2", None), ("WideResNet", None)]
