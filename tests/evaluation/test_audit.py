from __future__ import annotations

import copy
import importlib.util
import json
import math
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from awpbench import checkpoints, data, models
from awpbench.attack_model import AttackModel
from awpbench.attacks import AUTOATTACK_PARTS
from awpbench.attacks.autoattack import autoattack_part
from awpbench.attacks.cw import cw, margin
from awpbench.attacks.fgsm import fgsm
from awpbench.attacks.pgd import Model, pgd, pgd_iterates
from awpbench.attacks.spsa import spsa
from awpbench.evaluation import audit
from awpbench.evaluation.audit import Finding, audit_passes, combine, findings, tolerance, verdict
from awpbench.evaluation.hashes import of_weights
from awpbench.evaluation.probes import attached, probe, search
from awpbench.evaluation.results import Table, worst_case
from awpbench.evaluation.shards import Arrays
from awpbench.randomness import BatchDraws, ImageDraws, generator
from awpbench.threat import ThreatModel
from tests.evaluation import masks

ROOT = Path(__file__).parents[2]
N, BLOCK = 64, 32  # images of a test, and of a call of the net
LINF, WIDE, L2 = ThreatModel("Linf", 0.1), ThreatModel("Linf", 0.3), ThreatModel("L2", 0.5)
DIGITS = data.load("digits")


def padded(net: Model) -> Model:
    """Call a net on blocks of one size, as an evaluation does."""

    def call(x: Tensor) -> Tensor:
        blocks = [F.pad(block, (0, 0, 0, 0, 0, 0, 0, BLOCK - len(block))) for block in x.split(BLOCK)]
        return torch.cat([net(block) for block in blocks])[: len(x)]

    return call


def outcome(verify: Model, x_adv: Tensor, y: Tensor) -> Table:
    with torch.no_grad():
        logits = verify(x_adv)
    broken, table = ~logits.isfinite().all(1), Table.empty(len(y))
    table.fooled[:] = ((logits.argmax(1) != y) | broken).numpy()
    table.margin[:] = margin(logits, y).masked_fill(broken, -math.inf).numpy()
    table.broken[:] = broken.numpy()
    table.prediction[:] = logits.argmax(1).numpy()
    return table


@dataclass(frozen=True)
class Examined:
    """What an evaluation found, and its audit by check."""

    tables: dict[str, Table]
    audit: dict[str, Finding]

    @property
    def failed(self) -> set[str]:
        return {check for check, each in self.audit.items() if not each["ok"]}

    def standing(self, attack: str) -> int:
        return int((~self.tables[attack].fooled).sum())


def examine(net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, everything: bool = False) -> Examined:
    """Evaluate a net with clean, FGSM and PGD-20, the attacks of the suite quick, and audit it.

    `everything` adds PGD-100, CW, a short SPSA and AutoAttack.
    """
    before, fast, bad, warnings = of_weights(net), AttackModel(net), [0], set()

    def model(x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda grad: bad.append(int((~grad.isfinite()).flatten(1).any(1).sum())))
        return attached(padded(fast))(x)

    verify, draws = padded(fast.verify), partial(ImageDraws, 0, indices=range(len(x)))
    step_size = threat.eps / (4 if threat.norm == "Linf" else 128 / 15)
    settings: dict[str, Any] = {"threat": threat, "step_size": step_size}
    iterates = pgd_iterates(model, x, y, at={20, 100} if everything else {20}, generator=draws("pgd"), **settings)
    found = {"clean": x, "fgsm": fgsm(model, x, y, threat=threat), **{f"pgd-{n}": at for n, at in iterates.items()}}
    if everything:
        found["cw-inf"] = cw(model, x, y, generator=draws("cw"), **settings)
        found["spsa"] = spsa(model, x, y, generator=draws("spsa"), steps=10, samples=32, threat=threat)
    tables = {attack: outcome(verify, x_adv, y) for attack, x_adv in found.items()}
    if everything:
        tables["autoattack"] = autoattack(model, verify, x, y, threat, warnings)
    probes = probe(model, verify, x, y, seed=0, indices=range(len(x)), **settings)
    hashes = before, of_weights(net)
    judged = verdict(findings(tables, probes, weights=hashes, warnings=warnings, nan_gradients={"pgd-20": sum(bad)}))
    json.dumps(judged, allow_nan=False)
    return Examined(tables, {each["check"]: each for each in judged["findings"]})


