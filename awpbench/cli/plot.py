"""`awpbench plot`: pictures of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from awpbench.analysis import curves
from awpbench.cli import common

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
    """Draw robust accuracy on training and held-out images over the epochs."""
    read = [curves.read_curve(Path(run)) for run in runs]
    figure = curves.draw(read)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    if as_json:
        common.print_json({"picture": out, "runs": [curve.name for curve in read]})
    else:
        common.print_text(f"wrote {out}")
