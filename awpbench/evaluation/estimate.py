"""How long an evaluation would take on this device, from two timed steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from awpbench.attack_model import AttackModel
from awpbench.attacks.pgd import cross_entropy, input_gradient
from awpbench.config import Precision
from awpbench.data.images import ImageSet
from awpbench.evaluation.fixed_batch import FixedBatch
from awpbench.evaluation.jobs import Job


@dataclass(frozen=True)
class Estimate:
    """Seconds per image for a forward pass and for the backward pass after it."""

    forward: float
    backward: float

    def seconds(self, job: Job, n: int) -> float:
        """Return what a job takes on n images, at most: as if no attack ever succeeded."""
        return n * (job.forward * self.forward + job.backward * self.backward)


def estimate(
    net: nn.Module, images: ImageSet, device: torch.device, block: int, precision: Precision = "fp32"
) -> Estimate:
    """Time one forward pass and one gradient of a few images, after a first one that also pays for start-up."""
    net = net.to(device)
    attacked = FixedBatch(AttackModel(net, precision), block)
    n = min(block, len(images))
    x, y = images.batch(torch.arange(n, device=images.images.device), device)

    def forward() -> float:
        with torch.no_grad():
            return _timed(lambda: attacked(x), device)

    def gradient() -> float:
        return _timed(lambda: input_gradient(attacked, x, y, cross_entropy), device)

    gradient()
    one = forward()
    both = gradient()
    return Estimate(one / n, max(both - one, 0.0) / n)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
