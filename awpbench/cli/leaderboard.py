"""`awpbench leaderboard`: print the leaderboard."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from awpbench.cli import common
from awpbench.errors import UsageError, lookup

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from awpbench.leaderboard.render import Table
    from awpbench.leaderboard.row import Board

app = typer.Typer(help="Print the leaderboard, add a result to it, look after its rows.")

FileOption = Annotated[
    str | None,
    typer.Option(
        "--file", help="The leaderboard; else AWPBENCH_LEADERBOARD, else the nearest leaderboard.json upwards."
    ),
]
FORMATS = {"rich": "on a terminal", "md": "Markdown", "json": "the file's own form", "csv": "one line per row"}


@app.callback(invoke_without_command=True)
def leaderboard(
    context: typer.Context,
    *,
    format: Annotated[
        str | None, typer.Option(help="rich, md, json or csv; if left out: rich on a terminal, md elsewhere.")
    ] = None,
    file: FileOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Print the leaderboard: one table per data set, threat model and suite, best model first."""
    if context.invoked_subcommand is not None:
        if format or file or as_json:
            mend = "Write it behind: awpbench leaderboard add RESULT --file F"
            raise UsageError("an option stands before the name of the command", mend)
        return
    if as_json and format not in (None, "json"):
        raise UsageError(f"--json and --format {format} exclude each other", "Leave one of them out.")
    chosen = "json" if as_json else format or ("rich" if sys.stdout.isatty() else "md")
    lookup(FORMATS, "format", chosen)
    board = _read(file)
    if chosen == "rich":
        _draw(board)
    else:
        from awpbench.leaderboard.render import render

        common.print_text(render(board, chosen))


def _read(file: str | None) -> Board:
    from awpbench.leaderboard.row import board_of
    from awpbench.leaderboard.store import find, read

    path = find(file)
    if path.exists():
        return read(path)
    common.note(f"there is no leaderboard at {path} yet: awpbench eval writes a row when it ends")
    return board_of(())


def _draw(board: Board) -> None:
    from rich.text import Text

    from awpbench.leaderboard.render import LEGEND, tables

    console = common.stdout()
    console.print(Text(LEGEND, style="dim"))
    for table in tables(board):
        console.print()
        console.print(Text(table.title, style="bold"))
        for drawn in _fitting(table, console.width):
            console.print(drawn)
        for note in table.notes:
            console.print(Text(note, style="dim"))


def _fitting(table: Table, width: int) -> list[RichTable]:
    """Draw a table as it is where it fits, else turned round with a column per row, as many side by side as fit."""
    lengths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    if not table.rows or sum(lengths) + 3 * len(lengths) + 1 <= width:
        return [_rich(table.columns, table.rows)]
    first = max(map(len, table.columns)) + 3
    cells = (zip(table.columns, row, strict=True) for row in table.rows)
    longest = max(len(cell) for row in cells for column, cell in row if column != "model") + 3  # a long name folds
    side_by_side = max(1, (width - first - 1) // longest)
    chunks = [table.rows[start : start + side_by_side] for start in range(0, len(table.rows), side_by_side)]
    turned = [tuple(zip(table.columns, *chunk, strict=True)) for chunk in chunks]
    return [_rich(lines[0], lines[1:]) for lines in turned]


def _rich(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    drawn = Table()
    for column in columns:
        drawn.add_column(Text(column), overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn
