"""The named mistakes of public code do what they say, and only where they are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from awpbench import defenses
from awpbench.defenses import at, compat
from awpbench.threat import ThreatModel
from tests.draws import GivenDraws


def linear(x: Tensor) -> Tensor:
    """Two logits whose difference is the sum of the pixels: the attack on class 0 pushes every pixel up."""
    return torch.stack([-x.flatten(1).sum(1), x.flatten(1).sum(1)], 1)


X, Y = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), torch.tensor([0])


class Up(GivenDraws):
    """Draws the upper end of the range."""

    def uniform(self, like: Tensor) -> Tensor:
        return torch.ones_like(like)


def test_around_the_start_an_image_gets_twice_eps_away() -> None:
    settings: dict[str, Any] = {"threat": ThreatModel("Linf", 0.1), "steps": 10, "step_size": 0.05, "generator": Up()}
    assert at.DEFENSE.attack(linear, X, Y, **settings).flatten().tolist() == pytest.approx([0.6] * 4)
    assert compat.around_the_start(linear, X, Y, **settings).flatten().tolist() == pytest.approx([0.7] * 4)


def test_from_far_outside_the_first_step_ends_on_the_sphere() -> None:
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return linear(x)

    settings: dict[str, Any] = {"threat": ThreatModel("L2", 0.4), "steps": 2, "step_size": 0.01, "generator": Up()}
    compat.from_far_outside(watched, X, Y, **settings)
    assert seen[0].flatten().tolist() == [1.0] * 4
    assert torch.linalg.vector_norm(seen[1] - X).item() == pytest.approx(0.4, rel=1e-5)


def test_the_first_batch_of_every_epoch_but_the_first_is_attacked_in_eval_mode() -> None:
    modes = {
        (epoch, step): compat.repeated(at.DEFENSE, ("first-batch-eval",), epoch=epoch, step=step).attack_mode
        for epoch in (0, 1)
        for step in (0, 1)
    }
    assert modes == {(0, 0): "train", (0, 1): "train", (1, 0): "eval", (1, 1): "train"}


@pytest.mark.parametrize("name", ["at", "trades", "mart", "standard"])
def test_without_names_a_defense_is_itself(name: str) -> None:
    assert compat.repeated(defenses.get(name), (), epoch=1, step=0) is defenses.get(name)


def test_a_named_mistake_replaces_the_attack_and_nothing_else() -> None:
    repeated = compat.repeated(at.DEFENSE, ("hendrycks-attack-centre",), epoch=0, step=0)
    assert (repeated.attack, repeated.loss) == (compat.around_the_start, at.DEFENSE.loss)
    assert compat.repeated(at.DEFENSE, ("svhn-l2-start",), epoch=0, step=0).attack is compat.from_far_outside
