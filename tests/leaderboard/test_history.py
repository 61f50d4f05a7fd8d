from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awpbench.errors import AwpbenchError, InputError, RefusedError, UsageError
from awpbench.leaderboard import history, store
from awpbench.leaderboard.details import Event, Retraction
from awpbench.leaderboard.row import Reported, Row, board_of
from awpbench.leaderboard.view import rankings, retracted
from tests.leaderboard import crafted

CARD = {"name": "A paper", "venue": "NeurIPS 2020", "additional_data": True}
A = crafted.row("a").awpbench.id


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the day; it is the first of a year until then."""

    def is_now(text: str) -> None:
        monkeypatch.setattr(history, "today", lambda: text)

    is_now("2026-01-01")
    return is_now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the leaderboard lies."""
    return tmp_path / "leaderboard.json"


def only(path: Path) -> Row | Reported:
    (row,) = store.read(path).rows
    return row


def failure(caught: pytest.ExceptionInfo[AwpbenchError]) -> tuple[str, str]:
    return caught.value.what, caught.value.mend


def carded(name: str = "a", card: dict[str, Any] = CARD, **changes: Any) -> Row:
    return crafted.built(crafted.named(name, **changes), card)


def test_today_is_a_day() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", history.today())


def test_a_history_tells_everything_and_how_the_row_was_before(path: Path, day: Callable[[str], None]) -> None:
    digests = []
    for when, change in [
        ("2026-01-01", lambda: store.upsert(path, [crafted.row("a")])),
        ("2026-01-02", lambda: store.retract(path, A, "  the wrong\ncheckpoint ")),
        ("2026-01-03", lambda: store.restore(path, A)),
        ("2026-01-04", lambda: store.upsert(path, [crafted.row("a", seed=7)])),
    ]:
        day(when)
        change()
        digests.append(only(path).awpbench.digest)
    before = {"reported": "18.33", "result": crafted.row("a").awpbench.hashes["result"]}
    assert only(path).awpbench.history == (
        Event(date="2026-01-01", action="added"),
        Event(date="2026-01-02", action="retracted", digest=digests[0], reason="the wrong checkpoint", **before),
        Event(date="2026-01-03", action="restored", digest=digests[1], **before),
        Event(date="2026-01-04", action="superseded", digest=digests[2], **before),
    )
    assert len(set(digests)) == 4


def test_a_retracted_row_stays_in_the_file_and_in_no_ranking(path: Path) -> None:
    store.upsert(path, [crafted.row("a"), crafted.row("b")])
    store.retract(path, A, "a bug")
    board = store.read(path)
    assert [line.details.model for ranking in rankings(board) for line in ranking.lines] == ["b"]
    assert [row.awpbench.id for row in retracted(board)] == [A]
    assert (only_mark := board.rows[0].awpbench.retracted)
    assert (only_mark.date, only_mark.reason) == ("2026-01-01", "a bug")
    store.restore(path, A, "it was none")
    board = store.read(path)
    assert retracted(board) == []
    assert board.rows[0].awpbench.history[-1].reason == "it was none"


def test_a_retracted_row_that_is_measured_again_counts(path: Path) -> None:
    store.upsert(path, [crafted.row("a")])
    store.retract(path, A, "a bug")
    assert store.upsert(path, [crafted.row("a", seed=7)]) == ["superseded"]
    assert only(path).awpbench.retracted is None
    assert [event.action for event in only(path).awpbench.history] == ["added", "retracted", "superseded"]


def test_neither_the_same_result_nor_a_card_for_it_ends_a_retraction(path: Path) -> None:
    store.upsert(path, [crafted.row("a")])
    store.retract(path, A, "a bug")
    before = path.read_bytes()
    assert store.upsert(path, [crafted.row("a")]) == ["unchanged"]
    assert path.read_bytes() == before
    assert store.upsert(path, [carded()]) == ["superseded"]
    row = only(path)
    assert isinstance(row, Row)
    assert row.venue == "NeurIPS 2020"
    assert row.awpbench.retracted is not None


def test_without_a_card_a_row_keeps_the_bibliography_of_the_one_it_supersedes(path: Path) -> None:
    store.upsert(path, [carded()])
    assert store.upsert(path, [crafted.row("a")], keep_bibliography=True) == ["unchanged"]
    assert store.upsert(path, [crafted.row("a", seed=7)], keep_bibliography=True) == ["superseded"]
    row = only(path)
    assert isinstance(row, Row)
    assert (row.name, row.venue, row.additional_data, row.awpbench.seed) == ("A paper", "NeurIPS 2020", True, 7)


def test_with_a_card_a_row_has_the_bibliography_of_the_card(path: Path) -> None:
    store.upsert(path, [carded()])
    assert store.upsert(path, [crafted.row("a")]) == ["superseded"]
    row = only(path)
    assert isinstance(row, Row)
    assert (row.name, row.venue, row.additional_data) == ("", "", False)


def test_a_newer_awpbench_alone_does_not_supersede_a_row(path: Path) -> None:
    old = crafted.row("a")
    old = old.model_copy(update={"awpbench": old.awpbench.model_copy(update={"tool_version": "0.0.1"})}).sealed()
    assert store.upsert(path, [old]) == ["added"]
    assert store.upsert(path, [crafted.row("a")]) == ["unchanged"]


