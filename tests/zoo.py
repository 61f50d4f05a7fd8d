"""A stand-in for RobustBench's model zoo: tables of tiny nets, in the form that `robustbench.model_zoo` has them."""

from __future__ import annotations

import socket
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awpbench import robustbench_compat


class Tiny(nn.Module):
    """A linear net that normalises its input, and is none of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mu", torch.full((1, 1, 1, 1), 0.25))
        self.register_buffer("sigma", torch.full((1, 1, 1, 1), 0.5))
        self.features = nn.Conv2d(1, 2, 3)
        self.logits = nn.Linear(72, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.features((x - self.mu) / self.sigma).flatten(1))
        return logits


def fails() -> nn.Module:
    raise RuntimeError("Found no NVIDIA driver on your system.")


def downloads() -> nn.Module:
    with socket.create_connection(("127.0.0.1", 9), timeout=1):
        return Tiny()


def talks() -> nn.Module:
    print("The mixing network has 7 parameters.")
    return Tiny()


def _table(**nets: Any) -> dict[str, dict[str, Any]]:
    return {name: {"model": net, "gdrive_id": "an id"} for name, net in nets.items()}


ENSEMBLE = {"model": lambda: nn.ModuleList([Tiny(), Tiny()]), "gdrive_id": ["one", "two"]}
ZOO = {
    "digits": {
        "Linf": _table(One2020Tiny=Tiny, Two2020Tables=Tiny, Bad2020Fails=fails, Net2020Downloads=downloads)
        | _table(Loud2020Talks=talks, Corrupt2020Too=Tiny)
        | {"Deck2020Ensemble": ENSEMBLE},
        "L2": _table(Two2020Tables=Tiny),
        "corruptions": _table(Corrupt2020Too=fails, Corrupt2020Only=Tiny),
    },
    "cifar10": {"Linf": _table(Both2020Sets=Tiny, Zhang2019Theoretically=Tiny), "L2": _table(Round2020Ball=Tiny)},
    "imagenet": {"Linf": _table(Both2020Sets=Tiny, Far2020Hundred=Tiny)},
}


KEYS = {"BenchmarkDataset": list(ZOO), "ThreatModel": ["Linf", "L2", "corruptions"]}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let awpbench take this zoo for RobustBench's."""
    data_sets, threats = (Enum(kind, {name: name for name in names}) for kind, names in KEYS.items())
    dicts = {
        data_sets(dataset): {threats(threat): models for threat, models in tables.items()}
        for dataset, tables in ZOO.items()
    }
    modules = {
        "robustbench.model_zoo": SimpleNamespace(model_dicts=dicts),
        "timm": SimpleNamespace(is_model=lambda name: False),
    }
    monkeypatch.setattr(robustbench_compat, "load", modules.__getitem__)
