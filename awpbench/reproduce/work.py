"""Do the runs of a plan: train and evaluate each, skip what is finished, continue what was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from filelock import FileLock, Timeout

from awpbench import rundir
from awpbench.config import TrainConfig
from awpbench.data.images import DataSet
from awpbench.errors import AwpbenchError, InputError, Interrupted, RefusedError
from awpbench.evaluation import runner
from awpbench.evaluation.subject import from_checkpoint
from awpbench.reproduce.runs import UNLABELLED, Run
from awpbench.reproduce.stand_ins import write_unlabelled

LOCK = ".reproduce.lock"
TRAINED = ".trained"  # in a run folder: the hash of the last.pt that ended the training
OF_FILES = ("init_from", "init_weights", "unlabelled", "unlabelled_fingerprint")  # fields that follow from paths


class Hands(Protocol):
    """What the work is done with: how data are loaded, a net is trained, and people are told what is going on."""

    def begin(self, run: Run, number: int, total: int) -> None:
        """Report that a run's turn has come, `number` of `total` from 1."""

    def load(self, config: TrainConfig, data_dir: Path | None) -> DataSet:
        """Load what a run trains and is evaluated on; raises InputError where it is missing."""

    def train(self, config: TrainConfig, data: DataSet, folder: Path, *, resume: bool) -> None:
        """Train into a run folder, from the start or from its `last.pt`; errors as in `training.loop.train`."""

    def evaluation(self, label: str) -> AbstractContextManager[runner.Progress]:
        """Watch an evaluation."""

    def stopped(self) -> int | None:
        """Return the number of a signal that came."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run: it is finished, something that it needs is missing, or it failed."""

    run: Run
    status: Literal["finished", "missing", "failed"]
    error: AwpbenchError | None = None


def work(runs: Sequence[Run], *, device: torch.device, hands: Hands) -> list[Outcome]:
    """Do the runs in their order; the same call continues where a signal or a kill ended it.

    What concerns one run alone, a missing data set or a loss that is no longer finite, is its outcome; the others go
    on. Raises Interrupted after a signal, and RefusedError where another process does these runs.
    """
    runs[0].out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    try:
        with FileLock(runs[0].out / LOCK, timeout=0):
            for number, run in enumerate(runs, 1):
                if (signal_number := hands.stopped()) is not None:
                    raise Interrupted("stopped between two runs", "", signal_number=signal_number)
                hands.begin(run, number, len(runs))
                outcomes.append(_outcome(run, device, hands))
    except Timeout:
        what = f"another process writes to {runs[0].out}"
        raise RefusedError(what, "Wait for it, or give another --out.") from None
    except Interrupted as stopped:
        mend = "Run the same command again: it continues there."
        raise Interrupted(stopped.what, mend, signal_number=stopped.exit_code - 128) from None
    return outcomes


def _outcome(run: Run, device: torch.device, hands: Hands) -> Outcome:
    try:
        config = run.config()
        if config.unlabelled == str(run.out / UNLABELLED):
            write_unlabelled(run.out / UNLABELLED, config)
        data = hands.load(config, run.data_dir)
    except InputError as error:
        return Outcome(run, "missing", error)
    except AwpbenchError as error:
        return Outcome(run, "failed", error)
    try:
        _train(run, config, data, hands)
        _evaluate(run, config, data, device, hands)
    except Interrupted:
        raise
    except AwpbenchError as error:
        return Outcome(run, "failed", error)
    return Outcome(run, "finished")


def _train(run: Run, config: TrainConfig, data: DataSet, hands: Hands) -> None:
    resume = (run.folder / rundir.LAST).exists()
    if resume:
        config = _begun(run.folder, config)
        if is_trained(run.folder):
            return
    hands.train(config, data, run.folder, resume=resume)
    rundir.atomic_write(run.folder / TRAINED, rundir.sha256(run.folder / rundir.LAST).encode())


def _begun(folder: Path, config: TrainConfig) -> TrainConfig:
    """Return the configuration that a run was started with; raises RefusedError where that is another one's."""
    try:
        before = TrainConfig.model_validate_json((folder / rundir.CONFIG).read_text())
    except (OSError, ValueError):
        mend = f"Remove {folder}: the run then starts anew."
        raise InputError(f"{folder / rundir.CONFIG} is missing or damaged", mend) from None
    if _bare(before) != _bare(config):
        what = f"{folder} holds a run with other values than the recipe's"
        raise RefusedError(what, "Give another --out, or remove that folder.")
    return before


def _bare(config: TrainConfig) -> dict[str, object]:
    return {key: value for key, value in config.model_dump().items() if key not in OF_FILES}


def is_trained(folder: Path) -> bool:
    """Tell whether the training of a run folder was done to its end."""
    marker, last = folder / TRAINED, folder / rundir.LAST
    return marker.exists() and last.exists() and marker.read_text() == rundir.sha256(last)


def _evaluate(run: Run, config: TrainConfig, data: DataSet, device: torch.device, hands: Hands) -> None:
    results = run.results(config)
    for checkpoint, how in run.evaluations(config).items():
        path = run.folder / f"{checkpoint}.pt"
        subject = from_checkpoint(path, arch=None, width=None, dataset=None, preprocessing=None)
        with hands.evaluation(f"{run.name}/{checkpoint}: ") as progress:
            runner.evaluate(
                subject.net,
                data.test,
                how,
                classes=data.classes,
                model=subject.description,
                checkpoint=subject.checkpoint,
                training=subject.training,
                out=results[checkpoint],
                device=device,
                progress=progress,
                stop=hands.stopped,
            )
