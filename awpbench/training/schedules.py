"""Learning rates as functions of the time in epochs, fractions included, as in Rice, Wong and Kolter (2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from awpbench.config import Schedule, TrainConfig


def piecewise(t: float, epochs: int, lr: float) -> float:
    """Divide the rate by 10 at half and again at three quarters of the epochs."""
    if t / epochs < 0.5:
        return lr
    return lr / 10 if t / epochs < 0.75 else lr / 100


def cosine(t: float, epochs: int, lr: float, *, lr_end: float = 0.0) -> float:
    """Follow half a cosine from the full rate down to `lr_end` (Loshchilov and Hutter 2017, without restarts)."""
    return lr_end + (lr - lr_end) * 0.5 * (1 + math.cos(math.pi * t / epochs))


def cyclic(t: float, epochs: int, lr: float) -> float:
    """Rise linearly from 0 over the first 40 % of the epochs and fall linearly back to 0."""
    peak = 0.4 * epochs
    return lr * (t / peak if t < peak else max(0.0, epochs - t) / (epochs - peak))


def linear(t: float, epochs: int, lr: float) -> float:
    """Hold the rate for a third of the epochs, then fall linearly to a tenth at two thirds, a hundredth at the end."""
    thirds = 3 * t / epochs
    if thirds <= 1:
        return lr
    return lr * (1 - 0.9 * (thirds - 1)) if thirds <= 2 else lr * (0.1 - 0.09 * (thirds - 2))


def one_drop(t: float, epochs: int, lr: float) -> float:
    """Divide the rate by 10 at half of the epochs."""
    return lr if t / epochs < 0.5 else lr / 10


def multi_decay(t: float, epochs: int, lr: float) -> float:
    """Take a tenth of the full rate off at every tenth of the epochs; the very last step has the rate 0."""
    return lr * (10 - 10 * t // epochs) / 10


SCHEDULES: Mapping[Schedule, Callable[..., float]] = {
    "piecewise": piecewise,
    "cosine": cosine,
    "cyclic": cyclic,
    "linear": linear,
    "one-drop": one_drop,
    "multi-decay": multi_decay,
}


def learning_rate(config: TrainConfig, t: float) -> float:
    """Return a run's learning rate at the time t in epochs: a step has that of its end, the last one t = epochs."""
    more = {"lr_end": config.lr_end} if config.schedule == "cosine" else {}
    return SCHEDULES[config.schedule](t, config.epochs, config.lr, **more)
