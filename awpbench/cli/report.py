"""`awpbench report`: several seeds of one configuration, or what runs reached and where their time went."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from tabulate import tabulate

from awpbench.analysis.runs import Summary, is_run, summarise
from awpbench.cli import common
from awpbench.errors import UsageError

PARTS = {"batch": "batch", "attack": "attack", "ascent": "weight perturbation", "update": "update"}


def report_command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders that eval wrote, one a seed, or that train wrote."),
    ],
    *,
    as_json: common.JsonOption = False,
) -> None:
    """Summarise results of nets that were trained from several seeds: mean and standard deviation.

    Of run folders: what each run reached, and how the seconds of its training are shared among the parts of a step.
    """
    runs = [is_run(folder) for folder in folders]
    if all(runs):
        _report_runs([summarise(folder) for folder in folders], as_json)
        return
    if any(runs):
        what = "some of these folders hold runs and some hold results"
        raise UsageError(what, "Give run folders, or the folders below their eval/.")
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


def _report_runs(summaries: list[Summary], as_json: bool) -> None:
    if as_json:
        common.print_json({"runs": [_document(each) for each in summaries]})
        return
    rows: list[tuple[str, ...]] = [(each.name, f"{each.epochs}/{each.planned}", *_reached(each)) for each in summaries]
    reached = ("run", "epochs", "best epoch", "robust", "last", "gap, points")
    common.print_text(tabulate(rows, headers=reached, disable_numparse=True))
    common.print_text("")
    rows = [(each.name, *_spent(each)) for each in summaries]
    spent = ("run", "s an epoch", *PARTS.values(), "the rest", "measuring, s")
    common.print_text(tabulate(rows, headers=spent, disable_numparse=True))


def _reached(summary: Summary) -> tuple[str, ...]:
    curve = summary.curve
    if curve is None:
        return ("-",) * 4
    return (
        str(curve.best),
        f"{curve.at(curve.best):.2%}",
        f"{curve.held_out[-1]:.2%}",
        f"{100 * curve.gap[-1]:.2f}",
    )


def _spent(summary: Summary) -> tuple[str, ...]:
    times = summary.times
    if times is None:
        return ("-",) * (len(PARTS) + 3)
    shares = times.shares
    parts = ["-"] * (len(PARTS) + 1)
    if shares is not None:
        parts = [f"{share:.1%}" for share in (*(shares[part] for part in PARTS), 1 - sum(shares.values()))]
    return f"{times.epoch_seconds:.3g}", *parts, f"{times.measure_seconds:.3g}"


def _document(summary: Summary) -> dict[str, Any]:
    """Write a summary with its curve as the best and the last measurement."""
    curve = summary.curve
    measured = curve and {
        "split": curve.split,
        "best": {"epoch": curve.best, "robust": curve.at(curve.best)},
        "last": {"epoch": curve.epochs[-1], "robust": curve.held_out[-1], "gap": curve.gap[-1]},
    }
    times = summary.times and asdict(summary.times)
    return {
        "run": summary.name,
        "epochs": summary.epochs,
        "planned": summary.planned,
        **(measured or {}),
        "times": times,
    }
