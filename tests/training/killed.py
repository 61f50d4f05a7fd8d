"""Kill training runs at random moments: `python -m tests.training.killed FOLDER KILLS`, the runs on standard input.

A run is a name and the words of its command line. Of each there is `NAME/whole`, trained in one piece, and `NAME/0`,
`NAME/1`, ...: trained by processes that SIGKILL ends, until that was done so many times and the last one finished. The
processes are forked from this one, which saves each of them the time to import torch.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import sklearn.datasets  # noqa: F401 - for the children

import awpbench.training.loop  # noqa: F401 - for the children
from awpbench.cli import main


def start(words: list[str], folder: Path) -> int:
    """Run a command line in a process of its own, its output in `log`; return its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = main(words)
        finally:
            os._exit(code)
    return child


def finish(child: int, words: list[str]) -> bool:
    """Wait for a process; tell whether it finished, and not a kill; anything else is an error."""
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and status != 0:
        raise SystemExit(f"{words} ended with status {status}")
    return not killed


def kill_on_the_way(words: list[str], folder: Path, kills: int) -> None:
    draws = random.Random(f"{folder.name} {kills}")
    started = time.monotonic()
    finish(start([*words, "--out", "whole"], folder), words)
    seconds = time.monotonic() - started
    attempt = 0
    while kills:
        run = folder / str(attempt)
        child = start(continued(words, run), folder)
        time.sleep(draws.uniform(0, seconds / 2))
        os.kill(child, signal.SIGKILL)
        if finish(child, words):
            attempt += 1
        else:
            kills -= 1
    finish(start(continued(words, folder / str(attempt)), folder), words)


def continued(words: list[str], run: Path) -> list[str]:
    """Say the command that goes on with a run: the one that starts it, as long as it has saved nothing."""
    if (run / "last.pt").exists():
        return ["resume", run.name, *words[words.index("--checkpoint-every") :][:2]]
    return [*words, "--out", run.name]


if __name__ == "__main__":
    for name, words in json.load(sys.stdin).items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir()
        kill_on_the_way(words, folder, int(sys.argv[2]))
