"""Files that a run starts from, made from its own data set where it only has to show that everything runs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from awpbench import data, rundir
from awpbench.config import TrainConfig


def write_unlabelled(path: Path, config: TrainConfig) -> None:
    """Write a run's training images and labels as images with pseudo-labels, unless the file is there."""
    if path.exists():
        return
    found = data.load(config.dataset, validation=config.validation_examples, train_examples=config.train_examples).train
    buffer = io.BytesIO()
    np.savez(buffer, images=found.images.permute(0, 2, 3, 1).numpy(), labels=found.labels.numpy())
    rundir.atomic_write(path, buffer.getvalue())
