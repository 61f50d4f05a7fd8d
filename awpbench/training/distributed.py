"""Several processes that take one training step together, each with its share of the same global batch.

Every process holds all weights, draws the whole batch's random numbers and takes its share of them; gradients are
summed, weighted by the shares, before anything else sees them. So with a net without batch norm a run is that of one
process up to rounding. No wrapper of the net is needed for that, and gradients of the ascent go the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from awpbench.errors import AwpbenchError, UsageError
from awpbench.randomness import Draws

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # that a process waits for the others
NO_BATCH_NORM = "small-cnn-nobn"


class LostError(AwpbenchError):
    """Another process of the run ended, or was silent for too long."""


class ToldError(AwpbenchError):
    """What process 0 found and reports; the others end with its exit code."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Group:
    """The processes of a run, of which this is number `rank` of `count`; every method is called by all of them."""

    rank: int = 0
    count: int = 1

    def part(self, n: int) -> Part:
        """Return this process's share of a batch of n images: contiguous, equal up to one image, perhaps empty."""
        return Part(self, n, slice(self.rank * n // self.count, (self.rank + 1) * n // self.count))

    def sum(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the sums over the processes of tensors of one dtype and device, the same bits in each process."""
        if self.count == 1:
            return tensors
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with _others_there():
            dist.all_reduce(flat)
        sums = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [summed.view(tensor.shape) for tensor, summed in zip(tensors, sums, strict=True)]

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """Return the largest that any process gives, number by number."""
        if self.count == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        with _others_there():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return [int(number) for number in found]

    def lead(self, work: Callable[[], T]) -> T | None:
        """Let process 0 do something while the others wait; its result there, None in the others.

        Where it raises, the others raise a ToldError with its exit code.
        """
        if self.count == 1:
            return work()
        told: list[tuple[str, int] | None] = [None]
        result, failed = None, None
        if self.rank == 0:
            try:
                result = work()
            except Exception as error:
                failed, told = error, [(str(error), getattr(error, "exit_code", 1))]
        with _others_there():
            dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
        if failed is not None:
            raise failed
        if told[0] is not None:
            raise ToldError(*told[0])
        return result


ALONE = Group()


@dataclass(frozen=True)
class Part:
    """A process's share of a global batch of `n` images, those at `here`."""

    group: Group = ALONE
    n: int = 0
    here: slice = field(default_factory=lambda: slice(None))

    @property
    def weight(self) -> float:
        """The share of a mean over the global batch that is a mean over this process's images."""
        return 1.0 if self.group.count == 1 else (self.here.stop - self.here.start) / self.n

    def draws(self, whole: Draws) -> Draws:
        """Return what hands out this share of the draws for the global batch."""
        return whole if self.group.count == 1 else DrawsOfPart(whole, self)

    def mean(self, loss: Callable[[], Tensor], model: nn.Module) -> Tensor:
        """Return what this process adds to the mean of a loss over the global batch: without images a 0.

        `loss` returns the mean over this process's images. The 0 has a gradient, of zeros, in all parameters.
        """
        if self.group.count == 1:
            return loss()
        if self.here.start == self.here.stop:
            return torch.stack([parameter.sum() for parameter in model.parameters()]).sum() * 0.0
        return loss() * self.weight

    def sum_gradients(self, model: nn.Module) -> None:
        """Sum the gradients of a backward pass through `mean` over the processes."""
        if self.group.count == 1:
            return
        live = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in live:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in live if parameter.grad is not None]
        for gradient, summed in zip(gradients, self.group.sum(gradients), strict=True):
            gradient.copy_(summed)


WHOLE = Part()


class DrawsOfPart:
    """Draws for a global batch, of which a process takes those of its images."""

    def __init__(self, whole: Draws, part: Part) -> None:
        self._whole = whole
        self._part = part

    def uniform(self, like: Tensor) -> Tensor:
        return self._whole.uniform(self._grown(like))[self._part.here]

    def normal(self, like: Tensor) -> Tensor:
        return self._whole.normal(self._grown(like))[self._part.here]

    def radius(self, like: Tensor) -> Tensor:
        return self._whole.radius(self._grown(like))[self._part.here]

    def signs(self, like: Tensor, samples: int) -> Tensor:
        return self._whole.signs(self._grown(like), samples)[self._part.here]

    def _grown(self, like: Tensor) -> Tensor:
        """Make a tensor of the global batch's size in the memory layout of a share: draws go in the memory's order."""
        strides = (like.shape[1:].numel(), *like.stride()[1:])
        return like.new_empty_strided((self._part.n, *like.shape[1:]), strides)


@contextmanager
def joined(rank: int, count: int, device: torch.device) -> Iterator[Group]:
    """Join the other processes that torchrun started while the block runs: gloo on the CPU, NCCL on CUDA.

    Flags and messages go by gloo in either case. Raises UsageError where they cannot be found.
    """
    if count == 1:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, rank=rank, world_size=count, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        what = f"process {rank} of {count} did not find the others: {error}"
        raise UsageError(what, "Start them with torchrun, which names their meeting point.") from None
    try:
        yield Group(rank, count)
    finally:
        dist.destroy_process_group()


def fit(model: nn.Module, batches: Iterable[int], group: Group, device: torch.device) -> nn.Module:
    """Make a net fit for several processes: batch norm is shared by all of them, on CUDA.

    `batches` are the sizes of the global batches. Raises UsageError for batch norm on the CPU, or with fewer images in
    a batch than there are processes.
    """
    has_batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if group.count == 1 or not has_batch_norm:
        return model
    if device.type != "cuda":
        what = "the net has batch norm, which several processes share on CUDA only"
        raise UsageError(what, f"Train it in one process, or take a net without, such as {NO_BATCH_NORM}.")
    if (smallest := min(batches)) < group.count:
        what = f"a batch of {smallest} images leaves none to one of {group.count} processes, which batch norm needs"
        raise UsageError(what, "Give another --batch-size or --train-examples, or fewer processes.")
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


@contextmanager
def _others_there() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        what = f"another process of this run ended, or was silent for {PATIENCE.seconds // 60} minutes"
        raise LostError(what, "See its message, then continue with: awpbench resume.") from error
