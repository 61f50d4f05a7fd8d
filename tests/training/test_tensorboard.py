"""Event files for TensorBoard, an extra: with a stand-in for its writer, with the package, and without it."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from awpbench.cli import main
from awpbench.training.tensorboard import EventFiles, scalars

QUICK = ["--dataset", "digits", "--width", "4", "--train-examples", "100", "--batch-size", "50", "--track-steps", "1"]
TRAIN = ["train", "small-cnn", *QUICK, "--epochs", "2", "--steps", "1", "--track-examples", "20", "--out", "run"]
EPOCH = {"epoch": 3, "lr": 0.1, "loss": 2, "train": {"n": 50, "clean": 0.5}, "timing": {"epoch": 3, "steps": 8}}


class Writer:
    """Stands for torch.utils.tensorboard's SummaryWriter, and keeps what is written."""

    written: list[tuple[str, str, float, int]]

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def add_scalar(self, tag: str, value: float, epoch: int) -> None:
        Writer.written.append((self._folder, tag, value, epoch))

    def flush(self) -> None:
        Writer.written.append((self._folder, "flush", 0.0, 0))

    def close(self) -> None:
        Writer.written.append((self._folder, "close", 0.0, 0))


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Writer]:
    module: Any = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    Writer.written = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.chdir(tmp_path)
    return Writer


def test_every_number_of_an_epoch_has_the_name_that_it_has_in_the_run_folder() -> None:
    assert list(scalars(EPOCH)) == [("lr", 0.1), ("loss", 2.0), ("train/clean", 0.5), ("timing/steps", 8.0)]


def test_an_epoch_is_written_and_flushed_under_its_number(writer: type[Writer], tmp_path: Path) -> None:
    events = EventFiles(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists()
    events.epoch(EPOCH)
    assert [entry[1:] for entry in writer.written] == [
        ("lr", 0.1, 3),
        ("loss", 2.0, 3),
        ("train/clean", 0.5, 3),
        ("timing/steps", 8.0, 3),
        ("flush", 0.0, 0),
    ]


def test_training_writes_every_epoch_and_closes_the_files(writer: type[Writer]) -> None:
    assert main([*TRAIN, "--tensorboard"]) == 0
    assert {folder for folder, *_ in writer.written} == {str(Path("run") / "tensorboard")}
    assert [epoch for _, tag, _, epoch in writer.written if tag == "validation/robust"] == [1, 2]
    assert {"loss", "lr", "train/robust", "timing/attack_seconds"} <= {tag for _, tag, *_ in writer.written}
    assert writer.written[-1][1] == "close"


def test_without_the_option_nothing_is_written(writer: type[Writer]) -> None:
    assert main(TRAIN) == 0
    assert writer.written == []


@pytest.mark.parametrize("words", [[*TRAIN, "--tensorboard", "--force"], ["resume", "run", "--tensorboard"]])
def test_without_the_package_the_run_is_refused_before_anything_is_touched(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(TRAIN) == 0
    before = Path("run/last.pt").read_bytes()
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: event files need the package tensorboard",
        "mend:  Install it: pip install 'awpbench[tensorboard]', or leave --tensorboard out.",
    ]
    assert Path("run/last.pt").read_bytes() == before


def test_tensorboard_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN, "--tensorboard"]) == 0
    read = EventAccumulator("run/tensorboard")
    read.Reload()
    assert [event.step for event in read.Scalars("validation/robust")] == [1, 2]
    assert main([*TRAIN, "--force"]) == 0
    assert not Path("run/tensorboard").exists()
