"""Learning curves: robust accuracy on training and held-out images over the epochs (Rice, Wong and Kolter 2020)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awpbench import rundir
from awpbench.errors import InputError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """One run's measured epochs; accuracies are fractions in [0, 1]."""

    name: str
    epochs: list[int]
    train: list[float]
    held_out: list[float]
    split: str  # validation or test
    images: tuple[int, int]  # measured of either
    steps: int  # of the PGD that measured
    drops: list[int]  # the first epochs of a lower learning rate
    best: int


def read_curve(run: Path) -> Curve:
    """Read a run folder's metrics. Raises InputError where there are none, or where nothing has been measured yet."""
    try:
        config = json.loads((run / rundir.CONFIG).read_text())
        lines: list[dict[str, Any]] = [json.loads(line) for line in (run / rundir.METRICS).read_text().splitlines()]
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{run} is no run folder: {error}", "Give a folder that awpbench train wrote.") from None
    split = config["select_on"]
    measured = [line for line in lines if split in line and "train" in line]
    if not measured:
        raise InputError(f"{run} holds no measurement of robustness yet", "Wait for the first measured epoch.")
    best = max(measured, key=lambda line: line[split]["robust"])
    drops = [after["epoch"] for before, after in pairwise(lines) if after["lr"] < 0.5 * before["lr"]]
    return Curve(
        name=run.name,
        epochs=[line["epoch"] for line in measured],
        train=[line["train"]["robust"] for line in measured],
        held_out=[line[split]["robust"] for line in measured],
        split=split,
        images=(measured[-1]["train"]["n"], measured[-1][split]["n"]),
        steps=config["track_steps"],
        drops=drops,
        best=best["epoch"],
    )


def draw(curves: Sequence[Curve]) -> Figure:
    """Draw runs in one picture: training dashed, held-out solid, the gap shaded, the best epoch marked.

    Raises UsageError when matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("pictures need matplotlib", "Install it: pip install 'awpbench[plot]'.") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        colour = f"C{number}"
        train, held_out = curve.images
        axes.plot(curve.epochs, curve.train, "--", color=colour, label=f"{curve.name}: {train} training images")
        axes.plot(
            curve.epochs, curve.held_out, "-", color=colour, label=f"{curve.name}: {held_out} {curve.split} images"
        )
        axes.fill_between(curve.epochs, curve.held_out, curve.train, color=colour, alpha=0.08, linewidth=0)
        axes.plot(curve.best, curve.held_out[curve.epochs.index(curve.best)], "o", color=colour)
    for drop in sorted({drop for curve in curves for drop in curve.drops}):
        axes.axvline(drop, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xlabel("epoch (dotted: the learning rate drops; dots: the best epoch)")
    attacks = sorted({curve.steps for curve in curves})
    axes.set_ylabel(f"robust accuracy at w ({', '.join(f'PGD-{steps}' for steps in attacks)})")
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:.0%}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    return figure
