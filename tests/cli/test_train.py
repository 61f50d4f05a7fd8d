"""`awpbench train` and `awpbench resume`: streams, exit codes, signals, and what lies on disk afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from awpbench.cli import main
from awpbench.cli.common import resolve_device

SMALL = ["--dataset", "digits", "--width", "4", "--train-examples", "200", "--batch-size", "100", "--track-steps", "2"]
QUICK = [*SMALL, "--epochs", "2", "--steps", "2", "--track-examples", "50"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("method", ["standard", "at", "trades", "mart"])
def test_every_defense_trains_with_awp_into_a_folder_named_after_it(method: str) -> None:
    words = ["train", "small-cnn", "--method", method, "--awp", "--awp-warmup", "1", *QUICK]
    assert main(words if method != "standard" else [*words, "--steps", "0"]) == 0
    run = Path(f"runs/digits-small-cnn-w4-{method}-awp-s0")
    names = {path.name for path in run.iterdir()}
    assert names == {
        "config.json", "provenance.json", "metrics.jsonl", "timing.jsonl", "train.log",
        "last.pt", "last.pt.sha256", "best.pt", "best.pt.sha256",
    }  # fmt: skip
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_run_that_loses_patience_says_so_and_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "small-cnn", "--rwp", "--awp-gamma", "0.3", "--lr", "1e-9", "--patience", "1", *QUICK]
    assert main([*words, "--epochs", "9"]) == 0
    run = Path("runs/digits-small-cnn-w4-at-rwp-s0")
    last = (run / "metrics.jsonl").read_text().splitlines()[-1]
    assert said(capsys)[-2].endswith("  out of patience")
    assert main(["resume", str(run)]) == 0
    assert (run / "metrics.jsonl").read_text().splitlines()[-1] == last
    assert json.loads(last)["stopped_early"] is True


def test_json_is_the_only_thing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", *QUICK, "--json"]) == 0
    out = capsys.readouterr().out
    document = json.loads(out)
    assert document["last"]["epoch"] == 2
    assert Path(document["checkpoint"]).exists()


def test_a_dry_run_prints_every_value_with_its_source_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", "--method", "trades", "--awp", *QUICK, "--awp-warmup", "0", "--dry-run"]) == 0
    out = capsys.readouterr().out
    for line in (
        "--eps                  0.15         data set digits",
        "--beta                 6.0          defense trades",
        "--epochs               2            flag",
        "--lr                   0.1          default",
        "--out runs/digits-small-cnn-w4-trades-awp-s0 default",
        f"--device {resolve_device('auto')} default",
    ):
        assert line.split() in [row.split() for row in out.splitlines()]
    assert "estimated time" in out
    assert not Path("runs").exists()


def test_the_plan_as_json_holds_values_sources_and_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", *QUICK, "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["config"]["epochs"] == {"value": 2, "source": "flag"}
    assert document["estimated_seconds"] > 0


def test_an_existing_run_is_refused_and_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", *QUICK, "--out", "run"]) == 0
    before = Path("run/last.pt").read_bytes()
    capsys.readouterr()
    assert main(["train", "small-cnn", *QUICK, "--out", "run", "--seed", "1"]) == 3
    assert said(capsys) == [
        "error: run already holds a run (config.json, last.pt, best.pt, metrics.jsonl, timing.jsonl, provenance.json)",
        "mend:  Continue it with: awpbench resume run, or overwrite it with --force, or write elsewhere with --out.",
    ]
    assert Path("run/last.pt").read_bytes() == before
    assert main(["train", "small-cnn", *QUICK, "--out", "run", "--seed", "1", "--force"]) == 0
    assert Path("run/last.pt").read_bytes() != before


@pytest.mark.parametrize(
    ("words", "code", "error", "mend"),
    [
        (
            ["train", "wrn35"],
            2,
            "error: there is no model called 'wrn35'",
            "mend:  Did you mean 'wrn34'? Known: prn18, wrn-34-10, wrn-28-10, resnet18, vgg19, small-cnn, "
            "small-cnn-nobn, preactresnet-18, resnet-18, vgg-19, wrn34, wrn28, wrn-D-W.",
        ),
        (
            ["train", "wrn-11-2"],
            2,
            "error: wrn-11-2 is no wide residual network",
            "mend:  The depth is 6n + 4 (10, 16, 22, 28, 34, ...), the width at least 1.",
        ),
        (
            ["train", "small-cnn", "--method", "trade"],
            2,
            "error: there is no defense called 'trade'",
            "mend:  Did you mean 'trades'? Known: standard, at, trades, mart, finetuning, rst.",
        ),
        (
            ["train", "small-cnn", "--dataset", "digits", "--eps", "8"],
            2,
            "error: eps is 8, but pixels are in [0, 1]",
            "mend:  Write it as a fraction of 255: 8/255.",
        ),
        (
            ["train", "small-cnn", "--dataset", "digits", "--eps", "eight"],
            2,
            "error: 'eight' is not a number",
            "mend:  Write a decimal such as 0.031 or a fraction such as 8/255.",
        ),
        (
            ["train", "small-cnn", "--dataset", "digits", "--device", "cudda"],
            2,
            "error: there is no device 'cudda' here",
            "mend:  Give --device auto or cpu.",
        ),
        (
            ["resume", "nowhere"],
            4,
            "error: there is no last.pt in nowhere",
            "mend:  Give the folder of a run that awpbench train started.",
        ),
        (
            ["train", "small-cnn", "--config", "missing.toml"],
            4,
            "error: there is no configuration file missing.toml",
            "mend:  Check the path given to --config.",
        ),
    ],
)
def test_bad_input_gets_one_line_of_what_and_one_of_how_to_mend_it(
    words: list[str], code: int, error: str, mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    assert said(capsys) == [error, mend]
    assert list(Path().iterdir()) == []


def test_a_config_file_gives_values_and_a_flag_wins(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.toml").write_text('dataset = "digits"\nepochs = 7\nbatch-size = 50\n')
    assert main(["train", "small-cnn", "--config", "run.toml", "--epochs", "3", "--dry-run", "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["epochs"] == {"value": 3, "source": "flag"}
    assert config["batch_size"] == {"value": 50, "source": "file"}


def test_a_diverging_run_stops_with_5_and_keeps_its_last_good_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", *QUICK, "--lr", "1e30", "--out", "run"]) == 5
    error, mend = said(capsys)[-2:]
    assert error.startswith("error: the loss is nan in epoch 1, step ")
    assert mend == "mend:  Lower --lr or --awp-gamma; run/last.pt holds epoch 1 after step 0."
    assert Path("run/last.pt").exists()


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("metrics.jsonl", "{", "error: run/metrics.jsonl is missing or damaged: "),
        ("metrics.jsonl", "", "error: run/metrics.jsonl has 0 lines for 2 epochs"),
        ("last.pt", "", "error: run/last.pt is empty"),
        ("provenance.json", "{", "error: run/provenance.json is damaged"),
    ],
)
def test_a_damaged_run_is_not_resumed(file: str, content: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", *QUICK, "--out", "run"]) == 0
    (Path("run") / file).write_text(content)
    capsys.readouterr()
    assert main(["resume", "run"]) == 4
    assert said(capsys)[0].startswith(what)


def test_a_start_that_failed_does_not_block_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/provenance.json").write_text("{}")
    Path("run/config.json").write_text("{}")
    Path("run/.last.pt.abc.tmp").touch()
    assert main(["train", "small-cnn", *QUICK, "--out", "run"]) == 0
    assert not Path("run/.last.pt.abc.tmp").exists()


def test_a_resume_that_is_refused_leaves_the_run_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", *QUICK, "--out", "run"]) == 0
    config = json.loads(Path("run/config.json").read_text())
    Path("run/config.json").write_text(json.dumps({**config, "epochs": 3}))
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    assert main(["resume", "run"]) == 4
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before


def test_what_a_torn_write_did_to_the_last_line_of_the_metrics_is_mended(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", *QUICK, "--out", "run"]) == 0
    path = Path("run/metrics.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert main(["resume", "run"]) == 0
    path.write_bytes(whole + b'{"epoch": 3, "l')
    assert main(["resume", "run"]) == 0
    assert path.read_bytes() == whole


def test_a_checkpoint_interval_below_zero_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", *QUICK, "--checkpoint-every", "-1"]) == 2
    assert said(capsys)[0].startswith("error: Invalid value for '--checkpoint-every'")


def test_a_run_folder_below_a_file_is_refused_in_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert main(["train", "small-cnn", *QUICK, "--out", "file/run"]) == 4
    assert said(capsys)[-1] == "mend:  Check the path, its permissions and the space left there."


def test_resuming_adds_to_the_provenance_and_refuses_other_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "small-cnn", *QUICK, "--out", "run"]) == 0
    path = Path("run/provenance.json")
    first = json.loads(path.read_text())
    assert first["resumed"] == []
    assert main(["resume", "run"]) == 0
    again = json.loads(path.read_text())
    assert again["command"] == first["command"]
    assert [entry["versions"] for entry in again["resumed"]] == [first["versions"]]
    path.write_text(json.dumps({**again, "data": {**again["data"], "train": "other"}}))
    capsys.readouterr()
    assert main(["resume", "run"]) == 4
    assert said(capsys) == [
        "error: run was trained on other images than those found now",
        "mend:  Give the --data-dir that it was started with.",
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_at_the_end_of_a_step_and_resume_goes_on(number: signal.Signals, code: int) -> None:
    words = [sys.executable, "-m", "awpbench"]
    start = [*words, "train", "small-cnn", *SMALL, "--epochs", "100000", "--track-every", "100000", "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 120
        while not Path("run/metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    error, mend = err.splitlines()[-2:]
    assert error.startswith(f"error: stopped by {number.name} in epoch ")
    assert mend == "mend:  Continue with: awpbench resume run"

    finished = len(Path("run/metrics.jsonl").read_text().splitlines())
    with subprocess.Popen([*words, "resume", "run"], stderr=subprocess.PIPE, text=True, env=environment) as process:
        while len(Path("run/metrics.jsonl").read_text().splitlines()) <= finished and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == code
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) > finished
