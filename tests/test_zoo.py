"""Every number of the leaderboard follows from evidence that lies in model_zoo/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from awpbench import checkpoints, rundir
from awpbench.cli import main
from awpbench.evaluation.results import Result
from awpbench.leaderboard import store

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "model_zoo").is_dir(), reason="the source distribution leaves model_zoo out"
)
RESULTS = sorted(path.parent for path in (ROOT / "model_zoo").glob("*/eval/*/result.json"))


def test_the_rows_of_the_leaderboard_are_those_of_the_stored_results() -> None:
    """Every row that counts is built again from the result that it names."""
    rows = {row.awpbench.id: row for row in store.read(ROOT / "leaderboard.json").rows if not row.awpbench.retracted}
    stored = {row.awpbench.id: row for row in (store.load_row(folder, root=ROOT) for folder in RESULTS)}
    assert rows.keys() == stored.keys()
    assert len(stored) == 8
    assert all(row.same_content(stored[name]) for name, row in rows.items())


def test_the_committed_leaderboard_and_zoo_are_as_awpbench_wrote_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("AWPBENCH_LEADERBOARD", raising=False)
    assert main(["leaderboard", "check"]) == 0
    assert "8 built again from the results that they name: as awpbench wrote it" in capsys.readouterr().out
    assert main(["zoo", "check", "--no-clean", "--zoo", "model_zoo"]) == 0


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
    checkpoint = folder.parents[1] / f"{folder.name.split('-')[0]}.safetensors"
    assert Result.read(folder).document["hashes"]["weights"] == checkpoints.of_weights(
        checkpoints.load(checkpoint).build()
    )
    assert checkpoint.with_name(f"{checkpoint.name}.sha256").read_text().split() == [
        rundir.sha256(checkpoint),
        checkpoint.name,
    ]
