"""`awpbench plot`: pictures of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from tabulate import tabulate

from awpbench.analysis import curves
from awpbench.cli import common
from awpbench.errors import UsageError

app = typer.Typer(help="Draw pictures of runs.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("curves")
def plot_curves(
    runs: Annotated[list[str], typer.Argument(metavar="RUN_DIR...", help="Folders that awpbench train wrote.")],
    *,
    out: Annotated[str, typer.Option(help="The picture to write; its ending says the format.")] = "curves.png",
    as_json: common.JsonOption = False,
) -> None:
    """Draw robust accuracy on training and held-out images over the epochs, and the gap between them.

    Runs that differ in their seed alone are drawn as their mean, in a band from the lowest to the highest.
    """
    read = curves.read_curves([Path(run) for run in runs])
    figure = curves.draw(curves.grouped(read))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(out, dpi=150)
    except ValueError as error:
        raise UsageError(f"{out} cannot be drawn: {error}", "Give an ending such as .png, .pdf or .svg.") from None
    if as_json:
        common.print_json({"picture": out, "runs": [_document(curve) for curve in read]})
        return
    rows = [
        (
            curve.name,
            curve.best,
            f"{curve.at(curve.best):.2%}",
            curve.epochs[-1],
            f"{curve.held_out[-1]:.2%}",
            f"{100 * curve.gap[-1]:.2f}",
        )
        for curve in read
    ]
    heads = ("run", "best epoch", "robust", "last epoch", "robust", "gap, points")
    common.print_text(tabulate(rows, headers=heads, disable_numparse=True))
    common.print_text(f"wrote {out}")


def _document(curve: curves.Curve) -> dict[str, Any]:
    return {
        "name": curve.name,
        "seed": curve.seed,
        "split": curve.split,
        "best": {"epoch": curve.best, "robust": curve.at(curve.best)},
        "last": {"epoch": curve.epochs[-1], "robust": curve.held_out[-1], "gap": curve.gap[-1]},
        "drops": curve.drops,
    }
