from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awpbench.evaluation.statistics import mcnemar, paired_difference
from awpbench.leaderboard.row import Board, board_of
from awpbench.leaderboard.view import (
    Gain,
    Selection,
    answers,
    deciding,
    missed,
    number,
    rank_ranges,
    rankings,
    reported,
    retracted,
)
from tests.leaderboard import boards, crafted
from tests.leaderboard.boards import quick, robustbench, trained

# Ranks


@pytest.mark.parametrize(
    ("intervals", "ranks"),
    [
        ([], []),
        ([(0.4, 0.6)], [(1, 1)]),
        ([(0.7, 0.8), (0.4, 0.6), (0.1, 0.2)], [(1, 1), (2, 2), (3, 3)]),
        ([(0.5, 0.7), (0.4, 0.6), (0.1, 0.2)], [(1, 2), (1, 2), (3, 3)]),
        ([(0.5, 0.7), (0.35, 0.55), (0.2, 0.4)], [(1, 2), (1, 3), (2, 3)]),  # a chain: the ends do not overlap
        ([(0.2, 0.3), (0.1, 0.2)], [(1, 2), (1, 2)]),  # they touch
        ([(0.5, 0.5), (0.5, 0.5), (0.5, 0.5)], [(1, 3), (1, 3), (1, 3)]),
        ([(0.1, 0.9), (0.6, 0.7), (0.4, 0.5), (0.2, 0.3)], [(1, 4), (1, 2), (2, 3), (3, 4)]),
    ],
)
def test_rank_ranges_of_known_intervals(intervals: list[tuple[float, float]], ranks: list[tuple[int, int]]) -> None:
    assert rank_ranges(intervals) == ranks


SHARES = st.integers(0, 20).map(lambda k: k / 20)
INTERVALS = st.lists(st.tuples(SHARES, SHARES, SHARES).map(sorted), max_size=12)


@given(INTERVALS)
def test_a_rank_range_holds_the_rank_by_accuracy_alone(scores: list[list[float]]) -> None:
    ranks = rank_ranges([(low, high) for low, _, high in scores])
    for (_, accuracy, _), (best, worst) in zip(scores, ranks, strict=True):
        first = 1 + sum(other > accuracy for _, other, _ in scores)
        last = sum(other >= accuracy for _, other, _ in scores)
        assert 1 <= best <= first <= last <= worst <= len(scores)


@given(INTERVALS)
def test_rank_ranges_count_the_intervals_that_are_certainly_better_or_worse(scores: list[list[float]]) -> None:
    ranks = rank_ranges([(low, high) for low, _, high in scores])
    for (low, _, high), (best, worst) in zip(scores, ranks, strict=True):
        assert best == 1 + sum(other > high for other, _, _ in scores)
        assert worst == len(scores) - sum(other < low for _, _, other in scores)


@given(INTERVALS)
def test_disjoint_intervals_are_strictly_ordered(scores: list[list[float]]) -> None:
    ranks = rank_ranges([(low, high) for low, _, high in scores])
    for (low, _, _), mine in zip(scores, ranks, strict=True):
        for (_, _, high), theirs in zip(scores, ranks, strict=True):
            if low > high:
                assert mine[0] < theirs[0]
                assert mine[1] < theirs[1]


# Gains


def gains(*rows: Any) -> dict[str, Gain | None]:
    return {line.details.model: line.gain for ranking in rankings(board_of(rows)) for line in ranking.lines}


WITH = [k < 60 or k >= 90 for k in range(100)]  # 70 withstand, 10 of them fall without AWP ...
WITHOUT = [k < 62 for k in range(100)]  # ... and 2 that withstand without it fall with it


