from __future__ import annotations

import itertools
import json
import multiprocessing
import random
import stat
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awpbench import rundir
from awpbench.errors import CheckError, InputError, RefusedError
from awpbench.leaderboard import store
from awpbench.leaderboard.checking import check
from awpbench.leaderboard.details import checked
from awpbench.leaderboard.row import Board, board_of
from tests.leaderboard import crafted

ROWS = tuple(crafted.row(name) for name in "abcdef")
RESTORE = "Restore it from version control, or move it away and add the results again: awpbench leaderboard add"
UNDO = "Undo the last edit of the file; rows are never written by hand."


def failure(caught: pytest.ExceptionInfo[Any]) -> tuple[str, str]:
    return caught.value.what, caught.value.mend


# Where it lies


def test_the_nearest_leaderboard_at_or_above_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWPBENCH_LEADERBOARD", raising=False)
    below = tmp_path / "one" / "two"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert store.find(None) == below / "leaderboard.json"
    (tmp_path / "leaderboard.json").touch()
    assert store.find(None) == tmp_path / "leaderboard.json"
    (below.parent / "leaderboard.json").touch()
    assert store.find(None) == below.parent / "leaderboard.json"


def test_a_given_path_wins_over_the_environment_and_that_over_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaderboard.json").touch()
    monkeypatch.setenv("AWPBENCH_LEADERBOARD", "env.json")
    assert store.find("given.json") == Path("given.json")
    assert store.find(None) == Path("env.json")
    monkeypatch.setenv("AWPBENCH_LEADERBOARD", "")
    assert store.find(None) == tmp_path / "leaderboard.json"


# Reading


@pytest.mark.parametrize(
    ("content", "what", "mend"),
    [
        (b"", "{} is not JSON: Expecting value: line 1 column 1 (char 0)", RESTORE),
        (b"[]", "{} holds no JSON object", RESTORE),
        (b"[" * 100_000, "{} is not JSON: ", RESTORE),
        (b'{"schema_version": 3, "rows": 7}', "{} has schema version 3; this awpbench reads 2", None),
        (b'{"schema_version": "2", "rows": []}', "{} does not fit: schema_version: Input should be 2", UNDO),
        (b'{"rows": []}', "{} does not fit: schema_version: Field required", UNDO),
        (b'{"schema_version": 1, "rows": [], "x": 0}', "{} does not fit: x: Extra inputs are not permitted", UNDO),
        (
            b'{"schema_version": 1, "rows": [NaN]}',
            "{} holds a value that JSON cannot: NaN, infinity or a date",
            UNDO,
        ),
        (
            b'{"schema_version": 1, "rows": [1e999]}',
            "{} holds a value that JSON cannot: NaN, infinity or a date",
            UNDO,
        ),
    ],
)
def test_a_broken_or_newer_leaderboard_is_refused_and_left_untouched(
    tmp_path: Path, content: bytes, what: str, mend: str | None
) -> None:
    path = tmp_path / "leaderboard.json"
    path.write_bytes(content)
    for attempt in (lambda: store.read(path), lambda: store.upsert(path, [ROWS[0]])):
        with pytest.raises(InputError) as caught:
            attempt()
        said, advised = failure(caught)
        assert said.startswith(what.format(path))
        assert advised == (mend or "Update awpbench; the file was not changed.")
        assert path.read_bytes() == content


def test_a_leaderboard_that_is_not_there_is_an_error_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        store.read(tmp_path / "x.json")
    assert failure(caught) == (f"there is no file {tmp_path / 'x.json'}", RESTORE)


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (
            '"clean_acc": "81.33"',
            '"clean_acc": "91.33"',
            "Value error, clean_acc is '91.33', but the awpbench object makes it '81.33'",
        ),
        ('"seed": 0', '"seed": 1', f"Value error, the row {ROWS[0].awpbench.id} is not as awpbench wrote it"),
    ],
    ids=["a number", "anything else"],
)
def test_an_edit_is_found_and_named(tmp_path: Path, before: str, after: str, what: str) -> None:
    path = tmp_path / "leaderboard.json"
    store.upsert(path, [ROWS[0]])
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(InputError) as caught:
        store.read(path)
    assert failure(caught) == (f"{path} does not fit: rows.0.measured: {what}", UNDO)


