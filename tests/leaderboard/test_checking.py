from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awpbench.errors import InputError
from awpbench.leaderboard import store
from awpbench.leaderboard.checking import Finding, Report, check, printable
from awpbench.leaderboard.derived import hash_of
from awpbench.leaderboard.row import row_of
from tests.leaderboard import crafted

FROZEN = Path(__file__).parent / "leaderboard-v1.json"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A leaderboard of three rows: two measured, of which one says where its result lies, and one reported."""
    file = tmp_path / "leaderboard.json"
    measured = store.load_row(crafted.write_run(tmp_path / "runs"), root=tmp_path)
    store.upsert(file, [measured, crafted.row("a"), crafted.reported("Paper2020", note=["x", {"y": 1.5}])])
    store.retract(file, "Paper2020", "a test")
    return file


def rows_of(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_bytes())["rows"])


def put(path: Path, rows: list[Any]) -> None:
    """Write rows in the form of the file, whatever they hold."""
    path.write_bytes(store.laid_out(2, rows))


def sealed(row: dict[str, Any]) -> dict[str, Any]:
    """Give a row the digest that its other values ask for, as somebody might who knows how."""
    bare = {**row, "awpbench": {**row["awpbench"], "digest": None}}
    return {**row, "awpbench": {**row["awpbench"], "digest": hash_of(bare)}}


PAPER, A, OURS = range(3)  # capitals first


def ids(path: Path) -> list[str]:
    return [row["awpbench"]["id"] for row in rows_of(path)]


def test_a_leaderboard_that_awpbench_wrote_has_no_finding(path: Path) -> None:
    assert check(path) == Report(rows=3, rebuilt=1, findings=())


def test_a_leaderboard_is_checked_wherever_one_stands_and_through_a_link(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "board.json").symlink_to(path)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert check(Path("board.json")) == Report(rows=3, rebuilt=1, findings=())


def test_an_older_leaderboard_is_checked_as_it_is() -> None:
    assert check(FROZEN) == Report(rows=2, rebuilt=0, findings=())


def test_each_kind_of_edit_is_named(path: Path) -> None:
    rows, (paper, a, ours) = rows_of(path), ids(path)
    rows[PAPER]["reported"] = "99.99"
    rows[A]["clean_acc"] = "91.33"
    rows[OURS]["awpbench"]["attacks"]["spsa"]["correct"] = 18
    put(path, rows)
    attack = "awpbench.attacks.spsa: accuracy is 0.283333, but 18 of 60 is 0.3000"
    assert list(map(str, check(path).findings)) == [
        f"{paper}: it is not as awpbench wrote it",
        f"{a}: clean_acc is '91.33', but the awpbench object makes it '81.33'",
        f"{ours}: {attack}",
    ]


def test_a_row_without_a_digest_is_found(path: Path) -> None:
    rows = rows_of(path)
    rows[A]["awpbench"]["digest"] = None
    put(path, rows)
    assert check(path).findings == (Finding(ids(path)[A], "it has no digest"),)


def test_rows_that_are_none_are_named_by_their_place_and_hide_no_other(path: Path) -> None:
    rows = rows_of(path)
    put(path, [7, None, {"awpbench": {"id": ["x"]}}, *rows])
    report = check(path)
    assert [finding.row for finding in report.findings if finding.row] == ["row 1", "row 2", "row 3"]
    assert (report.rows, report.rebuilt) == (6, 1)


def test_a_duplicate_is_found(path: Path) -> None:
    rows = rows_of(path)
    put(path, [*rows[:2], rows[A], *rows[2:]])
    assert check(path).findings == (Finding(ids(path)[A], "2 rows have this id"),)


def test_another_order_of_rows_is_found(path: Path) -> None:
    put(path, rows_of(path)[::-1])
    assert check(path).findings == (Finding(None, "the rows are not in the order of their ids"),)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda text: text + "\n", -1),
        (lambda text: text[:-1], -1),
        (lambda text: text.replace(' "link"', '  "link"', 1), 5),
        (lambda text: text.replace(' "link"', ' "link": "twice",\n "link"', 1), 5),
        (lambda text: text.replace("\n", "\r\n"), 1),
        (lambda text: json.dumps(json.loads(text)), 1),
    ],
    ids=["a line more", "no last line", "a blank", "a key twice", "line ends", "one line"],
)
def test_another_form_of_the_file_is_found(path: Path, edit: Callable[[str], str], line: int) -> None:
    changed = edit(path.read_text())
    path.write_bytes(changed.encode())
    last = len(changed.splitlines())
    assert check(path).findings == (Finding(None, f"line {last if line < 0 else line} is not as awpbench writes it"),)


def test_keys_in_another_order_are_found(path: Path) -> None:
    rows = rows_of(path)
    own = rows[A]["awpbench"]
    rows[A]["awpbench"] = {key: own[key] for key in reversed(own)}
    put(path, rows)
    what = "its keys are not those that awpbench writes, or are in another order"
    assert check(path).findings == (Finding(ids(path)[A], what),)


# Evidence


def result_of(path: Path) -> Path:
    return path.parent / rows_of(path)[OURS]["awpbench"]["result"]


def test_a_missing_folder_is_found(path: Path) -> None:
    shutil.rmtree(result_of(path))
    where = "runs/cifar10-prn18-w16-at-awp-s0/eval/best-full-v1.0"
    report = check(path)
    assert report.findings == (Finding(ids(path)[OURS], f"the folder of its result is missing: {where}"),)
    assert report.rebuilt == 0


@pytest.mark.parametrize("name", ["result.json", "per_image.npz"])
def test_a_missing_file_is_found(path: Path, name: str) -> None:
    missing = result_of(path) / name
    missing.unlink()
    what = f"{missing} cannot be read: No such file or directory"
    assert check(path).findings == (Finding(ids(path)[OURS], what),)


def test_a_file_that_is_not_as_it_was_written_is_found(path: Path) -> None:
    document = result_of(path) / "result.json"
    document.write_text(document.read_text().replace('"seed": 0', '"seed": 1', 1))
    assert [finding.what for finding in check(path).findings] == ["result.json is not as it was written"]
    arrays = result_of(path) / "per_image.npz"
    data = bytearray(arrays.read_bytes())
    data[len(data) // 2] ^= 1
    arrays.write_bytes(data)
    assert [finding.what for finding in check(path).findings] == [
        f"{arrays} does not belong to the result.json beside it"
    ]


def test_another_result_in_the_folder_is_found(path: Path) -> None:
    other = crafted.result(training=crafted.config(), seed=1)
    crafted.write_result(result_of(path), other)
    where = "runs/cifar10-prn18-w16-at-awp-s0/eval/best-full-v1.0"
    what = f"built again from {where}, it differs in seed, hashes"
    assert check(path).findings == (Finding(ids(path)[OURS], what),)


def test_an_edit_with_a_digest_to_match_is_found_by_the_result(path: Path) -> None:
    rows = rows_of(path)
    rows[OURS]["awpbench"]["seed"] = 1
    rows[OURS] = sealed(rows[OURS])
    put(path, rows)
    store.read(path)
    (finding,) = check(path).findings
    assert finding.what.endswith("it differs in seed")


def test_the_bibliography_is_no_part_of_what_is_built_again(path: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text('venue = "NeurIPS 2020"\n')
    assert store.write_row(result_of(path), file=str(path), card=str(card)).outcome == "superseded"
    assert check(path) == Report(rows=3, rebuilt=1, findings=())


@pytest.mark.parametrize("what", ["folder", "result.json", "per_image.npz"])
def test_a_link_that_leads_out_is_not_followed(path: Path, tmp_path_factory: pytest.TempPathFactory, what: str) -> None:
    outside = tmp_path_factory.mktemp("outside")
    inside = result_of(path) if what == "folder" else result_of(path) / what
    inside.rename(outside / "moved")
    inside.symlink_to(outside / "moved")
    where = "runs/cifar10-prn18-w16-at-awp-s0/eval/best-full-v1.0"
    finding = Finding(ids(path)[OURS], f"{where} leads out of the folder of the leaderboard")
    assert check(path).findings == (finding,)


@pytest.mark.parametrize("where", ["..", "../x", "/etc", "runs/../../x", "./runs", "runs/", "runs//x", ".git", "a\n"])
def test_a_path_that_leads_out_is_no_path_of_a_row(path: Path, where: str) -> None:
    rows = rows_of(path)
    rows[OURS]["awpbench"]["result"] = where
    rows[OURS] = sealed(rows[OURS])
    put(path, rows)
    (finding,) = check(path).findings
    assert finding.row == ids(path)[OURS]
    assert finding.what.startswith("awpbench.result: String should match pattern")


# What cannot be checked


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "{} is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"schema_version": 3, "rows": []}', "{} has schema version 3; this awpbench reads 2"),
        (b'{"schema_version": 2, "rows": 7}', "{} does not fit: rows: Input should be a valid array"),
        (b'{"schema_version": 2}', "{} does not fit: rows: Input should be a valid array"),
        (b'{"schema_version": 2, "rows": [], "x": 1}', "{} does not fit: x: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_holds_no_rows_is_an_error_and_is_left_untouched(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "leaderboard.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        check(path)
    assert caught.value.what == what.format(path)
    assert path.read_bytes() == content


@given(st.text())
def test_a_finding_is_one_line_that_a_terminal_does_not_obey(text: str) -> None:
    assert printable(text).isprintable()
    assert str(Finding(text, text)).isprintable()


# Any edit


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every value within a row, and the row's parts, by the keys that lead there."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


OTHER = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10001),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["18.33", "8/255", "reported", "measured", "0" * 64, "2026-01-01", [], {}, float("nan")]),
)


def edited(row: dict[str, Any], at: tuple[Any, ...], data: st.DataObject) -> dict[str, Any]:
    """Change, remove or add one value."""
    row = copy.deepcopy(row)
    inner: Any = row
    for key in at[:-1]:
        inner = inner[key]
    old, how = inner[at[-1]], data.draw(st.sampled_from(["change", "remove", "add"]))
    if how == "remove":
        del inner[at[-1]]
    elif how == "add" and isinstance(old, dict):
        old[data.draw(st.text(max_size=4).filter(lambda key: key not in old))] = data.draw(OTHER)
    elif how == "add" and isinstance(old, list):
        old.append(data.draw(OTHER))
    elif isinstance(old, str) and old and data.draw(st.booleans()):
        inner[at[-1]] = old[:-1] + chr(ord(old[-1]) ^ 1)
    elif type(old) in (int, float):
        inner[at[-1]] = old + data.draw(st.sampled_from([1, -1, 1e-6, 0.5]))
    else:
        inner[at[-1]] = data.draw(OTHER.filter(lambda new: type(new) is not type(old) or new != old))
    return row


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(which=st.sampled_from([PAPER, A, OURS]), data=st.data())
def test_any_edit_of_a_row_is_found_and_named(path: Path, which: int, data: st.DataObject) -> None:
    whole = path.read_bytes()
    try:
        rows = rows_of(path)
        edit = edited(rows[which], data.draw(st.sampled_from(list(places(rows[which])))), data)
        rows[which] = edit
        put(path, rows)
        names = {finding.row for finding in check(path).findings}
        own = edit.get("awpbench")
        name = own.get("id") if isinstance(own, dict) else None
        assert (name if isinstance(name, str) and name else f"row {which + 1}") in names
    finally:
        path.write_bytes(whole)


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value + 1e-9 if isinstance(value, float) else ["x"]


def test_every_value_of_every_row_is_held(path: Path) -> None:
    """Not only those that a property test happens to draw."""
    count = 0
    for row in rows_of(path):
        for at in places(row):
            edit = copy.deepcopy(row)
            inner: Any = edit
            for key in at[:-1]:
                inner = inner[key]
            inner[at[-1]] = another(inner[at[-1]])
            with pytest.raises(InputError):
                row_of(edit, "it", "")
            count += 1
    assert count > 300
