"""`awpbench leaderboard`: print the leaderboard, or add a finished evaluation to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from awpbench.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from awpbench.leaderboard.render import Table
    from awpbench.leaderboard.row import Board

app = typer.Typer(help="Print the leaderboard, or add a result to it.", no_args_is_help=False)

File = Annotated[
    Optional[str],
    typer.Option(help="The leaderboard; else AWPBENCH_LEADERBOARD, else the nearest leaderboard.json at or above this folder."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback(invoke_without_command=True)
def leaderboard(
    context: typer.Context,
    *,
    format: Annotated[
        Optional[Literal["rich", "md", "json", "csv"]], typer.Option(help="rich on a terminal and md elsewhere, if left out.")
    ] = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Print the leaderboard: one table per data set, threat model and suite, best model first."""
    if context.invoked_subcommand is not None:
        if format or file or as_json:
            raise UsageError("an option stands before the name of the command", "Write it behind: awpbench leaderboard add RESULT --file F")
        return
    if as_json and format not in (None, "json"):
        raise UsageError(f"--json and --format {format} exclude each other", "Leave one of them out.")
    chosen = "json" if as_json else format or ("rich" if sys.stdout.isatty() else "md")
    board = _read(file)
    if chosen == "rich":
        _draw(board)
    else:
        from awpbench.leaderboard.render import render

        typer.echo(render(board, chosen), nl=False)


@app.command()
def add(
    result: Annotated[Path, typer.Argument(help="A result.json, or the folder that eval wrote.", show_default=False)],
    *,
    card: Annotated[Optional[str], typer.Option(help="TOML file: link, name, authors, venue, additional_data.")] = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Add the row of a finished evaluation, or supersede the one it repeats."""
    from awpbench.leaderboard.store import write_row

    path, outcome = write_row(result, file=file, card=card)
    typer.echo(json.dumps({"file": str(path), "outcome": outcome}) if as_json else f"{outcome} a row in {path}")


def _read(file: str | None) -> Board:
    from awpbench.leaderboard.row import board_of
    from awpbench.leaderboard.store import find, read

    path = find(file)
    if path.exists():
        return read(path)
    typer.echo(f"There is no leaderboard at {path} yet: awpbench eval writes a row when it ends.", err=True)
    return board_of(())


def _draw(board: Board) -> None:
    from rich.console import Console
    from rich.text import Text

    from awpbench.leaderboard.render import LEGEND, tables

    console = Console()
    console.print(Text(LEGEND, style="dim"))
    for table in tables(board):
        console.print()
        console.print(Text(table.title, style="bold"))
        if table.note:
            console.print(Text(table.note, style="dim"))
        for drawn in _fitting(table, console.width):
            console.print(drawn)


def _fitting(table: Table, width: int) -> list[RichTable]:
    """Draw a table as it is where it fits, else turned round with a column per row, as many side by side as fit."""
    lengths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    if sum(lengths) + 3 * len(lengths) + 1 <= width:
        return [_rich(table.columns, table.rows)]
    first = max(map(len, table.columns)) + 3
    longest = max(len(cell) for row in table.rows for cell in row) + 3
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
