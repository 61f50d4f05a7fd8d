"""`awpbench report`: several seeds of one configuration."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from awpbench.cli import common


def report_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RESULT...", help="Folders that eval wrote, one a seed.", show_default=False)
    ],
    *,
    as_json: common.JsonOption = False,
) -> None:
    """Summarise results of nets that were trained from several seeds: mean and standard deviation."""
    from awpbench.evaluation.results import Result
    from awpbench.evaluation.seeds import selected_on_test, spread

    results = [Result.read(folder) for folder in folders]
    found = spread(results)
    selected = any(map(selected_on_test, results))
    if as_json:
        common.print_json({"selected_on_test": selected, "attacks": [asdict(each) for each in found]})
        return
    rows = [
        (
            each.attack,
            f"{each.mean:.2%}",
            "-" if each.std is None else f"{100 * each.std:.2f}",
            f"{each.lowest:.2%} - {each.highest:.2%}",
            each.n,
            each.images,
        )
        for each in found
    ]
    heads = ("attack", "mean", "std, points", "range", "seeds", "images")
    common.print_text(tabulate(rows, headers=heads, disable_numparse=True))
    if selected:
        common.print_text("\nselected on test: each net is the best of its checkpoints on these images, so too good")
