"""Progress of a training run: bars on a terminal, plain lines elsewhere, and the same lines in train.log."""

from __future__ import annotations

import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from awpbench import rundir
from awpbench.cli import common
from awpbench.config import TrainConfig

if TYPE_CHECKING:
    from awpbench.training.tensorboard import EventFiles


class TrainingProgress(common.LiveBars):
    """Shows epoch, loss, running robust accuracy (at w + v, in train mode) and the time left.

    Each epoch's numbers also go to `events`, where they are asked for.
    """

    def __init__(self, config: TrainConfig, log: Path, events: EventFiles | None = None) -> None:
        super().__init__(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  robust in training {task.fields[robust]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._epochs = config.epochs
        self._log = log
        self._events = events
        self._task = self._bars.add_task("", total=None, epoch=f"1/{self._epochs}", loss="-", robust="-")
        self._started = time.monotonic()
        self._first: int | None = None  # steps that were done before

    def start(self, *, epoch: int, step: int, steps: int) -> None:
        self._first = (epoch - 1) * steps + step if self._first is None else self._first
        done, total = (epoch - 1) * steps + step, self._epochs * steps
        self._bars.update(self._task, completed=done, total=total, epoch=f"{epoch}/{self._epochs}")

    def step(self, *, epoch: int, step: int, steps: int, loss: float, robust: float) -> None:
        done, total = (epoch - 1) * steps + step, self._epochs * steps
        self._bars.update(
            self._task,
            completed=done,
            total=total,
            epoch=f"{epoch}/{self._epochs}",
            loss=f"{loss:.3f}",
            robust=f"{robust:.1%}",
        )
        if not self._console.is_terminal and self._due():
            rate = (time.monotonic() - self._started) / max(done - (self._first or 0), 1)
            where = f"epoch {epoch}/{self._epochs} step {step}/{steps}"
            left = common.duration(rate * (total - done))
            self._say(f"{where} loss {loss:.3f} robust in training {robust:.1%} left {left}")

    def epoch(self, metrics: dict[str, Any]) -> None:
        if self._events is not None:
            self._events.epoch(metrics)
        measured = [
            f"{split} clean {measured['clean']:.2%} robust {measured['robust']:.2%} (n={measured['n']})"
            for split in ("train", "validation", "test")
            if (measured := metrics.get(split))
        ]
        self._say(
            "  ".join(
                [
                    f"epoch {metrics['epoch']}/{self._epochs} lr {metrics['lr']:.4g} loss {metrics['loss']:.4f}",
                    *measured,
                    *([spent(timing)] if (timing := metrics.get("timing")) else []),
                    *(["out of patience"] if metrics.get("stopped_early") else []),
                ]
            )
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._events is not None:
            self._events.close()

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)
        rundir.append_line(self._log, line)


class Unseen:
    """Shows nothing: the progress of a process that is not the first of its run."""

    def start(self, *, epoch: int, step: int, steps: int) -> None:
        pass

    def step(self, *, epoch: int, step: int, steps: int, loss: float, robust: float) -> None:
        pass

    def epoch(self, metrics: dict[str, Any]) -> None:
        pass


def spent(timing: dict[str, Any]) -> str:
    """Say how long an epoch's training took and what parts of it the attack and weight perturbation took."""
    whole = timing["train_seconds"]
    parts = (("attack", "attack_seconds"), ("weight perturbation", "ascent_seconds"))
    shares = [f"{name} {timing[key] / whole:.0%}" for name, key in parts if timing.get(key, 0.0) > 0.001 * whole]
    return f"in {whole:.3g} s" + (f" ({', '.join(shares)})" if shares else "")
