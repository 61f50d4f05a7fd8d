from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from awpbench.cli import main
from awpbench.cli.leaderboard import app
from awpbench.errors import UsageError
from awpbench.leaderboard import store
from awpbench.leaderboard.row import board_of
from tests.leaderboard import boards


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a leaderboard of every kind of row."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AWPBENCH_LEADERBOARD", raising=False)
    (tmp_path / "leaderboard.json").write_bytes(store.canonical(boards.mixed()))
    return tmp_path


def run(*words: str, width: int = 400) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "dumb"})


def models(*words: str) -> list[str]:
    return [line["model"] for line in csv.DictReader(io.StringIO(run("--format", "csv", *words).stdout))]


def error_of(*words: str) -> tuple[str, str]:
    error = run(*words).exception
    assert isinstance(error, UsageError)
    return error.what, error.mend


ALL = ["at-awp-s0/best", "at-s0/best", "foreign_net", "trades-s0/best", "digits"]
REPORTED = ["Best2020", "Wu2020Adversarial", "Corrupted"]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ((), ALL + REPORTED),
        (("--dataset", "digits"), ["digits"]),
        (("--norm", "corruptions"), ["Corrupted"]),
        (("--defense", "at"), ["at-awp-s0/best", "at-s0/best"]),
        (("--awp",), ["at-awp-s0/best"]),
        (("--no-awp",), ["at-s0/best", "trades-s0/best"]),
        (("--architecture", "prn18"), ALL),
        (("--architecture", "preactresnet-18"), ALL),
        (("--architecture", "WideResNet-34-10"), REPORTED),
        (("--extra-data",), ["Best2020"]),
        (("--no-extra-data", "--dataset", "digits"), ["digits"]),
        (("--retracted", "--no-awp", "--defense", "trades"), ["trades-s0/best"]),
        (("--retracted", "--dataset", "cifar10", "--norm", "Linf"), [*ALL[:4], *REPORTED[:2], "wrong"]),
    ],
)
def test_filters_of_the_command_line_leave_these_rows(words: tuple[str, ...], left: list[str]) -> None:
    assert models(*words) == left


def test_a_filter_changes_no_rank_and_the_title_counts_what_is_shown() -> None:
    lines = run("--format", "md", "--dataset", "cifar10", "--defense", "trades").stdout.splitlines()
    assert lines[2].endswith("; 1 of 4 rows shown")
    assert lines[6].startswith("| 4 ")


def test_a_filter_that_fits_nothing_prints_an_empty_table_and_a_hint() -> None:
    result = run("--format", "md", "--dataset", "cifar")
    assert result.exit_code == 0
    assert "### no row to show" in result.stdout
    assert result.stderr == "no row fits --dataset cifar; there is --dataset cifar10, --dataset digits\n"


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("gain", "at-awp-s0/best"),
        ("-gain", "at-awp-s0/best"),
        ("pgd-20", "at-awp-s0/best"),
        ("-pgd-20", "trades-s0/best"),
    ],
)
@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
def test_a_column_sorts_and_a_minus_turns_it_round(sort: str, first: str, form: str) -> None:
    assert models(*form.format("--sort", sort).split(), "--dataset", "cifar10")[0] == first


def test_names_sort_from_a_or_from_z() -> None:
    assert models("--sort", "model", "--norm", "Linf")[:4] == ["at-awp-s0/best", "at-s0/best", "foreign_net", ALL[3]]
    assert models("--sort", "-model", "--norm", "Linf")[:4] == [ALL[3], "foreign_net", "at-s0/best", "at-awp-s0/best"]


@pytest.mark.parametrize(
    "words", [("--columns", "model, Extra-Data,awp"), ("--columns", "model", "--columns", "extra data,AWP")]
)
def test_columns_are_given_with_commas_or_one_by_one(words: tuple[str, ...]) -> None:
    text = run("--format", "md", "--dataset", "digits", *words).stdout
    assert "| model  | extra data | AWP |" in text


