"""Adversarial weight perturbation (Wu, Xia and Wang 2020, Eqs. 7-11) around any loss, without a second model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Reduce = Callable[[Sequence[Tensor]], Sequence[Tensor]]

EPS = 1e-20  # keeps a weight without gradient where it is, instead of dividing zero by zero


class WeightPerturbation:
    """The perturbation that is in the weights at the moment: `v`, by parameter name; empty before the ascent."""

    def __init__(self, model: nn.Module, gamma: float, reduce: Reduce) -> None:
        self._model = model
        self._reduce = reduce
        self._gamma = gamma
        self._weights = perturbable(model)
        self.v: dict[str, Tensor] = {}

    def ascend(self, loss: Callable[[], Tensor]) -> None:
        """Replace v by gamma * |w| / |g| * g per weight tensor, g being the gradient of the loss at the present
        weights (Eq. 9).

        |.| is the Frobenius norm, computed in fp32 or better. Batch-norm buffers stay as they are.
        """
        if self._gamma == 0:
            return
        weights: list[Tensor] = list(self._weights.values())
        with batch_norm_statistics_kept(self._model), torch.enable_grad():
            gradients = list(self._reduce(torch.autograd.grad(loss(), weights)))
        self.remove()
        with torch.no_grad():
            dtype = torch.promote_types(weights[0].dtype, torch.float32)
            sizes, lengths = torch._foreach_norm(weights, dtype=dtype), torch._foreach_norm(gradients, dtype=dtype)
            scales = [self._gamma * size / (length + EPS) for size, length in zip(sizes, lengths, strict=True)]
            v = list(torch._foreach_mul(gradients, scales))
            torch._foreach_add_(weights, v)
        self.v = dict(zip(self._weights, v, strict=True))

    def remove(self) -> None:
        """Take v off the weights."""
        if self.v:
            with torch.no_grad():
                torch._foreach_sub_([self._weights[name] for name in self.v], list(self.v.values()))
            self.v = {}


@contextmanager
def perturbed(
    model: nn.Module, gamma: float, *, reduce: Reduce = lambda gradients: gradients
) -> Iterator[WeightPerturbation]:
    """Hold an adversarial perturbation in the model's weights until the block ends; gamma 0 does nothing.

    `reduce` sees the gradients of the ascent before their lengths are taken: several processes that have a share of the
    batch each sum them there.

    Step the optimiser inside the block: the authors restore the weights after the step, so that momentum and weight
    decay act on w + v (Eq. 11). On an exception the weights are restored as well.
    """
    perturbation = WeightPerturbation(model, gamma, reduce)
    try:
        yield perturbation
    finally:
        perturbation.remove()


def perturbable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what is perturbed: weights of convolutions and linear layers; no biases, no batch norm."""
    return {name: p for name, p in model.named_parameters() if p.dim() > 1 and p.requires_grad}


@contextmanager
def batch_norm_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let train-mode forwards use the batch's statistics without updating the running ones."""
    tracking = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