def autoattack(model: Model, verify: Model, x: Tensor, y: Tensor, threat: ThreatModel, warnings: set[str]) -> Table:
    """Run its parts one by one on what still stands, as an evaluation does."""
    table = outcome(verify, x, y)
    table.part[table.fooled] = "clean"
    for part in AUTOATTACK_PARTS:
        left = torch.from_numpy(np.flatnonzero(~table.fooled))
        x_adv, told = autoattack_part(part, model, x[left], y[left], threat=threat, classes=10)
        warnings.update(told)
        after = outcome(verify, x_adv, y[left])
        for name in ("fooled", "margin", "broken", "prediction"):
            getattr(table, name)[left.numpy()] = getattr(after, name)
        table.part[left.numpy()[after.fooled]] = part
    return table


def train(net: nn.Module, threat: ThreatModel | None, epochs: int) -> nn.Module:
    """Train on the digits, with PGD-5 where a threat is given."""
    x, y = DIGITS.train.batch(torch.arange(len(DIGITS.train)), "cpu")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for epoch in range(epochs):
        for i, block in enumerate(torch.arange(len(x)).split(256)):
            x_adv = x[block]
            if threat is not None:
                draws = BatchDraws(generator("cpu", epoch, i))
                step: dict[str, Any] = {"threat": threat, "steps": 5, "step_size": threat.eps / 2}
                x_adv = pgd(net.eval(), x_adv, y[block], generator=draws, **step)
            optimizer.zero_grad()
            F.cross_entropy(net.train()(x_adv), y[block]).backward()
            optimizer.step()
    return net.eval()


def perceptron(activation: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), activation or nn.ReLU(), nn.Linear(64, 10))


def convolutional() -> nn.Module:
    torch.manual_seed(1)
    return models.build("small-cnn", classes=10, shape=(1, 8, 8), width=8, mean=(0.3,), std=(0.3,))


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return DIGITS.test.batch(torch.arange(N), "cpu")


@pytest.fixture(scope="module")
def nets() -> dict[str, nn.Module]:
    """Sound nets, by architecture and training."""
    with torch.random.fork_rng():
        return {
            "standard perceptron": train(perceptron(), None, 15),
            "robust perceptron": train(perceptron(), LINF, 15),
            "robust perceptron, L2": train(perceptron(), L2, 15),
            "standard convolutional": train(convolutional(), None, 8),
            "robust convolutional": train(convolutional(), LINF, 8),
        }


SOUND = [
    ("standard perceptron", WIDE, 0, 0), ("robust perceptron", LINF, 40, 60), ("robust perceptron, L2", L2, 40, 60),
    ("standard convolutional", WIDE, 0, 0), ("robust convolutional", LINF, 40, 60),
    ("robust convolutional", L2, 20, 60), ("robust convolutional", ThreatModel("Linf", 0.0), 55, 64),
]  # fmt: skip


@pytest.mark.parametrize(("name", "threat", "low", "high"), SOUND, ids=str)
def test_a_sound_net_passes_every_check(
    name: str, threat: ThreatModel, low: int, high: int, nets: dict[str, nn.Module], digits: tuple[Tensor, Tensor]
) -> None:
    found = examine(nets[name], *digits, threat)
    assert found.failed == set()
    assert low <= found.standing("pgd-20") <= high


