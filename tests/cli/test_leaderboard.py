from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from awpbench.cli.leaderboard import app
from awpbench.errors import InputError, UsageError
from awpbench.leaderboard import store
from awpbench.leaderboard.render import render
from tests.leaderboard import crafted


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with no leaderboard at or above it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AWPBENCH_LEADERBOARD", raising=False)
    return tmp_path


def run(*words: str, width: int = 400) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "dumb"})


def fill(*names: str) -> None:
    for name in names:
        store.upsert(Path("leaderboard.json"), [crafted.row(name)])


def test_without_a_leaderboard_there_is_an_empty_table_a_hint_and_no_error(folder: Path) -> None:
    result = run("--format", "md")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2] == "### no results yet"
    hint = "there is no leaderboard at {} yet: awpbench eval writes a row when it ends\n"
    assert result.stderr == hint.format(folder / "leaderboard.json")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("width", [20, 400])
def test_an_empty_table_is_drawn_at_any_width(width: int) -> None:
    assert "no results yet" in run("--format", "rich", width=width).stdout.replace("\n", " ")


def test_a_pipe_gets_markdown() -> None:
    fill("a")
    assert run().stdout == run("--format", "md").stdout
    assert run().stdout.splitlines()[4].startswith("| rank")


def test_json_is_one_document_with_the_rows_of_the_file() -> None:
    fill("a", "b")
    document = json.loads(run("--json").stdout)
    assert run("--json").stdout == run("--format", "json").stdout
    assert document["rows"] == json.loads(Path("leaderboard.json").read_text())["rows"]


def test_csv_is_untouched_by_a_narrow_terminal() -> None:
    fill("a")
    assert run("--format", "csv", width=40).stdout == run("--format", "csv").stdout
    assert len(run("--format", "csv", width=40).stdout.splitlines()) == 2


def test_a_wide_terminal_gets_one_line_per_model() -> None:
    fill("first", "second")
    lines = [line for line in run("--format", "rich").stdout.splitlines() if "first" in line]
    assert len(lines) == 1
    assert "18.33 [14.36, 23.10] n=300" in lines[0]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_gets_the_table_turned_round_and_loses_nothing(width: int) -> None:
    fill("first", "second", "third")
    text = run("--format", "rich", width=width).stdout
    assert max(map(len, text.splitlines())) <= width
    assert text.count("18.33 [14.36, 23.10] n=300") == 3
    assert text.count("81.33 [80.55, 82.08] n=10000") == 3


def test_two_models_stand_side_by_side_in_eighty_columns() -> None:
    fill("digits-small-cnn-at-awp-s0/best", "digits-small-cnn-trades-awp-with-a-longer-name-s0/best")
    text = run("--format", "rich", width=80).stdout
    assert [line.count("18.33 [14.36, 23.10] n=300") for line in text.splitlines() if "18.33" in line] == [2]


def test_names_are_drawn_as_they_are() -> None:
    fill("[bold red]x[/bold red] :smile: \x1b[31m")
    assert "[bold red]x[/bold red] :smile:  [31m" in run("--format", "rich").stdout


def test_file_and_environment_name_another_leaderboard(monkeypatch: pytest.MonkeyPatch) -> None:
    store.upsert(Path("other.json"), [crafted.row("elsewhere")])
    assert "elsewhere" in run("--file", "other.json").stdout
    monkeypatch.setenv("AWPBENCH_LEADERBOARD", "other.json")
    assert "elsewhere" in run().stdout


def test_an_option_before_the_command_is_not_silently_ignored(folder: Path) -> None:
    error = run("--file", "b.json", "add", str(crafted.write_run(folder))).exception
    assert isinstance(error, UsageError)
    assert (error.what, error.mend) == (
        "an option stands before the name of the command",
        "Write it behind: awpbench leaderboard add RESULT --file F",
    )


def test_json_and_another_format_exclude_each_other() -> None:
    error = run("--json", "--format", "md").exception
    assert isinstance(error, UsageError)
    assert (error.what, error.mend) == ("--json and --format md exclude each other", "Leave one of them out.")


def test_a_newer_leaderboard_is_refused_and_kept(folder: Path) -> None:
    newer = '{"schema_version": 9, "rows": [], "more": 1}'
    Path("leaderboard.json").write_text(newer)
    for result in (run(), run("add", str(crafted.write_run(folder)))):
        assert isinstance(result.exception, InputError)
        what = f"{folder / 'leaderboard.json'} has schema version 9; this awpbench reads 2"
        assert (result.exception.what, result.exception.mend) == (what, "Update awpbench; the file was not changed.")
    assert Path("leaderboard.json").read_text() == newer


def test_the_command_writes_what_the_library_renders() -> None:
    fill("a")
    for format in ("md", "latex", "csv", "json"):
        assert run("--format", format).stdout == render(store.read(Path("leaderboard.json")), format)
