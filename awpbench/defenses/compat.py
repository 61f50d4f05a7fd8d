"""Known mistakes of public code, which a recipe may ask for by name (`compat`); never on by default."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from torch import Tensor

from awpbench.attacks.pgd import Model, pgd
from awpbench.defenses.base import Defense
from awpbench.randomness import Draws
from awpbench.threat import ThreatModel


def repeated(defense: Defense, compat: Collection[str], *, epoch: int, step: int) -> Defense:
    """Return the defense with the named mistakes in it, as it is in a step; both counts are from 0."""
    if "hendrycks-attack-centre" in compat:
        defense = replace(defense, attack=around_the_start)
    if "svhn-l2-start" in compat:
        defense = replace(defense, attack=from_far_outside)
    if "first-batch-eval" in compat and epoch > 0 and step == 0:
        defense = replace(defense, attack_mode="eval")
    return defense


def around_the_start(
    model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, steps: int, step_size: float, generator: Draws
) -> Tensor:
    """Attack by PGD in the ball around the random start, which Hendrycks, Lee and Mazeika add to the image in place.

    So an adversarial image is up to twice eps away from the clean one.
    """
    centre = threat.random_start(x, generator, clamp=False)
    return pgd(model, centre, y, threat=threat, steps=steps, step_size=step_size, start=centre)


def from_far_outside(
    model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, steps: int, step_size: float, generator: Draws
) -> Tensor:
    """Attack by PGD from U(-1/2, 1/2) around each pixel, whose shrinking to the ball the AWP code for SVHN discards.

    The first projection brings the image to the ball's surface.
    """
    start = (x + 0.5 * generator.uniform(x)).clamp_(0.0, 1.0)
    return pgd(model, x, y, threat=threat, steps=steps, step_size=step_size, start=start)