PLANTED: dict[type[masks.Mask], set[str]] = {
    masks.Quantised: {"zero-gradients", "accuracy-at-full-budget", "black-box-search"},
    masks.Detached: {"zero-gradients", "accuracy-at-full-budget", "black-box-search"},
    masks.HardLabels: {"zero-gradients", "accuracy-at-full-budget"},
    masks.Confident: {"zero-gradients", "accuracy-at-full-budget"},
    masks.Saturated: {"zero-gradients", "accuracy-at-full-budget", "black-box-search"},
    masks.Exploding: {"nan-gradients", "zero-gradients"},
    masks.Rippled: {"accuracy-at-full-budget", "black-box-search"},
    masks.Liar: {"misleading-gradients", "accuracy-at-full-budget", "black-box-search", "order-clean-pgd-20"},
    masks.Guesser: {"misleading-gradients", "black-box-search"},
    masks.Foreign: {"misleading-gradients", "black-box-search"},
    masks.Noisy: {"randomised-forward"},
    masks.Shifted: {"randomised-forward", "eps-zero-equals-clean"},
    masks.Hashed: {"misleading-gradients"},
    masks.Adapting: {"dynamic-forward"},
    masks.Drifting: {"randomised-forward"},
    masks.Aware: {"attacked-net-is-scored-net", "black-box-search"},
    masks.Secretive: {"zero-gradients", "black-box-search"},
    masks.BatchNormInTraining: {"batch-dependent-forward", "weights-unchanged"},
    masks.Probabilities: {"softmax-outputs"},
    masks.Broken: {"nan-logits"},
}


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("mask", list(PLANTED), ids=lambda mask: mask.__name__)
def test_a_net_that_masks_its_gradients_is_found(
    mask: type[masks.Mask], threat: ThreatModel, nets: dict[str, nn.Module], digits: tuple[Tensor, Tensor]
) -> None:
    """Each stands around a robust net, so that nothing but the mask can be what is found."""
    sound = copy.deepcopy(nets["robust convolutional" if mask is masks.BatchNormInTraining else "robust perceptron"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = mask(sound, perceptron()) if mask is masks.Foreign else mask(sound)
        failed = examine(net.eval(), *digits, threat).failed
    assert failed >= PLANTED[mask]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_k_winners_take_all_is_found_by_the_search_without_gradients(
    share: float, digits: tuple[Tensor, Tensor]
) -> None:
    with torch.random.fork_rng():
        net = train(perceptron(masks.Winners(share)), None, 15)
    assert "black-box-search" in examine(net, *digits, LINF).failed


@pytest.mark.slow
@pytest.mark.parametrize(("name", "threat"), [("robust convolutional", LINF), ("robust perceptron, L2", L2)], ids=str)
def test_a_sound_net_passes_every_check_of_the_full_suite(
    name: str, threat: ThreatModel, nets: dict[str, nn.Module], digits: tuple[Tensor, Tensor]
) -> None:
    found = examine(nets[name], *digits, threat, everything=True)
    assert found.failed == set()
    assert {"order-pgd-20-pgd-100", "black-box-spsa", "black-box-square", "worst-case"} <= found.audit.keys()


@pytest.mark.slow
def test_autoattack_tells_of_zero_gradients_and_its_square_beats_them(
    nets: dict[str, nn.Module], digits: tuple[Tensor, Tensor]
) -> None:
    found = examine(masks.Quantised(nets["robust perceptron"]), *digits, LINF, everything=True)
    assert {"autoattack-zero-gradients", "black-box-square", "zero-gradients"} <= found.failed


PEERS = {
    "resnet2b": ("cifar10", ThreatModel("Linf", 2 / 255)),
    "mnist_01": ("mnist", ThreatModel("Linf", 0.1)),
    "cifar_l2": ("cifar10", ThreatModel("L2", 36 / 255)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PEERS))
def test_a_published_net_passes_every_check(name: str, shared: Path, cifar_root: Path) -> None:
    spec = importlib.util.spec_from_file_location("peers", shared / "peers" / "factories.py")
    assert spec is not None
    assert spec.loader is not None
    factories = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(factories)
    dataset, threat = PEERS[name]
    x, y = data.load_test(dataset, data_dir=cifar_root, offline=True).batch(torch.arange(128), "cpu")
    assert examine(getattr(factories, name)(), x, y, threat).failed == set()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["best.safetensors", "last.safetensors"])
@pytest.mark.parametrize("run", ["cifar10-prn18-w16-at-s0", "cifar10-prn18-w16-at-awp-s0"])
def test_a_net_of_the_model_zoo_passes_every_check(run: str, file: str, cifar_root: Path) -> None:
    net = checkpoints.load(ROOT / "model_zoo" / run / file).build()
    x, y = data.load_test("cifar10", data_dir=cifar_root, offline=True).batch(torch.arange(N), "cpu")
    assert examine(net, x, y, ThreatModel("Linf", 8 / 255)).failed == set()


class Constant(nn.Module):
    """Says class 0 whatever it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(torch.zeros(len(x), dtype=torch.int64), 4).float() + 0 * x.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_probe_of_a_net_that_is_never_fooled_takes_the_passes_that_are_promised(channels: int) -> None:
    forward, backward = [], []

    def net(x: Tensor) -> Tensor:
        forward.append(len(x))
        if x.requires_grad:
            x.register_hook(lambda grad: backward.append(len(grad)))
        return Constant()(x)

    x, y = torch.rand(2, channels, 8, 8), torch.zeros(2, dtype=torch.int64)
    found = probe(net, net, x, y, threat=LINF, step_size=0.025, seed=0, indices=[7, 8])
    assert (sum(forward) / 2, sum(backward) / 2) == audit_passes(channels)
    assert {name: array.shape for name, array in found.items()} == {
        "index": (2,), "prediction": (2,), "correct": (2,), "distribution": (2,), "neighbours": (2,), "attacked": (2,),
        "backward_in_forward": (2,), "eps_zero": (2,), "zero_gradient": (2,), "misled": (2,), "ladder": (2, 5),
        "restarts": (2, 4), "margin_attack": (2,), "search": (2,), "spread": (2,),
    }  # fmt: skip
    assert found["index"].tolist() == [7, 8]
    assert found["zero_gradient"].tolist() == [True, True]


def test_the_passes_for_images_in_colour_are_those_of_the_documentation() -> None:
    assert audit_passes(3) == (405, 185)
    assert "405 forward and 185 backward passes" in (ROOT / "docs" / "evaluation.md").read_text()


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_the_blocks_of_a_probe_joined_equal_the_whole(
    threat: ThreatModel, nets: dict[str, nn.Module], digits: tuple[Tensor, Tensor]
) -> None:
    x, y = digits
    run = partial(probe, padded(nets["robust perceptron"]), padded(nets["robust perceptron"]), threat=threat)
    whole, *blocks = (
        run(x[a:b], y[a:b], step_size=0.02, seed=3, indices=range(100 + a, 100 + b))
        for a, b in ((0, 40), (0, 7), (7, 40))
    )
    joined = combine(blocks)
    assert joined.keys() == whole.keys()
    for name, array in whole.items():
        assert np.array_equal(joined[name], array), name


def test_every_draw_is_keyed_by_the_seed_its_purpose_and_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []

    def draws(seed: int, attack: str, indices: Any) -> ImageDraws:
        keys.append((seed, attack, list(indices)))
        return ImageDraws(seed, attack, indices)

    monkeypatch.setattr("awpbench.evaluation.probes.ImageDraws", draws)
    x, y = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0])  # the second is wrong when clean
    probe(Constant(), Constant(), x, y, threat=LINF, step_size=0.025, seed=5, indices=[7, 8, 9])
    assert keys == [
        (5, "audit-start-0", [7, 8, 9]),
        *[(5, "audit-start-0", [7, 9])] * 6,  # to look for gradients, and for each rung
        *[(5, f"audit-start-{start}", [7, 9]) for start in (1, 2, 3)],
        (5, "audit-margin", [7, 9]),
        (5, "audit-search", [7, 9]),
    ]


def test_images_that_are_wrong_when_clean_are_not_attacked_and_count_as_fooled() -> None:
    x, y = torch.rand(3, 1, 8, 8), torch.ones(3, dtype=torch.int64)
    found = probe(Constant(), Constant(), x, y, threat=LINF, step_size=0.025, seed=0, indices=range(3))
    assert not found["correct"].any()
    assert all(found[name].all() for name in ("ladder", "restarts", "margin_attack", "search"))
    assert not any(found[name].any() for name in ("zero_gradient", "misled"))


def test_a_profiler_keeps_its_place_and_none_is_left_behind(digits: tuple[Tensor, Tensor]) -> None:
    run = partial(probe, Constant(), Constant(), digits[0][:2], digits[1][:2] * 0, threat=LINF, step_size=0.1, seed=0)

    def profiler(*event: object) -> None:
        pass

    run(indices=range(2))
    assert sys.getprofile() is None
    sys.setprofile(profiler)
    try:
        run(indices=range(2))
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


def test_the_gradient_of_a_net_that_has_none_is_zero_and_that_of_another_its_own() -> None:
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    logits = attached(lambda x: x.detach().flatten(1)[:, :3])(x)
    assert torch.equal(logits, x.detach().flatten(1)[:, :3])
    assert torch.autograd.grad(logits.sum(), x)[0].abs().sum() == 0
    (grad,) = torch.autograd.grad(attached(lambda x: 2 * x.flatten(1)[:, :3])(x).sum(), x)
    assert grad.sum() == 2 * 3 * 2


class Linear(nn.Module):
    """Two classes: logits (w . x + b, 0) with weights that are equal over each cell of the search's grid."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        cells = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator(device="cpu").manual_seed(2))
        self.w = cells.repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
        self.dual = float(self.w.abs().sum() if norm == "Linf" else self.w.norm())

    def forward(self, x: Tensor) -> Tensor:
        z = (x - 0.5).flatten(1) @ self.w + 0.1
        return torch.stack([z, torch.zeros_like(z)], 1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_search_fools_a_linear_net_just_beyond_its_distance_to_the_boundary_and_not_before(norm: Any) -> None:
    net = Linear(norm)
    x, y = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    for factor, margins in ((0.99, 1), (1.01, -1)):
        threat = ThreatModel(norm, factor * 0.1 / net.dual)
        x_adv = search(net, x, y, threat=threat, generator=ImageDraws(0, "search", [0]))
        assert threat.violation(x_adv, x) is None
        assert margin(net(x_adv), y).sign() == margins


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_the_search_stays_in_the_ball_and_never_raises_the_margin(
    threat: ThreatModel, nets: dict[str, nn.Module], digits: tuple[Tensor, Tensor]
) -> None:
    x, y = digits
    net = nets["robust perceptron"]
    x_adv = search(net, x, y, threat=threat, generator=ImageDraws(0, "search", range(N)))
    assert threat.violation(x_adv, x) is None
    with torch.no_grad():
        assert bool((margin(net(x_adv), y) <= margin(net(x), y)).all())


def table(n: int, fooled: int | list[int], part: str = "") -> Table:
    """An attack on n images that fooled the first ones, or those listed."""
    made = Table.empty(n)
    made.fooled[range(fooled) if isinstance(fooled, int) else fooled] = True
    made.margin[made.fooled], made.margin[~made.fooled] = -1, 1
    made.part[made.fooled] = part
    made.prediction[:] = 0
    return made


def sound(n: int = 100) -> Arrays:
    """The probes of a net that falls as it should: half of its images at eps, all in the cube."""
    yes, no = np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    half = np.arange(n) < n // 2
    return {
        "index": np.arange(n), "prediction": np.zeros(n, dtype=np.int64), "attacked": np.zeros(n, dtype=np.int64),
        "eps_zero": np.zeros(n, dtype=np.int64), "backward_in_forward": np.zeros(n, dtype=np.int64),
        "spread": np.zeros(n, dtype=np.float32), "neighbours": np.zeros(n, dtype=np.float32), "correct": yes,
        "distribution": no, "zero_gradient": no, "misled": no, "ladder": np.stack([no, half, half, yes, yes], 1),
        "restarts": np.stack([half] * 4, 1), "margin_attack": half, "search": no,
    }  # fmt: skip


def judge(tables: dict[str, Table], probes: Arrays | None = None, **changes: Any) -> dict[str, Finding]:
    tables = {"clean": table(max((each.n for each in tables.values()), default=100), 0), **tables}
    found = findings(tables, sound() if probes is None else probes, **{"weights": ("a", "a"), **changes})
    return {each["check"]: each for each in found}


def test_the_findings_of_a_full_evaluation() -> None:
    tables = {"fgsm": table(100, 40), "pgd-100": table(100, 50), "pgd-20": table(100, 50), "cw-inf": table(100, 50)}
    tables |= {"spsa": table(100, 45), "autoattack": table(100, 52, "apgd-t")}
    found = judge(tables)
    assert list(found) == [
        "eps-zero-equals-clean", "attacked-net-is-scored-net", "randomised-forward", "batch-dependent-forward",
        "dynamic-forward", "softmax-outputs", "zero-gradients", "misleading-gradients", "accuracy-falls-with-eps",
        "accuracy-at-full-budget", "restarts", "order-clean-fgsm", "order-clean-pgd-20", "order-clean-cw-inf",
        "order-fgsm-pgd-20", "order-pgd-20-pgd-100", "black-box-search", "black-box-spsa", "black-box-square",
        "outcomes-consistent", "worst-case", "weights-unchanged", "nan-logits", "nan-gradients",
    ]  # fmt: skip
    assert verdict(list(found.values())) == {"verdict": "reliable", "findings": list(found.values())}
    assert found["order-fgsm-pgd-20"] == {
        "check": "order-fgsm-pgd-20",
        "value": -0.1,
        "threshold": 0.02,
        "ok": True,
        "detail": "standing of 100 images: fgsm 60, pgd-20 50",
    }


@pytest.mark.parametrize(
    ("n", "more", "ok"), [(100, 2, True), (100, 3, False), (1000, 5, True), (1000, 6, False), (10_000, 50, True)]
)
def test_the_order_of_the_attacks_holds_up_to_half_a_point_or_two_images(n: int, more: int, ok: bool) -> None:
    found = judge({"fgsm": table(n, 50), "pgd-20": table(n, 50 - more), "pgd-100": table(n, 50 - 2 * more)})
    assert (found["order-fgsm-pgd-20"]["ok"], found["order-pgd-20-pgd-100"]["ok"]) == (ok, ok)
    assert found["order-clean-fgsm"]["value"] == round(-50 / n, 6)


def test_the_order_is_seen_on_the_images_that_both_attacks_were_given() -> None:
    found = judge({"pgd-20": table(1000, list(range(500, 1000))), "pgd-100": table(100, 0)})
    assert found["order-pgd-20-pgd-100"]["detail"] == "standing of 100 images: pgd-20 100, pgd-100 100"


def test_an_accuracy_above_the_clean_one_is_found() -> None:
    tables = {"clean": table(100, 10), "fgsm": table(100, 7), "pgd-20": table(100, 8), "cw-inf": table(100, 0)}
    found = judge(tables)
    assert [found[f"order-clean-{each}"]["ok"] for each in ("fgsm", "pgd-20", "cw-inf")] == [False, True, False]


def test_fgsm_is_not_held_against_pgd_of_a_few_short_steps() -> None:
    assert "order-fgsm-pgd-2" not in judge({"fgsm": table(100, 50), "pgd-2": table(100, 10)})
    assert not judge({"fgsm": table(100, 50), "pgd-2": table(100, 10), "pgd-40": table(100, 40)})["order-fgsm-pgd-40"][
        "ok"
    ]


@pytest.mark.parametrize(("spsa", "ok"), [(52, True), (53, False)])
def test_spsa_may_not_fool_more_than_all_attacks_with_gradients_together(spsa: int, ok: bool) -> None:
    found = judge({"pgd-20": table(200, 40), "cw-inf": table(300, list(range(10, 50))), "spsa": table(100, spsa)})
    assert found["black-box-spsa"]["ok"] is ok
    assert found["black-box-spsa"]["detail"] == f"fooled of 100 images: white box 50, spsa {spsa}"


def test_spsa_alone_is_held_against_nothing() -> None:
    assert "black-box-spsa" not in judge({"spsa": table(100, 60)})


@pytest.mark.parametrize(
    ("n", "square", "ok"), [(100, 2, True), (100, 3, False), (10_000, 20, True), (10_000, 21, False)]
)
def test_square_may_add_what_autoattack_allows_or_two_images(n: int, square: int, ok: bool) -> None:
    assert judge({"autoattack": table(n, square, "square")})["black-box-square"]["ok"] is ok


def test_what_only_square_fooled_counts_as_fooled_without_gradients() -> None:
    probes = {**sound(), "search": np.arange(100) >= 90}
    for part, ok in (("square", False), ("apgd-ce", True)):
        found = judge({"autoattack": table(100, list(range(90, 100)), part)}, probes)
        assert found["black-box-search"]["ok"] is ok


@pytest.mark.parametrize(("missed", "ok"), [(2, True), (3, False)])
def test_autoattack_has_to_be_the_worst_case(missed: int, ok: bool) -> None:
    tables = {"pgd-20": table(100, list(range(missed))), "autoattack": table(100, list(range(50, 90)), "apgd-t")}
    found = judge(tables)["worst-case"]
    assert found["ok"] is ok
    assert found["detail"] == f"standing of 100 images: autoattack 60, all attacks together {60 - missed}"


def test_the_worst_case_is_over_the_attacks_of_each_image() -> None:
    tables = {"clean": table(6, [0]), "fgsm": table(6, [1, 2]), "pgd-20": table(4, [2, 3])}
    found = worst_case(tables)
    assert (found["n"], found["correct"], found["accuracy"]) == (4, 0, 0.0)
    found = worst_case({"clean": table(6, [0]), "fgsm": table(6, [1, 2])})
    assert (found["n"], found["correct"], found["accuracy"]) == (6, 3, 0.5)


def test_an_outcome_that_its_margin_contradicts_is_found() -> None:
    wrong = table(100, 10)
    wrong.margin[0], wrong.margin[99] = 1, -1
    assert judge({"fgsm": wrong})["outcomes-consistent"]["value"] == 2
    wrong.margin[0], wrong.margin[99] = 0, 0  # two classes with the same logit: either may be told
    assert judge({"fgsm": wrong})["outcomes-consistent"]["ok"]


SHARES = {
    "attacked": "attacked-net-is-scored-net", "distribution": "softmax-outputs", "zero_gradient": "zero-gradients",
    "misled": "misleading-gradients",
}  # fmt: skip


@pytest.mark.parametrize(("array", "check"), SHARES.items())
def test_two_images_of_a_hundred_are_let_pass_and_three_are_not(array: str, check: str) -> None:
    for count, ok in ((2, True), (3, False)):
        probes = {**sound(), array: (np.arange(100) < count).astype(sound()[array].dtype)}
        assert judge({}, probes)[check]["ok"] is ok


def test_the_steps_of_the_ladder() -> None:
    for count, ok in ((2, True), (3, False)):
        fooled = np.arange(100)
        rungs = [fooled < 10, fooled < 50, fooled < 50 - count, fooled < 100, fooled < 100 - count]
        found = judge({}, {**sound(), "ladder": np.stack(rungs, 1)})
        assert (found["accuracy-falls-with-eps"]["ok"], found["accuracy-at-full-budget"]["ok"]) == (ok, ok)
    assert found["accuracy-falls-with-eps"]["detail"] == (
        "standing of 100 images at 0: 100, 0.5 eps: 90, 1 eps: 50, 2 eps: 53, 4 eps: 0, the cube: 3"
    )


def test_twice_as_many_random_starts_may_not_fool_what_stands_against_every_attack() -> None:
    for count, ok in ((2, True), (3, False)):
        fooled = np.arange(100)
        starts = [fooled < 20, fooled < 30, fooled < 30, fooled < 30 + count]
        found = judge({}, {**sound(), "restarts": np.stack(starts, 1)})["restarts"]
        assert found["ok"] is ok
    assert found["detail"] == "standing of 100 images after so many random starts: 1: 80, 2: 70, 4: 67"
    probes = {**sound(), "restarts": np.stack(starts, 1)}
    assert judge({"autoattack": table(100, [31], "apgd-ce")}, probes)["restarts"]["value"] == 0.02


@pytest.mark.parametrize(
    ("array", "value", "check"),
    [
        ("eps_zero", 1, "eps-zero-equals-clean"),
        ("backward_in_forward", 1, "dynamic-forward"),
        ("spread", 2e-4, "randomised-forward"),
        ("neighbours", 2e-4, "batch-dependent-forward"),
    ],
)
def test_one_image_is_enough_where_none_may_differ(array: str, value: float, check: str) -> None:
    changed = sound()[array].copy()
    changed[17] = value
    found = judge({}, {**sound(), array: changed})
    assert {name for name, each in found.items() if not each["ok"]} == {check}


def test_nan_changed_weights_and_warnings_are_found() -> None:
    broken = table(100, 1)
    broken.broken[0] = True
    message = "there are 3 points with zero gradient!\n  This might lead to"
    warnings = {message, "it seems to be a dynamic defense!", "something else"}
    changes: dict[str, Any] = {"weights": ("a", "b"), "warnings": warnings, "nan_gradients": {"fgsm": 0, "pgd-20": 4}}
    found = judge({"fgsm": broken}, **changes)
    assert {name: (each["value"], each["detail"]) for name, each in found.items() if not each["ok"]} == {
        "weights-unchanged": (1.0, "after the attacks the net has other weights or buffers than before"),
        "nan-logits": (1.0, "not finite: fgsm 1"),
        "nan-gradients": (4.0, "not finite: pgd-20 4"),
        "autoattack-dynamic": (1.0, "it seems to be a dynamic defense!"),
        "autoattack-warning": (1.0, "something else"),
        "autoattack-zero-gradients": (1.0, "there are 3 points with zero gradient! This might lead to"),
    }
    assert verdict(list(found.values()))["verdict"] == "suspicious"


def test_the_checks_are_documented() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text()
    tables = {attack: table(100, 0) for attack in ("fgsm", "spsa", "autoattack")}
    every = {*judge(tables), *audit.WARNINGS.values(), "autoattack-warning"}
    shown = {re.sub(r"^order-.*", "order-A-B", check) for check in every}
    assert {check for check in shown if f"`{check}`" not in text} == set()


@given(st.integers(1, 20_000))
def test_the_tolerance_is_two_images_or_half_a_point_and_never_more_than_half(n: int) -> None:
    assert tolerance(n) == (0.5 if n < 4 else max(2 / n, 0.005))


@given(st.data())
def test_findings_are_finite_and_the_verdict_is_that_of_its_checks(draw: st.DataObject) -> None:
    def flags(*shape: int) -> Any:
        bits = draw.draw(st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape)))
        return np.array(bits, dtype=np.bool_).reshape(shape)

    n = draw.draw(st.integers(1, 6))
    probes = {name: flags(*array.shape) if array.dtype == np.bool_ else array for name, array in sound(n).items()}
    tables = {}
    for attack in ("clean", "fgsm", "pgd-20", "spsa", "autoattack"):
        tables[attack] = table(draw.draw(st.integers(1, 6)) if attack != "clean" else 6, 0)
        tables[attack].fooled[:], tables[attack].broken[:] = flags(tables[attack].n), flags(tables[attack].n)
        tables[attack].margin[tables[attack].broken] = -math.inf
    found = findings(tables, probes, weights=("a", "a"))
    assert all(math.isfinite(each["value"]) and math.isfinite(each["threshold"]) for each in found)
    assert len({each["check"] for each in found}) == len(found)
    assert (verdict(found)["verdict"] == "reliable") is all(each["ok"] for each in found)
    assert worst_case(tables)["correct"] <= min(int((~each.fooled).sum()) for each in tables.values())
