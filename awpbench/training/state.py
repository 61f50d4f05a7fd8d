"""What changes while a run goes on, and how it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from awpbench import defenses
from awpbench.attack_model import AttackModel
from awpbench.checkpoints import ModelSpec
from awpbench.config import Precision, TrainConfig
from awpbench.data.images import DataSet
from awpbench.defaults import normalization_of
from awpbench.models.layers import layout
from awpbench.training import distributed, start
from awpbench.training.batches import epoch_batches
from awpbench.training.clock import StepClock
from awpbench.training.distributed import ALONE, Group
from awpbench.training.precision import Views, views
from awpbench.training.regularisers import averaged_copy, parameter_groups
from awpbench.training.step import StepOutcome


@dataclass
class Sums:
    """Running sums over an epoch, kept on the device; an interrupted epoch stores them in its checkpoint."""

    loss: Tensor
    correct: Tensor
    n: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Sums:
        return cls(
            torch.zeros((), dtype=torch.float64, device=device), torch.zeros((), dtype=torch.float64, device=device)
        )

    def add(self, outcome: StepOutcome, n: int) -> None:
        self.loss += outcome.loss * n
        self.correct += outcome.correct
        self.n += n


@dataclass
class State:
    """What changes while a run goes on; `epoch` counts finished epochs, `step` the finished steps of the next one.

    `averaged` is the copy of averaged weights of a run that keeps one.
    """

    model: nn.Module
    optimizer: SGD
    sums: Sums
    views: Views
    classes: int
    averaged: nn.Module | None = None
    epoch: int = 0
    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    clock: StepClock = field(default_factory=StepClock)
    last_good: str = ""  # what last.pt holds
    saved_at: float = 0.0  # time.monotonic() of the last save

    @property
    def measured(self) -> nn.Module:
        """The net that is measured and saved as `best.pt`."""
        return self.model if self.averaged is None else self.averaged


def fresh(config: TrainConfig, data: DataSet, device: torch.device, group: Group = ALONE) -> State:
    """Build a net with weights drawn from the seed, or loaded where a checkpoint is named, and its optimiser."""
    spec = model_spec(config, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = spec.build()
    if config.init_from is not None:
        start.fill(model, spec, config)
    return assemble(model, config, data, device, group)


def eval_mode_copy(state: State, config: TrainConfig) -> AttackModel | None:
    """Return the fast copy that a defense attacks in eval mode, None for an attack in train mode."""
    if defenses.get(config.defense, config.loss).attack_mode == "train":
        return None
    precision: Precision = "fp32" if config.precision == "fp32" else "bf16-attack"
    return AttackModel(state.model, precision, compile=config.compile)


def model_spec(config: TrainConfig, data: DataSet) -> ModelSpec:
    """Return what the net of a run is."""
    mean, std = None, None
    if config.normalization == "meanstd":
        mean, std = data.normalization or normalization_of(config.dataset)
    return ModelSpec(
        architecture=config.architecture,
        width=config.width,
        classes=data.classes,
        shape=data.shape,
        mean=mean,
        std=std,
    )


def assemble(model: nn.Module, config: TrainConfig, data: DataSet, device: torch.device, group: Group) -> State:
    """Put a net on its device, and what a run keeps of it beside it."""
    model = distributed.fit(model, [len(batch) for batch in epoch_batches(config, data, 0)], group, device)
    model = model.to(device=device, memory_format=layout(model))  # type: ignore[call-overload]
    optimizer = SGD(
        parameter_groups(model, weight_decay=config.weight_decay, l2=config.l2),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        fused=device.type in ("cpu", "cuda"),
    )
    averaged = averaged_copy(model) if config.ema else None
    seen = views(model, config.precision, compile=config.compile)
    return State(model, optimizer, Sums.zero(device), seen, data.classes, averaged)
