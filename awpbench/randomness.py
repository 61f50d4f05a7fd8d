"""Every random draw, keyed and never global.

Training draws are functions of (seed, purpose, epoch, step); evaluation draws are functions of (seed, attack, index
of the image). So a result does not depend on batch size, on what ran before, or on an interruption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Draws(Protocol):
    """What an attack may draw: tensors `(N, C, H, W)` on the device and in the dtype of `like`."""

    def uniform(self, like: Tensor) -> Tensor:
        """Draw from U[-1, 1)."""

    def normal(self, like: Tensor) -> Tensor:
        """Draw from N(0, 1)."""

    def radius(self, like: Tensor) -> Tensor:
        """Draw one number in [0, 1) per image, shaped `(N, 1, 1, 1)`."""

    def signs(self, like: Tensor, samples: int) -> Tensor:
        """Draw `samples` directions of +-1 per image, shaped `(N, samples, C, H, W)`."""


def generator(device: torch.device | str, *key: int | str) -> torch.Generator:
    """Make a generator whose stream is a function of the key alone."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class BatchDraws:
    """Draws for a whole batch from one generator on the batch's device: fast, for training."""

    def __init__(self, source: torch.Generator) -> None:
        self._source = source

    def uniform(self, like: Tensor) -> Tensor:
        return torch.empty_like(like).uniform_(-1.0, 1.0, generator=self._source)

    def normal(self, like: Tensor) -> Tensor:
        return torch.empty_like(like).normal_(generator=self._source)

    def radius(self, like: Tensor) -> Tensor:
        return like.new_empty(len(like), 1, 1, 1).uniform_(generator=self._source)

    def signs(self, like: Tensor, samples: int) -> Tensor:
        shape = (len(like), samples, *like.shape[1:])
        return (
            torch.empty(shape, dtype=like.dtype, device=like.device)
            .bernoulli_(0.5, generator=self._source)
            .mul_(2)
            .sub_(1)
        )


class ImageDraws:
    """Draws keyed by (seed, attack, image index), one CPU stream per image, for evaluation."""

    def __init__(self, seed: int, attack: str, indices: Sequence[int]) -> None:
        self._streams = [generator("cpu", seed, attack, int(index)) for index in indices]

    def uniform(self, like: Tensor) -> Tensor:
        return self._each(like, like.shape[1:], lambda t, g: t.uniform_(-1.0, 1.0, generator=g))

    def normal(self, like: Tensor) -> Tensor:
        return self._each(like, like.shape[1:], lambda t, g: t.normal_(generator=g))

    def radius(self, like: Tensor) -> Tensor:
        return self._each(like, (1, 1, 1), lambda t, g: t.uniform_(generator=g))

    def signs(self, like: Tensor, samples: int) -> Tensor:
        return self._each(like, (samples, *like.shape[1:]), lambda t, g: t.bernoulli_(0.5, generator=g)).mul_(2).sub_(1)

    def keep(self, kept: Sequence[int]) -> ImageDraws:
        """Continue the streams of some of the images only."""
        left = ImageDraws(0, "", [])
        left._streams = [self._streams[i] for i in kept]
        return left

    def _each(self, like: Tensor, shape: Sequence[int], fill: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        dtype = like.dtype if like.dtype == torch.float64 else torch.float32
        drawn = torch.empty((len(like), *shape), dtype=dtype, device="cpu")
        for row, stream in zip(drawn, self._streams, strict=True):
            fill(row, stream)
        return drawn.to(like.device, like.dtype)
