"""`awpbench train` as real processes: a full disk, Ctrl-C at the very start, and under torchrun."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from awpbench import checkpoints
from awpbench.cli import main

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TRAIN = ["train", "small-cnn-nobn", "--dataset", "digits", "--width", "4", "--train-examples", "110"]
SMALL = [*TRAIN, "--batch-size", "20", "--steps", "2", "--track-steps", "2", "--track-examples", "20"]


def awpbench(words: list[str], folder: Path, *launcher: str, **more: Any) -> subprocess.Popen[str]:
    command, pipe = [sys.executable, *launcher, "-m", "awpbench", *words], subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True, **more)


def wait_for_lines(metrics: Path, n: int) -> None:
    """Wait until a run has finished so many epochs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and len(metrics.read_text().splitlines()) >= n):
        time.sleep(0.1)


def test_a_full_disk_leaves_the_old_checkpoint_and_says_which_file_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--epochs", "1", "--out", "run"]) == 0
    config = json.loads(Path("run/config.json").read_text())
    last = checkpoints.load(Path("run/last.pt"))
    payload = {**torch.load("run/last.pt", weights_only=True), "config": {**config, "epochs": 2}}
    checkpoints.save(Path("run/last.pt"), payload)  # as if the run had another epoch to go
    Path("run/config.json").write_text(json.dumps({**config, "epochs": 2}))
    before, limit = Path("run/last.pt").read_bytes(), Path("run/last.pt").stat().st_size // 2

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = awpbench(["resume", "run"], tmp_path, preexec_fn=full)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4
    error, mend = err.splitlines()[-2:]
    assert error.startswith("error: run/")
    assert error.endswith(".pt could not be written: File too large")
    assert mend == "mend:  run/last.pt is still that of the last save. Free some space, then: awpbench resume run"
    assert Path("run/last.pt").read_bytes() == before
    assert list(Path("run").glob(".*.tmp")) == []
    assert checkpoints.load(Path("run/last.pt")).epoch == last.epoch == 1
    assert main(["resume", "run"]) == 0


def test_ctrl_c_during_the_first_imports_shows_no_traceback(tmp_path: Path) -> None:
    code = "import sys, builtins\noriginal = builtins.__import__\n"
    code += "def interrupted(name, *rest):\n    if name == 'typer': raise KeyboardInterrupt\n"
    code += "    return original(name, *rest)\n"
    code += "builtins.__import__ = interrupted\nfrom awpbench.__main__ import main\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, trained by two processes."""
    folder = tmp_path_factory.mktemp("together")
    process = awpbench([*SMALL, "--epochs", "2", "--out", "run", "--json"], folder, *TORCHRUN)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["run"] == "run"  # one process prints
    assert err.count("epoch 1/2 lr") == 1
    return folder


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does_and_one_process_writes(together: Path) -> None:
    process = awpbench([*SMALL, "--epochs", "2", "--out", "alone"], together)
    process.communicate(timeout=300)
    run = together / "run"
    assert {path.name for path in run.iterdir()} == {path.name for path in (together / "alone").iterdir()}
    assert len((run / "timing.jsonl").read_text().splitlines()) == 2
    assert json.loads((run / "provenance.json").read_text())["processes"] == 2
    several, alone = (checkpoints.load(together / name / "last.pt") for name in ("run", "alone"))
    assert (several.processes, alone.processes) == (2, 1)
    for key, value in alone.state_dict.items():
        assert torch.allclose(several.state_dict[key], value, rtol=0, atol=1e-4), key


@pytest.mark.slow
def test_a_run_of_two_processes_is_refused_only_once_where_it_exists(together: Path) -> None:
    process = awpbench([*SMALL, "--out", "run"], together, *TORCHRUN)
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert err.count("error: run already holds a run") == 1


@pytest.mark.slow
def test_batch_norm_is_refused_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    words = [word.replace("small-cnn-nobn", "small-cnn") for word in SMALL]
    process = awpbench([*words, "--out", "run"], tmp_path, *TORCHRUN)
    _, err = process.communicate(timeout=300)
    assert err.count("error: the net has batch norm, which several processes share on CUDA only") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_signal_to_torchrun_saves_once_for_all_and_one_process_may_go_on(tmp_path: Path) -> None:
    words = [*SMALL, "--epochs", "100000", "--track-every", "100000", "--out", "run"]
    process = awpbench(words, tmp_path, *TORCHRUN)
    metrics = tmp_path / "run/metrics.jsonl"
    wait_for_lines(metrics, 1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert err.count("error: stopped by SIGTERM in epoch ") == 1
    saved = checkpoints.load(tmp_path / "run/last.pt")
    assert (saved.epoch or 0) >= 1
    assert saved.processes == 2

    finished = len(metrics.read_text().splitlines())
    process = awpbench(["resume", "run"], tmp_path)
    wait_for_lines(metrics, finished + 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert checkpoints.load(tmp_path / "run/last.pt").processes == 1


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_too(tmp_path: Path) -> None:
    words = [*SMALL, "--epochs", "100000", "--track-every", "100000", "--out", "run"]
    process = awpbench(words, tmp_path, *TORCHRUN)
    wait_for_lines(tmp_path / "run/metrics.jsonl", 1)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert checkpoints.load(tmp_path / "run/last.pt").epoch is not None
