"""Standard training: no attack, cross-entropy on the clean images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from awpbench.attacks.pgd import Model
from awpbench.defenses.base import Defense
from awpbench.randomness import Draws
from awpbench.threat import ThreatModel


def attack(
    model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, steps: int, step_size: float, generator: Draws
) -> Tensor:
    """Return the clean images."""
    return x


def loss(model: Model, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy on the images that the attack returned."""
    return F.cross_entropy(model(x_adv), y)


DEFENSE = Defense(attack, loss, attack_mode="train")
