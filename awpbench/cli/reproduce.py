"""`awpbench reproduce`: run a table of the AWP paper and set its numbers beside ours."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tabulate import tabulate

from awpbench.cli import common, training
from awpbench.errors import InputError

if TYPE_CHECKING:
    import torch

    from awpbench.config import TrainConfig
    from awpbench.data.images import DataSet
    from awpbench.evaluation import runner
    from awpbench.reproduce.forecast import Forecast
    from awpbench.reproduce.runs import Run
    from awpbench.reproduce.work import Outcome


def reproduce(
    which: Annotated[str, typer.Argument(help="table1, table2, figures or all")],
    *,
    scale: Annotated[str, typer.Option(help="paper, small (2 cores) or smoke (minutes)")] = "paper",
    seeds: Annotated[int, typer.Option(help="Trainings of each recipe, with the seeds 0, 1, ...")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="Only this recipe; repeatable.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of all runs; else reproduction/<scale>.")] = None,
    device: common.DeviceOption = "auto",
    data_dir: common.DataDirOption = None,
    offline: common.OfflineOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs with estimated time and disk; train nothing.")
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Train and evaluate the recipes of a table and print it beside the paper's.

    The same command continues after an interruption: finished runs are skipped.
    """
    from awpbench.reproduce.runs import plan

    folder, data_folder = Path(out) if out else None, Path(data_dir) if data_dir else None
    runs = plan(which, scale=scale, seeds=seeds, only=only or (), out=folder, data_dir=data_folder)
    on = common.resolve_device(device)
    if dry_run:
        _show_plan(runs, on, offline, as_json=as_json)
        return
    from awpbench.reproduce.report import Report
    from awpbench.reproduce.work import work

    with common.stop_on_signals() as stop:
        outcomes = work(runs, device=on, hands=_Hands(on, offline, stop))
    report = Report(outcomes)
    if as_json:
        common.print_json(report.document())
    else:
        common.print_text(report.markdown())
    _exit_with(outcomes)


class _Hands:
    """Loads, trains and evaluates as `awpbench train` and `awpbench eval` do, with their progress."""

    def __init__(self, device: torch.device, offline: bool, stop: common.Stop) -> None:
        self._device, self._offline, self._stop = device, offline, stop
        self._last: tuple[object, DataSet] | None = None

    def begin(self, run: Run, number: int, total: int) -> None:
        common.note(f"run {number} of {total}: {run.name}")

    def load(self, config: TrainConfig, data_dir: Path | None) -> DataSet:
        """Load a data set, or take the one that was used last: neighbours in a plan share it."""
        key = (config.dataset, data_dir, config.validation_examples, config.train_examples, config.unlabelled)
        if self._last is None or self._last[0] != key:
            self._last = (key, training.load(config, str(data_dir) if data_dir else None, self._offline))
        return self._last[1]

    def train(self, config: TrainConfig, data: DataSet, folder: Path, *, resume: bool) -> None:
        training.train(config, data, folder, self._device, resume=resume, as_json=False)

    def evaluation(self, label: str) -> AbstractContextManager[runner.Progress]:
        from awpbench.cli.evaluation import EvaluationProgress

        return EvaluationProgress(label)

    def stopped(self) -> int | None:
        return self._stop()


def _exit_with(outcomes: list[Outcome]) -> None:
    """End with the exit code of the first run that failed, else with that of missing data where some is missing."""
    failed = [outcome.error for outcome in outcomes if outcome.status == "failed" and outcome.error]
    missing = [outcome for outcome in outcomes if outcome.status == "missing"]
    if failed or missing:
        common.note(f"{len(failed)} runs failed and {len(missing)} lack something; the list above says what to do")
        raise typer.Exit(failed[0].exit_code if failed else InputError.exit_code)


def _show_plan(runs: list[Run], device: torch.device, offline: bool, *, as_json: bool) -> None:
    from awpbench.reproduce.forecast import forecast

    hands = _Hands(device, offline, common.Stop())
    found = forecast(runs, load=hands.load, device=device)
    totals = {what: sum(getattr(each, what) or 0.0 for each in found) for what in ("training", "evaluation", "disk")}
    folder = runs[0].out
    free = shutil.disk_usage(next(each for each in [folder, *folder.absolute().parents] if each.exists())).free
    if as_json:
        listed = [_values(each) for each in found]
        common.print_json({"runs": listed, **totals, "free_disk": free, "device": str(device)})
        return
    rows = [
        (each.run.name, each.state, *_times(each), "-" if each.disk is None else _size(each.disk)) for each in found
    ]
    rows.append(
        (
            f"{len(runs)} runs",
            "",
            common.duration(totals["training"]),
            common.duration(totals["evaluation"]),
            _size(totals["disk"]),
        )
    )
    heads = ("run", "state", "training", "evaluation, at most", "disk")
    common.print_text(tabulate(rows, headers=heads, disable_numparse=True))
    problems = dict.fromkeys(f"{each.state}: {each.problem}" for each in found if each.problem)
    common.print_text("\n" + "\n".join([*problems, ""]) if problems else "")
    common.print_text(
        f"scale {runs[0].scale.name}: {runs[0].scale.rule}\n"
        f"on {device}, one run after the other; {_size(free)} are free at {folder}"
    )


def _times(found: Forecast) -> tuple[str, str]:
    training, evaluation = (
        "-" if seconds is None else common.duration(seconds) for seconds in (found.training, found.evaluation)
    )
    return training, evaluation


def _values(found: Forecast) -> dict[str, Any]:
    run = {"recipe": found.run.recipe.name, "seed": found.run.seed, "folder": str(found.run.folder)}
    return {**run, **{key: value for key, value in vars(found).items() if key != "run"}}


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
