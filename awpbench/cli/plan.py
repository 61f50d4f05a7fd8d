"""`awpbench train --dry-run`: every value with its source, the plan, and the time from two timed steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from awpbench.cli import common
from awpbench.config import TrainConfig

if TYPE_CHECKING:
    import torch

    from awpbench.data.images import DataSet


def print_training_plan(
    config: TrainConfig, sources: dict[str, str], data: DataSet, run: Path, device: torch.device, *, as_json: bool
) -> None:
    """Print what a run would do and about how long it would take here; train nothing."""
    from awpbench.training.estimate import estimate

    values = config.model_dump(mode="json")
    steps = math.ceil(len(data.train) / config.batch_size)
    timed = estimate(config, data, device)
    plan: dict[str, Any] = {
        "run folder": str(run),
        "device": str(device),
        "training images": len(data.train),
        "validation images": len(data.validation),
        "test images": len(data.test),
        "steps": f"{steps} an epoch, {steps * config.epochs} in all",
        "parameters": timed.parameters,
        "time per step": f"{common.duration(timed.step_seconds)} (two steps of {timed.batch_size} images, scaled)",
        "time per measurement of robustness": common.duration(timed.track_seconds),
        "estimated time": common.duration(timed.total_seconds),
    }
    if as_json:
        resolved = {key: {"value": values[key], "source": source} for key, source in sources.items()}
        common.print_json({"config": resolved, "plan": plan, "estimated_seconds": timed.total_seconds})
        return
    rows = [
        (f"--{key.replace('_', '-')}", "-" if values[key] is None else values[key], source)
        for key, source in sources.items()
    ]
    common.print_text(tabulate(rows, headers=("value", "is", "from"), disable_numparse=True))
    common.print_text("")
    common.print_text(tabulate(list(plan.items()), tablefmt="plain", disable_numparse=True))
