"""The full suite on nets of few classes and on images of any shape, in both norms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from awpbench.data.images import ImageSet
from awpbench.evaluation.plan import EvalConfig, autoattack_parts
from tests.evaluation.conftest import settle

SUITE = ("fgsm", "pgd-5", "pgd-5-worst", "cw-inf", "spsa", "autoattack")


def pooled(channels: int, classes: int) -> nn.Module:
    """A net for images of any size that looks at their left, middle and right."""
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        features = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d((1, 3)))
        return nn.Sequential(features, nn.Flatten(), nn.Linear(24, classes)).eval()


def pictures(net: nn.Module, shape: tuple[int, int, int]) -> ImageSet:
    """Six images that the net classifies correctly."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        pixels = torch.randint(0, 256, (6, *shape), dtype=torch.uint8)
    with torch.no_grad():
        labels = net(pixels.float() / 255).argmax(1)
    return ImageSet(pixels, labels, torch.arange(6))


EPS = {"Linf": "0.1", "L2": "0.8"}
QUICK = [(2, (1, 6, 6), "L2"), (3, (3, 8, 5), "Linf")]
SHAPES = [(2, (1, 6, 6)), (3, (3, 8, 5)), (4, (1, 5, 9)), (12, (2, 6, 7))]
CASES = [(classes, shape, norm) for classes, shape in SHAPES for norm in EPS]


@pytest.mark.parametrize(
    ("classes", "shape", "norm"),
    [pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in CASES],
)
def test_every_attack_runs_and_withstanding_is_monotone(
    classes: int, shape: tuple[int, int, int], norm: str, attack: Callable[..., Any], tmp_path: Path
) -> None:
    net = pooled(shape[0], classes)
    config: EvalConfig = settle(*SUITE, norm=norm, eps=EPS[norm], limits={"spsa": 2, "autoattack": 2})
    document = attack(config, net=net, images=pictures(net, shape), classes=classes).document
    found = document["attacks"]
    assert found["clean"]["correct"] == 6
    assert found["pgd-5-worst"]["correct"] <= found["pgd-5"]["correct"]
    parts = [found["autoattack"]["parts"][part]["correct"] for part in autoattack_parts(classes)]
    assert parts == sorted(parts, reverse=True)
    assert found["autoattack"]["correct"] == parts[-1]
    assert found["autoattack"]["complete"] is (classes >= 4)
    definition = found["autoattack"]["definition"]
    assert definition["targets"] == min(9, classes - 1)
    assert definition["version"] == ("standard" if classes >= 10 else f"custom: {classes} classes")
    assert json.loads((tmp_path / "result" / "result.json").read_text()) == document
