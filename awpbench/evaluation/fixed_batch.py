"""A net that is always called on batches of one size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from awpbench.attacks.pgd import Model
from awpbench.errors import AwpbenchError, InputError

CPU_IS_FULL = ("can't allocate memory", "not enough memory")  # torch's words


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
            return answered(self._model, x.clone())  # a net may change its input
        padding = torch.zeros((missing, *x.shape[1:]), dtype=x.dtype, device=x.device)
        return answered(self._model, torch.cat([x, padding]))[: len(x)]


def answered(model: Model, x: Tensor) -> Tensor:
    """Call a model that may run anybody's code: what that raises becomes an InputError, but for a lack of memory."""
    try:
        return model(x)
    except AwpbenchError:
        raise
    except (Exception, SystemExit) as error:
        if out_of_memory(error):
            raise
        raise failed(error) from error


def failed(error: BaseException) -> InputError:
    """Say that a model's own code failed."""
    what = f"the model failed: {type(error).__name__}: {error}".removesuffix(": ")
    return InputError(what, "Mend the model; --debug shows where it failed.")


def out_of_memory(error: BaseException) -> bool:
    """Tell whether torch found no room, on a GPU or in the machine's memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in CPU_IS_FULL)


def differentiable(x: Tensor) -> bool:
    """Tell whether a gradient with respect to x may be asked for."""
    return x.requires_grad and torch.is_grad_enabled()
