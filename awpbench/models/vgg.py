"""VGG-19 with batch norm for small images (Simonyan and Zisserman 2015), with the key names of kuangliu's code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from awpbench.errors import UsageError
from awpbench.models.layers import Normalize

STAGES = ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4))  # channels as multiples of the width, and convolutions
SMALLEST = 2 ** len(STAGES)  # pixels: every stage halves the image


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each before batch norm and ReLU; a stage ends in a 2x2 maximum pool."""

    def __init__(
        self, *, classes: int, channels: int, width: int, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.features = nn.Sequential(*_layers(channels, width))
        self.classifier = nn.Linear(STAGES[-1][0] * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.adaptive_avg_pool2d(self.features(self.normalize(x)), 1)  # of 32x32 images one pixel is left anyway
        logits: Tensor = self.classifier(out.flatten(1))
        return logits


def _layers(channels: int, width: int) -> Iterator[nn.Module]:
    for factor, convolutions in STAGES:
        for _ in range(convolutions):
            yield nn.Conv2d(channels, factor * width, 3, padding=1)
            yield nn.BatchNorm2d(factor * width)
            yield nn.ReLU(inplace=True)
            channels = factor * width
        yield nn.MaxPool2d(2)


def vgg19(
    *,
    classes: int,
    shape: tuple[int, int, int],
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Build VGG-19 of the given width (64 channels in the first stage), PyTorch's default initialisation.

    Raises UsageError for images that are too small to be halved five times.
    """
    channels, height, breadth = shape
    if min(height, breadth) < SMALLEST:
        what = f"vgg19 halves its images five times, and {height}x{breadth} is too small for that"
        raise UsageError(what, f"Choose another model, or images of at least {SMALLEST}x{SMALLEST}.")
    return VGG(classes=classes, channels=channels, width=width or 64, mean=mean, std=std)
