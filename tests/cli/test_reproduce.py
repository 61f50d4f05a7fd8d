"""`awpbench reproduce` and `awpbench train --recipe`: tables, exit codes, what a kill leaves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from awpbench import recipes
from awpbench.cli import main
from awpbench.cli.train import _of_recipe
from awpbench.config import TrainConfig
from awpbench.defaults import resolve_training
from awpbench.evaluation.statistics import wilson

AT, AWP = "table1-cifar10-linf-at", "table1-cifar10-linf-at-awp"
SMOKE = ["reproduce", "table1", "--scale", "smoke"]


def call(*words: str) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(list(words))
    return code, out.getvalue()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished reproduction of two rows, the first with two seeds."""
    folder = tmp_path_factory.mktemp("reproduced")
    assert call(*SMOKE, "--only", AT, "--only", AWP, "--out", str(folder))[0] == 0
    assert call(*SMOKE, "--only", AT, "--seeds", "2", "--out", str(folder))[0] == 0
    return folder


def accuracy(folder: Path, checkpoint: str = "best") -> float:
    document = json.loads((folder / "eval" / f"{checkpoint}-quick-v1.0" / "result.json").read_text())
    return float(document["attacks"]["pgd-20"]["correct"] / document["attacks"]["pgd-20"]["n"])


def told(folder: Path, *words: str) -> Any:
    code, out = call(*SMOKE, *words, "--out", str(folder), "--json")
    assert code == 0
    return json.loads(out)


def test_the_papers_number_stands_beside_ours_with_difference_and_interval(done: Path) -> None:
    document = told(done, "--only", AT, "--only", AWP)
    cells = {(cell["recipe"], cell["checkpoint"]): cell for cell in document["cells"] if cell["ours"]}
    assert cells.keys() == {(AT, "best"), (AT, "last"), (AWP, "best"), (AWP, "last")}
    cell, ours = cells[AWP, "last"], accuracy(done / f"{AWP}-s0", "last")
    assert (cell["published"], cell["source"]) == (54.73, "AWP paper (Wu, Xia and Wang 2020), Table 1")
    assert cell["difference"] == pytest.approx(100 * ours - 54.73)
    assert (cell["ours"]["mean"], cell["ours"]["std"], cell["ours"]["images"], cell["ours"]["seeds"]) == (
        ours,
        None,
        40,
        1,
    )
    assert cell["ours"]["interval"] == pytest.approx(wilson(round(40 * ours), 40))
    (gain,) = (gain for gain in document["gains"] if gain["checkpoint"] == "best")
    assert gain["published"] == pytest.approx(55.39 - 52.79)
    assert gain["mean"] == pytest.approx(100 * (accuracy(done / f"{AWP}-s0") - accuracy(done / f"{AT}-s0")))
    assert gain["interval"][0] <= gain["mean"] <= gain["interval"][1]


def test_several_seeds_give_their_mean_deviation_and_number(done: Path) -> None:
    document = told(done, "--only", AT, "--seeds", "2")
    values = [accuracy(done / f"{AT}-s{seed}", "last") for seed in (0, 1)]
    (ours,) = (cell["ours"] for cell in document["cells"] if cell["ours"] and cell["checkpoint"] == "last")
    assert ours["values"] == {"0": values[0], "1": values[1]}
    assert (ours["mean"], ours["seeds"]) == (statistics.mean(values), 2)
    assert ours["std"] == pytest.approx(statistics.stdev(values))


def test_the_table_is_the_papers_with_ours_under_each_row(done: Path) -> None:
    code, out = call(*SMOKE, "--only", AT, "--out", str(done))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    assert code == 0
    assert lines[0] == [
        "",
        "",
        *(f"{name} {at}" for name in ("SVHN", "CIFAR-10", "CIFAR-100") for at in ("best", "last")),
    ]
    assert lines[2] == ["L-inf AT", "published", "53.36", "44.49", "52.79", "44.44", "27.22", "20.82"]
    ours = accuracy(done / f"{AT}-s0", "last")
    low, high = wilson(round(40 * ours), 40)
    assert lines[3][:4] == ["", "ours", "", ""]
    assert lines[3][5] == f"{100 * ours:.2f} [{100 * low:.2f}, {100 * high:.2f}] n=40"
    assert lines[4][5] == f"{100 * ours - 44.44:+.2f}"
    assert "- Scale smoke: small-cnn 8 channels wide" in out
    assert "- The best checkpoint was chosen on the test images, as in the paper, so best is too good." in out


def test_finished_runs_are_skipped(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file()}
    assert main([*SMOKE, "--only", AT, "--out", str(done)]) == 0
    assert capsys.readouterr().err.splitlines() == [f"run 1 of 1: {AT}-s0"]
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file()} == before


