"""How long a run would take on this device, from two timed steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from awpbench.attack_model import AttackModel
from awpbench.attacks.pgd import cross_entropy, input_gradient
from awpbench.config import TrainConfig
from awpbench.data.images import DataSet
from awpbench.training.loop import one_step
from awpbench.training.state import eval_mode_copy, fresh

LONGEST = 20.0  # seconds that the two timed steps should take together, about


@dataclass(frozen=True)
class Estimate:
    """Seconds for a step at the config's batch size, for one measurement of robustness, and for the whole run."""

    step_seconds: float
    track_seconds: float
    total_seconds: float
    batch_size: int  # of the timed steps
    parameters: int


def estimate(config: TrainConfig, data: DataSet, device: torch.device) -> Estimate:
    """Time two steps of a fresh net and scale up linearly.

    They take fewer images than a batch where a whole one would take too long. Without warm-up epochs, AWP counts from
    the first epoch; with them, every step is timed as if it were perturbed.
    """
    state = fresh(config.model_copy(update={"awp_warmup": 0}), data, device)
    images = data.train.to(device)
    attack_model = eval_mode_copy(state, config)

    def step(n: int) -> float:
        batch = torch.arange(min(n, len(images)), device="cpu")
        return _timed(
            lambda: one_step(
                state, config.model_copy(update={"awp_warmup": 0}), images, batch, attack_model, steps_per_epoch=1
            ),
            device,
        )

    batch_size = min(config.batch_size, 2)
    step(batch_size)  # the first step of a process also pays for start-up
    timed = step(batch_size)
    affordable = min(config.batch_size, int(LONGEST / 2 * batch_size / max(timed, 1e-6)), len(images))
    if affordable > batch_size:
        batch_size = affordable
        if config.compile:
            step(batch_size)  # each batch size is compiled in its first step
        timed = step(batch_size)
    step_seconds = (timed + step(batch_size)) / 2 * config.batch_size / batch_size
    track_seconds = _track_seconds(config, data, state.model, device, batch_size)
    steps = math.ceil(len(images) / config.batch_size) * config.epochs
    total = steps * step_seconds + math.ceil(config.epochs / config.track_every) * track_seconds
    parameters = sum(p.numel() for p in state.model.parameters())
    return Estimate(step_seconds, track_seconds, total, batch_size, parameters)


def _track_seconds(config: TrainConfig, data: DataSet, model: torch.nn.Module, device: torch.device, n: int) -> float:
    """Scale one timed gradient of the folded net on `n` images up to the steps and images of a measurement."""
    attacked = AttackModel(model)
    x, y = data.test.batch(torch.arange(min(n, len(data.test)), device="cpu"), device)
    input_gradient(attacked, x, y, cross_entropy)  # the first call also compares the folded net with the plain one
    seconds = _timed(lambda: input_gradient(attacked, x, y, cross_entropy), device) / len(x)
    measured = min(config.track_examples or len(data.train), len(data.train)) + len(data.validation)
    measured += len(data.test) if config.select_on == "test" else 0
    return seconds * (config.track_steps + 1) * measured


def _timed(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
