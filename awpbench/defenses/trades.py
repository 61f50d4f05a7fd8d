"""TRADES (Zhang et al. 2019): clean cross-entropy plus beta times the divergence of the adversarial predictions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from awpbench.attacks.pgd import Model, Objective, pgd
from awpbench.defenses.base import Defense, cross_entropy, mean
from awpbench.randomness import Draws
from awpbench.threat import ThreatModel

START_STD = 0.001  # in pixels' units


def small_start(x: Tensor, generator: Draws) -> Tensor:
    """Add the Gaussian noise that TRADES' and MART's inner attacks start from; it is not clamped to the box."""
    return x + START_STD * generator.normal(x)


def attack(
    model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, steps: int, step_size: float, generator: Draws
) -> Tensor:
    """Maximise KL(f(x) || f(x')) by projected gradient ascent; the clean prediction is computed once."""
    start, objective = small_start(x, generator), divergence_from(model, x)
    return pgd(model, x, y, threat=threat, steps=steps, step_size=step_size, start=start, objective=objective)


def divergence_from(model: Model, x: Tensor) -> Objective:
    """Make the objective KL(f(x) || f(x')), summed over the batch, of the clean predictions as they are now."""
    with torch.no_grad():
        clean = F.softmax(model(x), dim=1)

    def divergence(logits: Tensor, y: Tensor) -> Tensor:
        return F.kl_div(F.log_softmax(logits, dim=1), clean, reduction="sum")

    return divergence


def loss(
    model: Model, x: Tensor, x_adv: Tensor, y: Tensor, *, beta: float = 6.0, weights: Tensor | None = None
) -> Tensor:
    """Return CE(f(x), y) + beta * KL(f(x) || f(x')), means over the batch (AWP paper, Eq. 2)."""
    adversarial = model(x_adv)
    return from_logits(model(x), adversarial, y, beta=beta, weights=weights)


def from_logits(
    clean: Tensor, adversarial: Tensor, y: Tensor, *, beta: float = 6.0, weights: Tensor | None = None
) -> Tensor:
    """Return the loss given both logits `(N, K)`; the gradient flows through both arguments of the divergence."""
    log_adversarial, clean_probabilities = F.log_softmax(adversarial, dim=1), F.softmax(clean, dim=1)
    if weights is None:
        divergence = F.kl_div(log_adversarial, clean_probabilities, reduction="batchmean")
    else:
        divergence = mean(F.kl_div(log_adversarial, clean_probabilities, reduction="none").sum(1), weights)
    return cross_entropy(clean, y, weights) + beta * divergence


DEFENSE = Defense(attack, loss, attack_mode="eval", hyper=("beta",))
