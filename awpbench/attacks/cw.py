"""CW-inf: projected gradient ascent on the margin of Carlini and Wagner (2017); the "CW" column of the AWP paper."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from awpbench.attacks.pgd import Model, Objective, pgd
from awpbench.randomness import Draws
from awpbench.threat import ThreatModel


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logit of the true class minus the largest other one, `(N,)`: negative for a misclassified image."""
    own = y[:, None]
    others = logits.scatter(1, own, float("-inf")).amax(1)
    return logits.gather(1, own).squeeze(1) - others


def margin_objective(kappa: float = 0.0) -> Objective:
    """Make the objective `-sum relu(margin + kappa)`: its gradient is zero once the margin is below -kappa.

    kappa 0 is Wang et al. (2019), with the true class masked properly: a fooled image stays where it is. kappa 50 is
    Zhang et al. (2020).
    """

    def objective(logits: Tensor, y: Tensor) -> Tensor:
        return -F.relu(margin(logits, y) + kappa).sum()

    return objective


def cw(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    steps: int = 100,
    step_size: float = 2 / 255,
    kappa: float = 0.0,
    generator: Draws | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Return the last iterate of PGD on the margin, `(N, C, H, W)` in [0, 1]; `start` and `generator` as in `pgd`."""
    objective = margin_objective(kappa)
    return pgd(
        model,
        x,
        y,
        threat=threat,
        steps=steps,
        step_size=step_size,
        generator=generator,
        start=start,
        objective=objective,
    )