def test_awp_gains_over_the_same_run_without_it_image_by_image() -> None:
    plain = trained("plain", WITHOUT, awp=False)
    gain = gains(trained("awp", WITH), plain)["awp/best"]
    assert gain == Gain(plain.awpbench.id, (10 - 2) / 100, paired_difference(10, 2, 100), 10, 2, mcnemar(10, 2))
    assert gain.interval == pytest.approx((0.0082, 0.1487), abs=1e-4)  # (11 - 3)/102 and 1.96 standard errors
    assert gain.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)


def test_a_run_without_awp_has_no_gain() -> None:
    assert gains(trained("awp", WITH), trained("plain", WITHOUT, awp=False))["plain/best"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"defense": "trades"},
        {"epochs": 151},
        {"train_examples": None},
        {"select_on": "test"},
        {"rwp": True, "awp_gamma": 0.01},
    ],
)
def test_a_run_that_differs_in_more_than_awp_is_no_baseline(changes: dict[str, Any]) -> None:
    assert gains(trained("awp", WITH), trained("other", WITHOUT, awp=False, **changes))["awp/best"] is None


@pytest.mark.parametrize("changes", [{"awp_gamma": 0.005}, {"awp_warmup": 3}, {"awp_steps": 2}])
def test_how_awp_was_done_makes_no_other_baseline(changes: dict[str, Any]) -> None:
    found = gains(trained("awp", WITH, **changes), trained("plain", WITHOUT, awp=False))["awp/best"]
    assert found is not None
    assert found.difference == 0.08


def test_a_row_of_another_table_or_a_retracted_one_is_no_baseline() -> None:
    ours = trained("awp", WITH)
    assert gains(ours, trained("plain", WITHOUT[:50], awp=False))["awp/best"] is None
    assert gains(ours, boards.retracted(trained("plain", WITHOUT, awp=False)))["awp/best"] is None


def test_rows_that_do_not_say_which_images_withstood_have_no_gain() -> None:
    ours, plain = trained("awp", WITH), trained("plain", WITHOUT, awp=False)
    old = plain.model_copy(update={"awpbench": plain.awpbench.model_copy(update={"outcomes": None})}).sealed()
    assert gains(ours, old)["awp/best"] is None


# Filters

BOARD = boards.mixed()


def left(**asked: Any) -> list[str]:
    selection = Selection(**asked)
    measured = [line.details.model for ranking in rankings(BOARD, selection) for line in ranking.lines]
    return measured + [line.row.awpbench.model for reports in reported(BOARD, selection) for line in reports.lines]


@pytest.mark.parametrize(
    ("asked", "models"),
    [
        ({"dataset": "digits"}, ["digits"]),
        ({"norm": "corruptions"}, ["Corrupted"]),
        ({"norm": "L2"}, []),
        ({"defense": "trades"}, ["trades-s0/best"]),
        ({"defense": "?"}, []),
        ({"awp": True}, ["at-awp-s0/best"]),
        ({"awp": False}, ["at-s0/best", "trades-s0/best"]),
        ({"architecture": "WideResNet-34-10", "norm": "Linf"}, ["Best2020", "Wu2020Adversarial"]),
        ({"architecture": "prn18", "dataset": "digits"}, ["digits"]),
        ({"architecture": "PreActResNet-18", "dataset": "digits"}, ["digits"]),
        ({"extra_data": True}, ["Best2020"]),
        ({"extra_data": False, "dataset": "digits"}, ["digits"]),
    ],
)
def test_a_filter_shows_the_rows_that_fit(asked: dict[str, Any], models: list[str]) -> None:
    assert left(**asked) == models


def test_without_a_filter_all_but_retracted_rows_are_shown() -> None:
    assert sorted(left()) == sorted(row.awpbench.model for row in BOARD.rows if not row.awpbench.retracted)