@pytest.mark.parametrize("words", [("--sort", "gian"), ("--sort", "-gian"), ("--columns", "model,gian")])
def test_an_unknown_column_is_answered_with_the_nearest(words: tuple[str, ...]) -> None:
    what, mend = error_of(*words)
    assert what == "there is no column called 'gian'"
    assert mend.startswith("Did you mean 'gain'? Known: rank, model, defense, AWP, architecture, extra data, ")


@pytest.mark.parametrize("format", ["csv", "json"])
def test_columns_and_a_format_that_has_all_exclude_each_other(format: str) -> None:
    assert error_of("--format", format, "--columns", "model") == (
        f"--columns and {format} exclude each other",
        f"Leave --columns out: {format} has everything.",
    )


def test_an_unknown_format_is_answered_with_all() -> None:
    assert error_of("--format", "html") == (
        "there is no format called 'html'",
        "Known: rich, md, csv, json, latex.",
    )


@pytest.mark.parametrize("format", ["md", "rich", "latex"])
def test_retracted_rows_are_counted_below_the_tables(format: str) -> None:
    count = "1 retracted row is not shown; awpbench leaderboard --retracted tells why"
    last = run("--format", format).stdout.splitlines()[-1]
    assert last.removeprefix("% ").replace("-{}-", "--") == count
    told = run("--format", format, "--retracted").stdout.splitlines()[-1]
    assert told.endswith("wrong, retracted on 2026-01-02: a bug")


@pytest.mark.parametrize("format", ["csv", "json"])
def test_retracted_rows_are_counted_on_standard_error_where_a_line_would_not_fit(format: str) -> None:
    count = "1 retracted row is not shown; awpbench leaderboard --retracted tells why\n"
    assert run("--format", format).stderr == count
    assert run("--format", format, "--retracted").stderr == ""


@pytest.mark.parametrize(
    "words", [("--sort", "gain"), ("--columns", "n"), ("--awp",), ("--no-extra-data",), ("--retracted",)]
)
def test_options_of_printing_before_a_command_are_not_silently_ignored(words: tuple[str, ...]) -> None:
    assert error_of(*words, "add", "x")[0] == "an option stands before the name of the command"


@pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
def test_a_terminal_of_any_width_gets_every_number(width: int) -> None:
    text = run("--format", "rich", "--dataset", "cifar10", "--norm", "Linf", width=width).stdout
    assert max(map(len, text.splitlines())) <= width
    numbers = ("60.00", "54.36", "50.00", "44.38", "+10.00", "40.00", "56.17", "85.36")
    assert [number for number in numbers if number not in text] == []


def test_a_terminal_shows_no_column_that_no_row_fills() -> None:
    text = run("--format", "rich", "--dataset", "digits").stdout
    assert "gain" not in text
    assert "pgd-20" in text
    assert "gain" in run("--format", "rich", "--dataset", "digits", "--columns", "gain").stdout


def test_wide_letters_are_drawn_in_their_width() -> None:
    Path("wide.json").write_bytes(store.canonical(board_of((boards.quick("\u4e2d\u6587" * 10, 50),))))
    text = run("--format", "rich", "--file", "wide.json", width=150).stdout
    assert max(map(len, text.splitlines())) <= 150
    assert "\u4e2d\u6587" in text


def test_the_whole_command_line_prints_and_returns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--format", "json", "--sort", "-gain", "--awp"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [row["awpbench"]["model"] for row in document["rows"]] == ["at-awp-s0/best"]
    assert main(["leaderboard", "--sort", "gian"]) == 2


def test_a_message_that_quotes_a_broken_file_holds_no_terminal_escape(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((folder / "leaderboard.json").read_text())
    document["rows"][0]["awpbench"]["attacks"]["\x1b]52;c;ZXZpbA==\x07"] = {}
    (folder / "leaderboard.json").write_text(json.dumps(document))
    assert main(["leaderboard"]) == 4
    text = capsys.readouterr().err
    assert "]52;c;ZXZpbA==" in text
    assert "\x1b" not in text
    assert "\x07" not in text
