"""The columns of a table: what each shows and sorts by. docs/leaderboard.md explains each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from awpbench.errors import lookup
from awpbench.evaluation.statistics import wilson
from awpbench.evaluation.suites import SUITES
from awpbench.leaderboard.attacks import Attack, in_columns, strongest
from awpbench.leaderboard.details import Details, Score, Source
from awpbench.leaderboard.row import Board
from awpbench.leaderboard.view import Line, Ranking, Report, Reports, deciding, number

UNKNOWN = "?"

L = TypeVar("L")  # Line or Report


@dataclass(frozen=True)
class Column(Generic[L]):
    """A column: its cell as text, the value to sort by (None: none known), whether its cells hold numbers of ours."""

    cell: Callable[[L], str]
    value: Callable[[L], float | str | None]
    ours: bool = True  # else its text may come from strangers, and has to be escaped


def _awp(row: Details) -> str:
    if row.defense is None:
        return UNKNOWN
    if row.awp is None:
        return "no (RWP)" if (row.train or {}).get("rwp") else "no"
    return f"{row.awp.gamma:g}" + (f" after {row.awp.warmup} epochs" if row.awp.warmup else "")


def _gamma(row: Details) -> float | None:
    """Return the size of the weight perturbation, 0 without."""
    if row.defense is None:
        return None
    return row.awp.gamma if row.awp else 0.0


def _architecture(row: Details) -> str:
    return (row.architecture or UNKNOWN) + (f" (width {row.width})" if row.width else "")


def numbers(score: Attack | Score) -> tuple[str, str, str, str]:
    """Return accuracy, lower and upper end of the interval in percent with two decimals, and n."""
    low, high = wilson(score.correct, score.n)  # the row's own is rounded
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


def gap(line: Line) -> float | None:
    """Return the robust generalisation gap, a difference of fractions, None where the run did not measure it."""
    return None if line.details.tracked is None else line.details.tracked.gap


def percent(value: float | None) -> str:
    """Write a fraction in percent with two decimals, nothing where it is not known."""
    return "" if value is None else f"{100 * value:.2f}"


def _ranking_n(line: Line) -> int:
    return line.details.attacks[strongest(line.details.attacks)].n


def rank_text(rank: tuple[int, int]) -> str:
    """Write a rank: `3`, or `3-5` where intervals overlap."""
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}-{rank[1]}"


def _text(cell: Callable[[L], str]) -> Column[L]:
    def value(line: L) -> str | None:
        text = cell(line)
        return None if text in ("", UNKNOWN) else text.casefold()

    return Column(cell, value, ours=False)


def yes_or_no(value: bool) -> str:
    """Write a truth value as it is read."""
    return "yes" if value else "no"


BEFORE: dict[str, Column[Line]] = {
    "rank": Column(lambda line: rank_text(line.rank), lambda line: -line.rank[0]),
    "model": _text(lambda line: line.details.model),
    "defense": _text(lambda line: line.details.defense or UNKNOWN),
    "AWP": Column(lambda line: _awp(line.details), lambda line: _gamma(line.details)),
    "architecture": _text(lambda line: _architecture(line.details)),
    "extra data": _text(lambda line: yes_or_no(line.row.additional_data)),
}
AFTER: dict[str, Column[Line]] = {
    "worst case": Column(lambda line: accuracy(line.details.worst_case), lambda line: _share(line.details.worst_case)),
    "gain": Column(_gain, lambda line: None if line.gain is None else line.gain.difference),
    "gap": Column(lambda line: percent(gap(line)), gap),
    "selection": _text(lambda line: line.details.selection or UNKNOWN),
    "audit": _text(lambda line: line.details.audit.verdict or UNKNOWN),
    "n": Column(lambda line: str(_ranking_n(line)), lambda line: float(_ranking_n(line))),
}
BESIDE: dict[str, Column[Line]] = {  # shown where --columns asks for them
    "id": _text(lambda line: line.details.id),
    "paper": _text(lambda line: line.row.name),
    "authors": _text(lambda line: line.row.authors),
    "venue": _text(lambda line: line.row.venue),
    "seed": Column(lambda line: str(line.details.seed), lambda line: float(line.details.seed)),
}
FIXED = {**BEFORE, **AFTER, **BESIDE}


def _of_attack(name: str) -> Column[Line]:
    return Column(
        lambda line: accuracy(line.details.attacks.get(name)), lambda line: _share(line.details.attacks.get(name))
    )


def told(value: object) -> str:
    """Write a value of a reported row, which may be anything that JSON can hold."""
    if isinstance(value, bool):
        return yes_or_no(value)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _percent(key: Callable[[Report], str | None]) -> Column[Report]:
    def found(line: Report) -> object:
        return line.row.keys.get(key(line) or "")

    return Column(lambda line: told(found(line)), lambda line: number(found(line)), ours=False)


def _word(key: str) -> Column[Report]:
    return _text(lambda line: told(line.row.keys.get(key)))


def _source(source: Source) -> str:
    return source.reference + (f" (under {source.attack})" if source.attack else "")


REPORTED: dict[str, Column[Report]] = {
    "rank": Column(
        lambda line: "" if line.place is None else str(line.place),
        lambda line: None if line.place is None else -line.place,
    ),
    "model": _text(lambda line: line.row.awpbench.model),
    "architecture": _word("architecture"),
    "extra data": _word("additional_data"),
    "eps": _text(lambda line: line.row.awpbench.eps or ""),
    "clean": _percent(lambda line: "clean_acc"),
    "autoattack": _percent(lambda line: "autoattack_acc"),
    "best known": _percent(lambda line: deciding(line.row)),
    "venue": _word("venue"),
    "source": _text(lambda line: _source(line.row.awpbench.source)),
}
REPORTED_BESIDE: dict[str, Column[Report]] = {
    "id": _text(lambda line: line.row.awpbench.id),
    "paper": _word("name"),
    "authors": _word("authors"),
}
OF_REPORTED = {**REPORTED, **REPORTED_BESIDE}


def column(name: str) -> Column[Line]:
    """Return a column of measured rows by its name: one of the fixed ones, else that of an attack."""
    return FIXED.get(name) or _of_attack(name)


def usual(ranking: Ranking) -> list[str]:
    """Return the names of the columns that a table has if nobody asks for others."""
    return [*BEFORE, *ranking.attacks, *AFTER]


def known(board: Board) -> list[str]:
    """Return the names of all columns: the fixed ones, the attacks of the suites, and those of the board's rows."""
    attacks: dict[str, Attack] = {
        name: attack for row in board.measured for name, attack in row.awpbench.attacks.items()
    }
    of_suites = [name for suite in SUITES.values() for name in suite.attacks]
    return list(dict.fromkeys([*FIXED, *OF_REPORTED, *of_suites, *in_columns(attacks)]))


