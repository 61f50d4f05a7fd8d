"""Random shift, horizontal flip (He et al. 2016, section 4.2) and rotation of a whole batch on its device."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from awpbench.config import Augmentation
from awpbench.errors import UsageError

Padding = Literal["reflect", "zero"]
DEGREES = 15.0  # of CIFAR-100's rotation in the AWP code


def augment(images: Tensor, name: Augmentation, *, padding: Padding, generator: torch.Generator) -> Tensor:
    """Return images (N, C, H, W) augmented as `name` says; `none` returns them as they are."""
    if name == "none":
        return images
    images = crop_flip(images, padding=padding, generator=generator)
    return images if name == "crop-flip" else rotate(images, degrees=DEGREES, generator=generator)


def rotate(images: Tensor, *, degrees: float, generator: torch.Generator) -> Tensor:
    """Return every image (N, C, H, W) turned by its own angle, uniform in [-degrees, degrees]; see `rotate_by`."""
    drawn = torch.rand(len(images), generator=generator, device=generator.device, dtype=torch.float64)
    return rotate_by(images, ((2 * drawn - 1) * degrees).to(images.device))


def rotate_by(images: Tensor, angles: Tensor) -> Tensor:
    """Return images (N, C, H, W) turned about their centre by `angles` (N,) in degrees, counter-clockwise.

    Each pixel is the nearest one of the image, or 0 where that lies outside, as in torchvision's RandomRotation. Keeps
    device and dtype.
    """
    height, width = images.shape[2:]
    turn = (angles.double() * (math.pi / 180))[:, None, None]
    down = torch.arange(height, device=images.device, dtype=torch.float64)[:, None] - (height - 1) / 2
    across = torch.arange(width, device=images.device, dtype=torch.float64) - (width - 1) / 2
    i = (turn.cos() * down + turn.sin() * across + (height - 1) / 2).round().long()  # (N, H, W): the source of each
    j = (turn.cos() * across - turn.sin() * down + (width - 1) / 2).round().long()
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    return _take(images, i.clamp(0, height - 1) * width + j.clamp(0, width - 1)) * inside[:, None]


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
    return _take(images, i[:, :, None] * images.shape[3] + j[:, None, :])


def _take(images: Tensor, pixels: Tensor) -> Tensor:
    """Return images whose pixels are those at the places (N, H, W), counted row by row, of the given ones."""
    n, channels, height, width = images.shape
    places = pixels.view(n, 1, height * width).expand(n, channels, height * width)
    return images.flatten(2).gather(2, places).view(images.shape)
