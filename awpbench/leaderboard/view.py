"""What a leaderboard shows: groups of comparable rows, each with its ranks and AWP's gain, filtered and sorted.

Every format and the page draw from here, so that they cannot disagree.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from awpbench.evaluation.statistics import mcnemar, paired_difference
from awpbench.leaderboard.attacks import beside, in_columns, strongest, told
from awpbench.leaderboard.derived import hash_of
from awpbench.leaderboard.details import Details
from awpbench.leaderboard.robustbench.ranking import deciding_keys
from awpbench.leaderboard.row import Board, Reported, Row

WEIGHT_PERTURBATION = {"awp_steps", "awp_alternations", "awp_size"}  # of config.json: a run without AWP has no use of


class Group(NamedTuple):
    """What rows share to be ranked together: images, threat, suite, the definitions of all attacks, and the n of the
    attack that ranks.
    """

    dataset: str
    norm: str
    eps: str
    data: str
    indices: str
    suite: str
    series: str
    dialect: str
    ranked_by: str
    definitions: str
    n: int

    @classmethod
    def of(cls, row: Details) -> Group:
        """Return the group of a row."""
        name = strongest(row.attacks)
        ranking = {each: attack.definition for each, attack in row.attacks.items() if not beside(each)}
        data, indices = str(row.hashes["data"]), str(row.hashes["indices"])
        threat = (row.dataset, row.norm, row.eps, data, indices)
        of_suite = (row.suite, row.suite_series, row.dialect, name, json.dumps(ranking))
        return cls(*threat, *of_suite, row.attacks[name].n)

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that name the group."""
        return hash_of(self._asdict())[:16]


@dataclass(frozen=True)
class Gain:
    """What AWP adds to the accuracy under the attack that ranks, against the row `without` of the same run without it.

    A difference of fractions on the same n images, its 95 % interval (Bonett and Price 2012), the images that only one
    of the two gets right, and the p of the exact McNemar test.
    """

    without: str
    difference: float
    interval: tuple[float, float]
    only_with: int
    only_without: int
    p: float


@dataclass(frozen=True)
class Line:
    """A measured row in its group: `rank` is the best and the worst place that its interval allows."""

    row: Row
    rank: tuple[int, int]
    gain: Gain | None

    @property
    def details(self) -> Details:
        """What was measured."""
        return self.row.awpbench


@dataclass(frozen=True)
class Ranking:
    """A group of comparable rows, best first unless sorted otherwise. `total` counts those that a filter left out."""

    group: Group
    lines: tuple[Line, ...]
    total: int

    @property
    def title(self) -> str:
        """What the rows share, on one line."""
        group = self.group
        images = f"{group.n} images" + (" (part of the test set)" if any(x.details.partial for x in self.lines) else "")
        threat = f"{group.dataset}, {group.norm} {group.eps}, data {group.data[:8]}, images {group.indices[:8]}"
        suite = f"suite {group.suite} {group.series}, dialect {group.dialect}"
        shown = "" if len(self.lines) == self.total else f"; {len(self.lines)} of {self.total} rows shown"
        return f"{threat}, {suite}; ranked by {group.ranked_by} on {images}{shown}"

    @property
    def notes(self) -> list[str]:
        """How each attack is defined: step, start and all the rest."""
        return [f"{name}: {told(how)}" for name, how in json.loads(self.group.definitions).items() if how]

    @property
    def attacks(self) -> list[str]:
        """The attacks of all lines, in the order of their columns."""
        found = {name: attack for line in self.lines for name, attack in line.details.attacks.items()}
        return list(in_columns(found))


