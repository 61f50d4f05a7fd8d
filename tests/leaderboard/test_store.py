from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
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
        (b'{"schema_version": 2, "rows": 7}', "{} has schema version 2; this awpbench reads 1", None),
        (b'{"schema_version": "1", "rows": []}', "{} does not fit: schema_version: Input should be 1", UNDO),
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
    for attempt in (lambda: store.read(path), lambda: store.upsert(path, ROWS[0])):
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


def test_an_edited_number_is_found_and_named(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.json"
    store.upsert(path, ROWS[0])
    path.write_text(path.read_text().replace('"clean_acc": "81.33"', '"clean_acc": "91.33"'))
    with pytest.raises(InputError) as caught:
        store.read(path)
    edited = "rows.0: Value error, clean_acc is '91.33', but the awpbench object makes it '81.33'"
    assert failure(caught) == (f"{path} does not fit: {edited}", UNDO)


# Writing


def test_a_row_is_added_and_then_superseded(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "leaderboard.json"
    assert store.upsert(path, ROWS[0]) == "added"
    assert store.upsert(path, ROWS[1]) == "added"
    once_more = crafted.row("a", seed=7)
    assert store.upsert(path, once_more) == "superseded"
    assert store.read(path).rows == (once_more, ROWS[1])


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.json"
    for row in ROWS:
        store.upsert(path, row)
    assert store.read(path).rows == ROWS


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
    there = crafted.crafted.built({**crafted.result(), "training": crafted.config()})
    back = crafted.crafted.built({**backwards(crafted.result()), "training": backwards(crafted.config())})
    assert store.canonical(board_of((back,))) == store.canonical(board_of((there,)))


def equal_start(one: list[str], other: list[str]) -> int:
    return next((i for i, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), len(one))


@given(st.sets(st.integers(0, 5)), st.integers(0, 5))
def test_adding_a_row_inserts_lines_in_one_place_and_changes_no_other(present: set[int], added: int) -> None:
    before = store.canonical(board_of(tuple(ROWS[i] for i in present - {added}))).decode().splitlines()
    after = store.canonical(board_of(tuple(ROWS[i] for i in present | {added}))).decode().splitlines()
    assert len(after) > len(before)
    assert equal_start(before, after) + equal_start(before[::-1], after[::-1]) >= len(before)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(ROWS), min_size=1, max_size=6))
def test_writing_a_row_again_changes_no_byte(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "leaderboard.json"
    for row in rows:
        store.upsert(path, row)
    before = path.read_bytes()
    assert store.upsert(path, rows[0]) == "superseded"
    assert path.read_bytes() == before


def test_the_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "real.json", tmp_path / "leaderboard.json"
    store.upsert(target, ROWS[0])
    target.chmod(0o640)
    link.symlink_to(target)
    store.upsert(link, ROWS[1])
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert len(store.read(target).rows) == 2


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "[leaderboard].json"
    stale, other = tmp_path / ".[leaderboard].json.abc.tmp", tmp_path / ".other.json.abc.tmp"
    stale.touch()
    other.touch()
    store.upsert(path, ROWS[0])
    assert not stale.exists()
    assert other.exists()


def test_a_full_disk_leaves_the_leaderboard_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "leaderboard.json"
    store.upsert(path, ROWS[0])
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir.os, "fsync", full)
    with pytest.raises(InputError) as caught:
        store.upsert(path, ROWS[1])
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
    for attempt in (lambda: store.check_targets(file=str(path), card=None), lambda: store.upsert(path, ROWS[0])):
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
        store.upsert(path, ROWS[0])
    assert failure(caught) == (
        f"another process has held the lock of {path} for 0.1 s",
        "Wait until it ends, then: awpbench leaderboard add RESULT",
    )
    assert not path.exists()


# Writers that are killed

WRITER = """
import sys, time
from pathlib import Path
from awpbench.leaderboard import store
from tests.leaderboard import crafted
path, writer = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for count in range(10 ** 6):
    row = crafted.row(f"{writer}-{count % 25}", seed=count)
    store.upsert(path, row)
    print(row.awpbench.id, count, flush=True)
"""


class Writer:
    """A process that writes rows for ever and acknowledges each in a file of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.log = folder / f"{name}.log"
        command = [sys.executable, "-c", WRITER, str(folder / "leaderboard.json"), name]
        root = Path(__file__).parents[2]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, cwd=root)
        while not self.log.read_text():
            assert self.process.poll() is None
            time.sleep(0.01)

    def kill(self) -> dict[str, int]:
        """Kill the process; return what it acknowledged: the last seed of each id."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        lines = self.log.read_text().splitlines(keepends=True)[1:]
        return {line.split()[0]: int(line.split()[1]) for line in lines if line.endswith("\n")}


def kill_writers(folder: Path, kills: int, writers: int) -> dict[str, int]:
    """Kill writers at random; return the acknowledged rows that are not in the file afterwards."""
    path = folder / "leaderboard.json"
    dice = random.Random(0)
    running = [Writer(folder, f"w{number}") for number in range(writers)]
    acknowledged: dict[str, int] = {}
    for kill in range(kills):
        time.sleep(dice.uniform(0.02, 0.4))
        victim = dice.randrange(writers)
        acknowledged |= running[victim].kill()
        store.read(path)  # readable after every kill
        running[victim] = Writer(folder, f"w{writers + kill}")
    for writer in running:
        acknowledged |= writer.kill()
    store.upsert(path, ROWS[0])  # the survivor cleans up
    seeds = {row.awpbench.id: row.awpbench.seed for row in store.read(path).rows}
    assert len(acknowledged) > kills
    assert {entry.name for entry in folder.iterdir() if entry.suffix != ".log"} == {
        "leaderboard.json",
        ".leaderboard.json.lock",
    }
    return {name: seed for name, seed in acknowledged.items() if seeds.get(name, -1) < seed}


def test_ten_kills_of_three_writers_lose_no_acknowledged_row(tmp_path: Path) -> None:
    assert kill_writers(tmp_path, kills=10, writers=3) == {}


@pytest.mark.slow
def test_two_hundred_kills_of_four_writers_lose_no_acknowledged_row(tmp_path: Path) -> None:
    assert kill_writers(tmp_path, kills=200, writers=4) == {}


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


def test_writing_a_result_twice_supersedes_its_row(tmp_path: Path) -> None:
    evaluation = crafted.write_run(tmp_path)
    path = tmp_path / "board.json"
    assert store.write_row(evaluation, file=str(path), card=None) == (path, "added")
    assert store.write_row(evaluation, file=str(path), card=None) == (path, "superseded")


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
        f"there is no file {tmp_path / 'result.json'}",
        "Name a result.json, or the folder that awpbench eval wrote.",
    )


def test_a_result_file_with_nan_is_refused(tmp_path: Path) -> None:
    evaluation = crafted.write_run(tmp_path)
    text = (evaluation / "result.json").read_text()
    (evaluation / "result.json").write_text(text.replace('"seed": 0', '"seed": NaN'))
    with pytest.raises(CheckError, match="the result holds NaN or infinity"):
        store.load_row(evaluation)
