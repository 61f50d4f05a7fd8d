"""AutoAttack (Croce and Hein 2020): a seeded adapter to the official package that leaves no trace in the process."""

from __future__ import annotations

import itertools
import logging
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import numpy as np
import pyautoattack
import torch
from pyautoattack import checks
from torch import Tensor
from torch.nn import functional

from awpbench.attacks import AUTOATTACK_PARTS, AUTOATTACK_TARGETS
from awpbench.attacks.pgd import Model
from awpbench.threat import ThreatModel

LOGGER = logging.getLogger("auto-attack")  # the package's own


def autoattack(model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, classes: int, seed: int = 0) -> Tensor:
    """Run all parts, each on the images that still stand; return `(N, C, H, W)`, the clean image where none succeeded.

    The images count as one batch of the official package, whose draws depend on an image's place in it.
    """
    x_adv, standing = x.clone(), torch.arange(len(x), device=x.device)
    for part in AUTOATTACK_PARTS:
        found, _ = autoattack_part(part, model, x[standing], y[standing], threat=threat, classes=classes, seed=seed)
        x_adv[standing] = found
        with torch.no_grad():
            standing = standing[model(found).argmax(1) == y[standing]]
    return x_adv


def autoattack_part(
    part: str, model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, classes: int, seed: int = 0
) -> tuple[Tensor, list[str]]:
    """Run one part of the standard version on images as one batch; return `x_adv` and the package's own warnings.

    Images that the model already misclassifies are left alone. With fewer than ten classes there are `classes - 1`
    targets; with fewer than four the targeted DLR loss of apgd-t is undefined, and that part does nothing.
    """
    targets = min(AUTOATTACK_TARGETS, classes - 1)
    height, width = x.shape[2:]
    if part == "square" and threat.norm == "L2" and (height != width or not _tiles(height)):
        return _framed(model, x, y, threat=threat, classes=classes, seed=seed)
    if len(x) == 0 or (part == "apgd-t" and classes < 4):
        return x.clone(), []
    with ExitStack() as stack:
        stack.enter_context(_generators_kept())
        stack.enter_context(_tracer_kept())
        warnings = stack.enter_context(_warnings_caught())
        official = pyautoattack.AutoAttack(model, norm=threat.norm, eps=threat.eps, seed=seed, device=x.device)
        official.apgd_targeted.n_target_classes = targets
        official.fab.n_target_classes = targets
        official.attacks_to_run = [part]
        # The package calls .view on images, so they must be contiguous; channels_last stays inside the model.
        x_adv, _ = official.run_standard_evaluation(x.contiguous(), y, batch_size=len(x))
    return x_adv, sorted(set(warnings))


def _framed(
    model: Model, x: Tensor, y: Tensor, *, threat: ThreatModel, classes: int, seed: int
) -> tuple[Tensor, list[str]]:
    """Run square in L2, which takes square images of some sides only, on images in a black frame.

    The model never sees the frame; what square spends there of its budget is lost.
    """
    height, width = x.shape[2:]
    side = next(side for side in itertools.count(max(height, width)) if _tiles(side))
    framed = functional.pad(x, (0, side - width, 0, side - height))

    def inside(images: Tensor) -> Tensor:
        return model(images[..., :height, :width])

    found, warnings = autoattack_part("square", inside, framed, y, threat=threat, classes=classes, seed=seed)
    return found[..., :height, :width].contiguous(), warnings


def _tiles(side: int) -> bool:
    """Tell whether the border cuts none of the tiles that square starts from in L2, about five to a side."""
    tile = side // 5
    if tile == 0:
        return False
    last = (side - 5 * tile) // 2 + tile * (side // tile - 1)
    return last + tile <= side or last >= side


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Put the state of every global generator back: the package seeds torch's for each part and batch."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _tracer_kept() -> Iterator[None]:
    """Keep a coverage tracer or a debugger alive: the package's check for dynamic defenses would take its place.

    That check needs `sys.settrace` for itself, so under a tracer it sees nothing.
    """
    tracer = sys.gettrace()
    if tracer is not None:
        checks.sys = SimpleNamespace(settrace=lambda function: None)
    try:
        yield
    finally:
        checks.sys = sys
        sys.settrace(tracer)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def _warnings_caught() -> Iterator[list[str]]:
    """Collect what the package logs as warnings instead of letting it reach the terminal."""
    collector, propagate = _Collector(), LOGGER.propagate
    LOGGER.addHandler(collector)
    LOGGER.propagate = False
    try:
        yield collector.messages
    finally:
        LOGGER.removeHandler(collector)
        LOGGER.propagate = propagate