@pytest.mark.parametrize("row", [b"7", b"null", b"[]", b"{}", b'{"awpbench": 7}', b'{"awpbench": {"kind": 7}}'])
def test_what_is_no_row_is_refused(tmp_path: Path, row: bytes) -> None:
    path = tmp_path / "leaderboard.json"
    path.write_bytes(b'{"schema_version": 2, "rows": [' + row + b"]}")
    with pytest.raises(InputError) as caught:
        store.read(path)
    assert failure(caught)[0].startswith(f"{path} does not fit: rows.0")


# Writing


def content(board: Board) -> list[dict[str, Any]]:
    return [row.content() for row in board.rows]


def test_a_row_is_added_and_then_superseded(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "leaderboard.json"
    assert store.upsert(path, [ROWS[0]]) == ["added"]
    assert store.upsert(path, [ROWS[1]]) == ["added"]
    once_more = crafted.row("a", seed=7)
    assert store.upsert(path, [once_more]) == ["superseded"]
    assert content(store.read(path)) == [once_more.content(), ROWS[1].content()]


def test_many_rows_of_both_kinds_go_in_with_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, writes = tmp_path / "leaderboard.json", []
    replace = rundir.atomic_write
    monkeypatch.setattr(rundir, "atomic_write", lambda path, data: (writes.append(path), replace(path, data)))
    assert store.upsert(path, [*ROWS, crafted.reported()]) == ["added"] * 7
    changed = crafted.reported(reported="55.00")
    assert store.upsert(path, [ROWS[0], changed]) == ["unchanged", "superseded"]
    assert writes == [path, path]
    board = store.read(path)
    assert content(board) == [row.content() for row in [changed, *ROWS]]  # capitals first
    assert (len(board.measured), len(board.reported)) == (6, 1)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.json"
    store.upsert(path, ROWS)
    assert content(store.read(path)) == [row.content() for row in ROWS]
    assert store.canonical(store.read(path)) == path.read_bytes()


@given(st.permutations(ROWS))
def test_the_same_rows_give_the_same_bytes_in_any_order(rows: list[Any]) -> None:
    board = board_of(tuple(rows))
    document = json.loads(store.canonical(board))
    assert store.canonical(board) == store.canonical(board_of(ROWS))
    assert store.canonical(checked(Board, document, "it", "")) == store.canonical(board)


def backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def test_the_bytes_do_not_depend_on_the_order_of_keys_in_a_result() -> None:
    there = crafted.built({**crafted.result(), "training": crafted.config()})
    back = crafted.built({**backwards(crafted.result()), "training": backwards(crafted.config())})
    assert store.canonical(board_of((back,))) == store.canonical(board_of((there,)))


def equal_start(one: list[str], other: list[str]) -> int:
    return next((i for i, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), len(one))


MIXED = (*ROWS[:3], *(crafted.reported(name) for name in ("Another2021", "b_paper", "zzz")))


@given(st.sets(st.integers(0, 5)), st.integers(0, 5))
def test_adding_a_row_inserts_lines_in_one_place_and_changes_no_other(present: set[int], added: int) -> None:
    before = store.canonical(board_of(tuple(MIXED[i] for i in present - {added}))).decode().splitlines()
    after = store.canonical(board_of(tuple(MIXED[i] for i in present | {added}))).decode().splitlines()
    assert len(after) > len(before)
    assert equal_start(before, after) + equal_start(before[::-1], after[::-1]) >= len(before)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(MIXED), min_size=1, max_size=6))
def test_writing_rows_again_touches_nothing(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "leaderboard.json"
    store.upsert(path, rows)
    before, touched = path.read_bytes(), path.stat().st_mtime_ns
    assert store.upsert(path, rows) == ["unchanged"] * len(rows)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, touched)


