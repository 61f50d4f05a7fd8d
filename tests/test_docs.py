"""Every command, option, defense, attack, suite, model and data set is in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from awpbench import attacks, data, defenses, models, recipes
from awpbench.cli import app
from awpbench.evaluation.suites import SUITES
from awpbench.leaderboard import store
from awpbench.leaderboard.render import render

ROOT = Path(__file__).parents[1]
DOCS = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
EVERYTHING = "\n".join(DOCS.values())


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        yield (*words, name), command


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_is_documented(words: tuple[str, ...]) -> None:
    assert f"awpbench {' '.join(words)}" in EVERYTHING


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_of_a_command_is_documented(words: tuple[str, ...]) -> None:
    options = {o for p in ALL[words].params for o in [*p.opts, *p.secondary_opts] if o.startswith("--")} - {"--help"}
    assert {option for option in options if not re.search(rf"{option}(?![\w-])", EVERYTHING)} == set()


@pytest.mark.parametrize(
    "name",
    [
        *[*defenses.DEFENSES, *attacks.ATTACKS, *SUITES, *models.MODELS, *models.ALIASES, *data.DATASETS],
        *recipes.names(),
    ],
)
def test_everything_that_can_be_named_is_documented(name: str) -> None:
    assert f"`{name}`" in EVERYTHING


def test_no_page_links_to_a_file_that_is_not_there() -> None:
    broken = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
            if not target.startswith("http") and not (path.parent / target).exists():
                broken.append((path.name, target))
    assert broken == []


def test_the_table_in_the_readme_is_the_leaderboard() -> None:
    assert render(store.read(ROOT / "leaderboard.json"), "md") in DOCS["README.md"]


def test_the_three_commands_stand_literally_in_the_readme() -> None:
    for command in (
        "awpbench train wrn34 --method trades --awp",
        "awpbench eval --ckpt x.pt --suite full",
        "awpbench leaderboard --format md",
    ):
        assert f"\n{command}\n" in DOCS["README.md"]