def test_a_folder_that_holds_another_run_is_refused_and_the_others_go_on(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{AT}-s0").mkdir()
    for name in ("last.pt", "config.json"):
        (tmp_path / f"{AT}-s0" / name).write_bytes((done / f"{AWP}-s0" / name).read_bytes())
    assert main([*SMOKE, "--only", AT, "--out", str(tmp_path)]) == 3
    assert (
        f"- {AT}-s0: failed: {tmp_path / f'{AT}-s0'} holds a run with other values than the recipe's. "
        "Give another --out, or remove that folder." in capsys.readouterr().out
    )


def killed(out: Path, moment: float, number: signal.Signals = signal.SIGKILL) -> tuple[int, list[str]]:
    """Send a reproduction a signal so many seconds after its first file; return its exit code and what it said."""
    words = [sys.executable, "-m", "awpbench", *SMOKE, "--only", AWP, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 120
        while not (out / f"{AWP}-s0").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moment)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    return process.returncode, err.splitlines()


def evidence(folder: Path) -> list[bytes]:
    files = ["metrics.jsonl", *(f"eval/{name}-quick-v1.0/per_image.npz" for name in ("best", "last"))]
    return [(folder / f"{AWP}-s0" / name).read_bytes() for name in files]


def test_after_a_kill_the_same_command_ends_where_an_uninterrupted_one_does(done: Path, tmp_path: Path) -> None:
    killed(tmp_path, 0.3)
    assert call(*SMOKE, "--only", AWP, "--out", str(tmp_path))[0] == 0
    assert evidence(tmp_path) == evidence(done)


@pytest.mark.slow
def test_ctrl_c_ends_it_with_what_to_do_and_its_exit_code(tmp_path: Path) -> None:
    code, said = killed(tmp_path, 0.3, signal.SIGINT)
    assert code == 130
    assert said[-1] == "mend:  Run the same command again: it continues there."


@pytest.mark.slow
def test_kills_at_many_moments_change_nothing(done: Path, tmp_path: Path) -> None:
    for attempt in range(8):
        killed(tmp_path, 0.15 * attempt)
    assert call(*SMOKE, "--only", AWP, "--out", str(tmp_path))[0] == 0
    assert evidence(tmp_path) == evidence(done)


def test_a_missing_data_set_is_reported_and_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "reproduce",
        "table1",
        "--only",
        AT,
        "--offline",
        "--data-dir",
        str(tmp_path),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(words) == 4
    out, err = capsys.readouterr()
    (line,) = (line for line in out.splitlines() if line.startswith(f"- {AT}-s0"))
    assert line.startswith(f"- {AT}-s0: missing: cifar10: data_batch_1, ")
    assert "awpbench data fetch cifar10" in line
    assert err.splitlines()[-1] == "0 runs failed and 1 lack something; the list above says what to do"
    assert not (tmp_path / "o" / f"{AT}-s0").exists()


def test_a_dry_run_says_what_is_done_and_what_the_rest_takes(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(done.rglob("*"))
    words = [*SMOKE, "--only", AT, "--seeds", "3", "--out", str(done), "--dry-run"]
    assert main(words) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines[2:5]] == [[f"{AT}-s0", "finished"], [f"{AT}-s1", "finished"], [f"{AT}-s2", "to"]]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in document["runs"]] == ["finished", "finished", "to do"]
    assert document["training"] == document["runs"][2]["training"] > 0
    assert document["evaluation"] > 0
    assert document["disk"] > 12 * 1000  # bytes: weights twice and momentum
    assert sorted(done.rglob("*")) == before


@pytest.mark.slow
def test_everything_runs_at_the_scale_smoke(tmp_path: Path) -> None:
    code, out = call("reproduce", "all", "--scale", "smoke", "--out", str(tmp_path), "--json")
    document = json.loads(out)
    assert [run for run in document["runs"] if run["status"] != "finished"] == []
    assert {run["recipe"] for run in document["runs"]} == set(recipes.names())
    assert code == 0


DIGITS = ["small-cnn", "--dataset", "digits", "--width", "4", "--train-examples", "100", "--validation-examples", "50"]


def test_a_flag_wins_over_a_recipe_and_the_recipe_over_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *DIGITS, "--recipe", "table2-trades-awp", "--epochs", "20", "--dry-run"]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    for line in (
        "--awp-gamma 0.005 recipe table2-trades-awp",
        "--architecture small-cnn flag",
        "--epochs 20 flag",
        "--track-every 1 default",
        "--out runs/table2-trades-awp-s0 default",
    ):
        assert line.split() in rows


def test_what_belongs_to_awp_goes_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *DIGITS, "--recipe", "table2-trades-awp", "--no-awp", "--dry-run", "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["awp_gamma"] == {"value": 0.0, "source": "default"}
    assert config["beta"] == {"value": 6.0, "source": "recipe table2-trades-awp"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["table1-cifar10-linf-at", "--norm", "L2", "--dataset", "digits"], {"eps": "0.5", "step_size": "0.05859375"}),
        (["table1-cifar10-linf-at", "--dataset", "digits"], {"eps": "0.15", "step_size": "0.0375"}),
        (["table2-rst", "--method", "trades", "--dataset", "digits"], {"unlabelled": None, "loss": None, "beta": 6.0}),
        (["table2-pretraining", "--method", "at", "--dataset", "digits"], {"init_from": None, "loss": None}),
        (
            ["table2-pretraining", "--method", "at", "--schedule", "piecewise", "--dataset", "digits"],
            {"lr_end": 0.0, "schedule": "piecewise"},
        ),
    ],
)
def test_what_a_flag_replaces_takes_along_what_depends_on_it(words: list[str], expected: dict[str, Any]) -> None:
    recipe, *given = words
    flags = dict.fromkeys(TrainConfig.model_fields) | {
        {"--method": "defense"}.get(flag, flag[2:]): value for flag, value in zip(given[::2], given[1::2], strict=True)
    }
    config, _ = resolve_training(flags, named=_of_recipe(recipe, flags, {}, None))
    assert {key: config.model_dump(mode="json")[key] for key in expected} == expected


def test_a_recipe_needs_no_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", AT, "--offline", "--data-dir", str(tmp_path)]) == 4
    assert capsys.readouterr().err.startswith("error: cifar10: data_batch_1, ")


def test_a_recipe_that_needs_a_file_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "table2-rst", "--data-dir", str(tmp_path)]) == 4
    assert capsys.readouterr().err.splitlines()[0] == f"error: {tmp_path}/ti_500K_pseudo_labeled.pickle is missing"


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == list(recipes.names())
    assert listed[0].keys() == {"name", "title", "source"}
