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
from awpbench.training.distributed import ALONE, Group

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
    group: Group = ALONE,
) -> dict[str, Any]:
    """Return `n` and the fractions `clean` and `robust` (PGD, last iterate, random start keyed by image).

    `check` is called after every batch and may raise to stop the measurement. Of several processes each takes every
    so many-th batch, and all return the same; `check` is called after a batch of each.
    """
    attacked = AttackModel(model)
    device = next(model.parameters()).device
    clean = torch.zeros((), dtype=torch.int64, device=device)
    robust = torch.zeros((), dtype=torch.int64, device=device)
    batches = torch.split(torch.arange(len(images), device=images.images.device), BATCH)
    for positions in batches[group.rank :: group.count]:
        x, y = images.batch(positions, device)
        draws = ImageDraws(seed, "track", images.indices[positions].tolist())
        x_adv = pgd(attacked, x, y, threat=threat, steps=steps, step_size=step_size, generator=draws)
        clean += (attacked.verify(x).argmax(1) == y).sum()
        robust += (attacked.verify(x_adv).argmax(1) == y).sum()
        check()
    if len(batches) % group.count > 0 and group.rank >= len(batches) % group.count:
        check()  # as often as the processes that had a batch more
    clean, robust = group.sum([clean, robust])
    n = len(images)
    return {"n": n, "clean": int(clean) / n, "robust": int(robust) / n}
