from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awpbench.leaderboard.robustbench import files, published
from awpbench.leaderboard.robustbench.published import standing
from awpbench.leaderboard.robustbench.ranking import rank

SNAPSHOT = Path(published.__file__).with_name("published.json")


def test_the_snapshot_is_what_the_files_of_its_commit_make(shared: Path) -> None:
    assert SNAPSHOT.read_text(encoding="utf-8") == published.snapshot(shared / "robustbench" / "model_info")


def test_the_snapshot_ranks_as_the_files_do(shared: Path) -> None:
    for (dataset, threat), entries in files.tables(files.read(shared / "robustbench" / "model_info")):
        rows = [row for row in published.published() if (row.dataset, row.threat) == (dataset, threat)]
        expected = [] if threat == "corruptions" else [place.entry.model for place in rank(entries)]
        assert [row.id for row in sorted(rows, key=lambda row: (-row.accuracy, row.id))] == expected


def test_the_snapshot_states_its_source_and_has_a_row_a_line() -> None:
    lines = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    assert lines[:5] == [
        "{",
        ' "source": "https://github.com/RobustBench/robustbench",',
        ' "commit": "78fcc9e48a07a861268f295a777b975f25155964",',
        ' "date": "2025-03-31",',
        ' "rows": [',
    ]
    assert len(lines) == 5 + 188 + 1
    assert len(published.published()) == 188


def test_awps_accuracy_stands_where_awp_does() -> None:
    found = standing("cifar10", "Linf", "8/255", 0.5617)
    assert found is not None
    assert (found.rank, found.best, found.worst, found.ranks, found.total) == (56, 56, 56, "56", 99)
    assert found.above is not None
    assert found.below is not None
    assert (found.above.id, found.above.accuracy) == ("Jia2022LAS-AT_34_10", 56.26)
    assert (found.below.id, found.below.accuracy) == ("Wu2020Adversarial", 56.17)
    assert found.told() == (
        "Would rank 56 if added to the 99 rows of RobustBench, cifar10 Linf (2025-03-31), below Jia2022LAS-AT_34_10 "
        "(56.26) and above Wu2020Adversarial (56.17). 93 of them have eps 8/255; 6 have eps 0.031, which is another "
        "budget."
    )


def test_an_interval_leaves_a_range_of_ranks_open() -> None:
    found = standing("cifar10", "L2", "0.5", 0.7366, (0.72, 0.75))
    assert found is not None
    assert found.ranks == f"{found.best}-{found.worst}"
    rows = [row.accuracy for row in published.published() if (row.dataset, row.threat) == ("cifar10", "L2")]
    assert found.best == 1 + sum(accuracy > 75 for accuracy in rows)
    assert found.worst == 1 + sum(accuracy > 72 for accuracy in rows)


@pytest.mark.parametrize(
    ("eps", "comparable", "told"),
    [
        ("8/255", 93, "93 of them have eps 8/255; 6 have eps 0.031, which is another budget."),
        ("16/510", 93, "93 of them have eps 16/510; 6 have eps 0.031, which is another budget."),
        ("0.031", 6, "6 of them have eps 0.031; 93 have eps 8/255, which is another budget."),
        ("4/255", 0, "0 of them have eps 4/255; 93 have eps 8/255, 6 have eps 0.031, which is another budget."),
    ],
)
def test_an_eps_is_compared_as_an_exact_number(eps: str, comparable: int, told: str) -> None:
    found = standing("cifar10", "Linf", eps, 0.5)
    assert found is not None
    assert found.comparable == comparable
    assert found.told().endswith(told)


def test_the_best_and_the_worst_have_one_neighbour() -> None:
    first, last = standing("cifar10", "L2", "0.5", 1.0), standing("cifar10", "L2", "0.5", 0.0)
    assert first is not None
    assert last is not None
    assert (first.rank, first.above, last.rank) == (1, None, 21)  # before the standard net, which has 0.0 too
    assert first.told().startswith(
        "Would rank 1 if added to the 21 rows of RobustBench, cifar10 L2 (2025-03-31), above "
    )


@pytest.mark.parametrize(("dataset", "norm"), [("digits", "Linf"), ("cifar100", "L2"), ("cifar10", "corruptions")])
def test_where_robustbench_has_no_table_nothing_stands(dataset: str, norm: str) -> None:
    assert standing(dataset, norm, "8/255", 0.5) is None


@given(st.floats(0, 1), st.floats(0, 0.2), st.floats(0, 0.2))
def test_ranks_fall_with_the_accuracy_and_lie_in_their_range(accuracy: float, below: float, above: float) -> None:
    found = standing("cifar100", "Linf", "8/255", accuracy, (max(0.0, accuracy - below), min(1.0, accuracy + above)))
    better = standing("cifar100", "Linf", "8/255", min(1.0, accuracy + 0.01))
    assert found is not None
    assert better is not None
    assert 1 <= found.best <= found.rank <= found.worst <= found.total + 1
    assert better.rank <= found.rank
