"""Projected gradient ascent on the loss (Madry et al. 2018), in the L-inf and the L2 ball."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from awpbench.randomness import Draws
from awpbench.threat import ThreatModel

Model = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Sum the cross-entropy over the batch, so that no image's gradient depends on its neighbours' number."""
    return F.cross_entropy(logits, y, reduction="sum")


def input_gradient(model: Model, x: Tensor, y: Tensor, objective: Objective) -> Tensor:
    """Return the gradient of the objective with respect to the images only, `(N, C, H, W)`.

    NaN counts as zero: such an image stays where it is, and the check of its logits finds it there.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(objective(model(x), y), x)
    return grad.nan_to_num_()


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    steps: int = 20,
    step_size: float = 2 / 255,
    generator: Draws | None = None,
    start: Tensor | None = None,
    objective: Objective = cross_entropy,
) -> Tensor:
    """Return the last iterate of projected gradient ascent, `(N, C, H, W)` in [0, 1].

    The start is `start`, else a random one from `generator`, else the clean images.
    """
    return pgd_iterates(
        model,
        x,
        y,
        at={steps},
        threat=threat,
        step_size=step_size,
        generator=generator,
        start=start,
        objective=objective,
    )[steps]


def pgd_iterates(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    at: Collection[int],
    threat: ThreatModel,
    step_size: float,
    generator: Draws | None = None,
    start: Tensor | None = None,
    objective: Objective = cross_entropy,
) -> dict[int, Tensor]:
    """Walk one trajectory and return its iterates at several step counts: PGD-20 and PGD-100 share twenty steps."""
    if start is None:
        start = x if generator is None else threat.random_start(x, generator)
    x_adv, found = start, {}
    for step in range(max(at) + 1):
        if step in at:
            found[step] = x_adv
        if step < max(at):
            grad = input_gradient(model, x_adv, y, objective)
            x_adv = threat.project(threat.step(x_adv, grad, step_size), x)
    return found
