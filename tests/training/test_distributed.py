"""Several processes against one: the same weights, metrics and draws, and ends that leave nobody waiting."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awpbench import models
from awpbench.attack_model import AttackModel
from awpbench.errors import UsageError
from awpbench.models.layers import layout
from awpbench.randomness import BatchDraws, generator
from awpbench.training.distributed import ALONE, Group, fit

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
SMALL: dict[str, Any] = {
    "architecture": "small-cnn-nobn",
    "dataset": "digits",
    "width": 8,
    "train_examples": 41,  # the last batch of 20 holds one image, which leaves none to the first process
    "batch_size": 20,
    "validation_examples": 150,
    "epochs": 2,
    "steps": 2,
    "track_steps": 2,
    "track_examples": 20,
    "augmentation": "crop-flip",
    "padding": "zero",
}


def processes(count: int, words: list[str], folder: Path) -> list[subprocess.Popen[str]]:
    """Start processes as torchrun would, without the time that it takes itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    ranks = [{"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(count)] if count > 1 else [{}]
    return [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=ENVIRONMENT | (place if count > 1 else {}) | rank,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]


def ended(started: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Wait for processes and return their exit codes and what they wrote to standard error."""
    try:
        written = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, err) for process, err in zip(started, written, strict=True)]


def trained(counts: list[int], folder: Path, **changed: Any) -> list[list[tuple[dict[str, Tensor], Any]]]:
    """Train in so many processes, at the same time in so many others; weights and metrics that each ended with."""
    started = []
    for count in counts:
        (folder / str(count)).mkdir()
        words = ["-m", "tests.training.together", str(folder / str(count)), json.dumps(SMALL | changed)]
        started += processes(count, words, ROOT)
    found = ended(started)
    assert [code for code, _ in found] == [0] * sum(counts), found
    return [
        [torch.load(folder / str(count) / f"process{rank}.pt", weights_only=True) for rank in range(count)]
        for count in counts
    ]


def assert_same_training(count: int, folder: Path, **changed: Any) -> None:
    ((alone, metrics),), several = trained([1, count], folder, **changed)
    first, lines = several[0]
    for weights, others in several:
        assert others == lines
        assert all(torch.equal(value, first[key]) for key, value in weights.items())
    for key, value in alone.items():
        assert (first[key] - value).abs().max() <= 1e-9, key
    for line, expected in zip(lines, metrics, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-9)
        assert {**line, "loss": 0} == {**expected, "loss": 0}


@pytest.mark.parametrize(
    ("defense", "awp"),
    [
        ("at", True),
        pytest.param("at", False, marks=pytest.mark.slow),
        pytest.param("standard", True, marks=pytest.mark.slow),
        pytest.param("trades", True, marks=pytest.mark.slow),
        pytest.param("mart", True, marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one_does_in_float64(defense: str, awp: bool, tmp_path: Path) -> None:
    more = {"awp": True, "awp_warmup": 0, "awp_gamma": 0.01} if awp else {}
    assert_same_training(2, tmp_path, defense=defense, steps=0 if defense == "standard" else 2, **more)


@pytest.mark.slow
def test_three_processes_with_uneven_shares_train_as_one_does(tmp_path: Path) -> None:
    assert_same_training(3, tmp_path, defense="trades", awp=True, awp_warmup=0, train_examples=47)


def test_shares_are_contiguous_and_cover_the_batch() -> None:
    for n in range(8):
        parts = [Group(rank, 3).part(n) for rank in range(3)]
        assert [i for part in parts for i in range(n)[part.here]] == list(range(n))
    assert [Group(rank, 3).part(8).weight for rank in range(3)] == [2 / 8, 3 / 8, 3 / 8]
    assert [Group(rank, 2).part(1).weight for rank in range(2)] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"awp": True, "awp_steps": 2, "awp_alternations": 2, "awp_size": "l1", "l1": 1e-3, "label_smoothing": 0.1},
        {"rwp": True, "awp_gamma": 0.5, "l2": 5e-3, "nesterov": True},
        {"mixup": 1.4, "cutout": 3, "ema": 0.9},
    ],
    ids=lambda more: "-".join(more),
)
def test_two_processes_regularise_as_one_does_in_float64(more: dict[str, Any], tmp_path: Path) -> None:
    assert_same_training(2, tmp_path, defense="at", steps=2, **more)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("width", [4, 16])  # contiguous, and channels_last
def test_the_draws_of_the_shares_are_those_of_the_batch(n: int, width: int) -> None:
    net = models.build("small-cnn-nobn", classes=10, shape=(3, 8, 8), width=width)
    x = torch.rand(n, 3, 8, 8).contiguous(memory_format=layout(net))
    for kind in ("uniform", "normal", "radius"):
        whole = getattr(BatchDraws(generator("cpu", 1)), kind)(x)
        parts = [Group(rank, 3).part(n) for rank in range(3)]
        drawn = [getattr(part.draws(BatchDraws(generator("cpu", 1))), kind)(x[part.here]) for part in parts]
        assert torch.equal(torch.cat(drawn), whole)
    part = Group(2, 3).part(n)
    signs = part.draws(BatchDraws(generator("cpu", 1))).signs(x[part.here], 4)
    assert torch.equal(signs, BatchDraws(generator("cpu", 1)).signs(x, 4)[part.here])


def test_a_share_without_images_adds_nothing_and_has_a_gradient_of_zeros() -> None:
    model, part = nn.Linear(2, 1), Group(0, 2).part(1)
    loss = part.mean(lambda: model(torch.ones(0, 2)).mean(), model)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert loss.item() == 0
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


def test_batch_norm_on_the_cpu_is_refused_in_several_processes() -> None:
    net = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=2)
    assert fit(net, [20], ALONE, CPU) is net
    with pytest.raises(UsageError) as refused:
        fit(net, [20], Group(0, 2), CPU)
    assert refused.value.what == "the net has batch norm, which several processes share on CUDA only"
    assert refused.value.mend == "Train it in one process, or take a net without, such as small-cnn-nobn."


def test_batch_norm_on_cuda_becomes_one_of_all_processes_and_needs_images_in_each() -> None:
    net = fit(models.build("small-cnn", classes=10, shape=(1, 8, 8), width=2), [20], Group(0, 2), torch.device("cuda"))
    assert [type(m).__name__ for m in net.modules()].count("SyncBatchNorm") == 3
    attacked, x = AttackModel(net.eval()), torch.rand(4, 1, 8, 8)
    assert torch.allclose(attacked(x), net(x), atol=1e-5)
    assert attacked.folded
    with pytest.raises(UsageError) as refused:
        fit(net, [20, 1], Group(0, 2), torch.device("cuda"))
    assert refused.value.what == "a batch of 1 images leaves none to one of 2 processes, which batch norm needs"
