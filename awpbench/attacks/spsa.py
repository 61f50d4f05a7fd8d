"""SPSA: a gradient-free attack on the margin (Uesato et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from awpbench.attacks.cw import margin
from awpbench.attacks.pgd import Model
from awpbench.randomness import ImageDraws
from awpbench.threat import ThreatModel

BETA1, BETA2, TINY = 0.9, 0.999, 1e-8  # Adam's own defaults (Kingma and Ba 2015)


def spsa(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    generator: ImageDraws,
    steps: int = 100,
    samples: int = 256,
    delta: float = 0.001,
    lr: float = 0.01,
    max_batch: int = 512,
    near: Callable[[Tensor], Model] | None = None,
    look: Model | None = None,
) -> Tensor:
    """Minimise the margin with Adam on estimated gradients from the clean image; return `(N, C, H, W)` in [0, 1].

    Each gradient takes `samples` directions of +-1, drawn anew for every image and step, and two forward passes per
    direction. An image stops as soon as it is misclassified. `max_batch` bounds the images per forward pass. Every
    image has its own gradients, so its result depends on no other one. `near`, such as `AttackModel.near`, makes of an
    image the function from differences to the logits there; by default the model takes the sum of both. `look` says
    whether an image is misclassified already, by default the model: where that is a copy of lower precision, an image
    must not stop at the copy's word.
    """
    settings: dict[str, Any] = {"steps": steps, "samples": samples, "delta": delta, "lr": lr, "max_batch": max_batch}
    return descend(model, x, y, threat=threat, generator=generator, near=near, look=look, **settings)[0]


@torch.no_grad()
def descend(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    generator: ImageDraws,
    steps: int,
    samples: int,
    delta: float,
    lr: float,
    max_batch: int,
    near: Callable[[Tensor], Model] | None = None,
    look: Model | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `spsa`'s images and the gradients that each took, `(N,)`."""
    x_adv, mean, square = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
    gradients = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    standing = list(range(len(x)))
    for step in range(1, steps + 1):
        if not standing:
            break
        looks = [margin((look or model)(x_adv[some]), y[some]) for some in _chunks(standing, max_batch)]
        standing = [i for i, ok in zip(standing, (torch.cat(looks) >= 0).tolist(), strict=True) if ok]  # NaN is fooled
        for i in standing:
            one = slice(i, i + 1)
            directions = generator.keep([i]).signs(x[one], samples)[0]
            how: dict[str, Any] = {"delta": delta, "max_batch": max_batch, "near": near}
            grad = estimate_gradient(model, x_adv[one], y[one], directions, **how)
            mean[one], square[one], change = adam(mean[one], square[one], grad, step=step, lr=lr)
            x_adv[one] = threat.project(x_adv[one] - change, x[one])
            gradients[i] += 1
    return x_adv, gradients


def _chunks(items: list[int], size: int) -> Iterator[list[int]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def estimate_gradient(
    model: Model,
    x: Tensor,
    y: Tensor,
    directions: Tensor,
    *,
    delta: float,
    max_batch: int = 512,
    near: Callable[[Tensor], Model] | None = None,
) -> Tensor:
    """Estimate the gradient of one image's margin, `(1, C, H, W)`, from directions `(S, C, H, W)` of +-1.

    It is the mean over the directions v of `(f(x + delta v) - f(x - delta v)) / (2 delta) * v`; `near` as in `spsa`.
    """
    logits = near(x) if near is not None else lambda d: model(x + d)
    total = torch.zeros_like(x)
    for v in torch.split(directions, max(1, max_batch // 2)):
        forth = delta * v
        ahead, behind = margin(logits(torch.cat([forth, -forth])), y.expand(2 * len(v))).chunk(2)
        total += torch.tensordot(ahead - behind, v, dims=1)
    return total / (2 * delta * len(directions))


def adam(mean: Tensor, square: Tensor, grad: Tensor, *, step: int, lr: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return Adam's new first and second moments and the change that it subtracts at the `step`-th step, from 1."""
    mean = BETA1 * mean + (1 - BETA1) * grad
    square = BETA2 * square + (1 - BETA2) * grad**2
    change = lr * (mean / (1 - BETA1**step)) / ((square / (1 - BETA2**step)).sqrt() + TINY)
    return mean, square, change
