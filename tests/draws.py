"""Draws that are given instead of drawn, so that attacks run on devices without a generator."""

from __future__ import annotations

import torch
from torch import Tensor


class GivenDraws:
    """Hands out constants on the device of `like`; on the meta device they have no values at all."""

    def uniform(self, like: Tensor) -> Tensor:
        return torch.full_like(like, 0.5)

    def normal(self, like: Tensor) -> Tensor:
        return torch.full_like(like, 1.0)

    def radius(self, like: Tensor) -> Tensor:
        return like.new_full((len(like), 1, 1, 1), 0.5)

    def signs(self, like: Tensor, samples: int) -> Tensor:
        return like.new_ones((len(like), samples, *like.shape[1:]))
