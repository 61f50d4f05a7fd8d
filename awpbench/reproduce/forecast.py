"""What a plan would cost here: time from one timed net per architecture, scaled by passes, and disk."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from awpbench import rundir
from awpbench.config import TrainConfig
from awpbench.data.images import DataSet
from awpbench.errors import AwpbenchError, InputError
from awpbench.evaluation.estimate import Estimate as EvaluationEstimate
from awpbench.evaluation.estimate import estimate as time_passes
from awpbench.evaluation.jobs import jobs
from awpbench.reproduce.runs import Run
from awpbench.reproduce.work import is_trained
from awpbench.training.estimate import Estimate, estimate
from awpbench.training.state import fresh

PASSES_TIMED = 2  # of the step that is timed: one of the attack, one of the update
BYTES_PER_PARAMETER = 12  # weights and momentum in last.pt, weights in best.pt
BYTES_PER_IMAGE = 24  # and attack, in a result


@dataclass(frozen=True)
class Forecast:
    """A run's state, and the seconds and bytes that it still takes, None where something is missing or nothing left."""

    run: Run
    state: str
    training: float | None = None
    evaluation: float | None = None
    disk: float | None = None
    problem: str | None = None  # what is missing, and how to get it


@dataclass(frozen=True)
class _Timed:
    config: TrainConfig  # what was timed
    training: Estimate
    evaluation: EvaluationEstimate


def forecast(
    runs: Sequence[Run], *, load: Callable[[TrainConfig, Path | None], DataSet], device: torch.device
) -> list[Forecast]:
    """Say of each run where it is and what it takes; trains and writes nothing."""
    known: dict[object, _Timed] = {}
    found = []
    for run in runs:
        try:
            config = run.config()
            bare = config.model_copy(
                update={"defense": "at", "loss": None, "unlabelled": None, "init_from": None, "precision": "fp32"}
            )
            data = load(bare, run.data_dir)
        except AwpbenchError as error:
            state = "missing" if isinstance(error, InputError) else "refused"
            found.append(Forecast(run, state, problem=f"{error.what}. {error.mend}"))
            continue
        if all((result / rundir.RESULT).exists() for result in run.results(config).values()):
            found.append(Forecast(run, "finished"))
            continue
        key = (config.dataset, config.architecture, config.width, config.batch_size)
        if key not in known:
            known[key] = _time(bare, data, device)
        found.append(_of(run, config, data, known[key]))
    return found


def passes(config: TrainConfig) -> float:
    """Return the forward and backward passes over a batch that a training step takes, a forward alone as a third."""
    sides = 2 if (config.loss or config.defense) in ("trades", "mart") else 1  # clean images beside adversarial ones
    rounds = config.awp_alternations if config.awp else 1
    attack = config.steps + (1 / 3 if sides == 2 and config.steps else 0)
    ascent = config.awp_steps * sides if config.awp else 0
    return rounds * (attack + ascent) + sides


def _time(config: TrainConfig, data: DataSet, device: torch.device) -> _Timed:
    plain = {"steps": 1, "awp": False, "rwp": False, "awp_gamma": 0.0, "mixup": 0.0, "awp_alternations": 1}
    timed = config.model_copy(update={**plain, "awp_steps": 1, "ema": 0.0, "compat": ()})
    net = fresh(timed, data, device).model.eval()
    return _Timed(timed, estimate(timed, data, device), time_passes(net, data.test, device, block=64))


def _of(run: Run, config: TrainConfig, data: DataSet, timed: _Timed) -> Forecast:
    done = _epochs_done(run.folder)
    steps = math.ceil(len(data.train) / config.batch_size) * (config.epochs - done)
    step = timed.training.step_seconds * passes(config) / PASSES_TIMED
    measured = _measured(config, data) / _measured(timed.config, data)
    track = timed.training.track_seconds * measured * math.ceil((config.epochs - done) / config.track_every)
    evaluation, rows = 0.0, 0
    for how in run.evaluations(config).values():
        for job in jobs(how, data.classes):
            n = max(how.examples(each, len(data.test)) for each in job.attacks)
            evaluation += timed.evaluation.seconds(job, min(n, job.most or n))
            rows += n * len(job.attacks)
    trained = is_trained(run.folder)
    state = "trained" if trained else f"interrupted after epoch {done}" if done else "to do"
    disk = BYTES_PER_PARAMETER * timed.training.parameters + BYTES_PER_IMAGE * rows
    return Forecast(run, state, 0.0 if trained else steps * step + track, evaluation, float(disk))


def _measured(config: TrainConfig, data: DataSet) -> int:
    """Return the gradients of single images that a measurement takes."""
    images = min(config.track_examples or len(data.train), len(data.train)) + len(data.validation)
    images += len(data.test) if config.select_on == "test" else 0
    return images * (config.track_steps + 1)


def _epochs_done(folder: Path) -> int:
    path = folder / rundir.METRICS
    lines = path.read_text().splitlines() if path.exists() else []
    return int(json.loads(lines[-1])["epoch"]) if lines else 0
