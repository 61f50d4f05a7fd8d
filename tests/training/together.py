"""What one process of a group does in the tests: train in float64, and write down what it ended with.

`python -m tests.training.together FOLDER CONFIG`, under torchrun's variables or alone; CONFIG is JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awpbench import checkpoints, data
from awpbench.cli.progress import Unseen
from awpbench.data.images import ImageSet
from awpbench.defaults import resolve_training
from awpbench.training import loop
from awpbench.training.distributed import joined

CPU = torch.device("cpu")


def in_doubles() -> None:
    """Let nets and images be float64, in which only rounding to 1e-16 tells one process from several."""
    build, batch = checkpoints.ModelSpec.build, ImageSet.batch

    def double_net(spec: checkpoints.ModelSpec) -> nn.Module:
        return build(spec).double()

    def double_batch(images: ImageSet, positions: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
        x, y = batch(images, positions, device)
        return x.double(), y

    checkpoints.ModelSpec.build = double_net  # type: ignore[method-assign]
    ImageSet.batch = double_batch  # type: ignore[method-assign]


def main(folder: Path, values: dict[str, Any]) -> None:
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    in_doubles()
    config = resolve_training(values)[0]
    digits = data.load("digits", validation=config.validation_examples, train_examples=config.train_examples)
    states: list[loop.State] = []
    fresh = loop.fresh
    loop.fresh = lambda *given: states.append(fresh(*given)) or states[0]  # type: ignore[func-returns-value]
    with joined(rank, count, CPU) as group:
        metrics = loop.train(config, digits, folder / "run", device=CPU, progress=Unseen(), group=group)
    torch.save((states[0].model.state_dict(), metrics), folder / f"process{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
