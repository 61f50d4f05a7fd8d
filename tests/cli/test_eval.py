"""`awpbench eval`: streams, exit codes, signals, rows, and what lies on disk afterwards."""

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
from awpbench.leaderboard import store

FACTORY = """
import torch
from awpbench import models
def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.build("small-cnn", classes=10, shape=(1, 8, 8), width=4)
"""
THREAT = ["--dataset", "digits", "--norm", "Linf", "--eps", "0.05"]
TINY = ["eval", "--model", "factory.py:tiny", *THREAT, "--file", "board.json"]
TRAINED = [
    "train", "small-cnn", "--dataset", "digits", "--method", "at", "--awp", "--width", "4", "--epochs", "1",
    "--steps", "1", "--train-examples", "200", "--track-steps", "1", "--track-examples", "20", "--out", "run",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "factory.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_trained_net_is_attacked_and_ranked_with_its_own_data_and_threat(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TRAINED) == 0
    capsys.readouterr()
    assert (
        main(["eval", "--ckpt", "run/best.pt", "--suite", "quick", "--n-examples", "50", "--file", "board.json"]) == 0
    )
    captured = capsys.readouterr()
    folder = Path("run/eval/best-quick-v1.0")
    assert {path.name for path in folder.iterdir()} == {"result.json", "timing.json", "per_image.npz"}
    result = json.loads((folder / "result.json").read_text())
    assert (result["dataset"], result["norm"], result["eps"], result["n"]) == ("digits", "Linf", "0.15", 50)
    assert result["model"] == {"source": "checkpoint", "name": "run/best", "architecture": "small-cnn", "width": 4}
    (row,) = json.loads(Path("board.json").read_text())["rows"]
    details = row["awpbench"]
    assert (details["defense"], details["awp"], details["selection"]) == (
        "at",
        {"gamma": 0.01, "warmup": 0},
        "validation",
    )
    lines = captured.out.splitlines()
    assert lines[0] == "run/best: digits, Linf 0.15, dialect awp, part of the test set"
    assert [line.split()[0] for line in lines[3:6]] == ["clean", "fgsm", "pgd-20"]
    assert all(line.split()[-1] == "50" for line in lines[3:6])
    assert lines[6].startswith("worst case of all  ")
    assert lines[7:] == [
        "",
        "fgsm: loss cross-entropy, step_size 0.15, start clean, scored last",
        "pgd-20: loss cross-entropy, steps 20, step_size 0.0375, start uniform in the ball, dialect awp, scored last",
        "",
        "audit: reliable, 0 of 19 checks failed",
    ]
    assert captured.err.splitlines()[-2:] == [
        "finished: run/eval/best-quick-v1.0",
        f"added the row {store.read(Path('board.json')).rows[0].awpbench.id} in board.json",
    ]


@pytest.mark.parametrize("words", [["--card", "nowhere.toml"], ["--file", "bad.json"]], ids=["card", "leaderboard"])
def test_a_row_that_could_not_be_written_is_refused_before_the_attacks(words: list[str]) -> None:
    Path("bad.json").write_text("no JSON")
    assert main([*TINY, "--suite", "quick", "--n-examples", "20", *words]) == 4
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("words", "what", "mend"),
    [
        (
            ["--file", "factory.py/board.json"],
            "factory.py/board.json cannot be written: Not a directory",
            "Make room or permission there, or name another file with --file.",
        ),
        (
            ["--out", "factory.py/here"],
            "factory.py/here/shards: Not a directory",
            "Check the path, its permissions and the space left there.",
        ),
    ],
    ids=["leaderboard", "out"],
)
def test_a_place_that_cannot_be_written_is_noticed_before_the_attacks(
    words: list[str], what: str, mend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("awpbench.evaluation.runner.evaluate", None)
    assert main([*TINY, "--suite", "quick", "--n-examples", "20", *words]) == 4
    assert said(capsys) == [f"error: {what}", f"mend:  {mend}"]


FAILING = """
import torch, sys
class Failing(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 10)
    def forward(self, x):
        if x.requires_grad:
            {}
        return self.linear(x.flatten(1))
def failing():
    return Failing()
"""


@pytest.mark.parametrize(
    ("statement", "what"), [("sys.exit(0)", "SystemExit: 0"), ("raise ValueError('odd')", "ValueError: odd")]
)
def test_a_net_that_fails_under_attack_is_answered_by_two_lines_and_a_traceback_only_on_request(
    statement: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("failing.py").write_text(FAILING.format(statement))
    words = ["eval", "--model", "failing.py:failing", *THREAT, "--attack", "fgsm", "--n-examples", "20"]
    lines = [f"error: the model failed: {what}", "mend:  Mend the model; --debug shows where it failed."]
    assert main([*words, "--dry-run"]) == 4
    assert said(capsys) == lines
    assert main(words) == 4
    told = said(capsys)
    assert told[-2:] == lines
    assert not any("Traceback" in line for line in told)
    assert main([*words, "--debug"]) == 4
    assert any('failing.py", line 9, in forward' in line for line in said(capsys))


def test_the_meta_device_is_none_to_run_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--suite", "quick", "--n-examples", "20", "--device", "meta"]) == 2
    assert said(capsys)[0] == "error: there is no device 'meta' here"


def test_the_second_time_nothing_is_run_and_the_row_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, "--suite", "quick", "--n-examples", "20"]
    assert main(words) == 0
    before, board = Path("results/tiny/quick-v1.0/result.json").stat().st_mtime_ns, Path("board.json").read_bytes()
    capsys.readouterr()
    assert main(words) == 0
    assert said(capsys) == [
        "this evaluation was finished before; nothing was run: results/tiny/quick-v1.0",
        f"the row {store.read(Path('board.json')).rows[0].awpbench.id} in board.json is unchanged",
    ]
    assert Path("results/tiny/quick-v1.0/result.json").stat().st_mtime_ns == before
    assert Path("board.json").read_bytes() == board


def test_json_is_the_result_document_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--suite", "quick", "--n-examples", "20", "--no-row", "--out", "here", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("here/result.json").read_text())
    assert not Path("board.json").exists()


def test_single_attacks_make_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--attack", "fgsm", "--attack", "pgd-3", "--limit", "pgd-3=7", "--n-examples", "20"]) == 0
    result = json.loads(Path("results/tiny/fgsm+pgd-3/result.json").read_text())
    assert {name: found["n"] for name, found in result["attacks"].items()} == {"clean": 20, "fgsm": 20, "pgd-3": 7}
    assert (result["suite"], result["suite_version"]) == (None, None)
    assert not Path("board.json").exists()


def test_the_full_suite_runs_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--suite", "full", "--n-examples", "12", "--limit", "spsa=2", "--eps", "0.2"]) == 0
    result = json.loads(Path("results/tiny/full-v1.0/result.json").read_text())
    n = {name: found["n"] for name, found in result["attacks"].items()}
    assert n == {"clean": 12, "fgsm": 12, "pgd-20": 12, "pgd-100": 12, "cw-inf": 12, "spsa": 2, "autoattack": 12}
    correct = {name: found["correct"] for name, found in result["attacks"].items()}
    assert correct["clean"] >= correct["fgsm"] >= correct["pgd-100"] >= correct["autoattack"]
    assert len(json.loads(Path("board.json").read_text())["rows"]) == 1


def test_a_dry_run_prints_every_value_with_its_source_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWPBENCH_LEADERBOARD", "elsewhere.json")
    words = ["eval", "--model", "factory.py:tiny", *THREAT, "--suite", "full", "--n-examples", "300", "--dry-run"]
    assert main(words) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    for line in (
        "--eps 0.05 flag",
        "--step-size 0.0125 dialect awp",
        "--dialect awp default",
        "--attacks clean, fgsm, pgd-20, pgd-100, cw-inf, spsa, autoattack suite full 1.0",
        "--file elsewhere.json environment AWPBENCH_LEADERBOARD",
        "--out results/tiny/full-v1.0 default",
    ):
        assert line.split() in rows
    assert ["pgd-20+pgd-100", "300", "30600", "30000"] in [row[:4] for row in rows]
    assert rows[-1][:4] == ["estimated", "time:", "at", "most"]
    assert not Path("results").exists()


def test_the_plan_as_json_holds_values_sources_and_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["config"]["suite"] == {"value": "quick", "source": "default"}
    assert [line["images"] for line in document["plan"]] == [400, 400, 400, 128]
    assert document["estimated_seconds"] >= 0


def test_a_config_file_gives_values_and_flags_win(capsys: pytest.CaptureFixture[str]) -> None:
    Path("eval.toml").write_text('seed = 3\nn-examples = 20\nlimits = {"pgd-20" = 5}\n')
    assert main([*TINY, "--config", "eval.toml", "--seed", "4", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["config"]
    assert found["seed"] == {"value": 4, "source": "flag"}
    assert found["n_examples"] == {"value": 20, "source": "file"}
    assert found["limits"] == {"value": {"pgd-20": 5}, "source": "file"}


@pytest.mark.parametrize(
    ("words", "code", "what", "mend"),
    [
        (
            [],
            2,
            "a net is named by --ckpt, --model or --robustbench, one of them",
            "Example: awpbench eval --ckpt best.pt",
        ),
        (
            ["--model", "factory.py:tiny"],
            2,
            "nothing names the data and the threat to evaluate on: --dataset, --norm, --eps missing",
            "Add them, for example: --dataset cifar10 --norm Linf --eps 8/255.",
        ),
        (
            ["--model", "factory.py:tiny", "--dataset", "digits", "--norm", "Linf", "--eps", "8"],
            2,
            "eps is 8, but pixels are in [0, 1]",
            "Write it as a fraction of 255: 8/255.",
        ),
        (
            ["--model", "factory.py:tiny", *THREAT, "--attack", "pdg-20"],
            2,
            "there is no attack called 'pdg-20'",
            "Did you mean 'pgd-20'? Known: fgsm, cw-inf, spsa, autoattack, pgd-N, pgd-N-worst; "
            "N is any number, as in pgd-20.",
        ),
        (
            ["--model", "factory.py:tiny", *THREAT, "--n-examples", "401"],
            2,
            "--n-examples asks for 401 of 400 test images",
            "Ask for at most 400.",
        ),
        (
            ["--model", "factory.py:tiny", *THREAT, "--arch", "prn18"],
            2,
            "--arch, --width and --preprocessing describe a state dict, and --model brings a whole net",
            "Leave them out.",
        ),
        (
            ["--ckpt", "none.pt"],
            4,
            "there is no checkpoint none.pt",
            "Check the path; a run folder has best.pt and last.pt.",
        ),
        (
            ["--model", "factory.py:tiny", "--dataset", "cifar10", "--norm", "Linf", "--eps", "8/255", "--offline"],
            4,
            None,
            None,
        ),
    ],
)
def test_a_mistake_is_answered_by_two_lines_and_its_exit_code(
    words: list[str], code: int, what: str | None, mend: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *words, "--data-dir", "empty"]) == code
    lines = said(capsys)
    assert len(lines) == 2
    if what is not None:
        assert lines == [f"error: {what}", f"mend:  {mend}"]
    assert not Path("results").exists()


def test_another_evaluation_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--n-examples", "20"]) == 0
    capsys.readouterr()
    assert main([*TINY, "--n-examples", "21"]) == 3
    assert said(capsys) == [
        "error: results/tiny/quick-v1.0 holds the result of another evaluation",
        "mend:  Replace it with --force, or give another --out.",
    ]
    assert main([*TINY, "--n-examples", "21", "--force"]) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_within_seconds_and_the_same_command_goes_on(number: int, code: int) -> None:
    words = [*TINY, "--attack", "pgd-300", "--block", "40", "--n-examples", "240", "--out", "here"]
    command = [sys.executable, "-m", "awpbench", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        shards = Path("here/shards")
        deadline = time.monotonic() + 120
        while not list(shards.glob("pgd-300-*.npz")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        sent = time.monotonic()
        _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert time.monotonic() - sent < 10
    assert error.splitlines()[-2:] == [
        "error: the evaluation was stopped; every finished block is saved",
        "mend:  Run the same command again: it continues there.",
    ]
    saved = len(list(shards.glob("pgd-300-*.npz")))
    assert 1 <= saved < 6
    assert not list(shards.glob(".*"))
    assert main(words) == 0
    assert json.loads(Path("here/result.json").read_text())["attacks"]["pgd-300"]["n"] == 240