@given(
    st.builds(
        Selection,
        dataset=st.sampled_from([None, "cifar10", "digits"]),
        norm=st.sampled_from([None, "Linf", "L2"]),
        defense=st.sampled_from([None, "at", "trades"]),
        awp=st.sampled_from([None, True, False]),
        extra_data=st.sampled_from([None, True, False]),
    )
)
def test_filters_change_neither_ranks_nor_gains_nor_order(selection: Selection) -> None:
    everything = {line.details.id: line for ranking in rankings(BOARD) for line in ranking.lines}
    order = list(everything)
    for ranking in rankings(BOARD, selection):
        assert [line for line in ranking.lines if everything[line.details.id] != line] == []
        places = [order.index(line.details.id) for line in ranking.lines]
        assert places == sorted(places)
        assert all(selection.takes(line.row) for line in ranking.lines)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"dataset": "cifar"}, "no row fits --dataset cifar; there is --dataset cifar10, --dataset digits"),
        ({"norm": "linf"}, "no row fits --norm linf; there is --norm Linf, --norm corruptions"),
        ({"dataset": "digits", "awp": True}, "no row fits all of --dataset digits --awp"),
    ],
)
def test_a_filter_that_fits_nothing_is_answered_with_what_there_is(asked: dict[str, Any], told: str) -> None:
    assert missed(BOARD, Selection(**asked)) == told


@pytest.mark.parametrize("asked", ["prn18", "PreActResNet-18", "PreActResNet-18 (width 16)"])
def test_an_architecture_has_the_names_of_ours_and_of_robustbench_with_and_without_its_width(asked: str) -> None:
    board = board_of((crafted.built(crafted.result()),))
    assert [len(ranking.lines) for ranking in rankings(board, Selection(architecture=asked))] == [1]


def test_a_question_that_no_row_answers_is_told_so() -> None:
    board = board_of((quick("a", 1),))
    assert missed(board, Selection(awp=False)) == "no row fits --no-awp; there is none that says"
    assert missed(board, Selection(extra_data=True)) == "no row fits --extra-data; there is --no-extra-data"


def test_every_question_of_a_selection_is_answered_by_every_row() -> None:
    assert [set(answers(row)) for row in BOARD.rows] == [set(Selection.__dataclass_fields__)] * len(BOARD.rows)


def test_retracted_rows_are_filtered_too() -> None:
    assert [row.awpbench.model for row in retracted(BOARD)] == ["wrong"]
    assert retracted(BOARD, Selection(dataset="digits")) == []


# Reported rows


def places(*rows: Any) -> list[tuple[str, int | None]]:
    (reports,) = reported(board_of(rows))
    return [(line.row.awpbench.model, line.place) for line in reports.lines]


def test_reported_rows_are_ranked_by_external_else_autoattack() -> None:
    rows = (
        robustbench("a", autoattack_acc="50.00"),
        robustbench("b", autoattack_acc="60.00", external="40.00"),
        robustbench("c", autoattack_acc="45.1"),
        robustbench("d", autoattack_acc="9.00"),
    )
    assert places(*rows) == [("a", 1), ("c", 2), ("b", 3), ("d", 4)]


def test_reported_rows_of_corruptions_are_ranked_by_their_own_accuracy() -> None:
    rows = [robustbench(name, "corruptions", autoattack_acc=..., corruptions_acc=acc) for name, acc in ("a8", "b9")]
    assert places(*rows) == [("b", 1), ("a", 2)]


def test_equal_reported_rows_are_numbered_by_name_and_those_without_a_number_come_last() -> None:
    unknown = [robustbench(name, autoattack_acc=value) for name, value in (("x", None), ("y", "n/a"), ("z", ...))]
    assert places(robustbench("b"), robustbench("a"), *unknown) == [
        ("a", 1),
        ("b", 2),
        ("x", None),
        ("y", None),
        ("z", None),
    ]


def test_filters_leave_the_numbers_of_reported_rows() -> None:
    board = board_of((robustbench("a", external="99.00"), robustbench("b", additional_data=True)))
    (reports,) = reported(board, Selection(extra_data=True))
    assert [(line.row.awpbench.model, line.place) for line in reports.lines] == [("b", 2)]
    assert reports.title == "reported by RobustBench, not measured here: cifar10, Linf; 1 of 2 rows shown"


