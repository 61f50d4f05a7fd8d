"""A small convolutional net for 8x8 and 28x28 images, with batch norm or without."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from awpbench.models.layers import Normalize, conv3x3


class SmallCNN(nn.Module):
    """Three 3x3 convolutions, two of stride 2, an average pool to 2x2 and a linear layer."""

    def __init__(
        self, *, classes: int, channels: int, width: int, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, 2 * width, 2)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.conv3 = conv3x3(2 * width, 2 * width, 2)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(self.normalize(x))), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = F.relu(self.bn3(self.conv3(out)), inplace=True)
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(out, 2).flatten(1))
        return logits


class SmallCNNWithoutBatchNorm(nn.Module):
    """The same layers with a bias in place of batch norm, so that no image's logits depend on others in training."""

    def __init__(
        self, *, classes: int, channels: int, width: int, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.conv1(self.normalize(x)))
        out = F.relu(self.conv2(out))
        out = F.relu(self.conv3(out))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(out, 2).flatten(1))
        return logits


def small_cnn(
    *,
    classes: int,
    shape: tuple[int, int, int],
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Build the small net, 32 channels in its first layer unless `width` says otherwise."""
    return SmallCNN(classes=classes, channels=shape[0], width=width or 32, mean=mean, std=std)


def small_cnn_nobn(
    *,
    classes: int,
    shape: tuple[int, int, int],
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Build the small net without batch norm, 32 channels in its first layer unless `width` says otherwise."""
    return SmallCNNWithoutBatchNorm(classes=classes, channels=shape[0], width=width or 32, mean=mean, std=std)
