"""The paper's numbers beside ours: every one of ours is computed from the per-image evidence of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from awpbench.evaluation.compare import compare
from awpbench.evaluation.results import Result
from awpbench.evaluation.statistics import mean_std, wilson
from awpbench.reproduce.tables import Cell, Grid, grids
from awpbench.reproduce.work import Outcome

LEGEND = (
    "Accuracies in percent. Ours: the mean over n training seeds and its standard deviation (of the sample), the 95 % "
    "Wilson interval of that mean on the images that were attacked, and their number. Differences are ours minus "
    "published, in points."
)
CHOICE = {"test": "the test images, as in the paper, so best is too good", "validation": "validation images"}


@dataclass(frozen=True)
class Ours:
    """Accuracies of one cell as fractions: `values` by seed, their mean and standard deviation, on `images` images."""

    values: Mapping[int, float]
    images: int
    mean: float
    std: float | None
    interval: tuple[float, float]

    def text(self) -> str:
        """Write it: `54.30 [53.32, 55.27] n=10000`, with several seeds `54.30 ± 0.21 (3 seeds) [...] n=10000`."""
        spread = "" if self.std is None else f" ± {100 * self.std:.2f} ({len(self.values)} seeds)"
        low, high = self.interval
        return f"{100 * self.mean:.2f}{spread} [{100 * low:.2f}, {100 * high:.2f}] n={self.images}"


@dataclass(frozen=True)
class Gain:
    """What AWP adds to a defense in points: as published, and ours with its paired 95 % interval (one seed)."""

    cell: Cell  # with AWP
    published: float | None
    values: Mapping[int, float]
    mean: float
    std: float | None
    interval: tuple[float, float] | None


class Report:
    """Reads the results of finished runs and puts them into the paper's tables."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes = outcomes
        self._scale = outcomes[0].run.scale
        self._results: dict[tuple[str, str, int], Result] = {}
        self._chosen_on: set[str] = set()
        for outcome in outcomes:
            if outcome.status == "finished":
                config = outcome.run.config()
                self._chosen_on.add(config.select_on)
                for checkpoint, folder in outcome.run.results(config).items():
                    result = Result.read(folder)
                    result.check()
                    self._results[outcome.run.recipe.name, checkpoint, outcome.run.seed] = result
        self.grids = grids(dict.fromkeys(outcome.run.recipe.name for outcome in outcomes))

    def ours(self, cell: Cell) -> Ours | None:
        """Return what was measured in a cell; None where nothing was."""
        found = self._found(cell)
        if not found:
            return None
        values = {seed: _accuracy(result, cell.attack) for seed, result in found.items()}
        images = len(next(iter(found.values())).arrays[f"{cell.attack}.fooled"])
        mean, std = mean_std(list(values.values()))
        return Ours(values, images, mean, std, wilson(round(mean * images), images))

    def _found(self, cell: Cell) -> dict[int, Result]:
        keys = [key for key in self._results if key[:2] == (cell.recipe, cell.checkpoint)]
        found = {key[2]: self._results[key] for key in keys}
        return {seed: result for seed, result in found.items() if cell.attack in result.document["attacks"]}

    def gains(self) -> list[Gain]:
        """Return what AWP adds wherever a recipe was run with and without it."""
        cells = [cell for grid in self.grids for _, row in grid.rows for cell in row]
        found = [self._gain(cell) for cell in cells if cell.recipe.endswith("-awp")]
        return [gain for gain in found if gain is not None]

    def _gain(self, cell: Cell) -> Gain | None:
        without = Cell(cell.recipe.removesuffix("-awp"), cell.checkpoint, cell.attack)
        theirs, ours = self._found(without), self._found(cell)
        pairs = {seed: (theirs[seed], ours[seed]) for seed in sorted(theirs.keys() & ours.keys())}
        if not pairs:
            return None
        compared = {
            seed: next(each for each in compare(*pair) if each.attack == cell.attack) for seed, pair in pairs.items()
        }
        mean, std = mean_std([each.difference for each in compared.values()])
        told = (without.published, cell.published)
        published = None if None in told else told[1].percent - told[0].percent  # type: ignore[union-attr]
        interval = next(iter(compared.values())).interval if len(compared) == 1 else None
        return Gain(cell, published, {seed: each.difference for seed, each in compared.items()}, mean, std, interval)

    def missing(self) -> list[Outcome]:
        """Return the runs that did not end well."""
        return [outcome for outcome in self._outcomes if outcome.status != "finished"]

    def notes(self) -> list[str]:
        """Say at which scale the runs were made, and what chose their best checkpoints."""
        chosen = [f"The best checkpoint was chosen on {CHOICE[each]}" for each in sorted(self._chosen_on)]
        return [f"Scale {self._scale.name}: {self._scale.rule}.", *(f"{each}." for each in chosen)]

    def markdown(self) -> str:
        """Write the tables, what AWP adds, and what is missing."""
        blocks = [LEGEND, "\n".join(f"- {note}" for note in self.notes())]
        for grid in self.grids:
            blocks += [f"### {grid.title}", self._table(grid)]
        if gains := self.gains():
            blocks += ["### What AWP adds, in points", _gain_table(gains, self.grids)]
        if missing := self.missing():
            lines = [
                f"- {each.run.name}: {each.status}: {each.error.what}. {each.error.mend}"
                for each in missing
                if each.error is not None
            ]
            blocks += ["### Not there", "\n".join(lines)]
        return "\n\n".join(blocks) + "\n"

    def _table(self, grid: Grid) -> str:
        lines = []
        for label, cells in grid.rows:
            theirs, ours = [cell.published for cell in cells], [self.ours(cell) for cell in cells]
            if any(theirs):
                lines.append([label, "published", *(f"{each.percent:.2f}" if each else "" for each in theirs)])
            found = [each.text() if each else self._absent(cell) for cell, each in zip(cells, ours, strict=True)]
            lines.append(["" if any(theirs) else label, "ours", *found])
            differences = [
                f"{100 * mine.mean - told.percent:+.2f}" if mine and told else ""
                for mine, told in zip(ours, theirs, strict=True)
            ]
            if any(differences):
                lines.append(["", "difference", *differences])
        return tabulate(lines, headers=("", "", *grid.columns), tablefmt="github", disable_numparse=True)

    def _absent(self, cell: Cell) -> str:
        """Say why a cell is empty: its run is missing or failed, or was not asked for."""
        states = [each.status for each in self._outcomes if each.run.recipe.name == cell.recipe]
        return next((state for state in states if state != "finished"), "")

    def document(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        cells = [(grid.title, label, cell) for grid in self.grids for label, row in grid.rows for cell in row]
        return {
            "scale": self._scale.name,
            "rule": self._scale.rule,
            "best_chosen_on": sorted(self._chosen_on),
            "runs": [_run(outcome) for outcome in self._outcomes],
            "cells": [self._cell(*each) for each in cells],
            "gains": [_gain_values(gain) for gain in self.gains()],
        }

    def _cell(self, table: str, row: str, cell: Cell) -> dict[str, Any]:
        told, mine = cell.published, self.ours(cell)
        return {
            "table": table,
            "row": row,
            **vars(cell),
            "published": told.percent if told else None,
            "source": told.source if told else None,
            "ours": mine and {**vars(mine), "seeds": len(mine.values)},
            "difference": 100 * mine.mean - told.percent if mine and told else None,
        }


def _accuracy(result: Result, attack: str) -> float:
    return float((~result.arrays[f"{attack}.fooled"]).mean())


def _run(outcome: Outcome) -> dict[str, Any]:
    run, error = outcome.run, outcome.error
    told = {"what": error.what, "mend": error.mend} if error else None
    return {
        "recipe": run.recipe.name,
        "seed": run.seed,
        "folder": str(run.folder),
        "status": outcome.status,
        "error": told,
    }


def _gain_values(gain: Gain) -> dict[str, Any]:
    values = {seed: 100 * value for seed, value in gain.values.items()}
    return {
        **vars(gain.cell),
        "published": gain.published,
        "values": values,
        "mean": 100 * gain.mean,
        "std": None if gain.std is None else 100 * gain.std,
        "interval": gain.interval and [100 * bound for bound in gain.interval],
    }


def _gain_table(gains: Sequence[Gain], tables: Sequence[Grid]) -> str:
    places = {
        cell: (label, column)
        for grid in tables
        for label, row in grid.rows
        for column, cell in zip(grid.columns, row, strict=True)
    }
    lines = []
    for gain in gains:
        spread = "" if gain.std is None else f" ± {100 * gain.std:.2f} ({len(gain.values)} seeds)"
        interval = gain.interval and f" [{100 * gain.interval[0]:+.2f}, {100 * gain.interval[1]:+.2f}]"
        published = "" if gain.published is None else f"{gain.published:+.2f}"
        lines.append([*places[gain.cell], published, f"{100 * gain.mean:+.2f}{spread}{interval or ''}"])
    return tabulate(lines, headers=("row", "column", "published", "ours"), tablefmt="github", disable_numparse=True)
