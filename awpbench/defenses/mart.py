"""MART (Wang et al. 2020): boosted cross-entropy, and a divergence weighted by how wrong the clean prediction is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from awpbench.attacks.pgd import Model, pgd
from awpbench.defenses.base import Defense, cross_entropy, mean
from awpbench.defenses.trades import small_start
from awpbench.randomness import Draws
from awpbench.threat import ThreatModel

# The public code keeps its logarithms finite with these; the reference vectors hold them.
INSIDE_LOG = 1e-12
BELOW_ONE = 1.0001
WEIGHT_ONE = 1.0000001


def attack(
    model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, steps: int, step_size: float, generator: Draws
) -> Tensor:
    """Maximise the cross-entropy by PGD from a start close to the clean image."""
    return pgd(model, x, y, threat=threat, steps=steps, step_size=step_size, start=small_start(x, generator))


def loss(
    model: Model, x: Tensor, x_adv: Tensor, y: Tensor, *, beta: float = 5.0, weights: Tensor | None = None
) -> Tensor:
    """Return BCE(f(x'), y) + beta * KL(f(x) || f(x')) (1 - f(x)_y), means over the batch.

    AWP paper, Eq. 3, which calls beta lambda.
    """
    clean = model(x)
    return from_logits(clean, model(x_adv), y, beta=beta, weights=weights)


def from_logits(
    clean: Tensor, adversarial: Tensor, y: Tensor, *, beta: float = 5.0, weights: Tensor | None = None
) -> Tensor:
    """Return the loss given both logits `(N, K)`, K >= 2; the gradient flows through both and through the weight."""
    if clean.dtype in (torch.float16, torch.bfloat16):
        clean, adversarial = clean.float(), adversarial.float()
    p, p_adv = F.softmax(clean, dim=1), F.softmax(adversarial, dim=1)
    is_label = F.one_hot(y, p.shape[1]).bool()
    strongest_wrong = p_adv.masked_fill(is_label, -1.0).amax(1)
    margin = torch.log(BELOW_ONE - strongest_wrong + INSIDE_LOG)
    boosted = cross_entropy(adversarial, y, weights) - mean(margin, weights)
    divergence = F.kl_div(torch.log(p_adv + INSIDE_LOG), p, reduction="none").sum(1)
    doubt = WEIGHT_ONE - p.gather(1, y.unsqueeze(1)).squeeze(1)
    return boosted + beta * mean(divergence * doubt, weights)


DEFENSE = Defense(attack, loss, attack_mode="eval", hyper=("beta",))
