"""SPSA: a gradient-free attack on the margin (Uesato et al. 2018)."""

from __future__ import annotations

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
) -> Tensor:
    """Minimise the margin with Adam on estimated gradients from the clean image; return `(N, C, H, W)` in [0, 1].

    Each gradient takes `samples` directions of +-1, drawn anew for every image and step, and two forward passes per
    direction. An image stops as soon as it is misclassified. `max_batch` bounds the images per forward pass. Every
    image is attacked by itself, so its result depends on no other one.
    """

    def attack_one(x: Tensor, y: Tensor, draws: ImageDraws) -> Tensor:
        x_adv, mean, square = x, torch.zeros_like(x), torch.zeros_like(x)
        for step in range(1, steps + 1):
            if not bool(margin(model(x_adv), y) >= 0):  # fooled, or NaN
                break
            directions = draws.signs(x_adv, samples)[0]
            grad = estimate_gradient(model, x_adv, y, directions, delta=delta, max_batch=max_batch)
            mean, square, change = adam(mean, square, grad, step=step, lr=lr)
            x_adv = threat.project(x_adv - change, x)
        return x_adv

    with torch.no_grad():
        found = [attack_one(x[i : i + 1], y[i : i + 1], generator.keep([i])) for i in range(len(x))]
    return torch.cat(found) if found else x.clone()


def estimate_gradient(
    model: Model, x: Tensor, y: Tensor, directions: Tensor, *, delta: float, max_batch: int = 512
) -> Tensor:
    """Estimate the gradient of one image's margin, `(1, C, H, W)`, from directions `(S, C, H, W)` of +-1.

    It is the mean over the directions v of `(f(x + delta v) - f(x - delta v)) / (2 delta) * v`.
    """
    total = torch.zeros_like(x)
    for v in torch.split(directions, max(1, max_batch // 2)):
        probes = torch.cat([x + delta * v, x - delta * v])
        ahead, behind = margin(model(probes), y.expand(len(probes))).chunk(2)
        total += torch.tensordot(ahead - behind, v, dims=1)
    return total / (2 * delta * len(directions))


def adam(mean: Tensor, square: Tensor, grad: Tensor, *, step: int, lr: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return Adam's new first and second moments and the change that it subtracts at the `step`-th step, from 1."""
    mean = BETA1 * mean + (1 - BETA1) * grad
    square = BETA2 * square + (1 - BETA2) * grad**2
    change = lr * (mean / (1 - BETA1**step)) / ((square / (1 - BETA2**step)).sqrt() + TINY)
    return mean, square, change
