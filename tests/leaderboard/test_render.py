from __future__ import annotations

import csv
import html
import io
import json
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awpbench.leaderboard import store
from awpbench.leaderboard.render import LEGEND, plain, render, tables
from awpbench.leaderboard.row import Row, board_of
from tests.leaderboard import crafted


def quick(name: str, correct: int, n: int = 300, more: dict[str, Any] | None = None, **changes: Any) -> Row:
    attacks = {"clean": crafted.attack("clean", 240, 300), "pgd-20": crafted.attack("pgd-20", correct, n)}
    return crafted.row(name, suite="quick", attacks=attacks | (more or {}), **changes)


def ranked(board_rows: tuple[Row, ...]) -> list[list[tuple[str, str]]]:
    return [[(row[0], row[1]) for row in table.rows] for table in tables(board_of(board_rows))]


def test_the_markdown_table_of_known_rows() -> None:
    attacks = {"clean": crafted.attack("clean", 240, 300), "pgd-20": crafted.attack("pgd-20", 55, 300)}
    changes = {"suite": "quick", "attacks": attacks}
    ours = crafted.built({**crafted.result(**changes), "training": crafted.config(awp_warmup=5)})
    foreign = quick("foreign_net", 60)
    rows = [
        "| rank   | model                           | defense   | AWP                 | architecture     |"
        " clean                      | pgd-20                     | selection   |",
        "|--------|---------------------------------|-----------|---------------------|------------------|"
        "----------------------------|----------------------------|-------------|",
        "| 1      | foreign_net                     | ?         | ?                   | prn18            |"
        " 80.00 [75.11, 84.13] n=300 | 20.00 [15.87, 24.89] n=300 | ?           |",
        "| 2      | cifar10-prn18-w16-at-awp-s0/best | at        | 0.01 after 5 epochs | prn18 (width 16) |"
        " 80.00 [75.11, 84.13] n=300 | 18.33 [14.36, 23.10] n=300 | validation  |",
    ]
    title = (
        "### cifar10, Linf 8/255, data dddddddd, images 11111111, suite quick 1.0, dialect awp; "
        "ranked by pgd-20 on 300 images (part of the test set)"
    )
    note = "- pgd-20: dialect awp, scored last, start uniform, step_size 2/255, steps 20"
    expected = "\n\n".join([LEGEND, title, "\n".join(rows), note])
    padding = re.compile(r" +|-{3,}")
    assert padding.sub(" ", render(board_of((ours, foreign)), "md")) == padding.sub(" ", expected + "\n")


def test_n_stands_in_every_cell_where_attacks_saw_different_images() -> None:
    (table,) = tables(board_of((crafted.row(),)))
    assert table.columns == (
        *("rank", "model", "defense", "AWP", "architecture"),
        *("clean", "fgsm", "pgd-20", "pgd-100", "cw-inf", "spsa", "autoattack"),
        "selection",
    )
    numbers = [cell.split("n=")[1] for cell in table.rows[0][5:-1]]
    assert numbers == ["10000", "10000", "10000", "300", "300", "60", "300"]
    assert table.rows[0][-2] == "18.33 [14.36, 23.10] n=300"


def test_the_worst_iterates_are_a_column_beside_and_rank_nothing() -> None:
    worst = crafted.attack("pgd-20-worst", 1, 300)
    (table,) = tables(board_of((quick("plain", 55, 300), quick("worst", 54, 300, more={"pgd-20-worst": worst}))))
    assert table.columns[5:8] == ("clean", "pgd-20", "pgd-20-worst")
    assert [(row[0], row[1], row[7]) for row in table.rows] == [
        ("1", "plain", ""),
        ("2", "worst", "0.33 [0.06, 1.86] n=300"),
    ]


def test_nan_logits_stand_in_the_cell() -> None:
    attacks = {"clean": crafted.attack("clean", 240, 300, nan_logits=2), "pgd-20": crafted.attack("pgd-20", 55, 300)}
    (table,) = tables(board_of((crafted.row("a", suite="quick", attacks=attacks),)))
    assert table.rows[0][5] == "80.00 [75.11, 84.13] n=300 (NaN logits on 2)"


def test_rows_are_ranked_by_accuracy_and_equal_ones_share_a_rank() -> None:
    rows = (quick("a", 50), quick("b", 70), quick("c", 70), quick("d", 20))
    assert ranked(rows) == [[("1", "b"), ("1", "c"), ("3", "a"), ("4", "d")]]


def test_a_complete_autoattack_ranks_even_where_another_attack_is_stronger() -> None:
    attacks = crafted.result()["attacks"]
    strong = crafted.row("strong", attacks=attacks | {"cw-inf": crafted.attack("cw-inf", 10, 300)})
    weak = attacks["autoattack"] | crafted.attack("autoattack", 40, 300)
    assert ranked((strong, crafted.row("weak", attacks=attacks | {"autoattack": weak}))) == [
        [("1", "strong"), ("2", "weak")]
    ]


