"""Random shift and horizontal flip of a whole batch on its device (He et al. 2016, section 4.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from awpbench.errors import UsageError

Padding = Literal["reflect", "zero"]


def crop_flip(images: Tensor, *, padding: Padding, pad: int = 4, generator: torch.Generator) -> Tensor:
    """Return every image (N, C, H, W) padded by `pad`, cropped to its own size at a random place, and flipped or not.

    Every image has its own place, uniform over the (2 * pad + 1)^2 there are, and its own even chance of a flip. The
    numbers are drawn on the generator's device. Keeps device and dtype; errors as in `crop_flip_at`.
    """
    n, drawn_on = len(images), generator.device
    shifts = torch.randint(0, 2 * pad + 1, (2, n), generator=generator, device=drawn_on).to(images.device)
    flips = torch.randint(0, 2, (n,), generator=generator, device=drawn_on).to(images.device)
    return crop_flip_at(images, shifts[0], shifts[1], flips.bool(), padding=padding, pad=pad)


def crop_flip_at(
    images: Tensor, rows: Tensor, columns: Tensor, flips: Tensor, *, padding: Padding, pad: int = 4
) -> Tensor:
    """Return images (N, C, H, W) padded, cropped from the upper left corner `rows`, `columns` (N,), flipped by `flips`.

    A corner of (pad, pad) is the image itself; corners run from 0 to 2 * pad. Keeps the dtype. `reflect` mirrors about
    the edge pixel without repeating it and needs `pad` below height and width (else UsageError).
    """
    height, width = images.shape[2:]
    if padding == "reflect" and pad >= min(height, width):
        raise UsageError(
            f"images of {height}x{width} cannot be padded by {pad} reflected pixels",
            f"Pad by less than {min(height, width)}, or use padding 'zero'.",
        )
    device = images.device
    down = torch.arange(height, device=device)
    across = torch.arange(width, device=device)
    across = torch.where(flips[:, None], across.flip(0), across)  # flipped after the crop: read it from the right
    i = down + (rows - pad)[:, None]  # (N, H): the source row of each pixel, outside the image in the padding
    j = across + (columns - pad)[:, None]  # (N, W)
    if padding == "reflect":
        return _gather(images, _mirror(i, height), _mirror(j, width))
    inside = ((i >= 0) & (i < height))[:, :, None] & ((j >= 0) & (j < width))[:, None, :]
    return _gather(images, i.clamp(0, height - 1), j.clamp(0, width - 1)) * inside[:, None]


def _mirror(position: Tensor, size: int) -> Tensor:
    return (size - 1) - ((size - 1) - position.abs()).abs()


def _gather(images: Tensor, i: Tensor, j: Tensor) -> Tensor:
    n, channels, height, width = images.shape
    pixel = (i[:, :, None] * width + j[:, None, :]).view(n, 1, height * width).expand(n, channels, height * width)
    return images.flatten(2).gather(2, pixel).view(images.shape)
