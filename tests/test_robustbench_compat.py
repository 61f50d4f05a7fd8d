"""RobustBench as PyPI has it imports through the compat module, and its nets are ours."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from awpbench import robustbench_compat
from awpbench.defaults import DATASETS
from awpbench.errors import InputError, UsageError
from awpbench.robustbench_compat import ZooEntry, build, find
from tests import zoo

ROUND_TRIP = """
import sys
from pathlib import Path
import torch
from awpbench import checkpoints, robustbench_compat
from awpbench.errors import InputError

assert robustbench_compat.load().__name__ == "robustbench"
eval_module = robustbench_compat.load("robustbench.eval")
assert callable(eval_module.benchmark) and eval_module.AutoAttack.__module__.startswith("pyautoattack")

wide = robustbench_compat.load("robustbench.model_zoo.architectures.wide_resnet")
resnet = robustbench_compat.load("robustbench.model_zoo.architectures.resnet")
blocks = [2, 2, 2, 2]
torch.manual_seed(0)
nets = {
    "wrn-16-2": wide.WideResNet(depth=16, widen_factor=2, sub_block1=True),
    "resnet18": resnet.ResNet18(),
    "prn18": resnet.PreActResNet(resnet.PreActBlock, blocks, bn_before_fc=True, out_shortcut=True),
    None: resnet.PreActResNet(resnet.PreActBlock, blocks),  # no final batch norm, shortcuts before the activation
}
path = Path(sys.argv[1]) / "theirs.pt"
x = torch.rand(2, 3, 32, 32)
for name, theirs in nets.items():
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    torch.save({"state_dict": {f"module.{key}": value for key, value in theirs.eval().state_dict().items()}}, path)
    try:
        loaded = checkpoints.load(path, dataset="cifar10", preprocessing="none")
    except InputError as error:
        assert name is None and error.what == f"{path} holds the weights of no architecture known here", error
        continue
    assert loaded.model_spec.architecture == name
    with torch.no_grad():
        logits = theirs(x)
        assert (loaded.build()(x) - logits).abs().max() <= 1e-5 * logits.abs().max().clamp(min=1), name
