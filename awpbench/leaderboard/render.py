"""The leaderboard as tables, and these as Markdown, LaTeX, CSV and JSON; rich draws them in `awpbench.cli.drawing`.

Names come from strangers: all text of a Table is free of control characters, and each format escapes what it would
interpret. Numbers of ours are written as they are.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from awpbench.leaderboard.columns import (
    AFTER,
    BEFORE,
    FIXED,
    OF_REPORTED,
    REPORTED,
    accuracy,
    column,
    gap,
    named,
    reports_sorted_by,
    sorted_by,
    usual,
)
from awpbench.leaderboard.derived import hash_of
from awpbench.leaderboard.escape import latex, markdown, plain
from awpbench.leaderboard.robustbench.published import Standing
from awpbench.leaderboard.robustbench.standings import best_known, standings
from awpbench.leaderboard.row import Board, Reported, Row
from awpbench.leaderboard.spreadsheet import csv_text
from awpbench.leaderboard.view import EVERYTHING, Line, Ranking, Reports, Selection, rankings, reported, retracted

LEGEND = (
    "Accuracy in percent, its 95 % Wilson interval, and n, the number of images. Ranks hold within a table only; "
    "rows whose intervals overlap share a range of ranks."
)
REPORTED_LEGENDS = {
    "robustbench": "Accuracies in percent and ranks as RobustBench gives them.",
    "paper": "Accuracies in percent as their papers give them; nobody measured them again.",
}
PADDED = 60  # characters: a longer cell makes only its own line longer


@dataclass(frozen=True)
class Asked:
    """What is to be shown: which rows, sorted by which column (`-gain`: lowest first), and which columns."""

    selection: Selection = EVERYTHING
    sort: str | None = None
    columns: tuple[str, ...] = ()
    retracted: bool = False
    beside: bool = False  # say where rows would stand among those that RobustBench published


ALL = Asked()


@dataclass(frozen=True)
class Table:
    """One group of comparable rows, or one of reported ones; all text is plain, without control characters."""

    key: str  # names the table among all others
    title: str
    notes: tuple[str, ...]  # how each attack is defined
    columns: tuple[str, ...]
    ours: tuple[bool, ...]  # whether a column holds numbers of ours; else it has to be escaped
    rows: tuple[tuple[str, ...], ...]
    legend: str = LEGEND


@dataclass(frozen=True)
class Shown:
    """What is left of a board, sorted; `columns` are the names of those asked for, none: the usual ones."""

    rankings: tuple[Ranking, ...]
    reports: tuple[Reports, ...]
    retracted: tuple[Row | Reported, ...]
    columns: tuple[str, ...]
    empty: str  # why there is no table where there is none
    beside: bool

    @classmethod
    def of(cls, board: Board, asked: Asked) -> Shown:
        """Select and sort. Raises UsageError for a column that there is not."""
        columns = tuple(dict.fromkeys(named(name, board) for name in asked.columns))
        measured, others = rankings(board, asked.selection), reported(board, asked.selection)
        if asked.sort is not None:
            name, backwards = named(asked.sort.removeprefix("-"), board), asked.sort.startswith("-")
            measured = [sorted_by(name, ranking, backwards=backwards) for ranking in measured]
            others = [reports_sorted_by(name, reports, backwards=backwards) for reports in others]
        gone = tuple(retracted(board, asked.selection))
        empty = "no row to show" if board.rows else "no results yet"
        return cls(tuple(measured), tuple(others), gone, columns, empty, asked.beside)

    def tables(self) -> list[Table]:
        """Return one table per group of comparable rows, then those of reported ones; or an empty one."""
        found = []
        for ranking in self.rankings:
            found += [_measured(ranking, self.columns), *([_standings(ranking)] if self.beside else [])]
        found += [_reported(reports, self.columns) for reports in self.reports]
        columns = self.columns or (*BEFORE, *AFTER)
        return found or [Table("empty", self.empty, (), columns, (True,) * len(columns), ())]

    def retractions(self, told: bool) -> list[str]:
        """Return a line per retracted row if they are to be told of, else one line that counts them."""
        if told:
            return [plain(_retraction(row)) for row in self.retracted]
        count = len(self.retracted)
        rows = "1 retracted row is" if count == 1 else f"{count} retracted rows are"
        return [f"{rows} not shown; awpbench leaderboard --retracted tells why"] if count else []


def render(board: Board, format: str, asked: Asked = ALL) -> str:
    """Write the leaderboard as `md`, `latex`, `csv` or `json`: text that ends with a newline, no other bytes ever.

    CSV and JSON hold retracted rows only if they are asked for. Raises UsageError for a column that there is not.
    """
    shown = Shown.of(board, asked)
    if format == "json":
        return _json(board, shown, asked)
    if format == "csv":
        return csv_text(shown.rankings, shown.reports, shown.retracted if asked.retracted else ())
    return {"md": _markdown, "latex": _latex}[format](shown, asked)


def tables(board: Board, asked: Asked = ALL) -> list[Table]:
    """Return the tables of a board. Raises UsageError for a column that there is not."""
    return Shown.of(board, asked).tables()


def _measured(ranking: Ranking, asked: Sequence[str]) -> Table:
    names = [name for name in asked if name in FIXED or name in ranking.attacks] if asked else usual(ranking)
    columns = [column(name) for name in names]
    return Table(
        ranking.group.key,
        plain(ranking.title),
        tuple(map(plain, ranking.notes)),
        tuple(names),
        tuple(each.ours for each in columns),
        tuple(tuple(plain(each.cell(line)) for each in columns) for line in ranking.lines),
    )


def _reported(reports: Reports, asked: Sequence[str]) -> Table:
    names = [name for name in asked if name in OF_REPORTED] or list(REPORTED)
    columns = [OF_REPORTED[name] for name in names]
    return Table(
        _key(reports),
        plain(reports.title),
        (),
        tuple(names),
        tuple(each.ours for each in columns),
        tuple(tuple(plain(each.cell(line)) for each in columns) for line in reports.lines),
        legend=REPORTED_LEGENDS[reports.kind],
    )


def _standings(ranking: Ranking) -> Table:
    """Say where the rows of a ranking would stand among RobustBench's; no row of one enters the other's ranking."""
    found = standings(ranking)
    columns = ("would rank", "model", "accuracy", "next above", "next below")
    return Table(
        hash_of({"beside": ranking.group.key})[:16],
        f"where these rows would stand in {found.title}",
        found.notes,
        columns,
        (True, False, True, False, False),
        tuple(tuple(map(plain, _standing(line, standing))) for line, standing in found.places),
        legend="Each row alone, by the range that its interval allows.",
    )


def _standing(line: Line, standing: Standing) -> tuple[str, ...]:
    near = (standing.above, standing.below)
    neighbours = [f"{row.id} ({row.accuracy:.2f}, {row.architecture})" if row else "" for row in near]
    return standing.ranks, line.details.model, accuracy(best_known(line.details)), *neighbours


def _key(reports: Reports) -> str:
    return hash_of({"kind": reports.kind, "table": [reports.dataset, reports.threat, reports.attacked]})[:16]


def _retraction(row: Row | Reported) -> str:
    own = row.awpbench
    return f"{own.id}: {own.model}, retracted" + (
        f" on {own.retracted.date}: {own.retracted.reason}" if own.retracted else ""
    )


def _markdown(shown: Shown, asked: Asked) -> str:
    blocks = [LEGEND]
    for table in shown.tables():
        notes = ["\n".join(f"- {markdown(note)}" for note in table.notes)] if table.notes else []
        legend = [] if table.legend == LEGEND else [markdown(table.legend)]
        blocks += [f"### {markdown(table.title)}", *legend, _github(table), *notes]
    lines = shown.retractions(asked.retracted)
    if lines and asked.retracted:
        blocks += ["### retracted", "\n".join(f"- {markdown(line)}" for line in lines)]
    else:
        blocks += lines
    return "\n\n".join(blocks) + "\n"


def _github(table: Table) -> str:
    """Write a table of GitHub's; tabulate would write other bytes where wcwidth is installed."""
    rows = [[_cell(cell, ours) for cell, ours in zip(row, table.ours, strict=True)] for row in table.rows]
    lines = [[markdown(name) for name in table.columns], *rows]
    widths = [min(PADDED, max(map(len, cells))) for cells in zip(*lines, strict=True)]
    head, *body = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body])


