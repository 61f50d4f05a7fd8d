from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awpbench.errors import AwpbenchError, InputError, RefusedError
from awpbench.leaderboard import history, store
from awpbench.leaderboard.checking import check
from awpbench.leaderboard.merging import Rows, Side, merge, merge_files
from awpbench.leaderboard.row import Reported, Row
from tests.leaderboard import crafted

FROZEN = Path(__file__).parent / "leaderboard-v1.json"
A = crafted.row("a").awpbench.id
SEEDS = [crafted.row("a", seed=seed) for seed in range(3)]
PLAIN = [crafted.row(name) for name in "bcd"] + [crafted.reported(name) for name in ("Paper2020", "Paper2021")]


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the day; it is the first of a year until then."""

    def is_now(text: str) -> None:
        monkeypatch.setattr(history, "today", lambda: text)

    is_now("2026-01-01")
    return is_now


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Where two people's leaderboards lie."""
    return tmp_path / "a.json", tmp_path / "b.json"


def failure(caught: pytest.ExceptionInfo[AwpbenchError]) -> tuple[str, str]:
    return caught.value.what, caught.value.mend


def events(rows: Rows, name: str = A) -> list[str]:
    return [event.action for event in rows[name].awpbench.history]


# Two files


def test_rows_of_both_files_end_in_the_first(files: tuple[Path, Path]) -> None:
    a, b = files
    store.upsert(a, PLAIN[:3])
    store.upsert(b, PLAIN[2:])
    before = b.read_bytes()
    merged = merge_files(a, b)
    assert (merged.only_a, merged.only_b) == (2, 2)
    assert list(store.by_id(store.read(a))) == sorted(row.awpbench.id for row in PLAIN)
    assert b.read_bytes() == before
    assert check(a).findings == ()


