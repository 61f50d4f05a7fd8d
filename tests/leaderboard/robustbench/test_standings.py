from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from awpbench.cli import main
from awpbench.leaderboard import store
from awpbench.leaderboard.render import Asked, render, tables
from awpbench.leaderboard.robustbench.standings import best_known, standings
from awpbench.leaderboard.row import board_of
from awpbench.leaderboard.view import rankings
from tests.leaderboard import crafted

TITLE = "RobustBench, cifar10 Linf (2025-03-31; reported, not measured here)"
SAME = "of the 99 published rows 93 have eps 8/255; 6 have eps 0.031, which is another budget"
PART = "published rows were attacked on the whole test set, these on {} images"


def attacks(correct: int, n: int = 10000, **more: Any) -> dict[str, Any]:
    found = {"clean": crafted.attack("clean", 8536 * n // 10000, n)}
    return {**found, "autoattack": crafted.attack("autoattack", correct, n, complete=True, **more)}


def test_the_accuracy_of_awps_published_net_stands_where_that_net_stands() -> None:
    """It is 56th of 99 at RobustBench; its interval on 10,000 images overlaps places 47 to 60."""
    board = board_of((crafted.row(attacks=attacks(5617), partial=False),))
    found = standings(rankings(board)[0])
    ((_, place),) = found.places
    assert (place.rank, place.best, place.worst, place.total) == (56, 47, 60, 99)
    assert (found.title, found.notes) == (TITLE, (SAME,))
    assert place.below is not None
    assert place.below.id == "Wu2020Adversarial"


def test_an_attack_that_left_less_than_autoattack_places_the_row() -> None:
    weaker = attacks(5617) | {"cw-inf": crafted.attack("cw-inf", 5000, 10000)}
    assert best_known(crafted.row(attacks=weaker).awpbench).correct == 5000
    fewer = attacks(5617) | {"cw-inf": crafted.attack("cw-inf", 1, 100)}
    assert best_known(crafted.row(attacks=fewer).awpbench).correct == 5617


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (
            {"attacks": {"clean": crafted.attack("clean", 50, 100), "pgd-20": crafted.attack("pgd-20", 20, 100)}},
            "no place: RobustBench ranks by AutoAttack, this table by pgd-20",
        ),
        ({"attacks": attacks(50, 100), "dataset": "mnist"}, "no place: RobustBench has no table of mnist Linf"),
    ],
)
def test_a_row_that_robustbench_would_not_rank_has_no_place(changes: dict[str, Any], note: str) -> None:
    found = standings(rankings(board_of((crafted.row(**changes),)))[0])
    assert (found.places, found.notes) == ((), (note,))


def test_the_table_stands_below_the_measured_one_and_changes_nothing_in_it() -> None:
    board = board_of((crafted.row("one", attacks=attacks(5617)), crafted.row("two", attacks=attacks(5400))))
    alone, (measured, beside) = tables(board), tables(board, Asked(beside=True))
    assert alone == [measured]
    assert beside.title == f"where these rows would stand in {TITLE}"
    assert [row[1] for row in beside.rows] == ["one", "two"]
    assert beside.rows[0] == (
        "47-60",
        "one",
        "56.17 [55.20, 57.14] n=10000",
        "Jia2022LAS-AT_34_10 (56.26, WideResNet-34-10)",
        "Wu2020Adversarial (56.17, WideResNet-34-10)",
    )
    assert beside.notes == (SAME, PART.format(10000))
    for format in ("md", "latex"):
        assert "would rank" in render(board, format, Asked(beside=True))
        assert "would rank" not in render(board, format)


def test_the_command_says_it_in_json_and_refuses_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row = crafted.row("one", attacks=attacks(5617))
    store.upsert(Path("leaderboard.json"), [row])
    assert main(["leaderboard", "--with", "robustbench", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["beside"]
    neighbours = {"above": "Jia2022LAS-AT_34_10", "below": "Wu2020Adversarial"}
    assert told["rows"] == [{"id": row.awpbench.id, "rank": [47, 60], "of": 99, "same_eps": 93, **neighbours}]
    assert main(["leaderboard", "--with", "robustbench", "--format", "csv"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --with robustbench and csv exclude each other",
        "mend:  Choose --format json.",
    ]
