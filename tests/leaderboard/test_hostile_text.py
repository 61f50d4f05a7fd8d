"""Every text of a row that a stranger could have written, through every format."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from awpbench.cli.leaderboard import app
from awpbench.leaderboard import store
from awpbench.leaderboard.details import Details, Retraction, Source
from awpbench.leaderboard.render import Asked, render
from awpbench.leaderboard.row import Board, Reported, Row, board_of
from tests.leaderboard import crafted
from tests.leaderboard.test_escape import typeset
from tests.payloads import PAYLOADS

EVERY_COLUMN = Asked(columns=("rank", "model", "architecture", "id", "paper", "authors", "venue", "n"), retracted=True)
USUAL = Asked(retracted=True)
RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def hostile(text: str, number: int) -> list[Row | Reported]:
    """A measured row, a retracted one and a reported one with a payload in every free text."""
    card = {"name": text, "authors": text, "venue": text}
    attacks = {
        "clean": crafted.attack("clean", 240, 300),
        "pgd-20": crafted.attack("pgd-20", 50, 300, definition={text or "x": text, "loss": [text, text]}),
    }
    changes: dict[str, Any] = {"dataset": text, "suite": "quick", "attacks": attacks}
    changes["model"] = {"source": text, "name": text, "architecture": text, "width": 16}
    changes["training"] = crafted.config(defense=text, dataset=text)
    changes["audit"] = {"verdict": None, "findings": [{"what": text}]}
    changes["hashes"] = {**crafted.result()["hashes"], "weights": str(number), "data": text, "indices": text}
    measured = crafted.built(crafted.result(**changes), card)
    twin = crafted.built(crafted.result(**{**changes, "seed": 1, "eps": "4/255"}), card)
    keys: dict[str, Any] = dict.fromkeys(
        ("link", "name", "authors", "venue", "architecture", "clean_acc", "reported", "autoattack_acc", "external"),
        text,
    )
    keys |= {"dataset": text, "eps": "8/255", "additional_data": text, "footnote": text, text: text}
    source = Source(kind="paper", reference=text)
    reported = Reported.of(
        f"reported.{number}", model=text, dataset=str(keys["dataset"]), threat="Linf", keys=keys, source=source
    )
    retraction = Retraction(date="2026-01-02", reason=text)
    return [measured, twin.sealed(retracted=retraction), reported]


ROWS = [row for number, text in enumerate(PAYLOADS) for row in hostile(text, number)]
BOARD: Board = board_of(tuple({row.awpbench.id: row for row in ROWS}.values()))


def test_the_corpus_is_large_and_fills_the_board() -> None:
    assert len(set(PAYLOADS)) >= 50
    measured = {row.awpbench.model for row in BOARD.measured if isinstance(row.awpbench, Details)}
    assert measured == {row.awpbench.model for row in BOARD.reported} == set(PAYLOADS)


def test_the_file_keeps_hostile_text_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.json"
    path.write_bytes(store.canonical(BOARD))
    assert path.read_bytes().isascii()
    assert store.read(path) == BOARD


@pytest.mark.parametrize("asked", [USUAL, EVERY_COLUMN])
def test_markdown_shows_nothing_but_text(asked: Asked) -> None:
    text = render(BOARD, "md", asked)
    assert RAW.search(text) is None
    github = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = github.parse(text)
    kinds = {token.type.removesuffix("_open").removesuffix("_close") for token in tokens}
    assert kinds == {
        *("paragraph", "heading", "inline", "bullet_list", "list_item"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    assert {child.type for token in tokens for child in token.children or []} <= {"text", "softbreak"}
    assert {token.tag for token in tokens if token.type == "heading_open"} == {"h3"}
    assert re.search(r"<|(?<!\\)://|(?i:www)\.(?<!\\\.)", text) is None


def test_every_row_of_a_markdown_table_has_the_cells_of_its_head() -> None:
    github = MarkdownIt("commonmark").enable("table")
    shown = [token for token in github.parse(render(BOARD, "md", EVERY_COLUMN)) if token.type == "tr_open"]
    lines = [line for line in render(BOARD, "md", EVERY_COLUMN).splitlines() if line.startswith("| ")]
    assert len(shown) == len(lines)
    assert {len(line.split("|")) for line in lines} == {len(EVERY_COLUMN.columns) + 2, len(EVERY_COLUMN.columns) + 1}


def test_csv_has_no_cell_that_a_spreadsheet_would_compute() -> None:
    text = render(BOARD, "csv", USUAL)
    assert RAW.search(text) is None
    head, *lines = csv.reader(io.StringIO(text))
    assert len(lines) == len(BOARD.rows)
    assert {len(line) for line in lines} == {len(head)}
    numbers = {"rank_low", "rank_high", "n", "gain", "gain_low", "gain_high", "gap"}
    words = [cell for line in lines for name, cell in zip(head, line, strict=True) if name not in numbers]
    assert [cell for cell in [*head, *words] if re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", cell)] == []


def test_json_gives_every_text_back_and_stays_ascii() -> None:
    text = render(BOARD, "json", USUAL)
    assert text.isascii()
    assert json.loads(text)["rows"] == json.loads(store.canonical(BOARD))["rows"]


@pytest.mark.parametrize("asked", [USUAL, EVERY_COLUMN])
def test_latex_has_the_commands_of_its_frame_and_no_other(asked: Asked) -> None:
    text = render(BOARD, "latex", asked)
    assert RAW.search(text) is None
    frame = r"\\(?:begin|end)\{(?:table|tabular)\}|\\(?:centering|toprule|midrule|bottomrule|scriptsize|\\)"
    frame += r"|\\(?:caption|label)(?=\{)|^%.*$|(?<!\\)&|\$[-+]\$"
    typeset(re.sub(frame, "", text, flags=re.MULTILINE))
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    columns = [len(found) for found in re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)]
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == set(columns)


@pytest.mark.parametrize("width", [40, 2000])
def test_a_terminal_gets_no_escape_code_of_a_stranger(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = board_of(tuple(row for row in BOARD.rows if len(row.awpbench.model) < 300))
    (tmp_path / "leaderboard.json").write_bytes(store.canonical(few))
    monkeypatch.chdir(tmp_path)
    environment = {"COLUMNS": str(width), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    result = CliRunner().invoke(app, ["--format", "rich", "--retracted"], env=environment, color=True)
    assert result.exit_code == 0
    ours = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)  # colours, which rich writes
    assert {unicodedata.category(character) for character in ours} & {"Cc", "Cf", "Zl", "Zp", "Co"} <= {"Cc"}
    assert {character for character in ours if unicodedata.category(character) == "Cc"} == {"\n"}
    assert set(re.findall(r"\x1b\[[0-9;]*m", result.stdout)) <= {"\x1b[2m", "\x1b[0m", "\x1b[1m"}
    if width == 2000:
        assert "[bold red]x[/bold red]" in ours


@pytest.mark.parametrize("text", ["\x1b]52;c;ZXZpbA==\x07", "[bold red]x", "\u202egnp.exe"])
def test_a_hint_shows_hostile_values_as_text(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaderboard.json").write_bytes(store.canonical(board_of((crafted.row(dataset=text),))))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["--dataset", "other"], env={"COLUMNS": "400"})
    shown = re.sub(r"[\x1b\x07\u202e]", " ", text)
    assert result.stderr == f"no row fits --dataset other; there is --dataset {shown}\n"
