"""The leaderboard as tables: Markdown, CSV and JSON as text; headers and cells for whoever draws them otherwise.

Names come from strangers: every cell is freed of control characters, and each format escapes what it would interpret.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from dataclasses import dataclass

from tabulate import tabulate

from awpbench.leaderboard.attacks import COLUMNS, place
from awpbench.leaderboard.columns import AFTER, BEFORE, column, numbers, usual
from awpbench.leaderboard.row import Board
from awpbench.leaderboard.store import canonical
from awpbench.leaderboard.view import Ranking, rankings

LEGEND = "Accuracy in percent, its 95 % Wilson interval, and n, the number of images. Ranks hold within a table only."
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute


@dataclass(frozen=True)
class Table:
    """One group of comparable rows, best first; all text is plain, without control characters."""

    title: str
    notes: tuple[str, ...]  # how each attack is defined
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(board: Board) -> list[Table]:
    """Return one table per group of comparable rows, or an empty one."""
    empty = Table("no results yet", (), (*BEFORE, *AFTER), ())
    return [_table(ranking, usual(ranking)) for ranking in rankings(board)] or [empty]


def render(board: Board, format: str) -> str:
    """Write the leaderboard as `md`, `json` or `csv`, text that ends with a newline. JSON is the file's own form."""
    if format == "json":
        return canonical(board).decode()
    return _csv(board) if format == "csv" else _markdown(board)


def plain(text: str) -> str:
    """Replace what is no visible character (line ends, escape codes, text direction marks) by a blank."""
    return "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in text)


def _table(ranking: Ranking, names: list[str]) -> Table:
    cells = [[column(name).cell(line) for name in names] for line in ranking.lines]
    return Table(
        plain(ranking.title),
        tuple(map(plain, ranking.notes)),
        tuple(map(plain, names)),
        tuple(tuple(map(plain, line)) for line in cells),
    )


def _markdown(board: Board) -> str:
    blocks = [LEGEND]
    for table in tables(board):
        rows = [list(map(_escaped, row)) for row in table.rows]
        text = tabulate(rows, headers=table.columns, tablefmt="github", disable_numparse=True)
        notes = ["\n".join(f"- {_escaped(note)}" for note in table.notes)] if table.notes else []
        blocks += [f"### {_escaped(table.title)}", text, *notes]
    return "\n\n".join(blocks) + "\n"


def _escaped(text: str) -> str:
    """Escape what Markdown, or HTML inside it, would interpret; an underscore within a word is none of it."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~!#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)


def _csv(board: Board) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranked = rankings(board)
    attacks = sorted({name for ranking in ranked for name in ranking.attacks}, key=lambda name: place(name, COLUMNS))
    of_group = ("dataset", "norm", "eps", "data", "indices", "n", "suite", "series", "dialect", "ranked_by")
    of_attacks = [f"{name}{part}" for name in attacks for part in ("", "_low", "_high", "_n")]
    before, after = [name for name in BEFORE if name != "rank"], [name for name in AFTER if name not in ("n",)]
    writer.writerow([*of_group, "rank", "id", *before, *of_attacks, "incomplete", *after])
    for ranking in ranked:
        for line in ranking.lines:
            row = line.details
            shared = [str(getattr(ranking.group, field)) for field in of_group]
            measured = [
                cell for name in attacks for cell in (numbers(row.attacks[name]) if name in row.attacks else [""] * 4)
            ]
            incomplete = " ".join(name for name, attack in row.attacks.items() if not attack.complete)
            named = [[column(name).cell(line) for name in names] for names in (before, after)]
            cells = (*shared, column("rank").cell(line), row.id, *named[0], *measured, incomplete, *named[1])
            writer.writerow([_inert(cell) for cell in cells])
    return text.getvalue()


def _inert(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    text = plain(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
