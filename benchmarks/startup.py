"""Measures the CPU time (user and system) that `awpbench --help` takes, start of Python included.

python benchmarks/startup.py [--runs 10]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

GOAL = 0.5  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    runs = [cpu_seconds([sys.executable, "-m", "awpbench", "--help"]) for _ in range(parser.parse_args().runs)]
    median = statistics.median(runs)
    print(f"awpbench --help: {median:.3f} s of CPU, median of {len(runs)} ({min(runs):.3f} to {max(runs):.3f})")
    print(f"goal: under {GOAL} s: {'met' if median < GOAL else 'MISSED'}")
    return 0 if median < GOAL else 1


def cpu_seconds(command: list[str]) -> float:
    """Return the CPU seconds of a finished child process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"error: {' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
