"""Learning curves: robust accuracy on training and held-out images over the epochs (Rice, Wong and Kolter 2020)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from awpbench import rundir
from awpbench.config import TrainConfig
from awpbench.errors import InputError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPPED = ("piecewise", "one-drop", "multi-decay")  # schedules whose rate drops at once, not little by little
NEEDED = ("epochs", "seed", "schedule", "select_on", "track_steps")  # of a run's configuration
Line = Literal["train", "held_out", "gap"]


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
    drops: list[int]  # the last epochs at a higher learning rate
    best: int
    seed: int
    settings: str  # all that decides what the run computes, but the seed

    @property
    def gap(self) -> list[float]:
        """Robust accuracy on training images less that on held-out ones."""
        return [train - held_out for train, held_out in zip(self.train, self.held_out, strict=True)]

    def at(self, epoch: int, line: Line = "held_out") -> float:
        """Return what was measured after an epoch."""
        values: list[float] = getattr(self, line)
        return values[self.epochs.index(epoch)]


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, on the epochs that all of them measured."""

    name: str
    curves: tuple[Curve, ...]
    epochs: list[int]

    def values(self, line: Line) -> npt.NDArray[np.float64]:
        """Return one line of every run, `(runs, epochs)`."""
        return np.array([[curve.at(epoch, line) for epoch in self.epochs] for curve in self.curves])


