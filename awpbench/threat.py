"""The threat model: the only module that knows norms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from awpbench.config import Norm, check_budget
from awpbench.randomness import Draws

TOLERANCE = 1e-6  # of a distance, in pixels' units: rounding of fp32 sums
TINY_GRADIENT = 1e-10  # added to an L2 norm before dividing, as in Rice, Wong and Kolter (2020)
TINY_LENGTH = 1e-7  # added to a length before projecting, as torch.renorm does, which their code calls


@dataclass(frozen=True)
class ThreatModel:
    """All images within `eps` of the clean one in the given norm and inside the pixel box [0, 1].

    Raises UsageError for an unknown norm, a negative budget, or an L-inf budget above 1 (pixels are in [0, 1]: 8/255,
    not 8).
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        check_budget(self.norm, self.eps)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the point of the ball (first) and of the box (then) that the public code takes; shaped like `x`."""
        if self.norm == "Linf":
            return torch.clamp(x_adv, x - self.eps, x + self.eps).clamp_(0.0, 1.0)
        return (x + self._shrink(x_adv - x)).clamp_(0.0, 1.0)

    def random_start(self, x: Tensor, generator: Draws, *, clamp: bool = True) -> Tensor:
        """Draw a start: L-inf uniform in the ball; L2 a random direction with a radius uniform in [0, eps].

        `clamp=False` leaves the start outside the box, as TRADES' and MART's evaluation code does.
        """
        if self.norm == "Linf":
            start = x + self.eps * generator.uniform(x)
        else:
            direction = generator.normal(x)
            start = x + direction * (self.eps * generator.radius(x) / _l2(direction))
        return start.clamp_(0.0, 1.0) if clamp else start

    def step(self, x_adv: Tensor, grad: Tensor, step_size: float) -> Tensor:
        """Move along the steepest ascent direction of the norm: the sign, or the gradient scaled to length 1."""
        if self.norm == "Linf":
            return x_adv + step_size * grad.sign()
        return x_adv + grad * (step_size / (_l2(grad) + TINY_GRADIENT))

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return each image's distance from the clean one, `(N,)`."""
        difference = (x_adv - x).flatten(1)
        distance: Tensor = torch.linalg.vector_norm(difference, ord=torch.inf if self.norm == "Linf" else 2, dim=1)
        return distance

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Tell which images are inside the box and the ball, up to rounding, `(N,)`; NaN is not."""
        pixels = x_adv.flatten(1)
        return (pixels >= 0).all(1) & (pixels <= 1).all(1) & (self.distance(x_adv, x) <= self.eps + TOLERANCE)

    def violation(self, x_adv: Tensor, x: Tensor) -> str | None:
        """Say what is wrong with adversarial images (not finite, outside the box, outside the ball), or return None."""
        if not len(x_adv):
            return None
        if not bool(torch.isfinite(x_adv).all()):
            return "an adversarial image holds NaN or infinity"
        low, high = float(x_adv.min()), float(x_adv.max())
        if low < 0.0 or high > 1.0:
            return f"an adversarial image has pixels in [{low:.6g}, {high:.6g}], outside [0, 1]"
        largest = float(self.distance(x_adv, x).max())
        if largest > self.eps + TOLERANCE:
            return f"an adversarial image is {largest:.8g} away from the clean one, more than eps = {self.eps:.8g}"
        return None

    def _shrink(self, difference: Tensor) -> Tensor:
        length = _l2(difference)
        return difference * torch.where(length > self.eps, self.eps / (length + TINY_LENGTH), torch.ones_like(length))


def _l2(images: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return length.view(-1, 1, 1, 1)
