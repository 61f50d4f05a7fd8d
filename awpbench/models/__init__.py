"""Models: `build` makes a fresh one; names resolve without torch.

Every model takes images in [0, 1], normalises them in its first layer, and returns logits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from awpbench.errors import UsageError, load_object, lookup

if TYPE_CHECKING:
    from torch import nn

MODELS = {
    "prn18": "awpbench.models.preactresnet:preactresnet18",
    "wrn-34-10": "awpbench.models.wideresnet:wideresnet",
    "wrn-28-10": "awpbench.models.wideresnet:wideresnet",
    "resnet18": "awpbench.models.resnet:resnet18",
    "vgg19": "awpbench.models.vgg:vgg19",
    "small-cnn": "awpbench.models.small_cnn:small_cnn",
    "small-cnn-nobn": "awpbench.models.small_cnn:small_cnn_nobn",
}
ALIASES = {
    "preactresnet-18": "prn18",
    "resnet-18": "resnet18",
    "vgg-19": "vgg19",
    "wrn34": "wrn-34-10",
    "wrn28": "wrn-28-10",
}
PUBLISHED = {
    "prn18": "PreActResNet-18",
    "resnet18": "ResNet-18",
    "vgg19": "VGG-19",
    "small-cnn": "SmallCNN",
    "small-cnn-nobn": "SmallCNN without batch norm",
}  # as RobustBench spells architectures

_WIDE = re.compile(r"wrn-(\d+)-(\d+)")


def canonical(name: str) -> str:
    """Return the one name under which a model is stored: `wrn34` is `wrn-34-10`.

    Raises UsageError for an unknown name, or a depth that no wide residual network has (it is 6n + 4).
    """
    name = ALIASES.get(name.lower(), name.lower())
    match = _WIDE.fullmatch(name)
    if match is None:
        lookup({**MODELS, **ALIASES, "wrn-D-W": ""}, "model", name)
        if name not in MODELS:
            raise UsageError(f"there is no model called {name!r}", "Replace D and W by numbers, as in wrn-28-10.")
    elif int(match[1]) < 10 or int(match[1]) % 6 != 4 or int(match[2]) < 1:
        raise UsageError(
            f"{name} is no wide residual network",
            "The depth is 6n + 4 (10, 16, 22, 28, 34, ...), the width at least 1.",
        )
    return name


def published_name(name: str, width: int | None = None) -> str:
    """Spell an architecture as RobustBench does: `WideResNet-34-10`; a narrowed one says its width."""
    name = canonical(name)
    published = PUBLISHED.get(name) or name.replace("wrn", "WideResNet")
    return published if width is None else f"{published} (width {width})"


def build(
    name: str,
    *,
    classes: int,
    shape: Sequence[int],
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Build a model with fresh weights from torch's global generator (the caller seeds it).

    `shape` is `(C, H, W)`; `width` is the number of channels of the first stage (prn18, resnet18, vgg19: 64,
    wrn-34-10: 160, small-cnn: 32) and narrows or widens all stages alike; `mean` and `std` per channel are the
    normalisation, none of it when left out. Raises UsageError.
    """
    name = canonical(name)
    if width is not None and width < 1:
        raise UsageError(f"a model cannot be {width} channels wide", "Give a width of at least 1, such as 16.")
    match = _WIDE.fullmatch(name)
    factory = load_object(MODELS["wrn-34-10"] if match else MODELS[name])
    extra = {"depth": int(match[1]), "widen": int(match[2])} if match else {}
    model: nn.Module = factory(classes=classes, shape=tuple(shape), width=width, mean=mean, std=std, **extra)
    return model
