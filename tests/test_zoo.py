"""Every number of the leaderboard follows from evidence that lies in model_zoo/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awpbench import rundir
from awpbench.cli import main
from awpbench.evaluation.results import Result
from awpbench.leaderboard import store
from awpbench.leaderboard.row import Row

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "model_zoo").is_dir(), reason="the source distribution leaves model_zoo out"
)
RESULTS = sorted(path.parent for path in (ROOT / "model_zoo").glob("*/eval/*/result.json"))


def said(row: Row) -> dict[str, Any]:
    """What a row says, but for the version of awpbench that built it."""
    document = row.document()
    del document["awpbench"]["tool_version"]
    return document


def test_the_rows_of_the_leaderboard_are_those_of_the_stored_results() -> None:
    board = store.read(ROOT / "leaderboard.json")
    stored = [store.load_row(folder) for folder in RESULTS]
    assert stored
    assert {row.awpbench.id: said(row) for row in board.rows} == {row.awpbench.id: said(row) for row in stored}


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: "/".join(folder.parts[-3::2]))
def test_the_counts_of_a_result_are_those_of_its_images(folder: Path) -> None:
    result = Result.read(folder)  # checks that the arrays are those that the result was made with
    for attack, found in result.document["attacks"].items():
        fooled = result.arrays[f"{attack}.fooled"]
        assert (len(fooled), int(np.sum(~fooled))) == (found["n"], found["correct"])


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.parametrize("defense", ["at", "trades"])
def test_the_comparison_in_the_readme_is_what_the_command_prints(
    defense: str, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = (ROOT / "model_zoo" / f"cifar10-prn18-w16-{name}-s0" for name in (defense, f"{defense}-awp"))
    assert main(["compare", *(str(run / "eval" / f"{checkpoint}-full-v1.0") for run in runs)]) == 0
    printed = capsys.readouterr().out
    for page in ("README.md", "docs/lab-log.md"):
        assert printed in (ROOT / page).read_text()


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: "/".join(folder.parts[-3::2]))
def test_a_result_names_the_checkpoint_beside_it(folder: Path) -> None:
    checkpoint = folder.parents[1] / f"{folder.name.split('-')[0]}.pt"
    assert Result.read(folder).document["hashes"]["checkpoint"] == rundir.sha256(checkpoint)
    assert checkpoint.with_name(f"{checkpoint.name}.sha256").read_text().split() == [
        rundir.sha256(checkpoint),
        checkpoint.name,
    ]