def test_the_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "real.json", tmp_path / "leaderboard.json"
    store.upsert(target, [ROWS[0]])
    target.chmod(0o640)
    link.symlink_to(target)
    store.upsert(link, [ROWS[1]])
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert len(store.read(target).rows) == 2


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "[leaderboard].json"
    stale, other = tmp_path / ".[leaderboard].json.abc.tmp", tmp_path / ".other.json.abc.tmp"
    stale.touch()
    other.touch()
    store.upsert(path, [ROWS[0]])
    assert not stale.exists()
    assert other.exists()


def test_a_full_disk_leaves_the_leaderboard_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "leaderboard.json"
    store.upsert(path, [ROWS[0]])
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir.os, "fsync", full)
    with pytest.raises(InputError) as caught:
        store.upsert(path, [ROWS[1]])
    assert failure(caught) == (
        f"{path} cannot be written: No space left on device",
        "Make room or permission there, or name another file with --file.",
    )
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.tmp")) == []


def a_file_for_a_folder(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    return tmp_path / "file" / "leaderboard.json"


def a_folder_for_a_lock(tmp_path: Path) -> Path:
    (tmp_path / ".leaderboard.json.lock").mkdir()
    return tmp_path / "leaderboard.json"


def a_folder_without_files(tmp_path: Path) -> Path:
    """A lock that cannot be made in /proc looks to filelock like one that another process is just removing."""
    return Path("/proc/leaderboard.json")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (a_file_for_a_folder, "Not a directory"),
        (a_folder_for_a_lock, "Is a directory"),
        pytest.param(
            a_folder_without_files,
            "No such file or directory",
            marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here"),
        ),
    ],
)
def test_a_place_that_cannot_be_written_is_noticed_at_once_and_beforehand(
    tmp_path: Path, place: Callable[[Path], Path], why: str
) -> None:
    path, started = place(tmp_path), time.monotonic()
    for attempt in (lambda: store.check_targets(file=str(path), card=None), lambda: store.upsert(path, [ROWS[0]])):
        with pytest.raises(InputError) as caught:
            attempt()
        assert failure(caught) == (
            f"{path} cannot be written: {why}",
            "Make room or permission there, or name another file with --file.",
        )
    assert time.monotonic() - started < 5


def test_looking_whether_a_place_can_be_written_leaves_nothing_there(tmp_path: Path) -> None:
    store.check_targets(file=str(tmp_path / "new" / "leaderboard.json"), card=None)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_stays_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
    path = tmp_path / "leaderboard.json"
    with FileLock(tmp_path / ".leaderboard.json.lock"), pytest.raises(RefusedError) as caught:
        store.upsert(path, [ROWS[0]])
    assert failure(caught) == (
        f"another process has held the lock of {path} for 0.1 s",
        "Wait until it ends, then repeat the command.",
    )
    assert not path.exists()


# Writers that are killed

STORY = ("superseded", "retracted", "restored", "superseded", "retracted", "superseded")  # what a writer does, for ever
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.leaderboard.test_store"])  # a process of its own starts in no time


def watched(_: int = 0) -> bool:
    """Tell whether the test that began this process is still there."""
    test = multiprocessing.parent_process()
    return test is not None and test.is_alive()


def write_for_ever(path: Path, log: Path) -> None:
    """Change a row again and again, and acknowledge each change."""
    attacks = {"clean": crafted.attack("clean", 6, 8), "pgd-20": crafted.attack("pgd-20", 3, 8)}  # a small row: fast
    name = crafted.row(log.stem, attacks=attacks).awpbench.id
    with log.open("a", buffering=1) as done:
        for count in itertools.takewhile(watched, itertools.count()):
            action = STORY[count % len(STORY)]
            if action == "retracted":
                store.retract(path, name, "a test")
            elif action == "restored":
                store.restore(path, name)
            else:
                store.upsert(path, [crafted.row(log.stem, seed=count, attacks=attacks)])
            done.write(f"{name}\n")


