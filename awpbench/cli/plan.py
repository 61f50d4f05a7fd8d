"""`awpbench train --dry-run`: every value with its source, the plan, and the time from two timed steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from awpbench.cli import common
from awpbench.config import TrainConfig

if TYPE_CHECKING:
    import torch

    from awpbench.data.images import DataSet


def print_training_plan(
    config: TrainConfig,
    sources: dict[str, str],
    data: DataSet,
    places: common.Settled,
    device: torch.device,
    *,
    as_json: bool,
) -> None:
    """Print what a run would do and about how long it would take here; train nothing.

    `sources` says where each value of the configuration came from, `places` where it would run, read and write.
    """
    from awpbench.training.estimate import estimate

    values = config.model_dump(mode="json")
    steps = math.ceil(len(data.train) / config.batch_size)
    timed = estimate(config, data, device)
    plan: dict[str, Any] = {
        "training images": len(data.train),
        "validation images": len(data.validation),
        "test images": len(data.test),
        "steps": f"{steps} an epoch, {steps * config.epochs} in all",
        "parameters": timed.parameters,
        "time per step": f"{common.duration(timed.step_seconds)} (two steps of {timed.batch_size} images, scaled)",
        "time per measurement of robustness": common.duration(timed.track_seconds),
        "estimated time": common.duration(timed.total_seconds),
    }
    settled = {**{key: (values[key], source) for key, source in sources.items()}, **places}
    if as_json:
        resolved = {key: {"value": value, "source": source} for key, (value, source) in settled.items()}
        common.print_json({"config": resolved, "plan": plan, "estimated_seconds": timed.total_seconds})
        return
    common.print_settled(settled)
    common.print_text("")
    common.print_text(tabulate(list(plan.items()), tablefmt="plain", disable_numparse=True))