def read_run(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a run's configuration and the lines of its metrics.jsonl; raises InputError for what is no run folder."""
    try:
        config: dict[str, Any] = json.loads((run / rundir.CONFIG).read_text())
        if lacking := [key for key in NEEDED if key not in config]:
            raise ValueError(f"{rundir.CONFIG} lacks {', '.join(lacking)}")
        return config, [json.loads(line) for line in (run / rundir.METRICS).read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{run} is no run folder: {error}", "Give a folder that awpbench train wrote.") from None


def read_curve(run: Path) -> Curve:
    """Read a run folder's metrics. Raises InputError where there are none, or where nothing has been measured yet."""
    config, lines = read_run(run)
    split = config["select_on"]
    measured = [line for line in lines if split in line and "train" in line]
    if not measured:
        raise InputError(f"{run} holds no measurement of robustness yet", "Wait for the first measured epoch.")
    best = max(measured, key=lambda line: line[split]["robust"])
    drops = [after["epoch"] for before, after in pairwise(lines) if after["lr"] < 0.999 * before["lr"]]
    return Curve(
        name=run.resolve().name,
        epochs=[line["epoch"] for line in measured],
        train=[line["train"]["robust"] for line in measured],
        held_out=[line[split]["robust"] for line in measured],
        split=split,
        images=(measured[-1]["train"]["n"], measured[-1][split]["n"]),
        steps=config["track_steps"],
        drops=drops if config["schedule"] in STEPPED else [],
        best=best["epoch"],
        seed=config["seed"],
        settings=_settings(config),
    )


def _settings(config: dict[str, Any]) -> str:
    """Write a configuration without its seed; fields that it is too old to hold have their default."""
    fields = TrainConfig.model_fields.items()
    defaults = {name: field.default for name, field in fields if not field.is_required()}
    return json.dumps({**defaults, **config, "seed": None}, sort_keys=True)


def read_curves(runs: Sequence[Path]) -> list[Curve]:
    """Read several runs; those of one name are called by their path. Errors as in `read_curve`."""
    curves = [read_curve(run) for run in runs]
    names = [curve.name for curve in curves]
    return [
        replace(curve, name=str(run)) if names.count(curve.name) > 1 else curve
        for run, curve in zip(runs, curves, strict=True)
    ]


def grouped(curves: Iterable[Curve]) -> list[Group]:
    """Put runs together that differ in their seed alone; raises UsageError where such runs share no measured epoch."""
    together: list[list[Curve]] = []
    for curve in curves:
        for group in together:
            if group[0].settings == curve.settings and curve.seed not in [each.seed for each in group]:
                group.append(curve)
                break
        else:
            together.append([curve])
    return [_group(group) for group in together]


def _group(curves: list[Curve]) -> Group:
    epochs = sorted(set.intersection(*(set(curve.epochs) for curve in curves)))
    if not epochs:
        names = ", ".join(curve.name for curve in curves)
        raise UsageError(f"no epoch was measured in all of {names}", "Wait for the runs, or draw them one by one.")
    if len(curves) == 1:
        return Group(curves[0].name, tuple(curves), epochs)
    stems = {re.sub(r"-s\d+$", "", curve.name) for curve in curves}
    return Group(min(stems, key=len), tuple(curves), epochs)


def draw(groups: Sequence[Group]) -> Figure:
    """Draw robust accuracy on training images (dashed) and held-out ones (solid) above the gap between them.

    Several seeds of one configuration are their mean, in a band from the lowest to the highest. Raises UsageError when
    matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("pictures need matplotlib", "Install it: pip install 'awpbench[plot]'.") from None
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(2.2, 1))
    for number, group in enumerate(groups):
        colour = f"C{number}"
        _line(above, group, "train", colour, "--")
        _line(above, group, "held_out", colour, "-")
        _line(below, group, "gap", colour, "-")
        for curve in group.curves:
            above.plot(curve.best, curve.at(curve.best), "o", color=colour, markeredgecolor="white", zorder=3)
    _draw_drops((above, below), groups)
    steps = sorted({curve.steps for group in groups for curve in group.curves})
    above.set_ylabel(f"robust accuracy ({', '.join(f'PGD-{each}' for each in steps)})")
    below.set_ylabel("gap, points")
    below.set_xlabel("epoch")
    above.yaxis.set_major_formatter(lambda value, position: f"{100 * value:.3g}%")
    below.yaxis.set_major_formatter(lambda value, position: f"{100 * value:.3g}")
    below.xaxis.get_major_locator().set_params(integer=True)
    below.set_xlim(left=0)  # one measurement would else have fractions of epochs around it
    above.set_ylim(bottom=0)
    below.axhline(0, color="0.6", linewidth=0.8)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.93")
        axes.set_axisbelow(True)
    _draw_legends(figure, groups)
    return figure


def _line(axes: Axes, group: Group, line: Line, colour: str, style: str) -> None:
    values = group.values(line)
    marker = "." if len(group.epochs) == 1 else ""  # a line of one point cannot be seen
    axes.plot(group.epochs, values.mean(0), style, color=colour, marker=marker, linewidth=1.6)
    if len(values) > 1:
        axes.fill_between(group.epochs, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)


def _draw_drops(panels: Sequence[Axes], groups: Sequence[Group]) -> None:
    """Draw a dotted line where the learning rate drops, in the colour of a group that is alone in it."""
    drops = [{drop for curve in group.curves for drop in curve.drops} for group in groups]
    for drop in set().union(*drops):
        with_it = [number for number, each in enumerate(drops) if drop in each]
        colour = f"C{with_it[0]}" if len(with_it) == 1 < len(groups) else "0.5"
        for axes in panels:
            axes.axvline(drop, color=colour, linewidth=1, linestyle=":", zorder=0)


def _draw_legends(figure: Figure, groups: Sequence[Group]) -> None:
    """Say above the panels which run has which colour, and below them what the kinds of lines are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    curves = [curve for group in groups for curve in group.curves]
    runs = [Line2D([], [], color=f"C{number}", linewidth=3) for number in range(len(groups))]
    figure.legend(runs, [_titled(group) for group in groups], loc="outside upper left", fontsize="small", frameon=False)
    kinds: dict[str, Line2D | Patch] = {
        f"training images{_count(curve.images[0] for curve in curves)}": Line2D([], [], color="0.2", linestyle="--"),
        f"{' or '.join(sorted({curve.split for curve in curves}))} images"
        f"{_count(curve.images[1] for curve in curves)}": Line2D([], [], color="0.2"),
        "best epoch": Line2D([], [], color="0.2", marker="o", linestyle=""),
    }
    if any(curve.drops for curve in curves):
        kinds["learning rate drops"] = Line2D([], [], color="0.5", linestyle=":")
    if any(len(group.curves) > 1 for group in groups):
        kinds["lowest to highest seed"] = Patch(color="0.2", alpha=0.18, linewidth=0)
    labels, handles = list(kinds), list(kinds.values())
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)


def _titled(group: Group) -> str:
    n = len(group.curves)
    return group.name if n == 1 else f"{group.name}, mean of {n} seeds"


def _count(images: Iterable[int]) -> str:
    found = set(images)
    return f" ({found.pop():,})" if len(found) == 1 else ""
