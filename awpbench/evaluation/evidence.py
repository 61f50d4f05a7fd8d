"""Adversarial images, kept small: 8-bit differences where they do, float32 where they must."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from awpbench.attacks.pgd import misclassified
from awpbench.evaluation.shards import Arrays
from awpbench.threat import TOLERANCE, ThreatModel

NONE, GRID, EXACT = 0, 1, 2  # how an image is kept: not at all, as a difference in 255ths, as float32
NAMES = ("kept", "delta", "exact")
LARGEST = 127  # difference that 8 bits hold


def encode(
    x_adv: Tensor, pixels: Tensor, y: Tensor, fooled: Tensor, *, threat: ThreatModel, verify: Callable[[Tensor], Tensor]
) -> Arrays:
    """Return `kept` (N,), `delta` (G, C, H, W) as int8 and `exact` (E, C, H, W) as float32 of the fooled images.

    `pixels` are the clean images as uint8. An image is kept as its difference when, rounded to the pixel grid, it is
    still inside the ball and misclassified by `verify`.
    """
    kept = torch.full((len(x_adv),), NONE, dtype=torch.int8, device=x_adv.device)
    kept[fooled] = EXACT
    delta = _rounded(x_adv, pixels, threat)
    if bool(fooled.any()):
        images = on_grid(pixels, delta)
        small = delta.abs().flatten(1).amax(1) <= LARGEST
        sound = threat.contains(images, pixels.float() / 255) & misclassified(verify(images), y)
        kept[fooled & small & sound] = GRID
    return {
        "kept": kept.cpu().numpy(),
        "delta": delta[kept == GRID].to(torch.int8).cpu().numpy(),
        "exact": x_adv[kept == EXACT].float().cpu().numpy(),
    }


def decode(arrays: Arrays, pixels: Tensor) -> Tensor:
    """Return the images of `encode` as floats in [0, 1]; the clean one where none was kept."""
    images = pixels.float() / 255
    kept = torch.tensor(arrays["kept"], device=pixels.device)
    delta = torch.tensor(arrays["delta"], device=pixels.device)
    images[kept == GRID] = on_grid(pixels[kept == GRID], delta.to(torch.int16))
    images[kept == EXACT] = torch.tensor(arrays["exact"], device=pixels.device)
    return images


def on_grid(pixels: Tensor, delta: Tensor) -> Tensor:
    """Add differences in 255ths to images of uint8; return floats in [0, 1]."""
    return (pixels.to(torch.int16) + delta).clamp(0, 255).float() / 255


def merged(first: Arrays, second: Arrays, rows: npt.NDArray[np.int64], prefix: str = "") -> Arrays:
    """Add to one encoding another one, of some of its rows, that keeps no image which the first keeps."""
    encodings = [{name: arrays[prefix + name] for name in NAMES} for arrays in (first, second)]
    kept = encodings[0]["kept"].copy()
    kept[rows] = np.maximum(kept[rows], encodings[1]["kept"])
    found: Arrays = {f"{prefix}kept": kept}
    for name, form in (("delta", GRID), ("exact", EXACT)):
        places = np.flatnonzero(kept == form)
        sources = [(np.flatnonzero(encodings[0]["kept"] == form), encodings[0][name])]
        sources += [(rows[encodings[1]["kept"] == form], encodings[1][name])]
        images = np.empty((len(places), *encodings[0][name].shape[1:]), dtype=encodings[0][name].dtype)
        for at, values in sources:
            images[np.searchsorted(places, at)] = values
        found[prefix + name] = images
    return found


def dropped(arrays: Arrays, rows: npt.NDArray[np.bool_], prefix: str = "") -> Arrays:
    """Return an encoding without the images of some rows."""
    kept = arrays[f"{prefix}kept"].copy()
    found = {}
    for name, form in (("delta", GRID), ("exact", EXACT)):
        found[prefix + name] = arrays[prefix + name][~rows[kept == form]]
    kept[rows] = NONE
    return {f"{prefix}kept": kept, **found}


def joined(blocks: list[Arrays], prefix: str = "") -> Arrays:
    """Put the encodings of several blocks, in order, behind one another."""
    return {prefix + name: np.concatenate([block[prefix + name] for block in blocks]) for name in NAMES}


def _rounded(x_adv: Tensor, pixels: Tensor, threat: ThreatModel) -> Tensor:
    delta = (x_adv.nan_to_num() * 255).round().to(torch.int16) - pixels.to(torch.int16)
    if threat.norm == "Linf":  # 0.031 is 7.9 steps of the grid: 8 would leave the ball
        limit = math.floor(255 * (threat.eps + TOLERANCE))
        delta = delta.clamp(-limit, limit)
    return delta
