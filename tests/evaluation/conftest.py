"""A tiny net and images that it classifies correctly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from awpbench import models
from awpbench.data.images import ImageSet
from awpbench.evaluation import attacking
from awpbench.evaluation.plan import EvalConfig, resolve_evaluation
from awpbench.evaluation.runner import Finished, State, Unfinished, evaluate


class Silent:
    """Watches an evaluation and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[State] = []
        self.notes: list[str] = []

    def advance(self, state: State) -> None:
        self.told.append(state)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def short_spsa(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SPSA take four steps."""
    monkeypatch.setattr(attacking, "SPSA_STEPS", 4)


@pytest.fixture
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return models.build("small-cnn", classes=10, shape=(1, 8, 8), width=2, mean=(0.5,), std=(0.2,)).eval()


@pytest.fixture
def images(net: nn.Module) -> ImageSet:
    """Sixteen images that the net gets right, but for the last one; their indices do not start at zero."""
    with torch.random.fork_rng():
        torch.manual_seed(6)
        pixels = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        labels = net(pixels.float() / 255).argmax(1)
    labels[-1] = (labels[-1] + 1) % 10
    return ImageSet(pixels, labels, torch.arange(100, 116))


def settle(*attacks: str, **flags: Any) -> EvalConfig:
    """An evaluation of single attacks on digits."""
    values = {"attacks": attacks, "dataset": "digits", "norm": "Linf", "eps": "0.02", "block": 4, "audit": False}
    return resolve_evaluation({**values, **flags})[0]


@pytest.fixture
def attack(net: nn.Module, images: ImageSet, tmp_path: Path) -> Callable[..., Any]:
    """Evaluate the net into a folder."""

    def run(config: EvalConfig, folder: str = "result", **changes: Any) -> Finished | Unfinished:
        settings: dict[str, Any] = {
            "net": net,
            "images": images,
            "classes": 10,
            "model": {"source": "factory", "name": "tiny", "architecture": None, "width": None},
            "checkpoint": None,
            "out": tmp_path / folder,
            "device": torch.device("cpu"),
            "progress": Silent(),
            **changes,
        }
        return evaluate(settings.pop("net"), settings.pop("images"), config, **settings)

    return run
