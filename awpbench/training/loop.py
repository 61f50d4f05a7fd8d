"""The training loop: from a config to `last.pt`, `best.pt` and `metrics.jsonl`, from the start or from a checkpoint."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import SGD

from awpbench import checkpoints, defenses, rundir
from awpbench.attack_model import AttackModel
from awpbench.checkpoints import ModelSpec
from awpbench.config import TrainConfig
from awpbench.data.augment import crop_flip
from awpbench.data.images import DataSet, ImageSet
from awpbench.defaults import DATASETS
from awpbench.defenses.base import Defense
from awpbench.defenses.compat import repeated
from awpbench.errors import CheckError, InputError, Interrupted
from awpbench.models.layers import layout
from awpbench.randomness import BatchDraws, generator
from awpbench.threat import ThreatModel
from awpbench.training import start
from awpbench.training.batches import all_images, batch_weights, epoch_batches
from awpbench.training.measure import measure
from awpbench.training.schedules import SCHEDULES
from awpbench.training.step import StepOutcome, training_step

LAST_GOOD = "Lower --lr or --awp-gamma; last.pt holds the last state that was saved before."


class HalfStep(Exception):
    """A signal arrived within a step, whose work so far is dropped."""


class Progress(Protocol):
    """What a training run tells its watcher."""

    def step(self, *, epoch: int, step: int, steps: int, loss: float, robust: float) -> None:
        """Report a finished step: the running means of this epoch's loss and of the robust accuracy in training."""

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Report a finished epoch: its line of metrics.jsonl."""


@dataclass
class Sums:
    """Running sums over an epoch, kept on the device; an interrupted epoch stores them in its checkpoint."""

    loss: Tensor
    correct: Tensor
    n: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Sums:
        return cls(
            torch.zeros((), dtype=torch.float64, device=device), torch.zeros((), dtype=torch.float64, device=device)
        )

    def add(self, outcome: StepOutcome, n: int) -> None:
        self.loss += outcome.loss * n
        self.correct += outcome.correct
        self.n += n


@dataclass
class State:
    """What changes while a run goes on; `epoch` counts finished epochs, `step` the finished steps of the next one."""

    model: nn.Module
    optimizer: SGD
    sums: Sums
    epoch: int = 0
    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)


def train(
    config: TrainConfig,
    data: DataSet,
    run: Path,
    *,
    device: torch.device,
    progress: Progress,
    stop: Callable[[], int | None] = lambda: None,
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Train, and return the lines of metrics.jsonl.

    `stop` is asked at every forward pass of the attack and of the ascent in the weights, after every step and after
    every measured batch; when it returns a signal's number, the state after the last whole step is saved and
    Interrupted is raised. Raises CheckError when the loss is no longer finite: the weights of that step are not
    used, and `last.pt` still holds the end of the epoch before.
    """
    if resume:
        start.check_unlabelled(config, data)
        state = _resumed(config, data, run, device)
    else:
        config = start.bound(config, data)
        state = fresh(config, data, device)
    train_images = all_images(data).to(device)
    attack_model = eval_mode_copy(state, config)
    if not resume:
        rundir.write_json(run / rundir.CONFIG, config.model_dump(mode="json"))
        _save_last(state, config, data, run)
    while state.epoch < config.epochs:
        started, resumed_at = time.perf_counter(), state.step
        batches = epoch_batches(config, data, state.epoch)
        halt_if_asked = partial(_halt_if_asked, stop, state, config, data, run, len(batches))
        for batch in batches[state.step :]:
            weights = batch_weights(config, data, batch)
            with suppress(HalfStep), whole_or_nothing(state.model, stop) as pulse:
                outcome = one_step(
                    state,
                    config,
                    train_images,
                    batch,
                    attack_model,
                    steps_per_epoch=len(batches),
                    weights=weights,
                    pulse=pulse,
                )
                state.sums.add(outcome, len(batch))
                state.step += 1
                _report(progress, state, len(batches))
            halt_if_asked()
        trained = time.perf_counter()
        measured = _track(state, config, data, halt_if_asked)
        _finish_epoch(state, measured, config, data, run)
        _append_timing(run, state, trained - started, time.perf_counter() - trained, len(batches) - resumed_at)
        progress.epoch(state.metrics[-1])
    return state.metrics


