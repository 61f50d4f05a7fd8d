"""Rows for tests of what a leaderboard shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from awpbench.leaderboard.details import Retraction, Source
from awpbench.leaderboard.row import Board, Reported, Row, board_of
from tests.leaderboard import crafted


def quick(name: str, correct: int, n: int = 300, more: dict[str, Any] | None = None, **changes: Any) -> Row:
    """The row of a net of which `correct` of n images withstand PGD-20."""
    attacks = {"clean": crafted.attack("clean", 240, 300), "pgd-20": crafted.attack("pgd-20", correct, n)}
    return crafted.row(name, suite="quick", attacks=attacks | (more or {}), **changes)


def trained(name: str, standing: Sequence[bool], tracked: dict[str, Any] | None = None, **config: Any) -> Row:
    """The row of a net that awpbench trained, with what became of each image under PGD-20."""
    n = len(standing)
    attacks = {"clean": crafted.attack("clean", n, n), "pgd-20": crafted.attack("pgd-20", sum(standing), n)}
    document = crafted.named(f"{name}/best", suite="quick", attacks=attacks)
    document |= {"training": crafted.config(**config), "tracked": tracked}
    arrays = {"clean.fooled": np.zeros(n, dtype=bool), "pgd-20.fooled": ~np.array(standing)}
    return Row.from_result(document, arrays)


def robustbench(name: str, threat: Any = "Linf", **keys: Any) -> Reported:
    """A row as RobustBench has it."""
    document = {
        "link": "https://a.example",
        "name": "A paper",
        "authors": "A B, C D",
        "additional_data": False,
        "dataset": "cifar10",
        "venue": "NeurIPS 2020",
        "architecture": "WideResNet-34-10",
        "eps": "8/255",
        "clean_acc": "85.36",
        "reported": "56.17",
        "autoattack_acc": "56.17",
    }
    source = Source(kind="robustbench", reference=f"cifar10/{threat}/{name}.json")
    found = {key: value for key, value in {**document, **keys}.items() if value is not ...}
    return Reported.of(
        f"robustbench.{name}", model=name, dataset=str(found["dataset"]), threat=threat, keys=found, source=source
    )


def retracted(row: Row | Reported, reason: str = "a bug") -> Any:
    """The row, retracted."""
    return row.sealed(retracted=Retraction(date="2026-01-02", reason=reason))


def mixed() -> Board:
    """A board with everything: ranks that overlap, a gain, a gap, two data sets, reported and retracted rows."""
    tracked = {"epoch": 3, "train": {"n": 10, "clean": 1.0, "robust": 0.9}}
    tracked |= {"validation": {"n": 10, "clean": 0.8, "robust": 0.5}}
    with_awp = [k % 10 < 5 or k % 10 == 9 for k in range(300)]
    without = [k % 10 < 5 for k in range(300)]
    rows = (
        trained("at-awp-s0", with_awp, tracked),
        trained("at-s0", without, awp=False),
        trained("trades-s0", [k % 10 == 0 for k in range(300)], awp=False, defense="trades"),
        quick("foreign_net", 60),
        quick("digits", 30, dataset="digits"),
        robustbench("Wu2020Adversarial"),
        robustbench("Best2020", external="60.04", autoattack_acc="70.00", additional_data=True),
        robustbench("Corrupted", "corruptions", eps=None, autoattack_acc=..., corruptions_acc="76.9"),
        retracted(quick("wrong", 299)),
    )
    return board_of(rows)