def test_rows_of_both_files_end_in_another_one(files: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = files
    store.upsert(a, PLAIN[:3])
    store.upsert(b, PLAIN[2:])
    before = a.read_bytes(), b.read_bytes()
    merge_files(a, b, out=tmp_path / "c.json")
    merge_files(b, a, out=tmp_path / "d.json")
    assert len(store.read(tmp_path / "c.json").rows) == 5
    assert (tmp_path / "c.json").read_bytes() == (tmp_path / "d.json").read_bytes()
    assert (a.read_bytes(), b.read_bytes()) == before


def test_a_file_that_has_everything_is_not_touched(files: tuple[Path, Path]) -> None:
    a, b = files
    store.upsert(a, PLAIN)
    store.upsert(b, PLAIN[:2])
    before, touched = a.read_bytes(), a.stat().st_mtime_ns
    merge_files(a, b)
    assert (a.read_bytes(), a.stat().st_mtime_ns) == (before, touched)
    merge_files(b, a, out=b)
    assert b.read_bytes() == before


def test_a_third_file_that_is_there_is_not_overwritten(files: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = files
    for path in files:
        store.upsert(path, PLAIN)
    (tmp_path / "c.json").write_text("mine")
    with pytest.raises(RefusedError) as caught:
        merge_files(a, b, out=tmp_path / "c.json")
    told = (f"{tmp_path / 'c.json'} is there already", "Name a file that is not there, or one of the two.")
    assert failure(caught) == told
    assert (tmp_path / "c.json").read_text() == "mine"


@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_that_is_not_there_is_an_error_and_is_not_made(files: tuple[Path, Path], missing: int) -> None:
    store.upsert(files[1 - missing], PLAIN)
    before = files[1 - missing].read_bytes()
    with pytest.raises(InputError) as caught:
        merge_files(*files)
    assert caught.value.what == f"there is no file {files[missing]}"
    assert not files[missing].exists()
    assert files[1 - missing].read_bytes() == before


def test_an_older_file_is_brought_up_to_date_and_gives_way_to_its_rows_measured_again(
    files: tuple[Path, Path],
) -> None:
    a, b = files
    a.write_bytes(FROZEN.read_bytes())
    first, second = store.read(a).rows
    assert isinstance(first, Row)
    store.upsert(b, [crafted.measured_again(first)])
    again = store.read(b).rows[0]
    for pair in (files, files[::-1]):
        rows = merge(*(store.by_id(store.read(each)) for each in pair)).rows
        assert rows == {first.awpbench.id: again, second.awpbench.id: second}
    merge_files(a, b)
    assert b'"schema_version": 2' in a.read_bytes()
    assert check(a).findings == ()


# Rows with one id


def put(*rows: Row | Reported, keep: bool = True) -> Row | Reported:
    """Put rows one after the other in each other's place."""
    found: Row | Reported | None = None
    for row in rows:
        found, _ = history.following(found, row, keep)
    assert found is not None
    return found


def both(one: Row | Reported, other: Row | Reported, prefer: Side | None = None) -> Row | Reported:
    """Merge two rows with one id; without a preference their order does not matter."""
    name = one.awpbench.id
    merged = merge({name: one}, {name: other}, prefer=prefer).rows
    if prefer is None:
        assert merge({name: other}, {name: one}).rows == merged
    return merged[name]


def test_a_row_that_one_of_two_has_superseded_is_superseded() -> None:
    old = put(SEEDS[0])
    new = put(old, SEEDS[1])
    assert both(old, put(old, SEEDS[1], SEEDS[2])).awpbench.seed == 2
    assert both(old, history.following(old, SEEDS[1], True)[0]).awpbench.history == new.awpbench.history


def test_a_row_that_one_of_two_has_retracted_is_retracted() -> None:
    old = put(SEEDS[0])
    assert both(old, history.with_mark(old, "a bug", restored=False)).awpbench.retracted is not None


def test_of_the_same_row_added_twice_one_stays(day: Callable[[str], None]) -> None:
    one = put(SEEDS[0])
    day("2026-01-02")
    other = put(SEEDS[0])
    assert both(one, other) in (one, other)


def test_of_the_same_content_the_longer_history_stays(day: Callable[[str], None]) -> None:
    one = put(SEEDS[0])
    day("2026-01-02")
    other = put(SEEDS[1], SEEDS[2], SEEDS[0])
    assert both(one, other) == other


def test_a_retraction_of_the_same_row_added_twice_holds(day: Callable[[str], None]) -> None:
    one = put(SEEDS[0])
    day("2026-01-02")
    other = history.with_mark(put(SEEDS[0]), "a bug", restored=False)
    assert both(one, other) == other


def test_a_retraction_that_the_longer_history_does_not_know_is_a_conflict(day: Callable[[str], None]) -> None:
    one = put(SEEDS[1], SEEDS[2], SEEDS[0])
    day("2026-01-02")
    other = history.with_mark(put(SEEDS[0]), "a bug", restored=False)
    with pytest.raises(RefusedError) as caught:
        both(one, other)
    says = "a says 18.33 (awpbench 0.1.0, 2026-01-01), b says 18.33 (awpbench 0.1.0, 2026-01-02, retracted)"
    what = f"the two files contradict each other in a row: {A}: {says}, which differ in retracted"
    assert failure(caught) == (what, "Nothing was written. Say whose rows stand: --prefer a or --prefer b")


def test_rows_that_contradict_each_other_are_named_and_nothing_is_written(
    files: tuple[Path, Path], day: Callable[[str], None]
) -> None:
    a, b = files
    attacks = crafted.result()["attacks"] | {"autoattack": crafted.attack("autoattack", 60, 300, complete=True)}
    store.upsert(a, [SEEDS[0], crafted.reported(), *PLAIN[:1]])
    day("2026-01-02")
    store.upsert(b, [crafted.row("a", attacks=attacks), crafted.reported(venue="ICLR")])
    before = a.read_bytes(), b.read_bytes()
    with pytest.raises(RefusedError) as caught:
        merge_files(a, b)
    source = "model_info/cifar10/Linf/Paper2020.json"
    what = (
        f"the two files contradict each other in 2 rows: "
        f"Paper2020: {a} says 56.17 ({source}, 2026-01-01), {b} says 56.17 ({source}, 2026-01-02), "
        f"which differ in venue; "
        f"{A}: {a} says 18.33 (awpbench 0.1.0, 2026-01-01), {b} says 20.00 (awpbench 0.1.0, 2026-01-02), "
        f"which differ in reported, autoattack_acc, attacks, outcomes, hashes"
    )
    assert failure(caught) == (what, "Nothing was written. Say whose rows stand: --prefer a or --prefer b")
    assert (a.read_bytes(), b.read_bytes()) == before


@pytest.mark.parametrize(("prefer", "seed"), [("a", 0), ("b", 1)])
def test_a_preferred_row_stands_and_its_history_tells_of_the_other(prefer: Side, seed: int) -> None:
    one, other = put(SEEDS[0]), put(SEEDS[1])
    winner, loser = (one, other) if prefer == "a" else (other, one)
    row = both(one, other, prefer)
    assert row.same_content(winner)
    first, second = row.awpbench.history
    assert first == loser.awpbench.history[0]
    assert (second.action, second.digest, second.reported) == ("superseded", loser.awpbench.digest, "18.33")
    assert second.reason == "the other row was preferred in a merge"
    assert row.awpbench.seed == seed
    assert both(row, one) == both(row, other) == row  # what was settled stays so


def test_a_migrated_row_with_a_bibliography_that_the_other_lacks_is_a_conflict() -> None:
    first = store.read(FROZEN).rows[0]
    assert isinstance(first, Row)
    known = first.model_copy(update={"venue": "NeurIPS 2020"}).sealed()
    again = put(crafted.measured_again(first))
    assert both(first, again) == again
    with pytest.raises(RefusedError, match="contradict each other in a row"):
        both(known, again)


# Properties


@st.composite
def boards(draw: st.DrawFn) -> dict[str, Row | Reported]:
    """The rows of somebody who began with one of a few leaderboards, and then added, retracted and restored."""
    rows = {A: put(SEEDS[0])} if draw(st.booleans()) else {}
    for step in draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=5)):
        new = [*SEEDS, *PLAIN][step[0]]
        old = rows.get(new.awpbench.id)
        try:
            if old is not None and step[1] > 1:
                now = history.with_mark(old, "why", restored=step[1] == 3)
            else:
                now = put(*filter(None, [old, new]))
        except RefusedError:
            continue
        rows[new.awpbench.id] = now
    return rows


