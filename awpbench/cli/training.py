"""What the commands that train have in common: several processes, loading, the run folder, progress."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from awpbench import rundir
from awpbench.cli import common
from awpbench.errors import CheckError, InputError, Interrupted, RefusedError, UsageError

if TYPE_CHECKING:
    import torch

    from awpbench.config import TrainConfig
    from awpbench.data.images import DataSet
    from awpbench.training.distributed import Group
    from awpbench.training.tensorboard import EventFiles

RUN_FILES = (rundir.CONFIG, rundir.LAST, rundir.BEST, rundir.METRICS, rundir.TIMING, rundir.PROVENANCE)


@contextmanager
def together(device: str) -> Iterator[tuple[Group, torch.device]]:
    """Join the other processes under torchrun, and say which GPU is this one's; only the first reports an error.

    An error that each of them finds alike, that is: what one alone knows, such as a file that only it lacks, it says.
    """
    from awpbench.training.distributed import ALONE, ToldError, joined

    place = common.torchrun_place()
    if place is None:
        yield ALONE, common.resolve_device(device)
        return
    rank, count, local = place
    try:
        on = common.resolve_device(device)
        on = common.resolve_device(f"cuda:{local}") if str(on) == "cuda" else on
        with joined(rank, count, on) as group:
            yield group, on
    except (UsageError, RefusedError, CheckError, Interrupted, ToldError) as error:
        if rank == 0:
            raise
        raise typer.Exit(error.exit_code) from error


def load_once(group: Group, config: TrainConfig, data_dir: str | None, offline: bool) -> DataSet:
    """Load a data set in process 0, which fetches what is missing, and then in the others."""

    def here() -> DataSet:
        return load(config, data_dir, offline)

    return group.lead(here) or here()


def events(run: Path, wanted: bool) -> EventFiles | None:
    """Return the TensorBoard files of a run where they are wanted. Raises UsageError where the package is missing."""
    if not wanted:
        return None
    from awpbench.training.tensorboard import EventFiles

    return EventFiles(run / rundir.TENSORBOARD)


def load(config: TrainConfig, data_dir: str | None, offline: bool) -> DataSet:
    """Load what a run trains on and is measured on, and its images with pseudo-labels."""
    from awpbench import data
    from awpbench.cli.data import fetch_progress
    from awpbench.data.files import load_unlabelled

    with fetch_progress() as progress:
        found = data.load(
            config.dataset,
            data_dir=Path(data_dir) if data_dir else None,
            offline=offline,
            validation=config.validation_examples,
            train_examples=config.train_examples,
            progress=progress,
        )
    if config.unlabelled is None:
        return found
    unlabelled = load_unlabelled(Path(config.unlabelled), shape=found.shape, classes=found.classes)
    return replace(found, unlabelled=unlabelled)


def bound(config: TrainConfig, data: DataSet, sources: dict[str, str]) -> TrainConfig:
    """Bind a run to the content of the files that it names, and say where their hashes came from."""
    from awpbench.training.start import bound

    found = bound(config, data)
    for field, file in (("init_weights", "init_from"), ("unlabelled_fingerprint", "unlabelled")):
        if getattr(found, field) != getattr(config, field):
            sources[field] = f"the file of --{file.replace('_', '-')}"
    return found


def refuse_to_overwrite(run: Path, force: bool) -> None:
    """Raise RefusedError for a folder that holds a run, unless it is to be overwritten."""
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run} is a file", "Name a folder with --out.")
    existing = [name for name in RUN_FILES if (run / name).exists()]
    if {rundir.LAST, rundir.BEST, rundir.METRICS} & {*existing} and not force:  # none of them: a start that failed
        raise RefusedError(
            f"{run} already holds a run ({', '.join(existing)})",
            f"Continue it with: awpbench resume {run}, or overwrite it with --force, or write elsewhere with --out.",
        )


def _remove_old_run(run: Path) -> None:
    """Remove what another run left, its evaluations included: they belong to weights that are about to go."""
    for name in (*RUN_FILES, rundir.LOG, f"{rundir.LAST}.sha256", f"{rundir.BEST}.sha256"):
        (run / name).unlink(missing_ok=True)
    for name in (rundir.EVAL, rundir.TENSORBOARD):
        shutil.rmtree(run / name, ignore_errors=True)


def train(
    config: TrainConfig,
    data: DataSet,
    run: Path,
    device: torch.device,
    *,
    resume: bool,
    as_json: bool,
    group: Group | None = None,
    checkpoint_every: float = 10.0,
    events: EventFiles | None = None,
) -> None:
    """Train into a run folder, telling how it goes, and say at the end what is there."""
    from awpbench.cli.progress import TrainingProgress, Unseen
    from awpbench.training.distributed import ALONE
    from awpbench.training.loop import train as run_training

    group = group or ALONE
    first, processes = group.rank == 0, group.count
    with (
        common.stop_on_signals(quiet=not first) as stop,
        TrainingProgress(config, run / rundir.LOG, events) if first else nullcontext(Unseen()) as progress,
    ):
        metrics = run_training(
            config,
            data,
            run,
            device=device,
            progress=progress,
            stop=stop,
            resume=resume,
            begun=lambda: _begin(run, data, str(device), processes, resume=resume),
            checkpoint_every=checkpoint_every,
            group=group,
        )
    if not first:
        return
    if as_json:
        common.print_json({"run": str(run), "last": metrics[-1], "checkpoint": str(run / rundir.BEST)})
    else:
        common.note(f"finished: {run}. Attack it with: awpbench eval --ckpt {run / rundir.BEST} --suite full")


def _begin(run: Path, data: DataSet, device: str, processes: int, *, resume: bool) -> None:
    """Clear the run folder of what it must not hold, and say there what makes the run from here on."""
    from awpbench import provenance

    if not resume:
        _remove_old_run(run)
    rundir.remove_torn(run)
    _record_provenance(run, data, {**provenance.describe(device), "processes": processes}, resume=resume)


def _record_provenance(run: Path, data: DataSet, described: dict[str, Any], *, resume: bool) -> None:
    """Write what made the run; a resumed run keeps what it says and adds to it, if its images are still the same."""
    path = run / rundir.PROVENANCE
    fingerprints = {split: getattr(data, split).fingerprint() for split in ("train", "validation", "test")}
    if not resume or not path.exists():
        rundir.write_json(path, {**described, "data": fingerprints, "resumed": []})
        return
    try:
        before = json.loads(path.read_text())
    except ValueError:
        raise InputError(
            f"{path} is damaged", "Restore it, or remove it: the run then says where it was resumed."
        ) from None
    if before["data"] != fingerprints:
        raise InputError(
            f"{run} was trained on other images than those found now", "Give the --data-dir that it was started with."
        )
    rundir.write_json(path, {**before, "resumed": [*before.get("resumed", []), described]})
