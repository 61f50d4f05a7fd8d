"""Tables of the leaderboard drawn on a terminal of any width."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from awpbench.cli import common

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from awpbench.leaderboard.render import Table

READABLE = 24  # characters: a name is not folded into less where there is room for it
BORDERS = 3  # characters beside the text of a cell: two blanks and a line


def draw(tables: Sequence[Table], legend: str, remarks: Sequence[str]) -> None:
    """Print tables with their titles and notes, and a line per remark; text is shown as it is, never as markup."""
    from rich.text import Text

    console = common.stdout()
    console.print(Text(legend, style="dim"))
    for table in tables:
        console.print()
        console.print(Text(table.title, style="bold"))
        if table.legend != legend:
            console.print(Text(table.legend, style="dim"))
        for drawn in fitting(table, console.width):
            console.print(drawn)
        for note in table.notes:
            console.print(Text(note, style="dim"))
    if remarks:
        console.print()
    for remark in remarks:
        console.print(Text(remark))


def fitting(table: Table, width: int) -> list[RichTable]:
    """Draw a table as it is where it fits, else turned round with a column per row, as many side by side as fit."""
    from rich.cells import cell_len

    table = _without_blank_columns(table)
    lengths = [max(map(cell_len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    if not table.rows or sum(lengths) + BORDERS * len(lengths) + 1 <= width:
        return [_rich(table.columns, table.rows)]
    first = max(map(cell_len, table.columns)) + BORDERS
    folded = {name for name in ("model", "paper", "authors", "source") if name in table.columns}  # long, and may fold
    others = [length for name, length in zip(table.columns, lengths, strict=True) if name not in folded]
    longest = max(others, default=0) + BORDERS
    longest = max(longest, min(READABLE, max(lengths)) + BORDERS)
    side_by_side = max(1, (width - first - 1) // longest)
    chunks = [table.rows[start : start + side_by_side] for start in range(0, len(table.rows), side_by_side)]
    turned = [tuple(zip(table.columns, *chunk, strict=True)) for chunk in chunks]
    return [_rich(lines[0], lines[1:]) for lines in turned]


def _without_blank_columns(table: Table) -> Table:
    """Leave out what no row says: a terminal has no room for it."""
    told = [k for k in range(len(table.columns)) if any(row[k] for row in table.rows)]
    if not told:
        return table
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[k] for k in told),
        ours=tuple(table.ours[k] for k in told),
        rows=tuple(tuple(row[k] for k in told) for row in table.rows),
    )


def _rich(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    drawn = Table()
    for column in columns:
        drawn.add_column(Text(column), overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn
