from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from awpbench.errors import UsageError
from awpbench.leaderboard.columns import (
    FIXED,
    OF_REPORTED,
    column,
    known,
    named,
    rank_text,
    reports_sorted_by,
    sorted_by,
)
from awpbench.leaderboard.row import board_of
from awpbench.leaderboard.view import rankings, reported
from tests.leaderboard import boards, crafted
from tests.leaderboard.boards import quick, robustbench, trained

DOCS = Path(__file__).parents[2] / "docs" / "leaderboard.md"


def order(name: str, *rows: Any, backwards: bool = False) -> list[str]:
    (ranking,) = rankings(board_of(rows))
    return [line.details.model for line in sorted_by(name, ranking, backwards=backwards).lines]


def shown(name: str, row: Any) -> str:
    (ranking,) = rankings(board_of((row,)))
    return column(name).cell(ranking.lines[0])


def test_a_rank_is_a_number_or_a_range() -> None:
    assert (rank_text((3, 3)), rank_text((3, 5))) == ("3", "3-5")


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({}, "0.01"),
        ({"awp_gamma": 0.005, "awp_warmup": 8}, "0.005 after 8 epochs"),
        ({"awp": False}, "no"),
        ({"awp": False, "rwp": True}, "no (RWP)"),
    ],
)
def test_the_column_of_awp_says_how_much_and_since_when(changes: dict[str, Any], cell: str) -> None:
    assert shown("AWP", trained("a", [True], **changes)) == cell


def test_what_is_not_known_of_a_foreign_net_is_a_question_mark() -> None:
    row = quick("a", 50)
    assert [shown(name, row) for name in ("defense", "AWP", "selection", "audit")] == ["?"] * 4
    assert [shown(name, row) for name in ("gain", "gap", "worst case", "spsa")] == [""] * 4


def test_columns_that_are_not_usual_show_what_the_card_says() -> None:
    card = {"name": "A paper", "authors": "A B", "venue": "ICLR 2021", "additional_data": True}
    row = crafted.built(crafted.named("a"), card)
    names = ("paper", "authors", "venue", "extra data", "seed", "id")
    assert [shown(name, row) for name in names] == ["A paper", "A B", "ICLR 2021", "yes", "0", row.awpbench.id]


# Sorting


def test_numbers_are_sorted_from_the_highest_and_backwards_from_the_lowest() -> None:
    rows = (quick("a", 50), quick("b", 200), quick("c", 100))
    assert order("pgd-20", *rows) == ["b", "c", "a"]
    assert order("pgd-20", *rows, backwards=True) == ["a", "c", "b"]


def test_names_are_sorted_from_a_without_regard_to_capitals() -> None:
    rows = (quick("Beta", 50), quick("alpha", 40), quick("gamma", 60))
    assert order("model", *rows) == ["alpha", "Beta", "gamma"]
    assert order("model", *rows, backwards=True) == ["gamma", "Beta", "alpha"]


TRACKED = {
    "epoch": 1,
    "train": {"n": 1, "clean": 1.0, "robust": 0.9},
    "validation": {"n": 1, "clean": 1.0, "robust": 0.5},
}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("name", "first"),
    [("defense", {"b", "c"}), ("AWP", {"b", "c"}), ("selection", {"b", "c"}), ("gap", {"b"}), ("gain", {"b"})],
)
def test_what_is_not_known_comes_last_whichever_way_round(name: str, first: set[str], backwards: bool) -> None:
    attacks = {"clean": crafted.attack("clean", 3, 3), "pgd-20": crafted.attack("pgd-20", 3, 3)}
    foreign = crafted.row("a", suite="quick", attacks=attacks)
    with_awp = trained("b", [True, False, False], TRACKED)
    without = trained("c", [True, False, False], awp=False)
    found = order(name, foreign, with_awp, without, backwards=backwards)
    assert {model[0] for model in found[: len(first)]} == first


def test_equal_rows_keep_their_order_by_rank() -> None:
    rows = (quick("b", 50), quick("c", 40), quick("a", 60))
    assert order("n", *rows) == order("n", *rows, backwards=True) == ["a", "b", "c"]


def test_awp_is_sorted_by_its_size() -> None:
    rows = [trained(name, [True], awp_gamma=gamma) for name, gamma in (("a", 0.005), ("b", 0.01), ("c", 0.0075))]
    found = order("AWP", *rows, trained("d", [True], awp=False))
    assert found == ["b/best", "c/best", "a/best", "d/best"]


def test_ranks_are_sorted_from_the_best() -> None:
    rows = (quick("a", 10), quick("b", 250), quick("c", 100))
    assert order("rank", *rows) == ["b", "c", "a"]
    assert order("rank", *rows, backwards=True) == ["a", "c", "b"]


def test_reported_rows_are_sorted_by_the_columns_they_have() -> None:
    (reports,) = reported(
        board_of((robustbench("a", clean_acc="9.00"), robustbench("b"), robustbench("c", clean_acc=...)))
    )
    found = {
        (name, backwards): [
            line.row.awpbench.model for line in reports_sorted_by(name, reports, backwards=backwards).lines
        ]
        for name in ("clean", "gain")
        for backwards in (False, True)
    }
    assert found == {
        ("clean", False): ["b", "a", "c"],
        ("clean", True): ["a", "b", "c"],
        ("gain", False): ["a", "b", "c"],
        ("gain", True): ["a", "b", "c"],
    }


# Names


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("extra data", "extra data"), ("Extra-Data", "extra data"), ("awp", "AWP"), ("pgd-20", "pgd-20"), ("eps", "eps")],
)
def test_a_column_may_be_typed_without_blanks_and_capitals(typed: str, meant: str) -> None:
    assert named(typed, board_of(())) == meant


def test_a_column_of_an_attack_that_only_this_board_has_is_known() -> None:
    board = board_of((quick("a", 1, more={"pgd-7": crafted.attack("pgd-7", 1, 300)}),))
    assert named("pgd-7", board) == "pgd-7"
    assert "pgd-7" not in known(board_of(()))


def test_an_unknown_column_is_answered_with_the_nearest() -> None:
    board = board_of(())
    with pytest.raises(UsageError) as error:
        named("gian", board)
    names = ", ".join(known(board))
    assert (error.value.what, error.value.mend) == (
        "there is no column called 'gian'",
        f"Did you mean 'gain'? Known: {names}.",
    )


def test_only_numbers_of_ours_go_unescaped() -> None:
    ours = {name for name, each in FIXED.items() if each.ours}
    assert ours == {"rank", "AWP", "worst case", "gain", "gap", "n", "seed"}
    assert {name for name, each in OF_REPORTED.items() if each.ours} == {"rank"}


def test_every_fixed_column_is_explained_in_the_documentation() -> None:
    text = DOCS.read_text(encoding="utf-8").partition("## Print it")[2].partition("\n## ")[0]
    explained = {name for line in text.splitlines() for name in re.findall("`([^`]+)`", line.split(" | ")[0])}
    assert {*FIXED, *OF_REPORTED} - explained == set()


def test_a_board_of_everything_has_a_cell_in_every_column() -> None:
    board = boards.mixed()
    for ranking in rankings(board):
        for line in ranking.lines:
            assert all(isinstance(column(name).cell(line), str) for name in known(board))
