"""Wide residual networks (Zagoruyko and Komodakis 2016), with the key names of the TRADES, AWP and RobustBench code."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from awpbench.models.layers import Normalize, PreActivationBlock, conv3x3, init_convolutions


class WideBlock(PreActivationBlock):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__(channels_in, channels_out, stride)
        self.changes_width = channels_in != channels_out
        if self.changes_width:
            self.convShortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def skip(self, x: Tensor, activated: Tensor) -> Tensor:
        return self.convShortcut(activated) if self.changes_width else x


class WideStage(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(channels_in, channels_out, stride)
        self.layer = nn.Sequential(first, *(WideBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    def __init__(
        self,
        *,
        depth: int,
        width: int,
        classes: int,
        channels: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.normalize = Normalize(mean, std)
        self.conv1 = conv3x3(channels, 16)
        self.block1 = WideStage(16, width, blocks, 1)
        self.block2 = WideStage(width, 2 * width, blocks, 2)
        self.block3 = WideStage(2 * width, 4 * width, blocks, 2)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, classes)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.normalize(x))
        out = self.block3(self.block2(self.block1(out)))
        out = F.relu(self.bn1(out), inplace=True)
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def wideresnet(
    *,
    depth: int,
    widen: int,
    classes: int,
    shape: tuple[int, int, int],
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Build WRN-depth-widen; `width` replaces the 16 * widen channels of the first stage."""
    return WideResNet(depth=depth, width=width or 16 * widen, classes=classes, channels=shape[0], mean=mean, std=std)
