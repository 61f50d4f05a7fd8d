"""What a run writes into its folder, and how it is read again: `last.pt`, `best.pt` and `metrics.jsonl`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awpbench import checkpoints, rundir
from awpbench.config import TrainConfig
from awpbench.data.images import DataSet
from awpbench.errors import CheckError, InputError
from awpbench.training.distributed import Group
from awpbench.training.state import State, assemble, model_spec


def payload(state: State, config: TrainConfig, data: DataSet, model: nn.Module, group: Group) -> dict[str, Any]:
    """Return what a checkpoint of a net holds. Raises CheckError for weights that are not finite."""
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        where = f"epoch {state.epoch}" + (f" and {state.step} steps" if state.step else "")
        mend = f"Lower --lr or --awp-gamma; {state.last_good}."
        raise CheckError(f"the weights are no longer finite after {where}", mend)
    return {
        "state_dict": _plain(model),
        "model": asdict(model_spec(config, data)),
        "dataset": config.dataset,
        "threat": {"norm": config.norm, "eps": config.eps.text},
        "config": config.model_dump(mode="json"),
        "epoch": state.epoch,
        "step": state.step,
        "best": state.best,
        "metrics": state.metrics[-1] if state.metrics else {},
        "processes": group.count,
    }


def _plain(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}


def save_last(state: State, config: TrainConfig, data: DataSet, run: Path, group: Group) -> None:
    """Save `last.pt`, from which a run is resumed."""
    sums = state.sums
    progress = {"loss": float(sums.loss), "correct": float(sums.correct), "n": sums.n}
    more: dict[str, Any] = {"optimizer": state.optimizer.state_dict(), "progress": progress}
    if state.averaged is not None:
        more["averaged"] = _plain(state.averaged)
    group.lead(lambda: save(run / rundir.LAST, payload(state, config, data, state.model, group) | more))
    _note_save(state, run)


def save(path: Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint. Raises InputError where that fails, and then leaves the one before."""
    try:
        checkpoints.save(path, payload)
    except OSError as error:
        last, mend = path.parent / rundir.LAST, "Check the path, its permissions and the space left there."
        if last.exists():
            mend = f"{last} is still that of the last save. Free some space, then: awpbench resume {path.parent}"
        raise InputError(f"{path} could not be written: {error.strerror}", mend) from error


def _note_save(state: State, run: Path) -> None:
    state.last_good = f"{run / rundir.LAST} holds epoch {state.epoch + 1} after step {state.step}"
    state.saved_at = time.monotonic()


def resumed(config: TrainConfig, data: DataSet, run: Path, device: torch.device, group: Group) -> State:
    """Return the state that `last.pt` holds. Raises InputError where that or metrics.jsonl is not the run's."""
    saved = checkpoints.load(run / rundir.LAST)
    if saved.config is None or TrainConfig(**saved.config) != config:
        raise InputError(
            f"{run / rundir.LAST} was trained with another configuration than {run / rundir.CONFIG}",
            "Restore the run's config.json.",
        )
    if saved.optimizer is None or saved.progress is None:
        raise InputError(
            f"{run / rundir.LAST} holds no optimiser state", "Resume from a last.pt that awpbench train wrote."
        )
    state = assemble(saved.build(), config, data, device, group)
    state.optimizer.load_state_dict(saved.optimizer)
    if state.averaged is not None:
        if saved.averaged is None:
            what = f"{run / rundir.LAST} holds no averaged weights"
            raise InputError(what, "Resume from a last.pt that awpbench train wrote.")
        state.averaged.load_state_dict(saved.averaged)
    state.epoch, state.step, state.best = saved.epoch or 0, saved.step or 0, saved.best
    sums = saved.progress
    state.sums.loss += sums["loss"]
    state.sums.correct += sums["correct"]
    state.sums.n = sums["n"]
    state.metrics = _saved_metrics(run / rundir.METRICS, state.epoch, saved.metrics)
    _note_save(state, run)
    return state


def _saved_metrics(path: Path, epochs: int, last: Any) -> list[dict[str, Any]]:
    """Read the lines of the epochs that were saved; what a torn write did to the `last` of them, or after it, is no
    matter: the checkpoint holds that line too.
    """
    before = epochs - 1
    if before < 1:
        return [last][:epochs]
    try:
        found = [json.loads(line) for line in path.read_bytes().splitlines()[:before]]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged: {error}", "Restore it, or train again.") from None
    if len(found) < before:
        raise InputError(f"{path} has {len(found)} lines for {epochs} epochs", "Restore it, or train again.")
    return [*found, last]


def mend_metrics(state: State, run: Path) -> None:
    """Leave what the checkpoint knows in metrics.jsonl, where a kill or a torn write left more or less."""
    path = run / rundir.METRICS
    if state.metrics and not (path.exists() and path.read_bytes() == _metrics_text(state)):
        write_metrics(state, run)


def _metrics_text(state: State) -> bytes:
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in state.metrics).encode()


def write_metrics(state: State, run: Path) -> None:
    """Write one line for each finished epoch."""
    rundir.atomic_write(run / rundir.METRICS, _metrics_text(state))
