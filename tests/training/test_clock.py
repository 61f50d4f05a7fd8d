"""The parts of a step and their seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from awpbench import data, defenses, models
from awpbench.data.images import DataSet
from awpbench.defaults import resolve_training
from awpbench.threat import ThreatModel
from awpbench.training import clock as clock_module
from awpbench.training import loop
from awpbench.training.clock import PARTS, StepClock
from awpbench.training.step import training_step
from tests.draws import GivenDraws
from tests.training.test_loop import Silent


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moments that the clock will read, in order."""
    moments: list[float] = []
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: moments.pop(0))
    return moments


def test_the_time_since_the_last_lap_belongs_to_the_part_that_it_names(at: list[float]) -> None:
    at += [0.0, 1.0, 5.0, 5.5, 7.5, 7.75, 100.0, 101.0]
    clock = StepClock(torch.device("cpu"))
    clock.start()
    for part in ("batch", "attack", "ascent", "update", "ascent"):
        clock.lap(part)
    clock.start()
    clock.lap("batch")
    assert clock.seconds() == {"batch": 2.0, "attack": 4.0, "ascent": 0.75, "update": 2.0}


class Event:
    """Stands for an event in a CUDA stream: each is recorded a quarter of a second after the one before."""

    recorded = 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: str) -> None:
        assert stream == "stream of cuda:0"
        self.at = Event.recorded = Event.recorded + 250

    def elapsed_time(self, after: Event) -> float:
        return float(after.at - self.at)  # milliseconds


def test_on_cuda_the_parts_are_the_time_between_events_and_only_the_end_waits_for_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock = StepClock(torch.device("cuda:0"))
    clock.start()
    for part in ("batch", "attack", "ascent", "update", "ascent"):
        clock.lap(part)
    assert waited == []
    assert clock.seconds() == {"batch": 0.25, "attack": 0.25, "ascent": 0.5, "update": 0.25}
    assert waited == [torch.device("cuda:0")]


def test_a_step_says_where_each_of_its_parts_ends() -> None:
    model = models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4)
    heard: list[str] = []
    training_step(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        defenses.get("at"),
        torch.full((4, 1, 8, 8), 0.5),
        torch.zeros(4, dtype=torch.int64),
        threat=ThreatModel("Linf", 0.1),
        steps=1,
        step_size=0.05,
        gamma=0.01,
        generator=GivenDraws(),
        hyper={},
        lap=heard.append,
    )
    assert heard == ["attack", "ascent", "update", "ascent"]


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return data.load("digits", validation=200, train_examples=200)


@pytest.mark.parametrize("awp", [False, True])
def test_the_parts_of_an_epoch_add_up_to_its_training_and_only_weight_perturbation_pays_for_the_ascent(
    awp: bool, digits: DataSet, tmp_path: Path
) -> None:
    small = {"architecture": "small-cnn", "width": 4, "dataset": "digits", "train_examples": 200, "epochs": 2}
    more = {"batch_size": 100, "steps": 3, "track_steps": 1, "track_examples": 20, "awp": awp}
    watcher = Silent()
    config = resolve_training(small | more)[0]
    loop.train(config, digits, tmp_path, device=torch.device("cpu"), progress=watcher)
    lines = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        parts = [line[f"{part}_seconds"] for part in PARTS]
        assert 0.5 * line["train_seconds"] < sum(parts) <= line["train_seconds"] + 0.004  # each is rounded
        assert line["attack_seconds"] > line["update_seconds"] / 10
        assert (line["ascent_seconds"] > 0) == awp
    assert [told["timing"] for told in watcher.epochs] == lines
