"""`awpbench compare`: two results on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from awpbench.cli import common


def compare_command(
    first: Annotated[Path, typer.Argument(metavar="RESULT_A", help="Folder that eval wrote.", show_default=False)],
    second: Annotated[
        Path, typer.Argument(metavar="RESULT_B", help="Another, on the same images.", show_default=False)
    ],
    *,
    as_json: common.JsonOption = False,
) -> None:
    """Compare two results image by image: difference B - A, its 95 % interval, and the exact McNemar test's p."""
    from awpbench.evaluation.compare import compare, document
    from awpbench.evaluation.results import Result
    from awpbench.evaluation.seeds import selected_on_test

    one, other = Result.read(first), Result.read(second)
    differences = compare(one, other)
    selected = {letter: selected_on_test(result) for letter, result in (("A", one), ("B", other))}
    if as_json:
        common.print_json({"selected_on_test": selected, "attacks": document(differences)})
        return
    for letter, result in zip("AB", (one, other), strict=True):
        common.print_text(f"{letter}: {result.document['model']['name']}")
    rows = [
        (
            each.attack,
            f"{each.first:.2%}",
            f"{each.second:.2%}",
            f"{100 * each.difference:+.2f} [{100 * each.interval[0]:+.2f}, {100 * each.interval[1]:+.2f}]",
            each.only_first,
            each.only_second,
            each.n,
            f"{each.p:.2g}",
        )
        for each in differences
    ]
    heads = ("attack", "A", "B", "B - A, points [95 %]", "only A right", "only B right", "n", "p")
    common.print_text(tabulate(rows, headers=heads, disable_numparse=True))
    for letter in (letter for letter, flagged in selected.items() if flagged):
        common.print_text(f"\n{letter} is selected on test: the best of its checkpoints on these images, so too good")