def named(name: str, board: Board) -> str:
    """Return the name of the column that is meant: `extra-data` is `extra data`. Raises UsageError for any other."""
    names = {each: each for each in known(board)}
    return {_typed(each): each for each in names}.get(_typed(name)) or lookup(names, "column", name)


def _typed(name: str) -> str:
    return name.lower().replace(" ", "-")


def sorted_by(name: str, ranking: Ranking, *, backwards: bool = False) -> Ranking:
    """Sort the lines of a ranking by a column: highest first, names from A, or the other way round.

    Lines without a value come last, equal ones keep their order.
    """
    return dataclasses.replace(ranking, lines=_sorted(ranking.lines, column(name).value, backwards))


def reports_sorted_by(name: str, reports: Reports, *, backwards: bool = False) -> Reports:
    """Sort reported rows likewise; they keep their order where they have no such column."""
    if name not in OF_REPORTED:
        return reports
    return dataclasses.replace(reports, lines=_sorted(reports.lines, OF_REPORTED[name].value, backwards))


def _sorted(lines: Sequence[L], value: Callable[[L], float | str | None], backwards: bool) -> tuple[L, ...]:
    keyed = [(value(line), line) for line in lines]
    figures: list[tuple[float, L]] = [(key, line) for key, line in keyed if isinstance(key, float | int)]
    words: list[tuple[str, L]] = [(key, line) for key, line in keyed if isinstance(key, str)]
    figures.sort(key=lambda pair: pair[0], reverse=not backwards)
    words.sort(key=lambda pair: pair[0], reverse=backwards)
    last = [line for key, line in keyed if key is None]
    return tuple([line for _, line in figures] + [line for _, line in words] + last)
