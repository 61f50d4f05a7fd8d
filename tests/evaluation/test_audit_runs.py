"""The audit of whole evaluations: nets and attacks that trip a check on their way through the runner, sound ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awpbench import data
from awpbench.errors import Interrupted
from awpbench.evaluation import attacking
from tests.evaluation import masks
from tests.evaluation.conftest import settle
from tests.evaluation.test_audit import LINF, N, perceptron, train

Attack = Callable[..., Any]
DIGITS = data.load_test("digits").first(N)
CHECKS = {"accuracy-falls-with-eps", "black-box-spsa", "worst-case", "outcomes-consistent"}


@pytest.fixture(scope="module")
def robust() -> nn.Module:
    with torch.random.fork_rng():
        return train(perceptron(), LINF, 15)


@pytest.fixture(autouse=True)
def _short_spsa(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 0.01 that cross the ball once, along a rough gradient."""
    monkeypatch.setattr(attacking, "SPSA_STEPS", 15)
    monkeypatch.setattr(attacking, "SPSA_SAMPLES", 32)


@pytest.fixture
def audited(attack: Attack, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Evaluate a net on digits, each time in a folder of its own; return the findings of the audit by check."""

    def run(net: nn.Module, *attacks: str, **limits: int) -> dict[str, Any]:
        config = settle(*attacks, eps=str(LINF.eps), block=32, audit=True, limits=limits)
        document = attack(config, folder=f"{len(list(tmp_path.iterdir()))}", net=net, images=DIGITS).document
        assert document["audit"]["verdict"] == (
            "reliable" if all(each["ok"] for each in document["audit"]["findings"]) else "suspicious"
        )
        return {each["check"]: each for each in document["audit"]["findings"]}

    return run


def failed(found: dict[str, Any]) -> set[str]:
    return {check for check, each in found.items() if not each["ok"]}


def test_a_sound_net_passes(audited: Callable[..., dict[str, Any]], robust: nn.Module) -> None:
    found = audited(robust, "fgsm", "pgd-20", "cw-inf", "spsa", spsa=32)
    assert failed(found) == set()
    assert found.keys() >= CHECKS - {"worst-case"}


@pytest.mark.slow
def test_a_sound_net_passes_with_autoattack_too(audited: Callable[..., dict[str, Any]], robust: nn.Module) -> None:
    found = audited(robust, "pgd-20", "cw-inf", "spsa", "autoattack", spsa=16, autoattack=16)
    assert failed(found) == set()
    assert found.keys() >= CHECKS


def test_an_evaluation_that_was_stopped_before_its_audit_is_judged_the_same(
    attack: Attack, tmp_path: Path, robust: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("stopped", "", signal_number=2)

    config = settle("fgsm", "pgd-4", eps=str(LINF.eps), block=32, audit=True)
    whole = attack(config, folder="whole", net=robust, images=DIGITS).document
    with monkeypatch.context() as patched:
        patched.setattr(attacking, "probe", stopped)
        with pytest.raises(Interrupted):
            attack(config, folder="pieces", net=robust, images=DIGITS)
    assert whole["audit"]["verdict"] == "reliable"
    assert attack(config, folder="pieces", net=robust, images=DIGITS).document == whole


def test_gradients_that_vanish_beyond_a_radius_let_the_accuracy_rise_with_the_budget(
    audited: Callable[..., dict[str, Any]], robust: nn.Module
) -> None:
    known, _ = DIGITS.batch(torch.arange(N), "cpu")
    found = audited(masks.Remembering(robust, known, 1.2 * LINF.eps), "fgsm", "pgd-20")
    assert {"accuracy-falls-with-eps", "accuracy-at-full-budget"} <= failed(found)
    assert found["zero-gradients"]["ok"], "where the attacks of the evaluation go there are gradients"
    assert failed(audited(masks.Remembering(robust, known, 2.0), "fgsm", "pgd-20")) == set()


def test_a_masked_net_falls_to_spsa_more_often_than_to_all_attacks_with_gradients(
    audited: Callable[..., dict[str, Any]], robust: nn.Module
) -> None:
    found = audited(masks.Detached(robust), "fgsm", "pgd-20", "cw-inf", "spsa", spsa=32)
    assert "black-box-spsa" in failed(found)
    assert found["black-box-spsa"]["value"] > 0.1


def test_an_autoattack_that_does_nothing_is_not_the_worst_case(
    audited: Callable[..., dict[str, Any]], robust: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def idle(part: str, model: object, x: Tensor, y: Tensor, **settings: object) -> tuple[Tensor, list[str]]:
        return x.clone(), []

    monkeypatch.setattr(attacking, "autoattack_part", idle)
    assert failed(audited(robust, "pgd-20", "autoattack")) == {"worst-case"}


def test_outcomes_that_are_not_those_of_the_logits_are_found(
    audited: Callable[..., dict[str, Any]], robust: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgiving(logits: Tensor, y: Tensor) -> Tensor:
        """Let the first images of a block pass."""
        wrong = logits.argmax(1) != y
        wrong[:16] = False
        return wrong

    found = audited(robust, "pgd-20")
    assert found["outcomes-consistent"]["ok"]
    monkeypatch.setattr(attacking, "misclassified", forgiving)
    assert not audited(robust, "pgd-20")["outcomes-consistent"]["ok"]
