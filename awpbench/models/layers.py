"""What several architectures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input


class Normalize(nn.Module):
    """Map images in [0, 1] to `(x - mean) / std` per channel; the identity without a mean.

    The buffers are not persistent, so that state dict keys are those of the public checkpoints.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        super().__init__()
        self.active = mean is not None
        for name, values in (("mean", mean or [0.0]), ("std", std or [1.0])):
            self.register_buffer(name, torch.tensor(values, device="cpu").view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std if self.active else x


def init_convolutions(model: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / (k k out)) and set linear biases to 0, as the public WRN code does."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """Make a 3x3 convolution with padding 1 and no bias."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)


def layout(net: nn.Module) -> torch.memory_format:
    """Return channels_last, the faster layout, unless a convolution has fewer than 8 output channels.

    There torch's CPU kernels write past their buffers in channels_last (seen with torch 2.14.1: the process aborts).
    """
    narrow = any(isinstance(module, nn.Conv2d) and module.out_channels < 8 for module in net.modules())
    return torch.contiguous_format if narrow else torch.channels_last


class FirstConv2d(nn.Module):
    """A net's first convolution: fp32 within, bfloat16 after it.

    While its weight is frozen, as in an attack, the gradient with respect to its input is computed in bfloat16. With
    as few channels as images have, that gradient takes four times as long in fp32 as the forward pass.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._geometry: tuple[Any, ...] = (conv.stride, conv.padding, conv.dilation, conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.requires_grad:
            return F.conv2d(x, self.weight, self.bias, *self._geometry).to(torch.bfloat16)
        out: Tensor = _InputGradientInBf16.apply(x, self.weight, self.bias, self._geometry)
        return out


class _InputGradientInBf16(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]) -> Tensor:
        ctx.weight, ctx.geometry, ctx.like = weight.to(torch.bfloat16), geometry, (x.shape, x.dtype)
        return F.conv2d(x, weight, bias, *geometry).to(torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        shape, dtype = ctx.like
        grad = conv2d_input(shape, ctx.weight, grad, *ctx.geometry)  # type: ignore[no-untyped-call]
        return grad.to(dtype), None, None, None


class Affine(nn.Module):
    """A factor and a summand per channel: what a batch norm is in eval mode; zero when new."""

    scale: Tensor
    shift: Tensor

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        for name in ("scale", "shift"):
            self.register_buffer(name, like.new_zeros((like.numel(), 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


def is_plain(module: object, kind: type[nn.Module]) -> bool:
    """Tell whether a module does what its class says: no subclass, no hook, no parametrisation."""
    return type(module) is kind and not module._forward_pre_hooks and not module._forward_hooks


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each behind batch norm and ReLU (He et al. 2016); a subclass names its shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        # Nothing else needs what a batch norm or conv2 returns: working in it saves 3 % of a step's time, and memory.
        activated = F.relu(self.bn1(x), inplace=True)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated)), inplace=True))
        return residual.add_(self.skip(x, activated))

    def skip(self, x: Tensor, activated: Tensor) -> Tensor:
        """Return what the residual is added to: the block's input, or a projection of it once activated."""
        return x
