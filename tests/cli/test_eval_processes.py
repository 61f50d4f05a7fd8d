"""`awpbench eval` killed at random, in shards, and under torchrun: the same bytes as in one piece."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from awpbench.cli import main
from tests.cli.test_eval import FACTORY, THREAT

FILES = ("result.json", "per_image.npz", "evidence.npz")
ATTACKS = ["--attack", "fgsm", "--attack", "pgd-20", "--attack", "cw-inf", "--attack", "spsa", "--attack", "autoattack"]
LIMITS = ["--limit", "spsa=3", "--limit", "autoattack=130"]
WORDS = ["eval", "--model", "factory.py:tiny", *THREAT, *ATTACKS, *LIMITS, "--evidence", "--out"]
COMMAND = [sys.executable, "-m", "awpbench", *WORDS]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a factory and `whole`, an evaluation in one piece."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "factory.py").write_text(FACTORY)
    assert start(folder, "whole").wait() == 0
    return folder


def start(folder: Path, out: str, *more: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, *launcher, *COMMAND[1:], out, *more]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def assert_same(folder: Path, out: str) -> None:
    for name in FILES:
        assert (folder / out / name).read_bytes() == (folder / "whole" / name).read_bytes(), name


def wait_for_a_block(process: subprocess.Popen[bytes], shards: Path) -> None:
    before = len(list(shards.glob("*.npz")))
    while process.poll() is None and len(list(shards.glob("*.npz"))) <= before:
        time.sleep(0.02)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_and_run_again_it_gives_the_same_bytes(kills: int, whole: Path) -> None:
    draws, out = random.Random(kills), f"killed {kills} times"
    for _ in range(kills):
        process = start(whole, out)
        wait_for_a_block(process, whole / out / "shards")
        time.sleep(draws.uniform(0, 0.5))
        process.kill()
        process.wait()
    assert start(whole, out).wait(timeout=300) == 0
    assert_same(whole, out)
    assert not (whole / out / "shards").exists()


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_shards_at_the_same_time_give_the_same_bytes(count: int, whole: Path) -> None:
    out = f"{count} shards"
    processes = [start(whole, out, "--shard", f"{i}/{count}") for i in range(1, count + 1)]
    assert [process.wait(timeout=300) for process in processes] == [0] * count
    assert_same(whole, out)
    assert not (whole / out / "shards").exists()


def test_of_two_equal_commands_at_once_the_second_is_refused_and_nothing_is_left_behind(whole: Path) -> None:
    first = start(whole, "at once")
    wait_for_a_block(first, whole / "at once" / "shards")
    first.send_signal(signal.SIGSTOP)  # so that it is there as long as the second one
    second = subprocess.run([*COMMAND, "at once"], cwd=whole, env=ENVIRONMENT, capture_output=True, text=True)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 3
    assert second.stderr.splitlines()[-2:] == [
        "error: another process is working on this evaluation in at once",
        "mend:  Wait until it ends, or give another --out.",
    ]
    assert first.wait(timeout=300) == 0
    assert_same(whole, "at once")
    assert not (whole / "at once" / "shards").exists()


@pytest.mark.slow
def test_torchrun_gives_the_same_bytes(whole: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert start(whole, "torchrun", launcher=launcher).wait(timeout=300) == 0
    assert_same(whole, "torchrun")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_what_is_no_share_is_refused(text: str, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole)
    assert main([*WORDS, "refused", "--shard", text]) == 2
    assert not (whole / "refused").exists()


def test_a_share_that_is_not_the_last_says_what_is_missing(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(whole)
    words = ["eval", "--model", "factory.py:tiny", *THREAT, "--suite", "quick", "--file", "board.json", "--out", "half"]
    assert main([*words, "--shard", "1/2"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "this share is done; 13 of 22 blocks are there, and the last share finishes"
    assert not (whole / "board.json").exists()
    assert main([*words, "--shard", "2/2"]) == 0
    assert (whole / "half" / "result.json").exists()
    assert (whole / "board.json").exists()