def read_for_ever(path: Path, log: Path) -> None:
    """Read again and again; rows never grow fewer."""
    most = 0
    with log.open("a", buffering=1) as done:
        while watched():
            rows = len(store.read(path).rows)
            assert rows >= most
            most = rows
            done.write(f"{rows}\n")
            time.sleep(0.05)


class Process:
    """A process that works for ever and says in a file of its own what it has done."""

    def __init__(self, work: Callable[[Path, Path], None], folder: Path, name: str) -> None:
        self.log = folder / f"{name}.log"
        self.log.touch()
        self.process = FORKS.Process(target=work, args=(folder / "leaderboard.json", self.log), daemon=True)
        self.process.start()

    def kill(self) -> list[str]:
        """Kill the process, which must have done something by then and still run; return the lines that it wrote."""
        while not self.log.read_text():
            assert self.process.is_alive()
            time.sleep(0.01)
        assert self.process.is_alive()
        self.process.kill()
        self.process.join()
        return [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def events(row: Any) -> list[str]:
    return [event.action for event in row.awpbench.history]


def told(count: int) -> list[str]:
    """The history of a row after so many changes by a writer."""
    return ["added", *(STORY[i % len(STORY)] for i in range(1, count))]


def kill_writers(folder: Path, kills: int, writers: int, readers: int) -> tuple[int, int]:
    """Kill writers at random while others read; return how many changes were acknowledged and how often was read.

    Fails where an acknowledged change is not in the history of its row, or the file is ever not as awpbench writes it.
    """
    path = folder / "leaderboard.json"
    dice = random.Random(0)
    store.upsert(path, [ROWS[0]])
    path.chmod(0o640)
    running = [Process(write_for_ever, folder, f"w{number}") for number in range(writers)]
    reading = [Process(read_for_ever, folder, f"r{number}") for number in range(readers)]
    acknowledged: list[str] = []
    try:
        for kill in range(kills):
            time.sleep(dice.uniform(0.02, 0.4))
            victim = dice.randrange(writers)
            acknowledged += running[victim].kill()
            store.read(path)  # readable after every kill
            running[victim] = Process(write_for_ever, folder, f"w{writers + kill}")
        for writer in running:
            acknowledged += writer.kill()
        read = [len(reader.kill()) for reader in reading]
    finally:
        for each in (*running, *reading):
            each.process.kill()
    store.upsert(path, [ROWS[1]])  # the survivor cleans up
    rows = {row.awpbench.id: row for row in store.read(path).rows}
    done = Counter(line.strip() for line in acknowledged)
    for name, count in done.items():
        found = events(rows[name])
        assert found == told(len(found))
        assert count <= len(found) <= count + 1  # a killed writer may have done what it could not acknowledge
    assert check(path).findings == ()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert {entry.name for entry in folder.iterdir() if entry.suffix != ".log"} == {
        "leaderboard.json",
        ".leaderboard.json.lock",
    }
    return len(acknowledged), sum(read)


def test_ten_kills_of_three_writers_lose_no_acknowledged_change(tmp_path: Path) -> None:
    changes, reads = kill_writers(tmp_path, kills=10, writers=3, readers=1)
    assert min(changes, reads) > 0


@pytest.mark.slow
def test_two_hundred_kills_of_four_writers_lose_no_acknowledged_change(tmp_path: Path) -> None:
    changes, reads = kill_writers(tmp_path, kills=200, writers=4, readers=2)
    print(f"{changes} acknowledged changes, {reads} reads")
    assert min(changes, reads) > 0


# From a result to a row


def test_the_result_says_how_the_net_was_trained(tmp_path: Path) -> None:
    evaluation = crafted.write_run(tmp_path)
    details = store.load_row(evaluation).awpbench
    assert (details.defense, details.selection) == ("at", "validation")
    assert store.load_row(evaluation / "result.json").awpbench == details


def test_a_run_folder_says_nothing_of_a_net_that_was_evaluated_in_it(tmp_path: Path) -> None:
    evaluation = crafted.write_run(tmp_path, training=None)
    (evaluation.parents[1] / "config.json").write_text(json.dumps(crafted.config()))
    assert store.load_row(evaluation).awpbench.defense is None


def test_a_folder_named_relative_to_itself_is_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(crafted.write_run(tmp_path))
    assert store.load_row(Path()).awpbench.defense == "at"


def test_writing_a_result_twice_changes_nothing(tmp_path: Path) -> None:
    evaluation, path = crafted.write_run(tmp_path), tmp_path / "board.json"
    first = store.write_row(evaluation, file=str(path), card=None)
    assert first == (path, "added", store.read(path).rows[0].awpbench.id)
    assert str(first) == f"added the row {first.row} in {path}"
    second = store.write_row(evaluation, file=str(path), card=None)
    assert second == (path, "unchanged", first.row)
    assert str(second) == f"the row {first.row} in {path} is unchanged"


def test_a_row_says_where_its_result_lies_where_that_is_below_the_leaderboard(tmp_path: Path) -> None:
    evaluation = crafted.write_run(tmp_path / "runs")
    below = evaluation.relative_to(tmp_path).as_posix()
    assert store.load_row(evaluation, root=tmp_path).awpbench.result == below
    assert store.load_row(evaluation, root=tmp_path / "elsewhere").awpbench.result is None
    assert store.load_row(evaluation).awpbench.result is None


@pytest.mark.parametrize("name", ["with space", ".hidden", "new\nline", "caf\u00e9"])
def test_a_folder_whose_name_a_row_cannot_hold_is_not_named(tmp_path: Path, name: str) -> None:
    assert store.load_row(crafted.write_run(tmp_path, name), root=tmp_path).awpbench.result is None


def test_a_link_to_a_result_elsewhere_is_seen_through(tmp_path: Path) -> None:
    evaluation = crafted.write_run(tmp_path / "elsewhere")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "run").symlink_to(evaluation)
    assert store.load_row(tmp_path / "here" / "run", root=tmp_path / "here").awpbench.result is None


