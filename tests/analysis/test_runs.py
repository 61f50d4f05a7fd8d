"""What runs reached, where their time went, and the tables that say so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awpbench.analysis import runs
from awpbench.analysis.runs import is_run, summarise
from awpbench.cli import main
from awpbench.training.clock import PARTS
from tests.analysis.test_curves import write_run

PARTS_OF_A_WHOLE_EPOCH = {"batch_seconds": 0.1, "attack_seconds": 8.0, "ascent_seconds": 0.9, "update_seconds": 0.5}


def timed(run: Path, *lines: dict[str, float]) -> Path:
    (run / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def epoch(steps: int = 10, train: float = 10.0, **parts: float) -> dict[str, float]:
    return {"epoch": 1, "steps": steps, "train_seconds": train, "track_seconds": 2.0, **parts}


def test_the_parts_are_those_of_the_clock() -> None:
    assert runs.PARTS == PARTS


def test_a_summary_says_what_a_run_reached_and_how_its_time_was_shared(tmp_path: Path) -> None:
    whole, half = epoch(**PARTS_OF_A_WHOLE_EPOCH), epoch(5, 6.0, **dict.fromkeys(PARTS_OF_A_WHOLE_EPOCH, 1.5))
    found = summarise(timed(write_run(tmp_path / "run"), whole, half))
    assert (found.name, found.epochs, found.planned) == ("run", 3, 3)
    assert found.curve is not None
    assert found.times is not None
    assert found.times.epoch_seconds == pytest.approx(10 * 16 / 15)  # the interrupted epoch had half of the steps
    assert found.times.measure_seconds == 2.0
    assert found.times.shares == pytest.approx(
        {"batch": 1.6 / 16, "attack": 9.5 / 16, "ascent": 2.4 / 16, "update": 2.0 / 16}
    )


def test_a_run_that_recorded_no_parts_has_seconds_and_no_shares(tmp_path: Path) -> None:
    found = summarise(timed(write_run(tmp_path / "run", unmeasured=(1, 2, 3)), epoch()))
    assert found.curve is None
    assert found.times is not None
    assert found.times.shares is None


def test_the_shares_are_those_of_the_epochs_that_recorded_them(tmp_path: Path) -> None:
    found = summarise(timed(write_run(tmp_path / "run"), epoch(), epoch(**PARTS_OF_A_WHOLE_EPOCH)))
    assert found.times is not None
    assert found.times.shares is not None
    assert found.times.shares["attack"] == 0.8


def test_the_report_of_runs_is_two_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = timed(write_run(tmp_path / "new"), epoch(**PARTS_OF_A_WHOLE_EPOCH))
    bare = write_run(tmp_path / "bare", unmeasured=(1, 2, 3))
    assert main(["report", str(new), str(bare)]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "run    epochs    best epoch    robust    last    gap, points",
        "-----  --------  ------------  --------  ------  -------------",
        "new    3/3       2             25.00%    22.00%  38.00",
        "bare   3/3       -             -         -       -",
        "",
        "run    s an epoch    batch    attack    weight perturbation    update    the rest    measuring, s",
        "-----  ------------  -------  --------  ---------------------  --------  ----------  --------------",
        "new    10            1.0%     80.0%     9.0%                   5.0%      5.0%        2",
        "bare   -             -        -         -                      -         -           -",
    ]


def test_the_report_of_runs_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(timed(write_run(tmp_path / "run"), epoch())), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert found == {
        "run": "run",
        "epochs": 3,
        "planned": 3,
        "split": "validation",
        "best": {"epoch": 2, "robust": 0.25},
        "last": {"epoch": 3, "robust": 0.22, "gap": pytest.approx(0.38)},
        "times": {"epoch_seconds": 10.0, "measure_seconds": 2.0, "shares": None},
    }


def test_runs_and_results_are_not_reported_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, result = write_run(tmp_path / "run"), tmp_path / "result"
    result.mkdir()
    (result / "result.json").write_text("{}")
    assert (is_run(run), is_run(result)) == (True, False)
    assert main(["report", str(run), str(result)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: some of these folders hold runs and some hold results",
        "mend:  Give run folders, or the folders below their eval/.",
    ]


def test_plotting_prints_what_the_picture_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    run, picture = write_run(tmp_path / "run"), tmp_path / "new folder" / "curves.svg"
    assert main(["plot", "curves", str(run), "--out", str(picture)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {picture}"
    assert picture.read_text().startswith("<?xml")
    assert main(["plot", "curves", str(run), "--out", str(picture), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert found["best"] == {"epoch": 2, "robust": 0.25}


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    picture = tmp_path / "curves.xyz"
    assert main(["plot", "curves", str(write_run(tmp_path / "run")), "--out", str(picture)]) == 2
    error, mend = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {picture} cannot be drawn: ")
    assert mend == "mend:  Give an ending such as .png, .pdf or .svg."
