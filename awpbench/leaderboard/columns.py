"""The columns of a table of measured rows: what each shows and sorts by. docs/leaderboard.md explains each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from awpbench.errors import lookup
from awpbench.leaderboard.attacks import Attack, strongest
from awpbench.leaderboard.details import Details, Score
from awpbench.leaderboard.view import Line, Ranking

UNKNOWN = "?"


@dataclass(frozen=True)
class Column:
    """A column: its cell as plain text, and the value to sort by (None: none known)."""

    cell: Callable[[Line], str]
    value: Callable[[Line], float | str | None]


def _name(line: Line) -> str:
    return line.details.model


def _awp(row: Details) -> str:
    if row.defense is None:
        return UNKNOWN
    if row.awp is None:
        return "no (RWP)" if (row.train or {}).get("rwp") else "no"
    return f"{row.awp.gamma:g}" + (f" after {row.awp.warmup} epochs" if row.awp.warmup else "")


def _architecture(row: Details) -> str:
    return (row.architecture or UNKNOWN) + (f" (width {row.width})" if row.width else "")


def numbers(score: Attack | Score) -> tuple[str, str, str, str]:
    """Return accuracy, lower and upper end of the interval in percent with two decimals, and n."""
    low, high = score.interval
    return f"{100 * score.correct / score.n:.2f}", f"{100 * low:.2f}", f"{100 * high:.2f}", str(score.n)


def accuracy(score: Attack | Score | None) -> str:
    """Write an accuracy with its interval and n, and whatever makes it doubtful."""
    if score is None:
        return ""
    percent, low, high, n = numbers(score)
    text = f"{percent} [{low}, {high}] n={n}"
    if isinstance(score, Attack):
        text += "" if score.complete else " (incomplete)"
        text += f" (NaN logits on {score.nan_logits})" if score.nan_logits else ""
        text += " (NaN gradients)" if score.nan_gradients else ""
    return text


def _share(score: Attack | Score | None) -> float | None:
    return None if score is None else score.correct / score.n


def _gain(line: Line) -> str:
    if line.gain is None:
        return ""
    low, high = line.gain.interval
    return f"{100 * line.gain.difference:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def _gap(line: Line) -> float | None:
    return None if line.details.tracked is None else line.details.tracked.gap


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _ranking_n(line: Line) -> int:
    return line.details.attacks[strongest(line.details.attacks)].n


def rank_text(rank: tuple[int, int]) -> str:
    """Write a rank: `3`, or `3-5` where intervals overlap."""
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}-{rank[1]}"


def _text(cell: Callable[[Line], str]) -> Column:
    return Column(cell, lambda line: cell(line).lower())


BEFORE: dict[str, Column] = {
    "rank": Column(lambda line: rank_text(line.rank), lambda line: -line.rank[0]),
    "model": _text(_name),
    "defense": _text(lambda line: line.details.defense or UNKNOWN),
    "AWP": _text(lambda line: _awp(line.details)),
    "architecture": _text(lambda line: _architecture(line.details)),
    "extra data": _text(lambda line: "yes" if line.row.additional_data else "no"),
}
AFTER: dict[str, Column] = {
    "worst case": Column(lambda line: accuracy(line.details.worst_case), lambda line: _share(line.details.worst_case)),
    "gain": Column(_gain, lambda line: None if line.gain is None else line.gain.difference),
    "gap": Column(lambda line: _percent(_gap(line)), _gap),
    "selection": _text(lambda line: line.details.selection or UNKNOWN),
    "audit": _text(lambda line: line.details.audit.verdict or UNKNOWN),
    "n": Column(lambda line: str(_ranking_n(line)), lambda line: float(_ranking_n(line))),
}
BESIDE: dict[str, Column] = {  # shown where --columns asks for them
    "id": _text(lambda line: line.details.id),
    "paper": _text(lambda line: line.row.name),
    "venue": _text(lambda line: line.row.venue),
    "seed": Column(lambda line: str(line.details.seed), lambda line: float(line.details.seed)),
}
FIXED = {**BEFORE, **AFTER, **BESIDE}


def _of_attack(name: str) -> Column:
    return Column(
        lambda line: accuracy(line.details.attacks.get(name)), lambda line: _share(line.details.attacks.get(name))
    )


def column(name: str) -> Column:
    """Return a column by its name: one of the fixed ones, else that of an attack."""
    return FIXED.get(name) or _of_attack(name)


def usual(ranking: Ranking) -> list[str]:
    """Return the names of the columns that a table has if nobody asks for others."""
    return [*BEFORE, *ranking.attacks, *AFTER]


def chosen(names: Sequence[str] | None, rankings: Sequence[Ranking]) -> Callable[[Ranking], list[str]]:
    """Return which columns a table has: those asked for. Raises UsageError for a name that no table has."""
    if names is None:
        return usual
    known = [*FIXED, *dict.fromkeys(name for ranking in rankings for name in ranking.attacks)]
    for name in names:
        lookup(dict.fromkeys(known), "column", name)
    return lambda ranking: [name for name in names if name in FIXED or name in ranking.attacks]


def arranged(rankings: Sequence[Ranking], sort: str | None) -> list[Ranking]:
    """Sort the lines of every ranking by a column: highest first, names from A; `-` before it turns that round.

    Rows without a value come last, equal ones keep their order. Raises UsageError for a name that no table has.
    """
    if sort is None:
        return list(rankings)
    name = sort.removeprefix("-")
    chosen([name], rankings)
    value, backwards = column(name).value, sort.startswith("-")
    return [dataclasses.replace(each, lines=_sorted(each.lines, value, backwards)) for each in rankings]


def _sorted(lines: Sequence[Line], value: Callable[[Line], float | str | None], backwards: bool) -> tuple[Line, ...]:
    keyed = [(line, value(line)) for line in lines]
    words = [(line, key) for line, key in keyed if isinstance(key, str)]
    figures = [(line, key) for line, key in keyed if isinstance(key, float | int)]
    words.sort(key=lambda pair: pair[1], reverse=backwards)
    figures.sort(key=lambda pair: pair[1], reverse=not backwards)
    return tuple(line for line, _ in [*figures, *words, *(pair for pair in keyed if pair[1] is None)])
