"""Adversarial weight perturbation (Wu, Xia and Wang 2020, Eqs. 7-11), or a random one, around any loss, without a
second model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from awpbench.config import SizeNorm
from awpbench.randomness import Draws

Reduce = Callable[[Sequence[Tensor]], Sequence[Tensor]]

EPS = 1e-20  # keeps a weight without gradient where it is, instead of dividing zero by zero


class WeightPerturbation:
    """The perturbation that is in the weights at the moment: `v`, by parameter name; empty before the ascent.

    Per weight tensor |v| <= gamma |w|. |.| is the norm that `size` names, over the tensor, computed in fp32 or better.
    """

    def __init__(self, model: nn.Module, gamma: float, *, steps: int, size: SizeNorm, reduce: Reduce) -> None:
        self._model = model
        self._reduce = reduce
        self._gamma = gamma
        self._steps = steps
        self._order = 1 if size == "l1" else 2
        self._weights = perturbable(model)
        self.v: dict[str, Tensor] = {}

    def ascend(self, loss: Callable[[], Tensor]) -> None:
        """Add gamma / K2 * |w| / |g| * g to v per weight tensor, K2 times, g being the gradient of the loss at the
        present w + v (Eq. 10), and project to |v| <= gamma |w| each time.

        A first ascent starts from v = 0, another one from the v that is there. Batch-norm buffers stay as they are.
        """
        if self._gamma == 0:
            return
        for _ in range(self._steps):
            self._move(self._gradients(loss), self._steps)

    def draw(self, draws: Draws) -> None:
        """Replace v by gamma * |w| / |d| * d per weight tensor, d ~ N(0, I): random perturbation (section 5.3)."""
        if self._gamma == 0:
            return
        self.remove()
        self._move([_normal(weight, draws) for weight in self._weights.values()], 1)

    def remove(self) -> None:
        """Take v off the weights."""
        if self.v:
            with torch.no_grad():
                torch._foreach_sub_([self._weights[name] for name in self.v], list(self.v.values()))
            self.v = {}

    def _gradients(self, loss: Callable[[], Tensor]) -> list[Tensor]:
        with batch_norm_statistics_kept(self._model), torch.enable_grad():
            return list(self._reduce(torch.autograd.grad(loss(), list(self._weights.values()))))

    def _move(self, directions: list[Tensor], steps: int) -> None:
        """Add gamma / steps * |w| / |d| * d to v, and project."""
        before = list(self.v.values())
        self.remove()
        weights: list[Tensor] = list(self._weights.values())
        with torch.no_grad():
            limits = [self._gamma * size for size in self._norms(weights)]
            lengths = self._norms(directions)
            scales = [limit / steps / (length + EPS) for limit, length in zip(limits, lengths, strict=True)]
            v = list(torch._foreach_mul(directions, scales))
            if before:  # a single step of gamma or less stays within
                torch._foreach_add_(v, before)
                over = zip(limits, self._norms(v), strict=True)
                torch._foreach_mul_(v, [(limit / (length + EPS)).clamp(max=1.0) for limit, length in over])
            torch._foreach_add_(weights, v)
        self.v = dict(zip(self._weights, v, strict=True))

    def _norms(self, tensors: list[Tensor]) -> list[Tensor]:
        dtype = torch.promote_types(tensors[0].dtype, torch.float32)
        return list(torch._foreach_norm(tensors, self._order, dtype=dtype))


def _normal(weight: Tensor, draws: Draws) -> Tensor:
    """Draw without regard to how the weight lies in memory, so that its layout decides nothing."""
    return draws.normal(weight.detach().contiguous())


@contextmanager
def perturbed(
    model: nn.Module,
    gamma: float,
    *,
    steps: int = 1,
    size: SizeNorm = "l2",
    reduce: Reduce = lambda gradients: gradients,
) -> Iterator[WeightPerturbation]:
    """Hold a perturbation in the model's weights until the block ends; gamma 0 does nothing.

    `steps` (K2) is the number of steps of an ascent, `size` the norm that measures weights and perturbation. `reduce`
    sees the gradients of the ascent before they are normalised: processes that have a share of the batch each sum them
    there.

    Step the optimiser inside the block: the authors restore the weights after the step, so that momentum and weight
    decay act on w + v (Eq. 11). On an exception the weights are restored as well. Restoring subtracts what was added,
    as the authors do, which in floating point is w up to rounding.
    """
    perturbation = WeightPerturbation(model, gamma, steps=steps, size=size, reduce=reduce)
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