@dataclass(frozen=True)
class Selection:
    """Which rows are shown: None leaves a question open."""

    dataset: str | None = None
    norm: str | None = None
    defense: str | None = None
    awp: bool | None = None
    architecture: str | None = None
    extra_data: bool | None = None

    @property
    def asked(self) -> dict[str, str | bool]:
        """The questions that are not left open."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    def takes(self, row: Row | Reported) -> bool:
        """Tell whether a row is shown."""
        found = answers(row)
        return all(value in found[key] for key, value in self.asked.items())


def answers(row: Row | Reported) -> dict[str, tuple[object, ...]]:
    """Return what a row answers to each question of a Selection; a reported one says nothing of defense and AWP."""
    if isinstance(row, Reported):
        keys, own = row.keys, row.awpbench
        told = {"dataset": own.dataset, "norm": own.threat, "architecture": keys.get("architecture")}
        given = {key: (value,) for key, value in {**told, "extra_data": keys.get("additional_data")}.items()}
        return {**given, "defense": (), "awp": ()}
    details = row.awpbench
    narrowed = f" (width {details.width})"
    return {
        "dataset": (details.dataset,),
        "norm": (details.norm,),
        "defense": (details.defense,),
        "awp": () if details.defense is None else (details.awp is not None,),
        "architecture": (details.architecture, row.architecture, row.architecture.removesuffix(narrowed)),
        "extra_data": (row.additional_data,),
    }


def missed(board: Board, selection: Selection) -> str:
    """Say which question no row answers as asked, and what answers there are; or that no row has all of them."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in board.rows:
        for key, values in answers(row).items():
            found[key] |= {_flag(key, value) for value in values if isinstance(value, str | bool)}
    for key, value in selection.asked.items():
        if _flag(key, value) not in found[key]:
            return f"no row fits {_flag(key, value)}; there is {', '.join(sorted(found[key])) or 'none that says'}"
    return f"no row fits all of {' '.join(_flag(key, value) for key, value in selection.asked.items())}"


def _flag(key: str, value: object) -> str:
    flag = key.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}"


EVERYTHING = Selection()


def rankings(board: Board, selection: Selection = EVERYTHING) -> list[Ranking]:
    """Return the groups of the measured rows that count. Ranks and gains are those among all rows of a group."""
    groups: dict[Group, list[Row]] = defaultdict(list)
    for row in board.measured:
        if row.awpbench.retracted is None:
            groups[Group.of(row.awpbench)].append(row)
    found = []
    for group in sorted(groups):
        lines = _ranked(groups[group], group.ranked_by)
        shown = [line for line in lines if selection.takes(line.row)]
        if shown:
            found.append(Ranking(group, tuple(shown), len(lines)))
    return found


def retracted(board: Board, selection: Selection = EVERYTHING) -> list[Row | Reported]:
    """Return the rows that do not count any more, those of them that are asked for."""
    return [row for row in board.rows if row.awpbench.retracted is not None and selection.takes(row)]


@dataclass(frozen=True)
class Report:
    """A reported row in its table: its number there, None where it has no accuracy to be ranked by."""

    row: Reported
    place: int | None


@dataclass(frozen=True)
class Reports:
    """The rows that one kind of source reported of one data set and threat. `total` counts those left out too."""

    kind: str
    dataset: str
    threat: str
    attacked: str  # a paper's eps and attack: other ones are not comparable; RobustBench ranks a folder as a whole
    lines: tuple[Report, ...]
    total: int

    @property
    def title(self) -> str:
        """Who says so of what, on one line."""
        who = {"robustbench": "by RobustBench", "paper": "in papers"}[self.kind]
        shown = "" if len(self.lines) == self.total else f"; {len(self.lines)} of {self.total} rows shown"
        return f"reported {who}, not measured here: {self.dataset}, {self.threat}{self.attacked}{shown}"


def reported(board: Board, selection: Selection = EVERYTHING) -> list[Reports]:
    """Return the reported rows that count, numbered as RobustBench does. Places are those among all rows of a table."""
    tables: dict[tuple[str, str, str, str], list[Reported]] = defaultdict(list)
    for row in board.reported:
        if row.awpbench.retracted is None:
            own = row.awpbench
            tables[own.source.kind, own.dataset, own.threat, _attacked(row)].append(row)
    reports = []
    for (kind, dataset, threat, attacked), rows in sorted(tables.items()):
        shown = tuple(report for report in _numbered(rows) if selection.takes(report.row))
        if shown:
            reports.append(Reports(kind, dataset, threat, attacked, shown, len(rows)))
    return reports