def fresh(config: TrainConfig, data: DataSet, device: torch.device) -> State:
    """Build a net with weights drawn from the seed, or loaded where a checkpoint is named, and its optimiser."""
    spec = _model_spec(config, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = spec.build()
    if config.init_from is not None:
        start.fill(model, spec, config)
    return _state(model, config, device)


def eval_mode_copy(state: State, config: TrainConfig) -> AttackModel | None:
    """Return the fast copy that a defense attacks in eval mode, None for an attack in train mode."""
    if defenses.get(config.defense, config.loss).attack_mode == "train":
        return None
    return AttackModel(state.model, config.precision)


def _model_spec(config: TrainConfig, data: DataSet) -> ModelSpec:
    facts = DATASETS[config.dataset]
    normalized = config.normalization == "meanstd"
    return ModelSpec(
        architecture=config.architecture,
        width=config.width,
        classes=data.classes,
        shape=data.shape,
        mean=facts.mean if normalized else None,
        std=facts.std if normalized else None,
    )


def _state(model: nn.Module, config: TrainConfig, device: torch.device) -> State:
    model = model.to(device=device, memory_format=layout(model))  # type: ignore[call-overload]
    optimizer = SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    return State(model, optimizer, Sums.zero(device))


def one_step(
    state: State,
    config: TrainConfig,
    images: ImageSet,
    batch: Tensor,
    attack_model: AttackModel | None,
    *,
    steps_per_epoch: int,
    weights: Tensor | None = None,
    pulse: Callable[[], None] = lambda: None,
) -> StepOutcome:
    """Take the state's next step on a batch, given by positions in `images`; `pulse` as in `training_step`.

    `weights` `(N,)` say how much each image counts in the loss, all the same where there are none.
    """
    device = state.sums.loss.device
    x, y = images.batch(batch, device)
    if config.augmentation == "crop-flip":
        x = crop_flip(
            x, padding=config.padding, generator=generator("cpu", config.seed, "augment", state.epoch, state.step)
        )
    now = state.epoch + (state.step + 1) / steps_per_epoch
    for group in state.optimizer.param_groups:
        group["lr"] = SCHEDULES[config.schedule](now, config.epochs, config.lr)
    return training_step(
        state.model,
        state.optimizer,
        _defense(state, config),
        x.contiguous(memory_format=layout(state.model)),
        y,
        threat=ThreatModel(config.norm, config.eps.value),
        steps=config.steps,
        step_size=config.step_size.value,
        gamma=config.awp_gamma if config.awp and state.epoch >= config.awp_warmup else 0.0,
        generator=BatchDraws(generator(device, config.seed, "attack", state.epoch, state.step)),
        hyper=_hyper(config, weights, x),
        attack_model=attack_model,
        guard=lambda loss: _demand_finite(loss, state, batch),
        pulse=pulse,
    )


def _defense(state: State, config: TrainConfig) -> Defense:
    """Return what the next step trains with."""
    defense = defenses.get(config.defense, config.loss)
    return repeated(defense, config.compat, epoch=state.epoch, step=state.step)


def _hyper(config: TrainConfig, weights: Tensor | None, x: Tensor) -> dict[str, Any]:
    """Return what the loss is given beside model, images and labels."""
    hyper: dict[str, Any] = {} if config.beta is None else {"beta": config.beta}
    return hyper if weights is None else hyper | {"weights": weights.to(x)}


@contextmanager
def whole_or_nothing(model: nn.Module, stop: Callable[[], int | None]) -> Iterator[Callable[[], None]]:
    """Yield a pulse that raises HalfStep once a signal came; the net's buffers are then those from before the step.

    An attack in train mode moves batch-norm statistics; the weights have not changed while the pulse is asked.
    """
    before = [buffer.clone() for buffer in model.buffers()]

    def pulse() -> None:
        if stop() is not None:
            raise HalfStep

    try:
        yield pulse
    except HalfStep:
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
        raise


def _demand_finite(loss: Tensor, state: State, batch: Tensor) -> None:
    if not bool(torch.isfinite(loss)):
        where = f"epoch {state.epoch + 1}, step {state.step + 1} (images {batch[:3].tolist()}...)"
        raise CheckError(f"the loss is {float(loss)} in {where}", LAST_GOOD)


def _halt_if_asked(
    stop: Callable[[], int | None], state: State, config: TrainConfig, data: DataSet, run: Path, steps: int
) -> None:
    number = stop()
    if number is None:
        return
    _save_last(state, config, data, run)
    where = f"epoch {state.epoch + 1} after step {state.step} of {steps}"
    what = f"stopped by {signal.Signals(number).name} in {where}; saved to {run / rundir.LAST}"
    raise Interrupted(what, f"Continue with: awpbench resume {run}", signal_number=number)


def _report(progress: Progress, state: State, steps: int) -> None:
    sums = state.sums
    progress.step(
        epoch=state.epoch + 1,
        step=state.step,
        steps=steps,
        loss=float(sums.loss) / sums.n,
        robust=float(sums.correct) / sums.n,
    )


def _track(state: State, config: TrainConfig, data: DataSet, check: Callable[[], None]) -> dict[str, Any]:
    epoch = state.epoch + 1
    if epoch % config.track_every and epoch != config.epochs:
        return {}
    seen = data.train.first(min(config.track_examples or len(data.train), len(data.train)))
    splits = {"train": seen, "validation": data.validation}
    if config.select_on == "test":
        splits["test"] = data.test
    threat = ThreatModel(config.norm, config.eps.value)
    settings: dict[str, Any] = {"threat": threat, "steps": config.track_steps, "step_size": config.step_size.value}
    return {
        name: measure(state.model, images, seed=config.seed, check=check, **settings)
        for name, images in splits.items()
        if len(images)
    }


def _finish_epoch(state: State, measured: dict[str, Any], config: TrainConfig, data: DataSet, run: Path) -> None:
    rate, loss = state.optimizer.param_groups[0]["lr"], float(state.sums.loss) / state.sums.n
    state.epoch, state.step, state.sums = state.epoch + 1, 0, Sums.zero(state.sums.loss.device)
    state.metrics.append({"epoch": state.epoch, "lr": rate, "loss": loss, **measured})
    _write_metrics(state, run)
    robust = measured.get(config.select_on, {}).get("robust")
    if robust is not None and robust > state.best.get("robust", -1.0):
        state.best = {"epoch": state.epoch, "robust": robust, "selected_on": config.select_on}
        checkpoints.save(run / rundir.BEST, _payload(state, config, data))
    _save_last(state, config, data, run)


def _payload(state: State, config: TrainConfig, data: DataSet) -> dict[str, Any]:
    if not all(bool(torch.isfinite(parameter).all()) for parameter in state.model.parameters()):
        where = f"epoch {state.epoch}" + (f" and {state.step} steps" if state.step else "")
        raise CheckError(f"the weights are no longer finite after {where}", LAST_GOOD)
    return {
        "state_dict": {key: value.detach().cpu().contiguous() for key, value in state.model.state_dict().items()},
        "model": asdict(_model_spec(config, data)),
        "dataset": config.dataset,
        "threat": {"norm": config.norm, "eps": config.eps.text},
        "config": config.model_dump(mode="json"),
        "epoch": state.epoch,
        "step": state.step,
        "best": state.best,
        "metrics": state.metrics[-1] if state.metrics else {},
    }


def _save_last(state: State, config: TrainConfig, data: DataSet, run: Path) -> None:
    sums = state.sums
    progress = {"loss": float(sums.loss), "correct": float(sums.correct), "n": sums.n}
    more = {"optimizer": state.optimizer.state_dict(), "progress": progress}
    checkpoints.save(run / rundir.LAST, _payload(state, config, data) | more)


def _resumed(config: TrainConfig, data: DataSet, run: Path, device: torch.device) -> State:
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
    state = _state(saved.build(), config, device)
    state.optimizer.load_state_dict(saved.optimizer)
    state.epoch, state.step, state.best = saved.epoch or 0, saved.step or 0, saved.best
    sums = saved.progress
    state.sums.loss += sums["loss"]
    state.sums.correct += sums["correct"]
    state.sums.n = sums["n"]
    state.metrics = _saved_metrics(run / rundir.METRICS, state.epoch)
    return state


def _saved_metrics(path: Path, epochs: int) -> list[dict[str, Any]]:
    """Read the lines of the epochs that were saved; there may be one more."""
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()] if epochs else []
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged: {error}", "Restore it, or train again.") from None
    if len(lines) < epochs:
        raise InputError(f"{path} has {len(lines)} lines for {epochs} epochs", "Restore it, or train again.")
    return lines[:epochs]


def _write_metrics(state: State, run: Path) -> None:
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in state.metrics)
    rundir.atomic_write(run / rundir.METRICS, text.encode())


def _append_timing(run: Path, state: State, train_seconds: float, track_seconds: float, steps: int) -> None:
    line = {
        "epoch": state.epoch,
        "steps": steps,
        "train_seconds": round(train_seconds, 3),
        "track_seconds": round(track_seconds, 3),
    }
    with (run / rundir.TIMING).open("a") as file:
        file.write(json.dumps(line) + "\n")