"""


def test_robustbench_imports_and_awpbench_loads_the_weights_of_its_nets(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_module_that_cannot_be_imported_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustbench_compat, "_stand_in", lambda: None)
    with pytest.raises(InputError) as caught:
        robustbench_compat.load("robustbench_that_is_not_there")
    assert caught.value.what.startswith("robustbench_that_is_not_there cannot be imported: ModuleNotFoundError")
    assert caught.value.mend == "Install it again: pip install 'robustbench>=1.1,<2'"


@pytest.fixture
def _tiny_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.install(monkeypatch)


def found(name: str, *, dataset: str | None = None, norm: str | None = None) -> ZooEntry:
    return find(name, dataset=dataset, norm=norm, known=DATASETS)


@pytest.mark.usefixtures("_tiny_zoo")
@pytest.mark.parametrize(
    ("name", "dataset", "norm", "expected"),
    [
        ("One2020Tiny", None, None, ("digits", "Linf", None)),
        ("One2020Tiny", "digits", "L2", ("digits", "Linf", None)),  # evaluated in another norm than its own
        ("Two2020Tables", None, "L2", ("digits", "L2", None)),
        ("Two2020Tables", None, "Linf", ("digits", "Linf", None)),
        ("Corrupt2020Too", None, None, ("digits", "Linf", None)),
        ("Corrupt2020Only", None, None, ("digits", None, None)),
        ("Both2020Sets", None, None, ("cifar10", "Linf", "8/255")),  # the only one that we have the images of
        ("Zhang2019Theoretically", "cifar10", None, ("cifar10", "Linf", "0.031")),
        ("Round2020Ball", None, None, ("cifar10", "L2", "0.5")),
    ],
)
def test_a_model_brings_the_data_set_norm_and_budget_of_its_table(
    name: str, dataset: str | None, norm: str | None, expected: tuple[str, str | None, str | None]
) -> None:
    entry = found(name, dataset=dataset, norm=norm)
    assert (entry.dataset, entry.norm, entry.eps) == expected


@pytest.mark.usefixtures("_tiny_zoo")
@pytest.mark.parametrize(
    ("name", "dataset", "norm", "what", "mend"),
    [
        (
            "One2020Tny",
            None,
            None,
            "RobustBench has no model called 'One2020Tny'",
            "Did you mean 'One2020Tiny'? RobustBench's README lists them.",
        ),
        ("qqq", None, None, "RobustBench has no model called 'qqq'", "RobustBench's README lists them."),
        (
            "Two2020Tables",
            None,
            None,
            "RobustBench has Two2020Tables for digits Linf and digits L2",
            "Pick one with --dataset and --norm.",
        ),
        (
            "Far2020Hundred",
            None,
            None,
            "RobustBench has Far2020Hundred for imagenet, which awpbench has no images of",
            "Choose a model for one of: cifar10, cifar100, svhn, mnist, fashion-mnist, digits.",
        ),
        (
            "Both2020Sets",
            "imagenet",
            None,
            "RobustBench has Both2020Sets for imagenet, which awpbench has no images of",
            "Choose a model for one of: cifar10, cifar100, svhn, mnist, fashion-mnist, digits.",
        ),
        (
            "Both2020Sets",
            "mnist",
            "Linf",
            "RobustBench has Both2020Sets for cifar10 and imagenet, not for mnist",
            "Leave --dataset out, or choose another model.",
        ),
    ],
)
def test_what_names_no_model_that_can_be_evaluated_is_a_usage_error(
    name: str, dataset: str | None, norm: str | None, what: str, mend: str
) -> None:
    with pytest.raises(UsageError) as caught:
        found(name, dataset=dataset, norm=norm)
    assert (caught.value.what, caught.value.mend) == (what, mend)


@pytest.mark.usefixtures("_tiny_zoo")
def test_building_a_net_prints_nothing_and_leaves_the_global_generator_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = torch.get_rng_state()
    assert isinstance(build(found("Loud2020Talks")), zoo.Tiny)
    assert torch.get_rng_state().equal(before)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("_tiny_zoo")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Bad2020Fails", "RuntimeError: Found no NVIDIA driver on your system."),
        ("Net2020Downloads", "OSError: it wants to download weights"),
    ],
)
def test_a_net_that_cannot_be_built_or_wants_to_download_is_an_input_error(name: str, why: str) -> None:
    connect = socket.socket.connect
    with pytest.raises(InputError) as caught:
        build(found(name))
    assert caught.value.what == f"RobustBench cannot build {name} here: {why}"
    assert caught.value.mend == "Build it in a factory of your own: --model FILE.py:factory."
    assert socket.socket.connect is connect


@pytest.mark.slow
def test_the_real_zoo_holds_the_budgets_of_robustbenchs_own_rows(shared: Path) -> None:
    rows = {
        (dataset, norm, path.stem): json.loads(path.read_text())["eps"]
        for dataset in ("cifar10", "cifar100")
        for norm in ("Linf", "L2")
        for path in (shared / "robustbench" / "model_info" / dataset / norm).glob("*.json")
    }
    entries = {(e.dataset, str(e.norm), e.name): e.eps for e in robustbench_compat._entries()}
    common = rows.keys() & entries.keys()
    assert len(common) >= 100
    assert {key: entries[key] for key in common} == {key: rows[key] for key in common}
    assert found("Wu2020Adversarial", norm="L2").eps == "0.5"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm", "kind"),
    [
        ("Andriushchenko2020Understanding", None, "PreActResNet"),
        ("Rice2020Overfitting", "L2", "Rice2020OverfittingNetL2"),
        ("Rebuffi2021Fixing_R18_ddpm", None, "DMPreActResNet"),
        ("Debenedetti2022Light_XCiT-S12", None, "Sequential"),  # RobustBench itself would download its weights
    ],
)
def test_real_nets_are_built_without_a_network(name: str, norm: str | None, kind: str) -> None:
    net = build(found(name, dataset="cifar10", norm=norm)).eval()
    assert type(net).__name__ == kind
    with torch.no_grad():
        assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
