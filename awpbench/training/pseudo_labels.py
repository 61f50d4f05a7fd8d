"""Pseudo-labels: the classes that a trained net gives to images (Carmon et al. 2019, section 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

BATCH = 128  # images at once; larger batches are slower per image on a CPU


def pseudo_labels(
    model: nn.Module, images: Tensor, *, device: torch.device, report: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Return the most probable class of each image, `(N,)` int64 on the CPU, from a net in eval mode on `device`.

    `images` are uint8 `(N, C, H, W)`. `report` is called with the number of images done after every batch.
    """
    model, found, done = model.to(device).eval(), [], 0
    with torch.no_grad():
        for batch in torch.split(images, BATCH):
            found.append(model(batch.to(device).to(torch.float32) / 255).argmax(1).cpu())
            done += len(batch)
            report(done)
    return torch.cat(found)