def outcome(a: Rows, b: Rows) -> Any:
    try:
        return merge(a, b).rows
    except RefusedError:
        return "refused"


@given(boards(), boards())
def test_merging_is_commutative_and_idempotent(a: Rows, b: Rows) -> None:
    merged = outcome(a, b)
    assert merged == outcome(b, a)
    assert outcome(a, a) == a
    if merged != "refused":
        assert merged.keys() == a.keys() | b.keys()
        assert outcome(merged, a) == outcome(merged, b) == outcome(a, merged) == merged
        assert all(row in (a.get(name), b.get(name)) for name, row in merged.items())


@given(boards(), boards(), st.sampled_from(["a", "b"]))
def test_with_a_preference_nothing_is_refused_and_what_is_settled_stays_so(a: Rows, b: Rows, prefer: Side) -> None:
    merged = merge(a, b, prefer=prefer).rows
    assert merged.keys() == a.keys() | b.keys()
    assert merge(merged, a).rows == merge(merged, b).rows == merged


def test_taking_back_another_retraction_does_not_take_back_this_one() -> None:
    row = put(crafted.row("a"))
    retracted = history.with_mark(row, "trained on the test set", restored=False)
    mistaken = history.with_mark(history.with_mark(row, "typo", restored=False), None, restored=True)
    other = history.with_mark(row, "another reason", restored=False)
    for pair in ((retracted, mistaken), (retracted, other)):
        for one, two in (pair, pair[::-1]):
            with pytest.raises(RefusedError, match="contradict each other in a row"):
                both(one, two)
    known = history.with_mark(retracted, None, restored=True)
    assert both(retracted, known) == both(known, retracted) == known