def _cell(cell: str, ours: bool) -> str:
    return cell if ours else markdown(cell)


def _latex(shown: Shown, asked: Asked) -> str:
    blocks = ["% \\usepackage{booktabs}; if a table is too wide, choose --columns"]
    blocks += [_tabular(table) for table in shown.tables()]
    blocks += [f"% {latex(line)}" for line in shown.retractions(asked.retracted)]
    return "\n".join(blocks) + "\n"


def _tabular(table: Table) -> str:
    cells = list(zip(*table.rows, strict=True)) if table.rows else [()] * len(table.columns)
    columns = [_typeset(*each) for each in zip(table.columns, cells, table.ours, strict=True)]
    head, *body = [" & ".join(line) + r" \\" for line in zip(*columns, strict=True)]
    return "\n".join(
        [
            *(f"% {latex(note)}" for note in table.notes),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(table.title)}. {latex(table.legend)}}}",
            rf"\label{{tab:{table.key}}}",
            rf"\begin{{tabular}}{{{''.join('r' if ours else 'l' for ours in table.ours)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _typeset(name: str, cells: Sequence[str], ours: bool) -> list[str]:
    """Typeset a column; where all its cells have one n, it stands in the head."""
    if not ours:
        return [latex(name), *map(latex, cells)]
    parts = [re.fullmatch(r"(\S+) (\[.*?\])(?: n=(\d+))?(.*)", cell) for cell in cells]
    counts = {part[3] for part in parts if part and part[3]}
    shared = len(counts) == 1
    head = latex(name) + (rf" {{\scriptsize n={counts.pop()}}}" if shared else "")
    return [head, *(_number(cell, part, shared) for cell, part in zip(cells, parts, strict=True))]