def _attacked(row: Reported) -> str:
    own = row.awpbench
    if own.source.kind == "robustbench":
        return ""
    return (f" {own.eps}" if own.eps else "") + (f", under {own.source.attack}" if own.source.attack else "")


def _numbered(rows: Iterable[Reported]) -> list[Report]:
    keyed = [(number(row.keys.get(deciding(row) or "")), row) for row in rows]
    ranked = [(value, row) for value, row in keyed if value is not None]
    ranked.sort(key=lambda pair: (-pair[0], pair[1].awpbench.model, pair[1].awpbench.id))
    last = sorted((row for value, row in keyed if value is None), key=lambda row: row.awpbench.id)
    return [*(Report(row, place) for place, (_, row) in enumerate(ranked, 1)), *(Report(row, None) for row in last)]


def deciding(row: Reported) -> str | None:
    """Name the key by which RobustBench ranks a row; of a paper that knows none of them, what it reports."""
    claimed = ("reported",) if row.awpbench.source.kind == "paper" else ()
    keys = (*deciding_keys(row.awpbench.threat), *claimed)
    return next((key for key in keys if number(row.keys.get(key)) is not None), None)


def number(value: object) -> float | None:
    """Return the number that a value of a reported row is or spells, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _ranked(rows: Iterable[Row], ranked_by: str) -> list[Line]:
    ordered = sorted(rows, key=lambda row: (-row.awpbench.attacks[ranked_by].correct, row.awpbench.id))
    ranks = rank_ranges([row.awpbench.attacks[ranked_by].interval for row in ordered])
    baselines = _baselines(ordered)
    return [Line(row, rank, _gain(row.awpbench, baselines)) for row, rank in zip(ordered, ranks, strict=True)]


def rank_ranges(intervals: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Return for each interval the best and the worst rank that it allows.

    A row is certainly behind another one only where the intervals do not overlap.
    """
    lows, highs = sorted(low for low, _ in intervals), sorted(high for _, high in intervals)
    total = len(intervals)
    above = [total - bisect.bisect_right(lows, high) for _, high in intervals]  # those whose low is over my high
    below = [bisect.bisect_left(highs, low) for low, _ in intervals]
    return [(1 + up, total - down) for up, down in zip(above, below, strict=True)]


Run = tuple[str | None, str | None, str]


def _run(row: Details) -> Run:
    """Name the run but for its weight perturbation, and the checkpoint of it."""
    train = {key: value for key, value in (row.train or {}).items() if key not in WEIGHT_PERTURBATION}
    return row.defense, row.selection, json.dumps(train, sort_keys=True)


def _baselines(rows: Iterable[Row]) -> dict[Run, Details]:
    """Return the best row of each run without any weight perturbation, of rows that come best first."""
    plain = [row.awpbench for row in rows if row.awpbench.train is not None and row.awpbench.awp is None]
    found: dict[Run, Details] = {}
    for row in plain:
        if not (row.train or {}).get("rwp"):
            found.setdefault(_run(row), row)  # a run that was repeated under another name: no gain over a weaker one
    return found


def _gain(row: Details, baselines: dict[Run, Details]) -> Gain | None:
    without = baselines.get(_run(row)) if row.awp is not None else None
    if without is None:
        return None
    ours, theirs = row.standing, without.standing
    if ours is None or theirs is None:
        return None
    n = len(ours)
    more = sum(ok and not other for ok, other in zip(ours, theirs, strict=True))
    less = sum(other and not ok for ok, other in zip(ours, theirs, strict=True))
    interval = paired_difference(more, less, n)
    return Gain(without.id, (more - less) / n, interval, more, less, mcnemar(more, less))
