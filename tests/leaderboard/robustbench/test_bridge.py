from __future__ import annotations

from pathlib import Path

import pytest

from awpbench.errors import InputError
from awpbench.leaderboard import store
from awpbench.leaderboard.details import Event, Retraction
from awpbench.leaderboard.robustbench.bridge import exported, imported
from awpbench.leaderboard.robustbench.files import Entry
from awpbench.leaderboard.row import Board, board_of
from tests.leaderboard.robustbench.crafted import AWP


def entry(model: str = "a", dataset: str = "cifar10") -> Entry:
    return Entry(dataset, "Linf", model, dict(AWP))


def kept(board: Board, path: Path) -> Board:
    """Write a leaderboard and read it again."""
    path.write_bytes(store.canonical(board))
    return store.read(path)


def test_a_reported_row_keeps_history_and_retraction_in_the_file(tmp_path: Path) -> None:
    (row,) = imported([entry()])
    history = (Event(date="2026-01-01", action="added"), Event(date="2026-01-02", action="retracted", reason="x"))
    board = board_of((row.sealed(history=history, retracted=Retraction(date="2026-01-02", reason="x")),))
    assert kept(board, tmp_path / "l.json") == board


def test_the_table_that_a_row_stands_in_may_differ_from_its_data_set_key(tmp_path: Path) -> None:
    board = kept(board_of(tuple(imported([entry(dataset="cifar100")]))), tmp_path / "l.json")
    assert exported(board) == ([entry(dataset="cifar100")], {})


@pytest.mark.parametrize("key", ["autoattack_acc", "name", "unreliable"])
def test_an_edited_reported_row_is_found(tmp_path: Path, key: str) -> None:
    path = tmp_path / "l.json"
    (row,) = imported([entry()])
    text = store.canonical(board_of((row,))).decode()
    before, after = (f'"{key}": {value}' for value in ("false" if key == "unreliable" else f'"{AWP[key]}"', '"57.17"'))
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(InputError) as caught:
        store.read(path)
    assert caught.value.what.endswith("the row robustbench.cifar10.Linf.a is not as awpbench wrote it")


def test_names_too_long_for_an_id_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        imported([entry("x" * 120)])
    assert caught.value.what.startswith(f"{'x' * 120} does not fit: awpbench.id: String should match pattern")