def _number(cell: str, part: re.Match[str] | None, shared: bool) -> str:
    if part is None:
        return latex(cell)
    value, interval, n, doubts = part.groups()
    signed = re.sub(r"[-+]", r"$\g<0>$", f"{value} {{\\scriptsize {interval}}}")
    return signed + ("" if shared or not n else f" {{\\scriptsize n={n}}}") + doubts


def _json(board: Board, shown: Shown, asked: Asked) -> str:
    measured = [line.row for ranking in shown.rankings for line in ranking.lines]
    others = [line.row for reports in shown.reports for line in reports.lines]
    rows = sorted([*measured, *others, *(shown.retracted if asked.retracted else ())], key=lambda row: row.awpbench.id)
    document = {
        "schema_version": board.schema_version,
        "rows": [row.document() for row in rows],
        "tables": [*map(_ranking_told, shown.rankings), *map(_reports_told, shown.reports)],
    }
    if shown.beside:
        document["beside"] = [_standings_told(ranking) for ranking in shown.rankings]
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _ranking_told(ranking: Ranking) -> dict[str, object]:
    rows = [
        {
            "id": line.details.id,
            "rank": line.rank,
            "gain": dataclasses.asdict(line.gain) if line.gain else None,
            "gap": gap(line),
        }
        for line in ranking.lines
    ]
    group = ranking.group
    return {"title": ranking.title, "kind": "measured", "ranked_by": group.ranked_by, "n": group.n, "rows": rows}


def _standings_told(ranking: Ranking) -> dict[str, object]:
    found = standings(ranking)
    rows = [
        {
            "id": line.details.id,
            "rank": [standing.best, standing.worst],
            "of": standing.total,
            "same_eps": standing.comparable,
            "above": standing.above.id if standing.above else None,
            "below": standing.below.id if standing.below else None,
        }
        for line, standing in found.places
    ]
    return {"title": found.title, "kind": "reported", "notes": list(found.notes), "rows": rows}


def _reports_told(reports: Reports) -> dict[str, object]:
    rows = [
        {"id": line.row.awpbench.id, "rank": [line.place] * 2 if line.place else None, "gain": None, "gap": None}
        for line in reports.lines
    ]
    return {"title": reports.title, "kind": "reported", "ranked_by": "reported", "n": None, "rows": rows}
