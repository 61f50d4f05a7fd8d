"""docs/defenses.md says what the code does by default, and leaves no defense out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from awpbench.defaults import DEFENSES, MART_BETA_WRN

PAGE = (Path(__file__).parents[2] / "docs" / "defenses.md").read_text()
HEADS = ("defense", "loss", "steps", "beta", "normalization", "gamma", "warm-up", "own")


def rows(section: str) -> dict[str, dict[str, str]]:
    """The lines of the section's first table that begin with the name of a defense."""
    lines = re.findall(r"^\| `([\w-]+)` \|(.*)\|$", section, re.MULTILINE)
    return {name: dict(zip(HEADS[1:], map(str.strip, rest.split(" | ")), strict=True)) for name, rest in lines}


DEFAULTS = rows(PAGE.split("## Defaults")[1].split("For all")[0])
FORMULAS = set(re.findall(r"^\| `([\w-]+)` \|", PAGE.split("## Defaults")[0], re.MULTILINE))


def test_every_defense_has_a_formula_and_defaults() -> None:
    assert set(DEFENSES) <= FORMULAS == set(DEFAULTS)


@pytest.mark.parametrize("name", ["standard", "at", "trades", "mart"])
def test_the_defaults_are_those_of_the_code(name: str) -> None:
    documented, here = DEFAULTS[name], DEFENSES[name]
    beta = "-" if here.beta is None else f"{here.beta:g}"
    assert documented["beta"].split(" ")[0] == beta
    assert documented["steps"] == str(here.steps)
    assert documented["normalization"] == here.normalization
    assert documented["gamma"] == str(here.awp_gamma)
    assert documented["warm-up"] == f"{here.awp_warmup_share:.0%}".replace("%", " %")
    assert ("zero padding" in documented["own"]) == (here.padding == "zero")


def test_mart_has_its_own_beta_for_wide_residual_networks() -> None:
    assert DEFAULTS["mart"]["beta"] == f"5 (wide residual networks {MART_BETA_WRN:g})"


def test_every_row_of_the_differences_has_four_cells() -> None:
    table = PAGE.split("## Where this differs")[1]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(lines) > 30
    assert [line for line in lines if len(re.split(r"(?<!\\)\|", line)) != 6] == []