def test_sources_data_sets_and_threats_have_tables_of_their_own() -> None:
    rows = [robustbench("a"), robustbench("b", "L2"), robustbench("c", dataset="cifar100"), _from_a_paper("d")]
    assert [reports.title for reports in reported(board_of(tuple(rows)))] == [
        "reported in papers, not measured here: cifar10, Linf 8/255",
        "reported by RobustBench, not measured here: cifar10, L2",
        "reported by RobustBench, not measured here: cifar10, Linf",
        "reported by RobustBench, not measured here: cifar100, Linf",
    ]


def _from_a_paper(name: str) -> Any:
    row = robustbench(name)
    source = row.awpbench.source.model_copy(update={"kind": "paper"})
    return row.model_copy(update={"awpbench": row.awpbench.model_copy(update={"source": source})}).sealed()


def test_a_retracted_report_is_not_ranked() -> None:
    board = board_of((boards.retracted(robustbench("a")), robustbench("b")))
    (reports,) = reported(board)
    assert [(line.row.awpbench.model, line.place) for line in reports.lines] == [("b", 1)]


def test_reported_rows_never_stand_in_a_ranking() -> None:
    board: Board = board_of((quick("a", 1), robustbench("b")))
    assert [[line.details.model for line in ranking.lines] for ranking in rankings(board)] == [["a"]]


@pytest.mark.parametrize(
    ("value", "found"),
    [("56.17", 56.17), (56, 56.0), ("", None), (None, None), ("nan", None), ("inf", None), (True, None), ([1], None)],
)
def test_a_number_is_what_spells_a_finite_one(value: object, found: float | None) -> None:
    assert number(value) == found


def test_an_empty_external_accuracy_decides_nothing() -> None:
    assert deciding(robustbench("a", external="")) == "autoattack_acc"
    assert deciding(robustbench("a", external=None, autoattack_acc=None)) is None


def test_a_gain_is_that_over_the_best_of_several_runs_without_awp() -> None:
    """A weaker repetition of the baseline, under another name, must not make the gain larger."""

    def run(name: str, correct: int, **config: Any) -> Any:
        attacks = {"clean": crafted.attack("clean", 200, 300), "pgd-20": crafted.attack("pgd-20", correct, 300)}
        trained = crafted.config(**config)
        return crafted.built({**crafted.named(name, attacks=attacks), "training": trained})

    plain: dict[str, Any] = {"awp": False, "awp_gamma": 0.0}
    rows = [run("awp/best", 100), run("weak/best", 50, **plain), run("good/best", 90, **plain)]
    for order in (rows, rows[::-1]):
        (ranking,) = rankings(board_of(tuple(order)))
        gain = ranking.lines[0].gain
        assert gain is not None
        assert (gain.without, gain.only_with, gain.only_without) == (rows[2].awpbench.id, 10, 0)


def test_papers_that_attacked_otherwise_stand_in_tables_of_their_own() -> None:
    def quoted(name: str, attack: str, eps: str) -> Any:
        row = robustbench(name)
        own = row.awpbench.source.model_copy(update={"kind": "paper", "attack": attack})
        details = row.awpbench.model_copy(update={"source": own, "eps": eps})
        keys = {**row.keys, "eps": eps}
        return row.model_copy(update={"awpbench": details, "keys": keys}).sealed()

    rows = (quoted("a", "pgd-20", "8/255"), quoted("b", "autoattack", "8/255"), quoted("c", "autoattack", "2/255"))
    assert [reports.title.split(": ")[1] for reports in reported(board_of(rows))] == [
        "cifar10, Linf 2/255, under autoattack",
        "cifar10, Linf 8/255, under autoattack",
        "cifar10, Linf 8/255, under pgd-20",
    ]
