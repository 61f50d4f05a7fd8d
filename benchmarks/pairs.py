"""Times several ways of doing one thing in alternating rounds of one process, and says what came out."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every timing has."""
    parser.add_argument("--pairs", type=int, default=5, help="timed rounds, after one that warms up")
    parser.add_argument("--threads", type=int, help="torch's threads; all cores if left out")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a busy machine, with --threads 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")


def device_of(args: argparse.Namespace) -> torch.device:
    """Set the threads and return where to run."""
    if args.threads:
        torch.set_num_threads(args.threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine(device: torch.device) -> dict[str, Any]:
    """Return where it runs."""
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }


def time_rounds(sides: Mapping[str, Callable[[], object]], rounds: int, clock: str) -> dict[str, list[float]]:
    """Return the seconds of each side, a number for each round; every second round they run in the opposite order.

    A first round warms up. Each side must end by reading what it computed, so that the device has finished.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name in sorted(sides, reverse=i % 2 == 1):
            start = CLOCKS[clock]()
            sides[name]()
            elapsed = CLOCKS[clock]() - start
            if i:
                seconds[name].append(elapsed)
    return seconds


def ratios(seconds: Mapping[str, list[float]], base: str, side: str) -> list[float]:
    """Return how many times as fast as the base a side was in each round."""
    return [theirs / mine for theirs, mine in zip(seconds[base], seconds[side], strict=True)]


def spread(values: list[float]) -> str:
    """Say the median ratio and its spread."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f} over {len(values)} pairs)"


def heading(found: Mapping[str, Any], *keys: str) -> str:
    """Say in one line what was timed where."""
    where = ("device", "threads", "clock", "torch", "machine")
    return ", ".join(f"{key} {found[key]}" for key in (*keys, *where) if key in found)
