"""The command line as a whole: what it answers to a mistyped command, and that it never shows a traceback unasked."""

from __future__ import annotations

import pytest

import awpbench
from awpbench.cli import main


@pytest.mark.parametrize(
    ("words", "what", "mend"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?", "awpbench --help"),
        (["train"], "Missing argument 'arch'.", "awpbench train --help"),
        (["eval", "--suit", "full"], "No such option: --suit", "awpbench eval --help"),
        (["train", "prn18", "--epochs", "many"], "Invalid value for '--epochs'", "awpbench train --help"),
    ],
)
def test_a_mistyped_command_is_answered_in_two_lines(
    words: list[str], what: str, mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {what}")
    assert second == f"mend:  See: {mend}"


def test_an_unknown_format_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--format", "mdd"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: there is no format called 'mdd'",
        "mend:  Did you mean 'md'? Known: rich, md, csv, json, latex.",
    ]


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    streams = capsys.readouterr()
    assert "Train, attack and rank robust image classifiers." in streams.out + streams.err
    assert "error:" not in streams.err


def test_help_and_version_answer_with_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"awpbench {awpbench.__version__}"


def test_a_bug_is_reported_in_two_lines_and_with_a_traceback_only_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(explicit: str | None) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("awpbench.leaderboard.store.find", broken)
    assert main(["leaderboard"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: ZeroDivisionError: a bug",
        "mend:  This is a bug in awpbench, or in a model given to it; --debug shows where.",
    ]
    assert main(["leaderboard", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
