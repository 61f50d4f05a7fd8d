"""What `awpbench eval` shows: the plan, progress, and the table of results."""

from __future__ import annotations

import time
import types
from typing import TYPE_CHECKING, Any, Self

from rich.live import Live
from rich.table import Table
from tabulate import tabulate

from awpbench.cli import common
from awpbench.evaluation.statistics import wilson

if TYPE_CHECKING:
    from awpbench.evaluation.estimate import Estimate
    from awpbench.evaluation.jobs import Job
    from awpbench.evaluation.runner import State


class EvaluationProgress:
    """Shows per job the images done, the accuracy so far and the time left: a live table on a terminal, else lines."""

    def __init__(self, label: str = "") -> None:
        self._label = label
        self._console = common.stderr()
        self._due = common.Every()
        self._states: dict[str, State] = {}
        self._began = (time.monotonic(), 0.0)
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._live.stop()
        if kind is not None:
            self._tell_bounds()

    def advance(self, state: State) -> None:
        """Show where the evaluation is."""
        if state.job not in self._states:
            self._began = (time.monotonic(), state.done)
        self._states[state.job] = state
        if not self._console.is_terminal and (state.done >= state.total or self._due()):
            left = f", left {self._left(state)}" if self._left(state) else ""
            common.note(
                f"{self._label}{state.job}: {int(state.done)} of {state.total} images, "
                f"accuracy {_accuracy(state)}{left}; the suite: at most {_bound(state)}"
            )

    def note(self, text: str) -> None:
        """Show one line."""
        common.note(f"{self._label}{text}")

    def _table(self) -> Table | str:
        if not self._states:
            return ""
        table = Table("attack", "images", "accuracy so far [95 %]", "left", box=None, header_style="bold")
        for state in self._states.values():
            table.add_row(state.job, f"{int(state.done)}/{state.total}", _accuracy(state), self._left(state))
        last = list(self._states.values())[-1]
        table.add_row("the suite", f"{last.n}", f"at most {_bound(last)}", "", style="dim")
        return table

    def _left(self, state: State) -> str:
        since, before = self._began
        if state.done >= state.total or state.done <= before:
            return ""
        return common.duration((time.monotonic() - since) / (state.done - before) * (state.total - state.done))

    def _tell_bounds(self) -> None:
        """Say what is known of an attack that was stopped: a bound, and not that attack's accuracy."""
        if not self._states:
            return
        last = list(self._states.values())[-1]
        if last.job.startswith("autoattack") and last.seen:
            percent = 100 * last.correct / last.seen
            self.note(f"AutoAttack is not finished: {percent:.2f} % ({last.seen} images) is an upper bound of it")
        self.note(f"the suite so far: at most {_bound(last)} of {last.n} images")


def _accuracy(state: State) -> str:
    if not state.seen:
        return "-"
    low, high = wilson(state.correct, state.seen)
    return f"{state.correct / state.seen:.1%} [{low:.1%}, {high:.1%}]"


def _bound(state: State) -> str:
    return f"{state.standing / state.n:.1%}"


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
    rows.append(_row("worst case of all", document["worst_case"]))
    common.print_text(
        f"{document['model']['name']}: {document['dataset']}, {document['norm']} {document['eps']}, "
        f"dialect {document['dialect']}{part}"
    )
    common.print_text(tabulate(rows, headers=("attack", "accuracy", "95 % interval", "n"), disable_numparse=True))
    common.print_text("")
    for attack, found in document["attacks"].items():
        if found["definition"]:
            common.print_text(f"{attack}: {told(found['definition'])}")
    _show_audit(document["audit"])


def _show_audit(audit: dict[str, Any]) -> None:
    """Print the verdict, and why it is not better."""
    if audit["verdict"] is None:
        return
    bad = [each for each in audit["findings"] if not each["ok"]]
    common.print_text(f"\naudit: {audit['verdict']}, {len(bad)} of {len(audit['findings'])} checks failed")
    for each in bad:
        common.print_text(f"- {each['check']}: {each['value']:g}, above {each['threshold']:g}: {each['detail']}")


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
