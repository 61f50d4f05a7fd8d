"""PreAct ResNet-18 (He et al. 2016), as in the AWP and robust-overfitting code.

It has a final batch norm, and its shortcuts branch off after the activation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from awpbench.models.layers import Normalize, PreActivationBlock, conv3x3


class PreActBlock(PreActivationBlock):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__(channels_in, channels_out, stride)
        self.changes_shape = stride != 1 or channels_in != channels_out
        if self.changes_shape:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))

    def skip(self, x: Tensor, activated: Tensor) -> Tensor:
        return self.shortcut(activated) if self.changes_shape else x


class PreActResNet(nn.Module):
    def __init__(
        self,
        blocks: Sequence[int],
        *,
        classes: int,
        channels: int,
        width: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.conv1 = conv3x3(channels, width)
        self.layer1 = _stage(width, width, blocks[0], 1)
        self.layer2 = _stage(width, 2 * width, blocks[1], 2)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], 2)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], 2)
        self.bn = nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.normalize(x))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        out = F.relu(self.bn(out), inplace=True)
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def preactresnet18(
    *,
    classes: int,
    shape: tuple[int, int, int],
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Build PreAct ResNet-18 of the given width (64 channels in the first stage), PyTorch's default initialisation."""
    return PreActResNet([2, 2, 2, 2], classes=classes, channels=shape[0], width=width or 64, mean=mean, std=std)


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = PreActBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(PreActBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))
