"""What several commands share: the streams, the device, signals, errors."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, ProgressColumn
from tabulate import tabulate

from awpbench.errors import AwpbenchError, UsageError
from awpbench.leaderboard.escape import plain

if TYPE_CHECKING:
    import torch

DeviceOption = Annotated[str, typer.Option("--device", help="auto (CUDA where there is one), cpu, cuda, cuda:1, ...")]
DataDirOption = Annotated[
    str | None, typer.Option("--data-dir", help="Folder of the data sets; else AWPBENCH_DATA, else the cache folder.")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never fetch a missing data set.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

ConfigOption = Annotated[str | None, typer.Option("--config", help="TOML file of these values; flags win.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print every value with its source, the plan and the time.")
]

Settled = dict[str, tuple[Any, str]]  # values by the name of their flag, each with its source

PLAIN_SECONDS = 30.0  # between two lines of progress where there is no terminal


def stderr() -> Console:
    """Return a console for everything that is not a result."""
    return Console(stderr=True, highlight=False)


def stdout() -> Console:
    """Return a console for results on a terminal."""
    return Console(highlight=False)


def print_json(document: Any) -> None:
    """Print one JSON document; never through rich, which wraps in pipes and eats brackets."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """Print plain text to standard output, untouched."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def report(error: AwpbenchError) -> None:
    """Print an error as one line of what and one line of how to mend it."""
    console = stderr()
    console.print(f"[red]error:[/red] {escape(_line(error.what))}", soft_wrap=True)
    if error.mend:
        console.print(f"[dim]mend:[/dim]  {escape(_line(error.mend))}", soft_wrap=True)


def _line(text: str) -> str:
    """Bring a message to one line; what it quotes from a file may hold terminal escapes."""
    return " ".join(plain(text).split())


def note(text: str) -> None:
    """Print one plain line to standard error."""
    stderr().print(escape(plain(text)), soft_wrap=True)


def resolve_device(name: str) -> torch.device:
    """Turn `auto` into CUDA where there is one; raise UsageError for a device that is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # a device that computes: the meta device does not
    except (RuntimeError, AssertionError):
        raise UsageError(f"there is no device {name!r} here", "Give --device auto or cpu.") from None
    return device


def source(flag: str | None, variable: str = "") -> str:
    """Say where the value of a flag that has a default came from: the flag, an environment variable, or the default."""
    return "flag" if flag else f"environment {variable}" if os.environ.get(variable) else "default"


def places(*, out: Path, out_flag: str | None, device: str, device_flag: str, data_dir: str | None) -> Settled:
    """Return where a command runs, reads and writes, each with its source."""
    from awpbench.data.sources import VARIABLE, data_folder

    folder = data_folder(Path(data_dir) if data_dir else None)
    return {
        "out": (str(out), source(out_flag)),
        "device": (device, "default" if device_flag == "auto" else "flag"),
        "data_dir": (str(folder), source(data_dir, VARIABLE)),
    }


def print_settled(settled: Settled) -> None:
    """Print every value with its source."""
    rows = [(f"--{key.replace('_', '-')}", _shown(value), source) for key, (value, source) in settled.items()]
    print_text(tabulate(rows, headers=("value", "is", "from"), disable_numparse=True))


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={number}" for key, number in value.items()) or "-"
    return "-" if value is None else str(value)


def torchrun_place() -> tuple[int, int, int] | None:
    """Return number, count and number on this machine of a process under torchrun, None outside of it."""
    words = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not all(word.isdecimal() for word in words):
        return None
    rank, count, local = map(int, words)
    return rank, count, local


class Stop:
    """Remembers that a SIGINT or SIGTERM asked the work to stop; a second Ctrl-C stops at once."""

    def __init__(self, quiet: bool = False) -> None:
        self.number: int | None = None
        self._quiet = quiet

    def __call__(self) -> int | None:
        return self.number

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if not self._quiet:
            os.write(2, b"\nstopping and saving; press Ctrl-C again to stop at once\n")


@contextmanager
def stop_on_signals(*, quiet: bool = False) -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM while the block runs, and say so unless `quiet`."""
    stop = Stop(quiet)
    before = {number: signal.signal(number, stop._receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Every:
    """True at most once in so many seconds: for plain lines of progress."""

    def __init__(self, seconds: float = PLAIN_SECONDS) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True


class LiveBars:
    """Progress bars on standard error while the block runs; invisible where there is no terminal."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._console = stderr()
        self._due = Every()
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._bars.stop()


def duration(seconds: float) -> str:
    """Write a time as people say it: `45 s`, `12 min`, `5.3 h`, `12.4 days`."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            value = seconds / size
            return f"{value:.0f} {unit}" if unit != "h" else f"{value:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"