def test_a_card_fills_the_bibliography(tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text('venue = "NeurIPS 2020"\nadditional_data = true\n')
    row = store.load_row(crafted.write_run(tmp_path), str(card))
    assert (row.venue, row.additional_data, row.name) == ("NeurIPS 2020", True, "")


@pytest.mark.parametrize(
    ("content", "what", "mend"),
    [
        ("venue", "{} is not a TOML file: ", 'Write lines such as: venue = "NeurIPS 2020"'),
        ("venue = 2020-01-01", "the card holds a value that JSON cannot: NaN, infinity or a date", None),
        (None, "there is no card {}", "Check the path given to --card."),
    ],
)
def test_a_card_that_cannot_be_used_is_refused(
    tmp_path: Path, content: str | None, what: str, mend: str | None
) -> None:
    card = tmp_path / "card.toml"
    if content is not None:
        card.write_text(content)
    with pytest.raises(InputError) as caught:
        store.load_row(crafted.write_run(tmp_path), str(card))
    said, advised = failure(caught)
    assert said.startswith(what.format(card))
    assert advised == (mend or "A card holds link, name, authors, additional_data, venue and nothing else.")


def test_a_result_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        store.load_row(tmp_path)
    assert failure(caught) == (
        f"{tmp_path / 'result.json'} cannot be read: No such file or directory",
        "Name a folder that awpbench eval wrote, with result.json and per_image.npz as they were.",
    )


def test_a_result_file_with_nan_is_refused(tmp_path: Path) -> None:
    evaluation = crafted.write_run(tmp_path)
    text = (evaluation / "result.json").read_text()
    (evaluation / "result.json").write_text(text.replace('"seed": 0', '"seed": NaN', 1))
    with pytest.raises(CheckError, match=r"result\.json is not as it was written"):
        store.load_row(evaluation)
