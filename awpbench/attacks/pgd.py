"""Projected gradient ascent on the loss (Madry et al. 2018), in the L-inf and the L2 ball."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

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
    return grad.nan_to_num()  # not in place: autograd may give one value for many pixels


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
    return walk(model, x, y, at=at, threat=threat, step_size=step_size, start=start, objective=objective).iterates


def misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """Tell which images are misclassified, `(N,)`; logits that are not finite count as such."""
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)


def pgd_worst(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    steps: int = 20,
    step_size: float = 2 / 255,
    generator: Draws | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Return for each image the first iterate of PGD that is misclassified, else the last, `(N, C, H, W)` in [0, 1].

    Its accuracy is the worst over the iterates, so never above that of the last one. The start as in `pgd`.
    """
    if start is None:
        start = x if generator is None else threat.random_start(x, generator)
    settings: dict[str, Any] = {"threat": threat, "step_size": step_size, "leave": misclassified}
    return walk(model, x, y, at={steps}, start=start, **settings).iterates[steps]


@dataclass(frozen=True)
class Walk:
    """Iterates by step count; per image `(N,)` the gradients taken, how many were not finite, and whether it left."""

    iterates: dict[int, Tensor]
    gradients: Tensor
    broken: Tensor
    left: Tensor


def walk(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    at: Collection[int],
    threat: ThreatModel,
    step_size: float,
    start: Tensor,
    objective: Objective = cross_entropy,
    leave: Callable[[Tensor, Tensor], Tensor] | None = None,
    max_batch: int | None = None,
) -> Walk:
    """Walk one trajectory, and let images leave it.

    `leave(logits, y) -> (N,)` looks at every iterate but the start, which a dialect may leave outside the box: an image
    for which it is true stays there. `max_batch` bounds the images per gradient.
    """
    x_adv, found = start, {}
    gradients, broken = (torch.zeros(len(x), dtype=torch.int64, device=x.device) for _ in range(2))
    walking = torch.arange(len(x), device=x.device)
    for step in range(max(at) + 1):
        if step in at:
            found[step] = x_adv
        if step == max(at) or not len(walking):
            continue
        grad, gone, bad = _gradient(model, x_adv, y, walking, objective, leave if step else None, max_batch)
        gradients[walking] += 1
        broken[walking] += bad
        if leave is not None:
            walking, grad = walking[~gone], grad[~gone]
        x_adv = _moved(threat, x_adv, grad, walking, x, step_size)
    left = torch.ones(len(x), dtype=torch.bool, device=x.device)
    left[walking] = False
    return Walk(found, gradients, broken, left)


def _gradient(
    model: Model,
    x_adv: Tensor,
    y: Tensor,
    walking: Tensor,
    objective: Objective,
    leave: Callable[[Tensor, Tensor], Tensor] | None,
    max_batch: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the walking images, which of them leave, and which gradients are not finite."""
    grads: list[Tensor] = []
    gone: list[Tensor] = []
    for some in torch.split(walking, max_batch or len(walking)):
        x, labels = (x_adv, y) if len(some) == len(x_adv) else (x_adv[some], y[some])
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(x)
            grads += torch.autograd.grad(objective(logits, labels), x)
        gone.append(leave(logits.detach(), labels) if leave else torch.zeros_like(labels, dtype=torch.bool))
    grad = grads[0] if len(grads) == 1 else torch.cat(grads)
    bad = ~grad.flatten(1).abs().amax(1).isfinite()
    return grad.nan_to_num(), torch.cat(gone), bad  # not in place: autograd may give one value for many pixels


def _moved(threat: ThreatModel, x_adv: Tensor, grad: Tensor, walking: Tensor, x: Tensor, step_size: float) -> Tensor:
    if len(walking) == len(x):
        return threat.project(threat.step(x_adv, grad, step_size), x)
    moved = x_adv.clone()
    moved[walking] = threat.project(threat.step(x_adv[walking], grad, step_size), x[walking])
    return moved
