from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from awpbench.errors import InputError
from awpbench.leaderboard import store
from awpbench.leaderboard.checking import check
from awpbench.leaderboard.derived import hash_of
from awpbench.leaderboard.details import Event
from awpbench.leaderboard.migrations import STEPS, migrated
from awpbench.leaderboard.row import SCHEMA_VERSION, Row, json_schema
from tests.leaderboard import crafted

FROZEN = Path(__file__).parent / "leaderboard-v1.json"  # as awpbench 0.1.0 wrote it


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the leaderboard of schema version 1."""
    copy = tmp_path / "leaderboard.json"
    copy.write_bytes(FROZEN.read_bytes())
    return copy


def test_every_older_version_has_a_step() -> None:
    assert list(STEPS) == list(range(1, SCHEMA_VERSION))


def test_the_numbers_of_a_version_1_file_are_unchanged() -> None:
    old = json.loads(FROZEN.read_bytes())["rows"]
    new = [row.document() for row in store.read(FROZEN).rows]
    added = {"kind", "worst_case", "outcomes", "tracked", "result", "history", "retracted", "digest"}
    for before, after in zip(old, new, strict=True):
        assert {key: after["awpbench"][key] for key in before["awpbench"]} == before["awpbench"]
        assert after["awpbench"].keys() - before["awpbench"].keys() == added
        assert {**after, "awpbench": None} == {**before, "awpbench": None}
    assert [row["reported"] for row in new] == ["25.67", "22.33"]


def test_what_a_version_1_file_did_not_say_is_null_and_its_history_says_so() -> None:
    for row in store.read(FROZEN).measured:
        own = row.awpbench
        assert (own.worst_case, own.outcomes, own.tracked, own.result, own.retracted) == (None,) * 5
        event = Event(date=None, action="migrated", reported=row.reported, reason="from schema version 1")
        assert own.history == (event,)
        bare = row.document()
        bare["awpbench"]["digest"] = None
        assert own.digest == hash_of(bare)


def test_a_version_1_file_that_nothing_changes_keeps_its_bytes_and_the_next_change_writes_version_2(path: Path) -> None:
    (first, second), before = store.read(path).rows, path.read_bytes()
    assert store.upsert(path, [first, second]) == ["unchanged", "unchanged"]
    assert path.read_bytes() == before
    store.upsert(path, [crafted.row("zzz")])
    document = json.loads(path.read_bytes())
    assert document["schema_version"] == 2
    assert store.read(path).rows[:2] == (first, second)
    assert path.read_bytes() == store.canonical(store.read(path))


def test_a_row_of_version_1_is_superseded_by_its_measurement(path: Path) -> None:
    first = store.read(path).rows[0]
    assert isinstance(first, Row)
    assert store.upsert(path, [crafted.measured_again(first)]) == ["superseded"]
    events = store.read(path).rows[0].awpbench.history
    assert [(event.action, event.reported) for event in events] == [("migrated", "25.67"), ("superseded", "25.67")]
    assert events[1].digest == first.awpbench.digest


def test_the_present_version_and_unknown_ones_are_left_alone() -> None:
    for version in (2, 3, 0, -1, True, 1.0, "1", None):
        document = {"schema_version": version, "rows": [{"awpbench": {}}]}
        assert migrated(document, SCHEMA_VERSION) == document


@pytest.mark.parametrize("version", ["0", "-1", "true", "false", '"1"', '"2"', "1.0", "2.0", "null", "[]"])
def test_what_is_no_version_is_refused_and_left_untouched(path: Path, version: str) -> None:
    path.write_text(path.read_text().replace('"schema_version": 1', f'"schema_version": {version}'))
    before = path.read_bytes()
    for attempt in (store.read, check, lambda path: store.upsert(path, [crafted.row()])):
        with pytest.raises(InputError) as caught:
            attempt(path)
        assert caught.value.what == f"{path} does not fit: schema_version: Input should be 2"
    assert path.read_bytes() == before


def test_a_row_of_version_2_does_not_pass_for_one_of_version_1(path: Path) -> None:
    """Else the migration would give an edited row a new digest."""
    store.upsert(path, [crafted.row()])
    text = path.read_text().replace('"schema_version": 2', '"schema_version": 1')
    path.write_text(text.replace('"tool_version": "0.1.0"', '"tool_version": "0.1.1"'))
    with pytest.raises(InputError) as caught:
        store.read(path)
    what = f"{path} does not fit: rows.0.measured.awpbench.kind: Input should be 'measured'"
    assert caught.value.what == what
    assert [finding.row for finding in check(path).findings] == [row["awpbench"]["id"] for row in rows(path)]


def rows(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_bytes())["rows"])


@pytest.mark.parametrize("number", ["NaN", "1e999"])
def test_a_version_1_file_with_nan_is_refused(path: Path, number: str) -> None:
    path.write_text(path.read_text().replace('"accuracy": 0.3489', f'"accuracy": {number}'))
    with pytest.raises(InputError) as caught:
        store.read(path)
    assert caught.value.what == f"{path} holds a value that JSON cannot: NaN, infinity or a date"


# The published schema


def document(*found: Any) -> dict[str, Any]:
    return {"schema_version": 2, "rows": [row.document() for row in found]}


def test_the_schema_takes_measured_and_reported_rows_and_migrated_ones() -> None:
    marked = crafted.reported("Retracted").sealed()
    jsonschema.validate(document(crafted.row(), crafted.reported(), marked, *store.read(FROZEN).rows), json_schema())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), 3),
        (("rows", 0, "clean_acc"), 81.33),
        (("rows", 0, "awpbench", "kind"), "guessed"),
        (("rows", 0, "awpbench", "id"), "../up"),
        (("rows", 0, "awpbench", "result"), "../up"),
        (("rows", 0, "awpbench", "result"), "/etc"),
        (("rows", 0, "awpbench", "result"), "a/./b"),
        (("rows", 0, "awpbench", "digest"), "0"),
        (("rows", 0, "awpbench", "history"), [{"date": "today", "action": "added"}]),
        (("rows", 0, "awpbench", "retracted"), {"date": "2026-01-01", "reason": ""}),
        (("rows", 0, "awpbench", "more"), 1),
        (("rows", 0, "more"), 1),
        (("rows", 1, "awpbench", "source"), None),
        (("rows", 1, "awpbench", "threat"), "L1"),
        (("rows", 1, "awpbench", "id"), "a b"),
        (("rows", 1, "awpbench", "more"), 1),
    ],
)
def test_the_schema_rejects_broken_rows(place: tuple[Any, ...], value: Any) -> None:
    broken = document(crafted.row(), crafted.reported())
    inner: Any = broken
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json_schema())
