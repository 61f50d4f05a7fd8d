"""A net that is always called on batches of one size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from awpbench.attacks.pgd import Model


class FixedBatch:
    """Call a model on exactly `size` images at a time, the last ones padded with black images; differentiable in x.

    The logits of an image differ in the last bits between batch sizes, which flips signs of gradients, and are
    bit-equal whatever stands beside it in a batch of one size. So what an attack does to an image does not depend on
    how many others it attacks at the same time. `before` is told of every call how many images it takes, padding left
    out, and whether a gradient may follow.
    """

    def __init__(
        self, model: Model, size: int, before: Callable[[int, bool], None] = lambda images, grad: None
    ) -> None:
        self._model = model
        self._size = size
        self._before = before

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits `(N, classes)` of images `(N, C, H, W)`."""
        return torch.cat([self._call(some) for some in torch.split(x, self._size)])

    def _call(self, x: Tensor) -> Tensor:
        if self._before is not None:
            self._before(len(x), differentiable(x))
        missing = self._size - len(x)
        if missing == 0:
            return self._model(x.clone())  # a net may change its input
        padding = torch.zeros((missing, *x.shape[1:]), dtype=x.dtype, device=x.device)
        return self._model(torch.cat([x, padding]))[: len(x)]


def differentiable(x: Tensor) -> bool:
    """Tell whether a gradient with respect to x may be asked for."""
    return x.requires_grad and torch.is_grad_enabled()
