"""How the benchmarks time, and what they compare with."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pairs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pairs", ROOT / "benchmarks" / "pairs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sides_take_turns_at_going_first_and_the_first_round_does_not_count(
    pairs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.accumulate(range(100))  # every look at it takes a second longer than the one before
    monkeypatch.setitem(pairs.CLOCKS, "wall", lambda: float(next(clock)))
    ran: list[str] = []
    sides = {side: (lambda side=side: ran.append(side)) for side in ("theirs", "ours")}
    seconds = pairs.time_rounds(sides, 2, "wall")
    assert ran == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert seconds == {"theirs": [5.0, 11.0], "ours": [7.0, 9.0]}
    assert pairs.ratios(seconds, "theirs", "ours") == [5 / 7, 11 / 9]


def test_the_spread_names_the_median_and_both_ends(pairs: ModuleType) -> None:
    assert pairs.spread([2.0, 1.0, 1.5]) == "1.50 (1.00 to 2.00 over 3 pairs)"


def test_every_public_tool_is_pinned_to_one_version() -> None:
    lines = (ROOT / "constraints" / "public-tools.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert [str(pin) for pin in pins if [one.operator for one in pin.specifier] != ["=="]] == []
    assert {"torchattacks", "foolbox"} <= {pin.name for pin in pins}
