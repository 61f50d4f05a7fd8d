"""A run that SIGKILL ended at random moments, and that was resumed, equals one in one piece bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from awpbench import checkpoints, data
from awpbench.cli import main
from awpbench.defenses import DEFENSES

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
SMALL = [
    "small-cnn", "--dataset", "digits", "--width", "4", "--train-examples", "60", "--batch-size", "20",
    "--validation-examples", "30", "--track-examples", "20", "--track-steps", "2", "--epochs", "2",
    "--augmentation", "crop-flip", "--checkpoint-every", "0",
]  # fmt: skip
PERTURBED = ["--awp", "--awp-warmup", "1"]
RUNS = {
    f"{defense}{'-awp' if more else ''}": ["train", *SMALL, "--method", defense, *more]
    for defense in DEFENSES
    for more in ([], PERTURBED)
}


ONE_EACH = [f"{defense}{'-awp' if i % 2 else ''}" for i, defense in enumerate(DEFENSES)]


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of every defense, every other one with AWP, each in one piece and killed once."""
    return killed(tmp_path_factory.mktemp("killed"), ONE_EACH, 1)


@pytest.fixture(scope="module")
def killed_often(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all runs, each in one piece and killed three times: 24 kills and more."""
    return killed(tmp_path_factory.mktemp("killed"), list(RUNS), 3)


def killed(folder: Path, names: list[str], kills: int) -> Path:
    runs = {name: [*RUNS[name], *more_words(name, folder)] for name in names}
    command = [sys.executable, "-m", "tests.training.killed", str(folder), str(kills)]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, input=json.dumps(runs), text=True, capture_output=True, check=False
    )
    logs = "\n".join(path.read_text()[-1000:] for path in folder.glob("*/log"))
    assert done.returncode == 0, done.stderr + logs
    return folder


def more_words(name: str, folder: Path) -> list[str]:
    """What a defense needs beside its name; its files are made where they are missing."""
    words = ["--steps", "0" if name.startswith("standard") else "2"]
    if name.startswith("finetuning"):
        if not (folder / "base").exists():
            assert main(["train", *SMALL, "--method", "at", *words, "--out", str(folder / "base")]) == 0
        words += ["--init-from", str(folder / "base" / "last.pt")]
    if name.startswith("rst"):
        images = data.load("digits").validation
        np.savez(folder / "pseudo.npz", images=images.images.permute(0, 2, 3, 1).numpy(), labels=images.labels.numpy())
        words += ["--unlabelled", str(folder / "pseudo.npz")]
    return words


def flat(value: Any) -> list[Any]:
    """Take nested containers apart."""
    if isinstance(value, dict):
        return [each for key, inner in value.items() for each in (key, *flat(inner))]
    return [each for inner in value for each in flat(inner)] if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_run_killed_at_a_random_moment_equals_one_in_one_piece_bit_for_bit(name: str, killed_once: Path) -> None:
    assert_equal(killed_once / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_three_times_equals_one_in_one_piece_bit_for_bit(name: str, killed_often: Path) -> None:
    assert_equal(killed_often / name)


def assert_equal(runs: Path) -> None:
    whole, *parts = sorted((path for path in runs.iterdir() if path.is_dir()), reverse=True)
    assert whole.name == "whole"
    assert parts
    for part in parts:
        assert (part / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
        for file in ("last.pt", "best.pt"):
            one, other = checkpoints.load(whole / file), checkpoints.load(part / file)
            assert (one.epoch, one.step, one.best) == (other.epoch, other.step, other.best)
            pairs = zip(flat([one.state_dict, one.optimizer]), flat([other.state_dict, other.optimizer]), strict=True)
            assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)
        assert list(part.glob(".*.tmp")) == []
