"""Clean and robust accuracy of the net in training, at w (never at w + v), in eval mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from awpbench.attack_model import AttackModel
from awpbench.attacks.pgd import pgd
from awpbench.data.images import ImageSet
from awpbench.randomness import ImageDraws
from awpbench.threat import ThreatModel

BATCH = 128  # images at once; larger batches are slower per image on a CPU


def measure(
    model: nn.Module,
    images: ImageSet,
    *,
    threat: ThreatModel,
    steps: int,
    step_size: float,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return `n` and the fractions `clean` and `robust` (PGD, last iterate, random start keyed by image).

    `check` is called after every batch and may raise to stop the measurement.
    """
    attacked = AttackModel(model)
    device = next(model.parameters()).device
    clean = torch.zeros((), dtype=torch.int64, device=device)
    robust = torch.zeros((), dtype=torch.int64, device=device)
    for positions in torch.split(torch.arange(len(images), device=images.images.device), BATCH):
        x, y = images.batch(positions, device)
        draws = ImageDraws(seed, "track", images.indices[positions].tolist())
        x_adv = pgd(attacked, x, y, threat=threat, steps=steps, step_size=step_size, generator=draws)
        clean += (attacked.verify(x).argmax(1) == y).sum()
        robust += (attacked.verify(x_adv).argmax(1) == y).sum()
        check()
    n = len(images)
    return {"n": n, "clean": int(clean) / n, "robust": int(robust) / n}
