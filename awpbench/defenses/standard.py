"""Standard training: no attack, cross-entropy on the clean images."""

from __future__ import annotations

from torch import Tensor

from awpbench.attacks.pgd import Model
from awpbench.defenses.base import Defense, cross_entropy
from awpbench.randomness import Draws
from awpbench.threat import ThreatModel


def attack(
    model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, steps: int, step_size: float, generator: Draws
) -> Tensor:
    """Return the clean images."""
    return x


def loss(model: Model, x: Tensor, x_adv: Tensor, y: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy on the images that the attack returned."""
    return cross_entropy(model(x_adv), y, weights)


DEFENSE = Defense(attack, loss, attack_mode="train")
