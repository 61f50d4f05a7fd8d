"""`awpbench data`: fetch data sets ahead of their first use, check those that are there, and write parts of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from tabulate import tabulate

from awpbench import data, own_data
from awpbench.cli import common
from awpbench.cli.images import pseudolabel, subset
from awpbench.errors import lookup

app = typer.Typer(help="Fetch or check data sets, label images, cut out a part.", no_args_is_help=True)
app.command()(pseudolabel)
app.command()(subset)

NamesArgument = Annotated[list[str], typer.Argument(metavar="NAME", help=f"{', '.join(data.DATASETS)}, or a path")]

OUTCOMES: dict[data.Fetched, str] = {
    "fetched": "fetched into {folder}",
    "present": "already complete in {folder}",
    "embedded": "comes with scikit-learn, nothing to fetch",
    "own": "your own, complete, nothing to fetch",
}


@app.command()
def fetch(names: NamesArgument, *, data_dir: common.DataDirOption = None, as_json: common.JsonOption = False) -> None:
    """Fetch data sets that are missing or damaged."""
    folder = _prepare(names, data_dir)
    results = []
    for name in names:
        with fetch_progress() as progress:
            outcome = data.fetch(name, data_dir=folder, progress=progress)
        results.append(
            {"dataset": name, "folder": None if outcome in ("embedded", "own") else str(folder), "outcome": outcome}
        )
        if not as_json:
            common.print_text(f"{name}: {OUTCOMES[outcome].format(folder=folder)}")
    if as_json:
        common.print_json(results)


@app.command()
def check(names: NamesArgument, *, data_dir: common.DataDirOption = None, as_json: common.JsonOption = False) -> None:
    """Check that data sets are there and are the published ones; print counts and fingerprints."""
    folder = _prepare(names, data_dir)
    found = [
        {
            "dataset": name,
            "split": split,
            "images": len(images),
            "shape": list(images.images.shape[1:]),
            "fingerprint": images.fingerprint(),
        }
        for name in names
        for split, images in data.check(name, data_dir=folder).items()
    ]
    if as_json:
        common.print_json(found)
    else:
        rows = [(row["dataset"], row["split"], row["images"], row["fingerprint"]) for row in found]
        common.print_text(tabulate(rows, headers=("data set", "split", "images", "fingerprint"), disable_numparse=True))


@contextmanager
def fetch_progress() -> Iterator[data.Progress]:
    """Give a callback that shows downloads on standard error: bars on a terminal, plain lines elsewhere."""
    console = common.stderr()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console)
    tasks: dict[str, TaskID] = {}
    due = common.Every()

    def show(done: int, total: int, name: str) -> None:
        if not tasks and console.is_terminal:
            bars.start()
        new = name not in tasks
        if new:
            tasks[name] = bars.add_task(f"fetching {name}", total=None)
        bars.update(tasks[name], completed=done, total=total or None)
        if not console.is_terminal and (new or done == total or due()):
            common.note(f"fetching {name}: {decimal(done)}" + (f" of {decimal(total)}" if total else ""))

    try:
        yield show
    finally:
        if tasks and console.is_terminal:
            bars.stop()


def _prepare(names: list[str], data_dir: str | None) -> Path:
    """Refuse an unknown name before anything is done, and return the data folder."""
    from awpbench.data.sources import data_folder

    for name in names:
        if not own_data.is_own(own_data.spelled(name)):
            lookup(data.DATASETS, "data set", name)
    return data_folder(Path(data_dir) if data_dir else None)