def test_an_incomplete_autoattack_is_shown_as_such_and_ranks_nothing() -> None:
    attacks = crafted.result()["attacks"]
    open_end = attacks | {"autoattack": crafted.attack("autoattack", 55, 300, complete=False)}
    (table,) = tables(board_of((crafted.row(attacks=open_end),)))
    assert table.title.endswith("; ranked by cw-inf on 300 images (part of the test set)")
    assert table.rows[0][-2] == "18.33 [14.36, 23.10] n=300 (incomplete)"


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "mnist"},
        {"norm": "L2"},
        {"eps": "0.031"},
        {"dialect": "trades"},
        {"suite": "other"},
        {"suite_version": "1.1"},
        {"hashes": crafted.result()["hashes"] | {"data": "0" * 64}},
        {"hashes": crafted.result()["hashes"] | {"indices": "0" * 64}},
        {"attacks": {"clean": crafted.attack("clean", 1, 300)}},
        {
            "attacks": crafted.result()["attacks"]
            | {"cw-inf": crafted.attack("cw-inf", 70, 300, definition={"kappa": 50})}
        },
        {"attacks": crafted.result()["attacks"] | {"autoattack": crafted.attack("autoattack", 5, 60, complete=True)}},
    ],
)
def test_rows_that_cannot_be_compared_stand_in_tables_of_their_own(changes: dict[str, Any]) -> None:
    other = crafted.built(crafted.result(**changes))
    assert [len(table.rows) for table in tables(board_of((crafted.row(), other)))] == [1, 1]


def test_tables_of_other_images_have_other_titles_and_other_lines() -> None:
    hashes = crafted.result()["hashes"]
    board = board_of((crafted.row("a"), crafted.built(crafted.result(hashes=hashes | {"indices": "0" * 64}))))
    titles = [table.title for table in tables(board)]
    assert [title.split(", ")[3] for title in titles] == ["images 00000000", "images 11111111"]
    lines = list(csv.DictReader(io.StringIO(render(board, "csv"))))
    assert [(line["indices"], line["n"]) for line in lines] == [("0" * 64, "300"), ("1" * 64, "300")]


def test_a_corrected_suite_is_comparable_with_the_one_it_corrects() -> None:
    assert [
        len(table.rows) for table in tables(board_of((crafted.row("a"), crafted.row("b", suite_version="1.0.1"))))
    ] == [2]


def test_an_empty_leaderboard_has_an_empty_table() -> None:
    empty = board_of(())
    head = [line.split() for line in render(empty, "md").splitlines()]
    assert head[2] == ["###", "no", "results", "yet"]
    assert head[4] == [
        "|",
        "rank",
        "|",
        "model",
        "|",
        "defense",
        "|",
        "AWP",
        "|",
        "architecture",
        "|",
        "selection",
        "|",
    ]
    assert len(head) == 6
    assert len(render(empty, "csv").splitlines()) == 1
    assert json.loads(render(empty, "json")) == {"schema_version": 1, "rows": []}


def test_json_is_the_form_of_the_file() -> None:
    board = board_of((crafted.row("b"), crafted.row("a")))
    assert render(board, "json").encode() == store.canonical(board)


def test_csv_has_one_line_per_row_with_numbers_of_their_own() -> None:
    lines = list(csv.DictReader(io.StringIO(render(board_of((crafted.row("b"), quick("a", 55))), "csv"))))
    assert [line["model"] for line in lines] == ["b", "a"]
    assert [lines[1][f"pgd-20{part}"] for part in ("", "_low", "_high", "_n")] == ["18.33", "14.36", "23.10", "300"]
    assert (lines[1]["spsa"], lines[1]["ranked_by"], lines[1]["rank"]) == ("", "pgd-20", "1")
    assert (lines[0]["ranked_by"], lines[0]["incomplete"]) == ("autoattack", "")


# Text from strangers

HOSTILE = [
    "a|b",
    "a\nb\r\nc",
    "[bold]x[/bold]",
    "[link=https://evil.example]x[/link]",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "&lt;b&gt;",
    "\x1b[31mred\x1b]8;;https://evil.example\x07",
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\u202etxt.exe",
    "`x`",
    "\\|",
    "*a* _b_ ~c~ $d$",
    'quote " comma ,',
    "\u2028new\u2029line\x85end",
    "\x00",
]
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1))


def as_seen(markdown: str) -> str:
    """What a reader sees of an escaped cell."""
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown))


@given(TEXT)
def test_markdown_shows_any_name_as_it_is_and_interprets_none(name: str) -> None:
    lines = render(board_of((crafted.row(name),)), "md").split("\n")
    assert len(lines) == 7 + 1 + 6 + 1  # the row, then one line per attack
    line = lines[6]
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)
    assert len(cells) == 2 + 13
    assert as_seen(cells[2]).split() == plain(name).split()
    assert re.search(r"<|>|(?<!\\)(?:\\\\)*[\[`*]", cells[2]) is None


@given(TEXT)
def test_csv_gives_any_name_back_and_no_spreadsheet_computes_it(name: str) -> None:
    lines = list(csv.DictReader(io.StringIO(render(board_of((crafted.row(name),)), "csv"))))
    assert len(lines) == 1
    told = lines[0]["model"]
    assert told.removeprefix("'") == plain(name) or told == plain(name)
    assert told.lstrip()[:1] not in ("=", "+", "-", "@", "\t", "\r") or told.strip() == ""


@given(st.text())
def test_plain_text_holds_no_control_character(text: str) -> None:
    assert {unicodedata.category(character) for character in plain(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"} == set()
    assert len(plain(text)) == len(text)


@given(TEXT)
def test_a_card_of_hostile_text_survives_the_file(text: str) -> None:
    row = crafted.built(crafted.result(), {"name": text, "authors": text, "venue": text})
    data = store.canonical(board_of((row,)))
    assert data.isascii()
    assert json.loads(data)["rows"][0]["name"] == text
