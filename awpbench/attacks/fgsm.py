"""The fast gradient sign method (Goodfellow et al. 2015)."""

from __future__ import annotations

from torch import Tensor

from awpbench.attacks.pgd import Model, cross_entropy, input_gradient
from awpbench.threat import ThreatModel


def fgsm(model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel) -> Tensor:
    """Take one step of length eps from the clean images, without a random start; L2 takes the normalised gradient."""
    grad = input_gradient(model, x, y, cross_entropy)
    return threat.project(threat.step(x, grad, threat.eps), x)
