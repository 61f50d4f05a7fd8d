"""What training runs reached and where their time went, from their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awpbench import rundir
from awpbench.analysis.curves import Curve, read_curve, read_run
from awpbench.errors import InputError

PARTS = ("batch", "attack", "ascent", "update")  # of a step, as timing.jsonl names them


@dataclass(frozen=True)
class Times:
    """Where the time of a run went, over all epochs in timing.jsonl.

    An epoch that was interrupted counts with the steps that its last process did. `shares` are fractions of the
    training by part of a step; `ascent` is what weight perturbation costs. They are None for a run that did not record
    them.
    """

    epoch_seconds: float  # training of a whole epoch
    measure_seconds: float  # a measurement of robustness and the writing of checkpoints, mean over the epochs
    shares: dict[str, float] | None


@dataclass(frozen=True)
class Summary:
    """A run so far; `curve` is None before the first measurement, `times` where none were recorded."""

    name: str
    epochs: int
    planned: int
    curve: Curve | None
    times: Times | None


def is_run(folder: Path) -> bool:
    """Tell a run folder from a folder of a result."""
    return (folder / rundir.CONFIG).exists() and not (folder / rundir.RESULT).exists()


def summarise(run: Path) -> Summary:
    """Read a run folder; raises InputError where it is none."""
    config, lines = read_run(run)
    measured = any("train" in line and config["select_on"] in line for line in lines)
    return Summary(
        name=run.resolve().name,
        epochs=len(lines),
        planned=config["epochs"],
        curve=read_curve(run) if measured else None,
        times=_times(run / rundir.TIMING),
    )


def _times(path: Path) -> Times | None:
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}", "Remove it: it holds nothing but seconds.") from None
    steps, seconds = _sum(lines, "steps"), _sum(lines, "train_seconds")
    if not steps or not seconds:
        return None
    return Times(
        epoch_seconds=seconds / steps * max(line["steps"] for line in lines),
        measure_seconds=_sum(lines, "track_seconds") / len(lines),
        shares=_shares([line for line in lines if f"{PARTS[0]}_seconds" in line]),
    )


def _shares(lines: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    whole = _sum(lines, "train_seconds")
    return {part: _sum(lines, f"{part}_seconds") / whole for part in PARTS} if whole else None


def _sum(lines: Sequence[dict[str, Any]], key: str) -> float:
    return float(sum(line[key] for line in lines))