@pytest.mark.parametrize(("value", "told"), [("56.17", "56.17"), ("56.1", None), (56.17, None), ("9\n", None)])
def test_the_history_of_a_reported_row_tells_what_has_the_form_of_an_accuracy(
    path: Path, value: Any, told: str | None
) -> None:
    store.upsert(path, [crafted.reported(reported=value)])
    assert store.upsert(path, [crafted.reported(reported="50.00")]) == ["superseded"]
    assert only(path).awpbench.history[-1].reported == told


def test_a_reported_row_supersedes_no_measured_one(path: Path) -> None:
    store.upsert(path, [crafted.row("a")])
    before = path.read_bytes()
    with pytest.raises(RefusedError) as caught:
        store.upsert(path, [crafted.row("b"), crafted.reported(A)])
    what = f"the row {A} is measured: no reported row supersedes it"
    assert failure(caught) == (what, "Give the other row another id.")
    assert path.read_bytes() == before


def test_what_cannot_be_retracted_or_restored_is_said_and_nothing_changes(path: Path) -> None:
    store.upsert(path, [crafted.row("a"), crafted.row("b")])
    store.retract(path, A, "a bug")
    before, b = path.read_bytes(), crafted.row("b").awpbench.id
    for attempt, kind, what, mend in [
        (
            lambda: store.retract(path, A, "again"),
            RefusedError,
            f"the row {A} was retracted on 2026-01-01: a bug",
            f"To give another reason, first: awpbench leaderboard restore {A}",
        ),
        (lambda: store.restore(path, b), RefusedError, f"the row {b} counts: it is not retracted", "Leave it."),
        (
            lambda: store.retract(path, b, " \n"),
            UsageError,
            "a retraction needs a reason",
            'Write it: --reason "the wrong checkpoint was evaluated"',
        ),
    ]:
        with pytest.raises(kind) as caught:
            attempt()
        assert failure(caught) == (what, mend)
    assert path.read_bytes() == before


def test_no_leaderboard_is_made_to_retract_a_row(path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        store.retract(path, A, "a bug")
    assert list(path.parent.iterdir()) == []


def test_a_row_is_found_by_its_id_or_a_beginning_that_no_other_shares() -> None:
    rows = {name: crafted.reported(name) for name in ("Wu2020", "Wu2020Extra", "Rice2020")}
    assert store.find_row(rows, "Wu2020") is rows["Wu2020"]
    assert store.find_row(rows, "R") is rows["Rice2020"]
    for name, what, mend in [
        ("Wu", "2 ids begin with 'Wu'", "Write more of one: Wu2020, Wu2020Extra."),
        (
            "wu2020x",
            "there is no row called 'wu2020x'",
            "Did you mean 'Wu2020'? Ids stand in: awpbench leaderboard --format csv",
        ),
        ("", "there is no row called ''", "Ids stand in: awpbench leaderboard --format csv"),
    ]:
        with pytest.raises(UsageError) as caught:
            store.find_row(rows, name)
        assert failure(caught) == (what, mend)


STEPS = st.lists(st.sampled_from(["a 0", "a 1", "a 2", "retract", "restore"]), max_size=12)


@given(STEPS)
def test_whatever_happens_the_history_is_one_chain_of_digests(steps: list[str]) -> None:
    row: Any = None
    digests: list[str | None] = []
    gone: set[str | None] = set()  # results that were retracted and not restored
    for step in steps:
        before = row
        try:
            if step.startswith("a"):
                row, _ = history.following(row, RESULTS[int(step[-1])], keep_bibliography=True)
            elif row is not None:
                row = history.with_mark(row, "why", restored=step == "restore")
                (gone.discard if step == "restore" else gone.add)(row.awpbench.hashes["result"])
        except RefusedError:
            continue
        if row is not before and before is not None:
            digests.append(before.awpbench.digest)
    if row is not None:
        assert [event.digest for event in row.awpbench.history] == [None, *digests]
        assert (row.awpbench.retracted is not None) == (row.awpbench.hashes["result"] in gone)
        assert board_of((row,)).rows == (row,)


RESULTS = [crafted.row("a", seed=seed) for seed in range(3)]


def test_a_retracted_result_does_not_come_back_behind_another_one(path: Path) -> None:
    first, other = crafted.row("a"), crafted.row("a", seed=7)
    store.upsert(path, [first])
    store.retract(path, A, "the wrong checkpoint")
    store.upsert(path, [other])
    assert only(path).awpbench.retracted is None
    store.upsert(path, [first])
    assert only(path).awpbench.retracted == Retraction(date="2026-01-01", reason="the wrong checkpoint")
    store.restore(path, A)
    store.upsert(path, [other])
    store.upsert(path, [first])
    assert only(path).awpbench.retracted is None


def test_another_venue_does_not_bring_a_withdrawn_number_back(path: Path) -> None:
    store.upsert(path, [crafted.reported()])
    name = only(path).awpbench.id
    store.retract(path, name, "withdrawn")
    row = only(path)
    assert isinstance(row, Reported)
    for key, value, counts in (("venue", "ICLR 2021", False), ("reported", "12.00", True)):
        keys = {**row.keys, key: value}
        own = row.awpbench
        new = Reported.of(name, model=own.model, dataset=own.dataset, threat=own.threat, keys=keys, source=own.source)
        store.upsert(path, [new])
        assert (only(path).awpbench.retracted is None) is counts
