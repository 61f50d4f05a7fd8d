"""What `awpbench eval` shows: the plan, progress, and the table of results."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from tabulate import tabulate

from awpbench.cli import common

if TYPE_CHECKING:
    from awpbench.evaluation.estimate import Estimate
    from awpbench.evaluation.jobs import Job


class EvaluationProgress(common.LiveBars):
    """Shows per job the images done, the accuracy so far and the time left: bars on a terminal, else plain lines."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[images]} images  accuracy {task.fields[accuracy]}  left"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._began = (time.monotonic(), 0.0)

    def advance(self, job: str, done: float, total: int, accuracy: float | None) -> None:
        """Show the state of a job; a job seen for the first time gets a bar of its own."""
        images, so_far = f"{int(done)}/{total}", "-" if accuracy is None else f"{accuracy:.1%}"
        if job not in self._tasks:
            self._tasks[job] = self._bars.add_task(job, total=total, images=images, accuracy=so_far)
            self._began = (time.monotonic(), done)
        self._bars.update(self._tasks[job], completed=done, images=images, accuracy=so_far)
        if not self._console.is_terminal and (done >= total or self._due()):
            common.note(f"{job}: {int(done)} of {total} images, accuracy {so_far}{self._left(done, total)}")

    def _left(self, done: float, total: int) -> str:
        since, before = self._began
        if done >= total or done <= before:
            return ""
        return f", left {common.duration((time.monotonic() - since) / (done - before) * (total - done))}"


def show_results(document: dict[str, Any]) -> None:
    """Print the table of accuracies, each with n and its 95 % interval, and how each attack is defined."""
    from awpbench.leaderboard.attacks import told

    rows = []
    for attack, found in document["attacks"].items():
        rows.append(_row(attack, found))
        rows += [_row(f"{attack}, after {part}", score) for part, score in list(found.get("parts", {}).items())[:-1]]
        if found["nan_logits"]:
            common.note(f"{attack}: {found['nan_logits']} images gave NaN logits and count as misclassified")
        if found["nan_gradients"]:
            common.note(f"{attack}: {found['nan_gradients']} gradients held NaN and count as zero: do not trust it")
        for warning in found.get("warnings", []):
            common.note(f"{attack}: {warning}")
    part = ", part of the test set" if document["partial"] else ""
    common.print_text(
        f"{document['model']['name']}: {document['dataset']}, {document['norm']} {document['eps']}, "
        f"dialect {document['dialect']}{part}"
    )
    common.print_text(tabulate(rows, headers=("attack", "accuracy", "95 % interval", "n"), disable_numparse=True))
    common.print_text("")
    for attack, found in document["attacks"].items():
        if found["definition"]:
            common.print_text(f"{attack}: {told(found['definition'])}")


def _row(name: str, score: dict[str, Any]) -> tuple[str, str, str, str]:
    low, high = score["interval"]
    percent = f"{100 * score['correct'] / score['n']:.2f} %"
    return name, percent, f"{100 * low:.2f} - {100 * high:.2f} %", str(score["n"])


def show_plan(values: common.Settled, jobs: list[tuple[Job, int]], timed: Estimate, *, as_json: bool) -> None:
    """Print every value with its source, the plan, and about how long it would take here."""
    plan: list[dict[str, Any]] = [
        {
            "attack": job.name,
            "images": n,
            "forward": n * job.forward,
            "backward": n * job.backward,
            "seconds": round(timed.seconds(job, n), 1),
        }
        for job, n in jobs
    ]
    total = sum(line["seconds"] for line in plan)
    if as_json:
        resolved = {key: {"value": value, "source": source} for key, (value, source) in values.items()}
        common.print_json({"config": resolved, "plan": plan, "estimated_seconds": round(total, 1)})
        return
    common.print_settled(values)
    common.print_text("")
    lines = [(*list(line.values())[:4], common.duration(line["seconds"])) for line in plan]
    heads = ("attack", "images", "forward passes", "backward passes", "time")
    common.print_text(tabulate(lines, headers=heads, disable_numparse=True))
    common.print_text("")
    common.print_text(
        f"estimated time: at most {common.duration(total)}, from two timed steps on this device; SPSA and AutoAttack "
        "count as if every image stood to the end"
    )
