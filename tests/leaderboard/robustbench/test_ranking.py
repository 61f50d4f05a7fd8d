from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from awpbench.leaderboard.robustbench import files
from awpbench.leaderboard.robustbench.files import Entry
from awpbench.leaderboard.robustbench.ranking import rank
from tests.leaderboard.robustbench.crafted import AWP, CORRUPTIONS


def entry(model: str, **changes: Any) -> Entry:
    return Entry("cifar10", "Linf", model, {**AWP, **changes})


def ranked(*entries: Entry) -> list[tuple[int, float, str]]:
    return [(place.number, place.accuracy, place.entry.model) for place in rank(entries)]


def test_external_decides_where_it_is_present_and_autoattack_elsewhere() -> None:
    a = entry("a", autoattack_acc="60.00", external="50.00")
    b = entry("b", autoattack_acc="55.00")
    c = entry("c", autoattack_acc="52.00", external="58.00")  # whatever it is, also where it is higher
    assert ranked(a, b, c) == [(1, 58.0, "c"), (2, 55.0, "b"), (3, 50.0, "a")]


def test_accuracies_are_compared_as_numbers() -> None:
    rows = entry("a", autoattack_acc="9.99"), entry("b", autoattack_acc="10")
    assert [name for *_, name in ranked(*rows)] == ["b", "a"]


def test_equal_accuracies_are_numbered_in_turn_by_name() -> None:
    rows = [entry("b", autoattack_acc="57.1"), entry("a", autoattack_acc="57.10"), entry("c", autoattack_acc="0.0")]
    assert ranked(*rows) == [(1, 57.1, "a"), (2, 57.1, "b"), (3, 0.0, "c")]


def test_in_corruptions_their_own_accuracy_decides_and_external_does_not() -> None:
    rows = [Entry("imagenet", "corruptions", "a", {**CORRUPTIONS, "external": "99.00"})]
    rows.append(Entry("imagenet", "corruptions", "b", {**CORRUPTIONS, "corruptions_acc": "43.00"}))
    assert ranked(*rows) == [(1, 43.0, "b"), (2, 42.0, "a")]


@pytest.mark.parametrize(
    ("dataset", "threat", "model", "place", "of"),
    [
        ("cifar10", "Linf", "Wu2020Adversarial", 56, 99),
        ("cifar10", "Linf", "Wu2020Adversarial_extra", 33, 99),
        ("cifar10", "L2", "Wu2020Adversarial", 15, 21),
        ("cifar100", "Linf", "Wu2020Adversarial", 30, 38),
    ],
)
def test_the_rows_of_awp_stand_where_robustbench_has_them(
    shared: Path, dataset: str, threat: str, model: str, place: int, of: int
) -> None:
    table = dict(files.tables(files.read(shared / "robustbench" / "model_info")))[dataset, threat]
    places = rank(table)
    assert ([each.number for each in places if each.entry.model == model], len(places)) == ([place], of)
