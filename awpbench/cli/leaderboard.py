"""`awpbench leaderboard`: print the leaderboard."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awpbench.cli import common
from awpbench.errors import InputError, RefusedError, UsageError, lookup

if TYPE_CHECKING:
    from awpbench.leaderboard.render import Asked
    from awpbench.leaderboard.row import Board

app = typer.Typer(help="Print the leaderboard, add a result to it, look after its rows.")

FileOption = Annotated[
    str | None,
    typer.Option(
        "--file", help="The leaderboard; else AWPBENCH_LEADERBOARD, else the nearest leaderboard.json upwards."
    ),
]


class With(StrEnum):
    """Published rows that can be shown beside those of the leaderboard."""

    robustbench = "robustbench"


FORMATS = {
    "rich": "on a terminal",
    "md": "Markdown as GitHub shows it",
    "csv": "one line per row, numbers in columns of their own",
    "json": "one document: the rows shown, and the tables they stand in",
    "latex": "a booktabs tabular per table",
}
WHOLE = ("csv", "json")  # formats with all columns, whatever is asked for


@app.callback(invoke_without_command=True)
def leaderboard(
    context: typer.Context,
    *,
    format: Annotated[
        str | None, typer.Option(help="rich, md, csv, json or latex; if left out: rich on a terminal, md elsewhere.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Show rows of this data set only.")] = None,
    norm: Annotated[str | None, typer.Option(help="Show rows of this threat only: Linf, L2 or corruptions.")] = None,
    defense: Annotated[str | None, typer.Option(help="Show nets trained with this defense only.")] = None,
    awp: Annotated[
        bool | None, typer.Option("--awp/--no-awp", help="Show nets trained with AWP only, or without.")
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Show this architecture only.")] = None,
    extra_data: Annotated[
        bool | None, typer.Option("--extra-data/--no-extra-data", help="Show rows with extra data only, or without.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Highest first, names from A; the other way round: --sort -COLUMN."),
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(metavar="A,B,...", help="Show these columns only, in this order.")
    ] = None,
    retracted: Annotated[bool, typer.Option("--retracted", help="Name retracted rows and the reasons.")] = False,
    beside: Annotated[
        With | None,
        typer.Option("--with", metavar="robustbench", help="Say where rows would stand among RobustBench's."),
    ] = None,
    file: FileOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Print the leaderboard: one table per data set, threat model and suite, best model first.

    Filters hide rows; ranks and gains stay those among all rows of a table.
    """
    from awpbench.leaderboard.render import ALL, Asked
    from awpbench.leaderboard.view import Selection

    selection = Selection(dataset, norm, defense, awp, _canonical(architecture), extra_data)
    names = tuple(name.strip() for text in columns or () for name in text.split(",") if name.strip())
    asked = Asked(selection, sort, names, retracted, beside is not None)
    if context.invoked_subcommand is not None:
        if format or file or as_json or asked != ALL:
            mend = "Write it behind: awpbench leaderboard add RESULT --file F"
            raise UsageError("an option stands before the name of the command", mend)
        return
    if as_json and format not in (None, "json"):
        raise UsageError(f"--json and --format {format} exclude each other", "Leave one of them out.")
    chosen = "json" if as_json else format or ("rich" if sys.stdout.isatty() else "md")
    lookup(FORMATS, "format", chosen)
    if names and chosen in WHOLE:
        raise UsageError(f"--columns and {chosen} exclude each other", f"Leave --columns out: {chosen} has everything.")
    if beside and chosen == "csv":
        raise UsageError("--with robustbench and csv exclude each other", "Choose --format json.")
    _print(_read(file), chosen, asked)


@app.command()
def page(
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="Where the page is written.", show_default=False)],
    *,
    file: FileOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is no page of awpbench.")] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Write the leaderboard as one static HTML page, which needs neither a network nor a server."""
    from awpbench import rundir
    from awpbench.leaderboard.page import render

    _refuse_to_overwrite(out, force)
    written = render(_read(file))
    try:
        rundir.atomic_write(out, written)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}", "Make room or permission there.") from error
    if as_json:
        common.print_json({"file": str(out), "bytes": len(written)})
    else:
        common.print_text(f"wrote {out}")


def _refuse_to_overwrite(out: Path, force: bool) -> None:
    """Raise RefusedError where a file stands that awpbench did not write as a page."""
    from awpbench.leaderboard.page import is_page

    if out.is_dir():
        raise UsageError(f"{out} is a folder", f"Name a file: awpbench leaderboard page {out / 'index.html'}")
    if out.exists() and not force:
        with out.open("rb") as file:
            if not is_page(file.read(1000)):
                raise RefusedError(
                    f"{out} exists and is no page of awpbench", "Name another file, or overwrite it with --force."
                )


def _read(file: str | None) -> Board:
    from awpbench.leaderboard.row import board_of
    from awpbench.leaderboard.store import find, read

    path = find(file)
    if path.exists():
        return read(path)
    common.note(f"there is no leaderboard at {path} yet: awpbench eval writes a row when it ends")
    return board_of(())


def _canonical(architecture: str | None) -> str | None:
    from awpbench.models import ALIASES

    return None if architecture is None else ALIASES.get(architecture, architecture)


def _print(board: Board, format: str, asked: Asked) -> None:
    from awpbench.leaderboard.render import LEGEND, Shown, render
    from awpbench.leaderboard.view import missed

    shown = Shown.of(board, asked)
    if board.rows and asked.selection.asked and not (shown.rankings or shown.reports):
        common.note(missed(board, asked.selection))
    if format == "rich":
        from awpbench.cli.drawing import draw

        draw(shown.tables(), LEGEND, shown.retractions(asked.retracted))
        return
    common.print_text(render(board, format, asked))
    if format in WHOLE and not asked.retracted:
        for line in shown.retractions(told=False):
            common.note(line)
