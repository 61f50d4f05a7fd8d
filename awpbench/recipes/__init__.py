"""Recipes: the training runs behind the AWP paper's tables and figures, one TOML file each. Importable without torch.

A file holds values of TrainConfig and, under `[recipe]`, what the run is, what it needs and what was published of it.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from awpbench.config import TrainConfig, of_file
from awpbench.errors import InputError, lookup

FOLDER = Path(__file__).parent


class Published(BaseModel):
    """An accuracy in percent that somebody reported for this configuration, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attack: str
    checkpoint: Literal["best", "last"]
    percent: float
    source: str


class Need(BaseModel):
    """A file that the run starts from: the value of one of its fields, looked for in the data folder.

    `instead` names the recipe whose checkpoint stands in where a run is scaled down and the file would not fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: Literal["init_from", "unlabelled"]
    file: str
    how: str
    instead: str | None = None

    def find(self, folder: Path) -> Path:
        """Return the file in a data folder; raises InputError, which says how to come by it."""
        path = folder / self.file
        if not path.is_file():
            raise InputError(f"{path} is missing", self.how)
        return path


class Recipe(BaseModel):
    """A training run by name: its `values` are those of TrainConfig that it does not leave to the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    values: dict[str, Any]
    title: str
    source: str
    needs: tuple[Need, ...] = ()
    published: tuple[Published, ...] = ()

    @property
    def group(self) -> str:
        """What it belongs to: `table1`, `table2`, `figures`, or `stages` (a run that others start from)."""
        if (table := self.name.partition("-")[0]) in ("table1", "table2"):
            return table
        return "figures" if self.name.startswith(("figure", "appendix")) else "stages"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all recipes, tables first, numbers in their order."""
    found = [path.stem for path in FOLDER.glob("*.toml")]
    return tuple(sorted(found, key=_order))


def _order(name: str) -> tuple[bool, list[tuple[float, str]]]:
    parts = re.findall(r"\d+(?:\.\d+)?|[^\d]+", name)
    return not name.startswith("table"), [(float(part), "") if part[0].isdigit() else (0.0, part) for part in parts]


def get(name: str) -> Recipe:
    """Read a recipe by name. Raises UsageError for an unknown one."""
    lookup(dict.fromkeys(names()), "recipe", name)
    content = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    told = content.pop("recipe")
    return Recipe(name=name, values=of_file(TrainConfig, content), **told)


def in_group(group: str) -> list[Recipe]:
    """Return the recipes of `table1`, `table2`, `figures` or `stages`, or `all` of them, in the order of `names`."""
    everything = [get(name) for name in names()]
    return [recipe for recipe in everything if group in ("all", recipe.group)]
