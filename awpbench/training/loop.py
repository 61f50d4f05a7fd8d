"""The training loop: from a config to `last.pt`, `best.pt` and `metrics.jsonl`, from the start or from a checkpoint."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from awpbench import defenses, rundir
from awpbench.attack_model import AttackModel
from awpbench.config import TrainConfig
from awpbench.data.augment import augment
from awpbench.data.images import DataSet, ImageSet
from awpbench.defenses.base import Defense
from awpbench.defenses.compat import repeated
from awpbench.errors import CheckError, Interrupted
from awpbench.models.layers import layout
from awpbench.randomness import BatchDraws, generator
from awpbench.threat import ThreatModel
from awpbench.training import start
from awpbench.training.batches import all_images, batch_weights, epoch_batches
from awpbench.training.clock import StepClock
from awpbench.training.distributed import ALONE, Group, Part
from awpbench.training.measure import measure
from awpbench.training.regularisers import (
    average,
    l1_penalty,
    out_of_patience,
    regularised_batch,
    smoothed,
)
from awpbench.training.saving import mend_metrics, payload, resumed, save, save_last, write_metrics
from awpbench.training.schedules import learning_rate
from awpbench.training.state import State, Sums, eval_mode_copy, fresh
from awpbench.training.step import StepOutcome, training_step

MINUTES = 10.0  # between two saves of last.pt within an epoch


class HalfStep(Exception):
    """A signal arrived within a step, whose work so far is dropped."""


class Progress(Protocol):
    """What a training run tells its watcher."""

    def start(self, *, epoch: int, step: int, steps: int) -> None:
        """Report that an epoch starts, or goes on after so many steps."""

    def step(self, *, epoch: int, step: int, steps: int, loss: float, robust: float) -> None:
        """Report a finished step: the running means of this epoch's loss and of the robust accuracy in training."""

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Report a finished epoch: its line of metrics.jsonl, and its line of timing.jsonl under `timing`."""


def train(
    config: TrainConfig,
    data: DataSet,
    run: Path,
    *,
    device: torch.device,
    progress: Progress,
    stop: Callable[[], int | None] = lambda: None,
    resume: bool = False,
    begun: Callable[[], None] = lambda: None,
    checkpoint_every: float = MINUTES,
    group: Group = ALONE,
) -> list[dict[str, Any]]:
    """Train, and return the lines of metrics.jsonl.

    `stop` is asked at every forward pass of the attack and of the ascent in the weights, after every step and after
    every measured batch; when it returns a signal's number, the state after the last whole step is saved and
    Interrupted is raised. `begun` is called when the run is known to start, before it writes anything. Within an epoch
    `last.pt` is saved after the first step that ends `checkpoint_every` minutes after the last save. Under a `group`
    every process calls this with the same arguments, and process 0 writes; a signal to any of them stops all between
    two steps.

    Raises CheckError when the loss is no longer finite: the weights of that step are not used. Raises InputError when
    a checkpoint cannot be written: what was there before is untouched.
    """
    if resume:
        start.check_unlabelled(config, data)
        state = resumed(config, data, run, device, group)
    else:
        config = start.bound(config, data)
        state = fresh(config, data, device, group)
    train_images = all_images(data).to(device)
    attack_model = eval_mode_copy(state, config)
    group.lead(begun)
    if resume:
        group.lead(lambda: mend_metrics(state, run))
    else:
        group.lead(lambda: rundir.write_json(run / rundir.CONFIG, config.model_dump(mode="json")))
        save_last(state, config, data, run, group)
    while state.epoch < config.epochs and not out_of_patience(state.metrics, state.best, config):
        started, resumed_at = time.perf_counter(), state.step
        batches = epoch_batches(config, data, state.epoch)
        state.clock = StepClock(device)
        halt_if_asked = partial(_halt_if_asked, stop, state, config, data, run, len(batches), checkpoint_every, group)
        progress.start(epoch=state.epoch + 1, step=state.step, steps=len(batches))
        for batch in batches[state.step :]:
            weights = batch_weights(config, data, batch)
            climbs_on = config.awp_steps * config.awp_alternations > 1
            asked = stop if group == ALONE else never
            with suppress(HalfStep), whole_or_nothing(state.model, asked, weights=climbs_on) as pulse:
                outcome = one_step(
                    state,
                    config,
                    train_images,
                    batch,
                    attack_model,
                    steps_per_epoch=len(batches),
                    weights=weights,
                    pulse=pulse,
                    group=group,
                )
                state.sums.add(outcome, len(batch))
                state.step += 1
                _report(progress, state, len(batches))
            halt_if_asked()
        trained = time.perf_counter()
        measured = _track(state, config, data, halt_if_asked, group)
        _finish_epoch(state, measured, config, data, run, group)
        timing = _timing(state, trained - started, time.perf_counter() - trained, len(batches) - resumed_at)
        group.lead(partial(rundir.append_line, run / rundir.TIMING, json.dumps(timing)))
        progress.epoch({**state.metrics[-1], "timing": timing})
    return state.metrics


def never() -> None:
    """Ask nobody: several processes stop between two steps, since each of them waits for the others within one."""


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
    group: Group = ALONE,
) -> StepOutcome:
    """Take the state's next step on a batch, given by positions in `images`; `pulse` as in `training_step`.

    `weights` `(N,)` say how much each image counts in the loss, all the same where there are none.
    Under a `group` the batch is the whole one: every process augments all of it and takes its share.
    """
    device = state.sums.loss.device
    state.clock.start()
    x, y = images.batch(batch, device)
    draws = generator("cpu", config.seed, "augment", state.epoch, state.step)
    x = augment(x, config.augmentation, padding=config.padding, generator=draws)
    x, y = regularised_batch(x, y, config, state.classes, epoch=state.epoch, step=state.step)
    x, part = x.contiguous(memory_format=layout(state.model)), group.part(len(x))
    now = state.epoch + (state.step + 1) / steps_per_epoch
    for parameters in state.optimizer.param_groups:
        parameters["lr"] = learning_rate(config, now)
    perturbs = (config.awp or config.rwp) and state.epoch >= config.awp_warmup
    state.clock.lap("batch")
    outcome = training_step(
        state.model,
        state.optimizer,
        _defense(state, config),
        x[part.here],
        y[part.here],
        threat=ThreatModel(config.norm, config.eps.value),
        steps=config.steps,
        step_size=config.step_size.value,
        gamma=config.awp_gamma if perturbs else 0.0,
        ascent_steps=config.awp_steps,
        alternations=config.awp_alternations,
        size=config.awp_size,
        random=BatchDraws(generator(device, config.seed, "rwp", state.epoch, state.step)) if config.rwp else None,
        penalty=partial(l1_penalty, state.model, config.l1) if config.l1 else None,
        generator=part.draws(BatchDraws(generator(device, config.seed, "attack", state.epoch, state.step))),
        hyper=_hyper(config, weights, part, x),
        attack_model=attack_model,
        views=state.views,
        guard=lambda loss: _demand_finite(loss, state, batch),
        pulse=pulse,
        lap=state.clock.lap,
        part=part,
    )
    if state.averaged is not None:
        average(state.averaged, state.model, config.ema)
    return outcome


def _defense(state: State, config: TrainConfig) -> Defense:
    """Return what the next step trains with."""
    defense = defenses.get(config.defense, config.loss)
    if config.label_smoothing:
        defense = smoothed(defense, config.label_smoothing, state.classes)
    return repeated(defense, config.compat, epoch=state.epoch, step=state.step)


def _hyper(config: TrainConfig, weights: Tensor | None, part: Part, x: Tensor) -> dict[str, Any]:
    """Return what the loss of a share of the batch is given beside model, images and labels."""
    hyper: dict[str, Any] = {} if config.beta is None else {"beta": config.beta}
    return hyper if weights is None else hyper | {"weights": weights[part.here].to(x)}


@contextmanager
def whole_or_nothing(
    model: nn.Module, stop: Callable[[], int | None], *, weights: bool = False
) -> Iterator[Callable[[], None]]:
    """Yield a pulse that raises HalfStep once a signal came; the net's buffers are then those from before the step.

    An attack in train mode moves batch-norm statistics. With `weights` the weights are kept as well: where the pulse is
    still asked after the first ascent, v has been in them, and taking it off leaves a rounding error.
    """
    kept = [*model.buffers(), *(model.parameters() if weights else ())]
    before = [tensor.detach().clone() for tensor in kept]

    def pulse() -> None:
        if stop() is not None:
            raise HalfStep

    try:
        yield pulse
    except HalfStep:
        with torch.no_grad():
            for tensor, value in zip(kept, before, strict=True):
                tensor.copy_(value)
        raise


def _demand_finite(loss: Tensor, state: State, batch: Tensor) -> None:
    if not bool(torch.isfinite(loss)):
        where = f"epoch {state.epoch + 1}, step {state.step + 1} (images {batch[:3].tolist()}...)"
        raise CheckError(f"the loss is {float(loss)} in {where}", f"Lower --lr or --awp-gamma; {state.last_good}.")


def _halt_if_asked(
    stop: Callable[[], int | None],
    state: State,
    config: TrainConfig,
    data: DataSet,
    run: Path,
    steps: int,
    checkpoint_every: float,
    group: Group,
) -> None:
    """Save and raise Interrupted once a signal came to any process, or only save where it is time to."""
    due = group.rank == 0 and time.monotonic() - state.saved_at >= 60 * checkpoint_every
    number, save = group.largest([stop() or 0, int(due)])
    if number or save:
        save_last(state, config, data, run, group)
    if not number:
        return
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


def _track(state: State, config: TrainConfig, data: DataSet, check: Callable[[], None], group: Group) -> dict[str, Any]:
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
        name: measure(state.measured, images, seed=config.seed, check=check, group=group, **settings)
        for name, images in splits.items()
        if len(images)
    }


def _finish_epoch(
    state: State, measured: dict[str, Any], config: TrainConfig, data: DataSet, run: Path, group: Group
) -> None:
    rate, loss = state.optimizer.param_groups[0]["lr"], float(state.sums.loss) / state.sums.n
    state.epoch, state.step, state.sums = state.epoch + 1, 0, Sums.zero(state.sums.loss.device)
    state.metrics.append({"epoch": state.epoch, "lr": rate, "loss": loss, **measured})
    robust = measured.get(config.select_on, {}).get("robust")
    better = robust is not None and robust > state.best.get("robust", -1.0)
    if better:
        state.best = {"epoch": state.epoch, "robust": robust, "selected_on": config.select_on}
    if out_of_patience(state.metrics, state.best, config):
        state.metrics[-1]["stopped_early"] = True
    group.lead(lambda: write_metrics(state, run))
    if better:
        group.lead(lambda: save(run / rundir.BEST, payload(state, config, data, state.measured, group)))
    save_last(state, config, data, run, group)


def _timing(state: State, train_seconds: float, track_seconds: float, steps: int) -> dict[str, Any]:
    return {
        "epoch": state.epoch,
        "steps": steps,
        "train_seconds": round(train_seconds, 3),
        "track_seconds": round(track_seconds, 3),
        **{f"{part}_seconds": round(seconds, 3) for part, seconds in state.clock.seconds().items()},
    }
