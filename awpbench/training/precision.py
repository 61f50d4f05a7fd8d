"""What a training step calls in place of the net: a view of it that computes in bfloat16, or a compiled one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from awpbench.config import TrainingPrecision
from awpbench.errors import UsageError
from awpbench.models.layers import FirstConv2d


class Bf16Conv2d(nn.Module):
    """A convolution in bfloat16 with the fp32 weight of another one, which its gradient reaches.

    While that weight is frozen, as in an attack, `cast` stands in for it, which the owner has to bring up to date:
    casting a weight in every forward pass would cost more.
    """

    cast: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._geometry: tuple[Any, ...] = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.register_buffer("cast", conv.weight.detach().to(torch.bfloat16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(torch.bfloat16) if self.weight.requires_grad else self.cast
        bias = None if self.bias is None else self.bias.to(torch.bfloat16)
        return F.conv2d(x.to(torch.bfloat16), weight, bias, *self._geometry)


class Bf16Net(nn.Module):
    """A view of a net whose convolutions compute in bfloat16; weights and batch norms are the net's own.

    The first convolution stays in fp32, since it sees differences between images that bfloat16 cannot hold, and so do
    linear layers. A batch norm takes bfloat16 and computes its statistics in fp32. Call `refresh` before frozen
    weights are used.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
        shared: list[Any] = [*net.parameters(), *net.buffers(), *norms]
        self.net = copy.deepcopy(net, {id(each): each for each in shared})
        convolutions = [(name, module) for name, module in self.net.named_modules() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            raise UsageError("bf16 needs a net with a convolution to start from", "Leave --precision out.")
        self._lowered = [Bf16Conv2d(conv) for _, conv in convolutions[1:]]
        for (name, _), conv in zip(convolutions, [FirstConv2d(convolutions[0][1]), *self._lowered], strict=True):
            self.net.set_submodule(name, conv)
        for module in self.net.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda module, args: args[0].float())

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the weights of this moment for the forwards with frozen ones."""
        if self._lowered:
            torch._foreach_copy_([conv.cast for conv in self._lowered], [conv.weight for conv in self._lowered])

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `(N, classes)` in fp32."""
        logits: Tensor = self.net(x)
        return logits.float()


@dataclass(frozen=True)
class Views:
    """What the attack in train mode and the losses call: the net, or views that share its weights and statistics."""

    attack: nn.Module
    update: nn.Module

    def attacked(self, train: bool) -> nn.Module:
        """Return what the attack calls, in train mode or not, with the weights of this moment."""
        for module in self.attack.train(train).modules():
            if isinstance(module, Bf16Net):
                module.refresh()
        return self.attack


def views(net: nn.Module, precision: TrainingPrecision = "fp32", *, compile: bool = False) -> Views:
    """Return what a step calls in place of a net. Raises UsageError for bfloat16 and a net without convolution."""
    attack = net if precision == "fp32" else Bf16Net(net)
    update = attack if precision == "bf16" else net
    return Views(compiled(attack), compiled(update)) if compile else Views(attack, update)


def compiled(net: nn.Module) -> nn.Module:
    """Return a view of the net that torch.compile makes faster; each batch size and mode is compiled on its own.

    So what is computed for a batch never depends on the batches before it, and a resumed run equals a whole one.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)  # of 6 that a run needs
    view: nn.Module = torch.compile(net, dynamic=False)  # type: ignore[assignment]
    return view


@contextmanager
def compilation_explained() -> Iterator[None]:
    """Turn a failure to compile, which comes with the first step, into a UsageError of one line."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = f"torch.compile failed: {' '.join(lines[:2])}"
        raise UsageError(what, "Leave --compile out; it changes nothing but time.") from error
