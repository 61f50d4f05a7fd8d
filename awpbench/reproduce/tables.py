"""The layout of the paper's tables: which recipe, checkpoint and attack stands in which cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from awpbench import recipes
from awpbench.recipes import Published

DATASETS = {"svhn": "SVHN", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
DEFENSES = {"at": "AT", "trades": "TRADES", "mart": "MART", "pretraining": "Pre-training", "rst": "RST"}
ATTACKS = {
    "clean": "Natural",
    "fgsm": "FGSM",
    "pgd-20": "PGD-20",
    "pgd-100": "PGD-100",
    "cw-inf": "CW-inf",
    "spsa": "SPSA",
    "autoattack": "AA",
}


@dataclass(frozen=True)
class Cell:
    """A recipe's accuracy at one of its checkpoints under an attack."""

    recipe: str
    checkpoint: str
    attack: str

    @property
    def published(self) -> Published | None:
        """What was reported of it: the first of several."""
        told = recipes.get(self.recipe).published
        same = [each for each in told if (each.checkpoint, each.attack) == (self.checkpoint, self.attack)]
        return same[0] if same else None


@dataclass(frozen=True)
class Grid:
    """A table: every row has a label and a cell per column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    def of(self, names: Iterable[str]) -> Grid:
        """Keep the rows in which one of the recipes stands."""
        kept = set(names)
        return Grid(self.title, self.columns, tuple(row for row in self.rows if kept & {c.recipe for c in row[1]}))


def grids(names: Iterable[str]) -> list[Grid]:
    """Return the tables in which recipes stand, with their rows alone."""
    names = list(names)
    others = tuple(name for name in names if recipes.get(name).group in ("figures", "stages"))
    found = [grid.of(names) for grid in (table1(), table2(), _listed(others))]
    return [grid for grid in found if grid.rows]


def table1() -> Grid:
    """Return Table 1: data sets, each best and last, against threats and methods."""
    rows = []
    for norm, threat in (("linf", "L-inf"), ("l2", "L2")):
        for method in ("at", "at-awp"):
            names = [f"table1-{dataset}-{norm}-{method}" for dataset in DATASETS]
            cells = tuple(Cell(name, checkpoint, "pgd-20") for name in names for checkpoint in ("best", "last"))
            rows.append((f"{threat} {method.upper()}", cells))
    columns = tuple(f"{name} {checkpoint}" for name in DATASETS.values() for checkpoint in ("best", "last"))
    return Grid("Table 1: robustness (%) under PGD-20", columns, tuple(rows))


def table2() -> Grid:
    """Return Table 2: attacks against defenses, of the best checkpoint."""
    rows = []
    for defense, title in DEFENSES.items():
        for ending in ("", "-awp"):
            cells = tuple(Cell(f"table2-{defense}{ending}", "best", attack) for attack in ATTACKS)
            rows.append((title + ending.upper(), cells))
    return Grid("Table 2: accuracy (%) on CIFAR-10, best checkpoint", tuple(ATTACKS.values()), tuple(rows))


def _listed(names: Iterable[str]) -> Grid:
    cells = [(checkpoint, attack) for attack in ("pgd-10", "pgd-20") for checkpoint in ("best", "last")]
    columns = tuple(f"{attack.upper()} {checkpoint}" for checkpoint, attack in cells)
    rows = tuple((name, tuple(Cell(name, *cell) for cell in cells)) for name in names)
    return Grid("Other recipes: robustness (%)", columns, rows)
