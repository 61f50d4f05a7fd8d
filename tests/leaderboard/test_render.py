from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from awpbench.leaderboard import store
from awpbench.leaderboard.render import LEGEND, Asked, Shown, render, tables
from awpbench.leaderboard.row import Board, Row, board_of
from awpbench.leaderboard.view import Selection
from tests.leaderboard import boards, crafted
from tests.leaderboard.boards import quick

RETRACTED = Asked(retracted=True)


def ranked(board_rows: tuple[Row, ...]) -> list[list[tuple[str, str]]]:
    return [[(row[0], row[1]) for row in table.rows] for table in tables(board_of(board_rows))]


def cells(board: Board, *names: str, asked: Asked | None = None) -> list[list[tuple[str, ...]]]:
    """The cells of these columns, table by table."""
    found = tables(board, asked or Asked())
    return [[tuple(row[table.columns.index(name)] for name in names) for row in table.rows] for table in found]


def lines_of(board: Board, asked: Asked | None = None) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(board, "csv", asked or Asked()))))


def test_the_markdown_of_known_rows() -> None:
    board = board_of((quick("foreign_net", 60), boards.trained("at-s0", [True] * 110 + [False] * 190, awp_warmup=5)))
    asked = Asked(columns=("rank", "model", "AWP", "pgd-20", "n"))
    title = (
        "### cifar10, Linf 8/255, data dddddddd, images 11111111, suite quick 1.0, dialect awp; "
        "ranked by pgd-20 on 300 images (part of the test set)"
    )
    rows = [
        "| rank | model       | AWP                 | pgd-20                     | n   |",
        "|------|-------------|---------------------|----------------------------|-----|",
        "| 1    | at-s0/best  | 0.01 after 5 epochs | 36.67 [31.41, 42.26] n=300 | 300 |",
        "| 2    | foreign_net | ?                   | 20.00 [15.87, 24.89] n=300 | 300 |",
    ]
    note = "- pgd-20: dialect awp, scored last, start uniform, step_size 2/255, steps 20"
    assert render(board, "md", asked) == "\n\n".join([LEGEND, title, "\n".join(rows), note]) + "\n"


def test_a_table_has_a_column_for_everything_that_was_measured() -> None:
    (table,) = tables(board_of((crafted.row(),)))
    assert table.columns == (
        *("rank", "model", "defense", "AWP", "architecture", "extra data"),
        *("clean", "fgsm", "pgd-20", "pgd-100", "cw-inf", "spsa", "autoattack"),
        *("worst case", "gain", "gap", "selection", "audit", "n"),
    )
    numbers = [cell.split("n=")[1] for cell in table.rows[0][6:13]]
    assert numbers == ["10000", "10000", "10000", "300", "300", "60", "300"]
    assert table.rows[0][12] == "18.33 [14.36, 23.10] n=300"


def test_worst_case_gain_gap_selection_and_audit_stand_in_their_cells() -> None:
    board = board_of(boards.mixed().rows[:2])
    names = ("model", "gain", "gap", "selection", "audit", "n")
    assert cells(board, *names) == [
        [
            ("at-awp-s0/best", "+10.00 [+6.44, +13.43]", "40.00", "validation", "?", "300"),
            ("at-s0/best", "", "", "validation", "?", "300"),
        ]
    ]
    worst = {"n": 200, "correct": 100, "accuracy": 0.5, "interval": [0.431362, 0.568638]}
    audited = {"worst_case": worst, "audit": {"verdict": "suspicious", "findings": []}}
    assert cells(board_of((quick("a", 50, **audited),)), "worst case", "audit") == [
        [("50.00 [43.14, 56.86] n=200", "suspicious")]
    ]


def test_the_worst_iterates_are_a_column_beside_and_rank_nothing() -> None:
    worst = crafted.attack("pgd-20-worst", 1, 300)
    board = board_of((quick("plain", 200), quick("worst", 54, more={"pgd-20-worst": worst})))
    assert cells(board, "rank", "model", "pgd-20-worst") == [
        [("1", "plain", ""), ("2", "worst", "0.33 [0.06, 1.86] n=300")]
    ]


def test_what_makes_a_number_doubtful_stands_in_the_cell() -> None:
    attacks = {
        "clean": crafted.attack("clean", 240, 300, nan_logits=2),
        "pgd-20": crafted.attack("pgd-20", 55, 300, nan_gradients=1),
    }
    assert cells(board_of((crafted.row("a", suite="quick", attacks=attacks),)), "clean", "pgd-20") == [
        [("80.00 [75.11, 84.13] n=300 (NaN logits on 2)", "18.33 [14.36, 23.10] n=300 (NaN gradients)")]
    ]


def test_rows_are_ranked_by_accuracy_and_overlapping_intervals_share_a_range() -> None:
    rows = (quick("a", 50), quick("b", 270), quick("c", 265), quick("d", 2))
    assert ranked(rows) == [[("1-2", "b"), ("1-2", "c"), ("3", "a"), ("4", "d")]]


def test_a_complete_autoattack_ranks_even_where_another_attack_is_stronger() -> None:
    attacks = crafted.result()["attacks"]
    strong = crafted.row("strong", attacks=attacks | {"cw-inf": crafted.attack("cw-inf", 10, 300)})
    weak = attacks["autoattack"] | crafted.attack("autoattack", 5, 300)
    assert ranked((strong, crafted.row("weak", attacks=attacks | {"autoattack": weak}))) == [
        [("1", "strong"), ("2", "weak")]
    ]


def test_an_incomplete_autoattack_is_shown_as_such_and_ranks_nothing() -> None:
    attacks = crafted.result()["attacks"]
    open_end = attacks | {"autoattack": crafted.attack("autoattack", 55, 300, complete=False)}
    board = board_of((crafted.row(attacks=open_end),))
    (table,) = tables(board)
    assert table.title.endswith("; ranked by cw-inf on 300 images (part of the test set)")
    assert cells(board, "autoattack") == [[("18.33 [14.36, 23.10] n=300 (incomplete)",)]]
    assert lines_of(board)[0]["incomplete"] == "autoattack"


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


def test_tables_of_other_images_have_other_titles_keys_and_lines() -> None:
    hashes = crafted.result()["hashes"]
    board = board_of((crafted.row("a"), crafted.built(crafted.result(hashes=hashes | {"indices": "0" * 64}))))
    found = tables(board)
    assert [table.title.split(", ")[3] for table in found] == ["images 00000000", "images 11111111"]
    assert len({table.key for table in found}) == 2
    assert [(line["indices"], line["n"]) for line in lines_of(board)] == [("0" * 64, "300"), ("1" * 64, "300")]


def test_a_corrected_suite_is_comparable_with_the_one_it_corrects() -> None:
    rows = (crafted.row("a"), crafted.row("b", suite_version="1.0.1"))
    assert [len(table.rows) for table in tables(board_of(rows))] == [2]


# What is shown


def test_filters_hide_rows_and_change_no_rank_and_no_gain() -> None:
    board = boards.mixed()
    asked = Asked(Selection(dataset="cifar10", norm="Linf", awp=True))
    assert cells(board, "rank", "model", "gain", asked=asked) == [[("1-2", "at-awp-s0/best", "+10.00 [+6.44, +13.43]")]]
    assert tables(board, asked)[0].title.endswith("; 1 of 4 rows shown")


def test_reported_rows_stand_below_in_tables_of_their_own() -> None:
    shown = tables(boards.mixed())
    assert [table.title.split(",")[0] for table in shown] == [
        "cifar10",
        "digits",
        "reported by RobustBench",
        "reported by RobustBench",
    ]
    assert [table.title for table in shown[2:]] == [
        "reported by RobustBench, not measured here: cifar10, Linf",
        "reported by RobustBench, not measured here: cifar10, corruptions",
    ]
    head = ("rank", "model", "architecture", "extra data", "eps", "clean", "autoattack", "best known", "venue")
    assert shown[2].columns == (*head, "source")
    assert [row[:8] for row in shown[2].rows] == [
        ("1", "Best2020", "WideResNet-34-10", "yes", "8/255", "85.36", "70.00", "60.04"),
        ("2", "Wu2020Adversarial", "WideResNet-34-10", "no", "8/255", "85.36", "56.17", "56.17"),
    ]
    assert shown[3].rows[0][4:8] == ("", "85.36", "", "76.9")


def test_columns_asked_for_stand_in_their_order_and_only_where_a_table_has_them() -> None:
    shown = tables(boards.mixed(), Asked(columns=("venue", "extra-data", "awp", "fgsm", "model", "model")))
    assert [table.columns for table in shown] == [
        ("venue", "extra data", "AWP", "model"),
        ("venue", "extra data", "AWP", "model"),
        ("venue", "extra data", "model"),
        ("venue", "extra data", "model"),
    ]


def test_a_table_of_reported_rows_that_has_none_of_the_columns_asked_for_is_shown_as_usual() -> None:
    shown = tables(boards.mixed(), Asked(columns=("pgd-20",)))
    assert [len(table.columns) for table in shown] == [1, 1, 10, 10]


def test_an_empty_leaderboard_has_an_empty_table_in_every_format() -> None:
    empty = board_of(())
    names = "rank, model, defense, AWP, architecture, extra data, worst case, gain, gap, selection, audit, n"
    head = f"| {' | '.join(names.split(', '))} |"
    rule = "|" + "|".join("-" * (len(name) + 2) for name in names.split(", ")) + "|"
    assert render(empty, "md") == f"{LEGEND}\n\n### no results yet\n\n{head}\n{rule}\n"
    assert len(render(empty, "csv").splitlines()) == 1
    assert json.loads(render(empty, "json")) == {"schema_version": 2, "rows": [], "tables": []}
    assert r"\caption{no results yet." in render(empty, "latex")


def test_a_filter_that_fits_no_row_leaves_an_empty_table() -> None:
    asked = Asked(Selection(dataset="imagenet"), columns=("model", "pgd-20"))
    assert render(boards.mixed(), "md", asked) == (
        f"{LEGEND}\n\n### no row to show\n\n| model | pgd-20 |\n|-------|--------|\n"
    )


def test_retracted_rows_are_counted_or_told_with_their_reasons() -> None:
    board = board_of((quick("a", 50), boards.retracted(quick("b", 60), "wrong *data*"), boards.robustbench("c")))
    line = "1 retracted row is not shown; awpbench leaderboard --retracted tells why"
    assert render(board, "md").endswith(f"\n\n{line}\n")
    told = render(board, "md", RETRACTED)
    (row,) = [row for row in board.rows if row.awpbench.retracted]
    assert told.endswith(
        f"\n\n### retracted\n\n- {row.awpbench.id}: b, retracted on 2026-01-02: wrong \\*data\\*\n",
    )
    assert line not in told
    assert [(each["rank_low"], each["model"], each["retracted"]) for each in lines_of(board, RETRACTED)] == [
        ("1", "a", ""),
        ("1", "c", ""),
        ("", "b", "wrong *data*"),
    ]
    assert [each["model"] for each in lines_of(board)] == ["a", "c"]
    ids = [len(json.loads(render(board, "json", asked))["rows"]) for asked in (Asked(), RETRACTED)]
    assert ids == [2, 3]


def test_two_retracted_rows_are_counted_as_two_and_filtered_as_all_others() -> None:
    board = board_of((boards.retracted(quick("a", 1)), boards.retracted(boards.robustbench("b"))))
    line = "2 retracted rows are not shown; awpbench leaderboard --retracted tells why"
    assert Shown.of(board, Asked()).retractions(told=False) == [line]
    assert Shown.of(board, Asked(Selection(dataset="mnist"))).retractions(told=False) == []
    assert render(board, "latex").endswith(f"\n% {line.replace('--', '-{}-')}\n")


# The formats


def test_json_holds_the_rows_shown_and_the_tables_they_stand_in() -> None:
    board = boards.mixed()
    document = json.loads(render(board, "json", Asked(Selection(defense="at"), sort="-pgd-20")))
    file = {row["awpbench"]["id"]: row for row in json.loads(store.canonical(board))["rows"]}
    with_awp, without = (row["awpbench"]["id"] for row in document["rows"])
    assert document["rows"] == [file[with_awp], file[without]]
    (table,) = document["tables"]
    assert {key: value for key, value in table.items() if key != "rows"} == {
        "title": "cifar10, Linf 8/255, data dddddddd, images 11111111, suite quick 1.0, dialect awp; "
        "ranked by pgd-20 on 300 images (part of the test set); 2 of 4 rows shown",
        "kind": "measured",
        "ranked_by": "pgd-20",
        "n": 300,
    }
    gain = table["rows"][1].pop("gain")
    assert table["rows"] == [
        {"id": without, "rank": [1, 2], "gain": None, "gap": None},
        {"id": with_awp, "rank": [1, 2], "gap": pytest.approx(0.4)},
    ]
    assert {key: gain[key] for key in ("without", "difference", "only_with", "only_without")} == {
        "without": without,
        "difference": 0.1,
        "only_with": 30,
        "only_without": 0,
    }


def test_json_has_tables_of_reported_rows() -> None:
    (table,) = json.loads(render(board_of((boards.robustbench("a"),)), "json"))["tables"]
    assert table == {
        "title": "reported by RobustBench, not measured here: cifar10, Linf",
        "kind": "reported",
        "ranked_by": "reported",
        "n": None,
        "rows": [{"id": "robustbench.a", "rank": [1, 1], "gain": None, "gap": None}],
    }


def test_csv_has_one_line_per_row_with_numbers_of_their_own() -> None:
    lines = lines_of(board_of((crafted.row("b"), quick("a", 55))))
    assert [line["model"] for line in lines] == ["b", "a"]
    assert [lines[1][f"pgd-20{part}"] for part in ("", "_low", "_high", "_n")] == ["18.33", "14.36", "23.10", "300"]
    assert (lines[1]["spsa"], lines[1]["ranked_by"], lines[1]["kind"]) == ("", "pgd-20", "measured")
    assert (lines[0]["ranked_by"], lines[0]["incomplete"], lines[0]["n"]) == ("autoattack", "", "300")


def test_csv_has_ranks_gains_gaps_and_reported_rows() -> None:
    lines = {line["model"]: line for line in lines_of(boards.mixed())}
    ours = lines["at-awp-s0/best"]
    keys = ("rank_low", "rank_high", "gain", "gain_low", "gain_high", "gain_p", "gap", "awp", "selection", "audit")
    expected = ["1", "2", "10.00", "6.44", "13.43", "1.86e-09", "40.00", "0.01", "validation", "?"]
    assert [ours[key] for key in keys] == expected
    assert len(ours["digest"]) == 64
    known = {key: value for key, value in lines["Best2020"].items() if value}
    assert len(known.pop("digest")) == 64
    assert known == {
        "kind": "reported",
        "source": "cifar10/Linf/Best2020.json",
        "dataset": "cifar10",
        "norm": "Linf",
        "eps": "8/255",
        "rank_low": "1",
        "rank_high": "1",
        "id": "robustbench.Best2020",
        "model": "Best2020",
        "architecture": "WideResNet-34-10",
        "extra_data": "yes",
        "clean": "85.36",
        "autoattack": "70.00",
        "best_known": "60.04",
        "venue": "NeurIPS 2020",
    }


def test_a_negative_gain_is_a_number_in_csv_and_has_a_minus_in_latex() -> None:
    fewer = [k % 2 == 0 and k > 20 for k in range(100)]
    rows = (boards.trained("awp", fewer), boards.trained("plain", [k % 2 == 0 for k in range(100)], awp=False))
    line = lines_of(board_of(rows))[1]
    assert (line["gain"], line["gain_low"], line["gain_high"]) == ("-11.00", "-17.39", "-4.18")
    text = render(board_of(rows), "latex", Asked(columns=("model", "gain")))
    assert r"awp/best & $-$11.00 {\scriptsize [$-$17.39, $-$4.18]} \\" in text


def test_the_latex_of_known_rows() -> None:
    board = board_of((quick("foreign_net", 60), quick("b", 150, 500)))
    asked = Asked(columns=("model", "clean", "pgd-20"))
    title = "cifar10, Linf 8/255, data dddddddd, images 11111111, suite quick 1.0, dialect awp; ranked by pgd-20 on"
    first, second = tables(board, asked)
    assert render(board_of((quick("foreign_net", 60),)), "latex", asked) == "\n".join(
        [
            r"% \usepackage{booktabs}; if a table is too wide, choose --columns",
            r"% pgd-20: dialect awp, scored last, start uniform, step\_size 2/255, steps 20",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{title} 300 images (part of the test set). {LEGEND.replace('%', chr(92) + '%')}}}",
            rf"\label{{tab:{first.key}}}",
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r"model & clean {\scriptsize n=300} & pgd-20 {\scriptsize n=300} \\",
            r"\midrule",
            r"foreign\_net & 80.00 {\scriptsize [75.11, 84.13]} & 20.00 {\scriptsize [15.87, 24.89]} \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
    assert second.key != first.key


def test_latex_keeps_n_in_the_cells_where_they_differ() -> None:
    other = {"clean": crafted.attack("clean", 50, 100), "pgd-20": crafted.attack("pgd-20", 60, 300)}
    board = board_of((quick("a", 150), crafted.row("b", suite="quick", attacks=other)))
    text = render(board, "latex", Asked(columns=("model", "clean")))
    assert r"model & clean \\" in text
    assert r"a & 80.00 {\scriptsize [75.11, 84.13]} {\scriptsize n=300} \\" in text


def test_reported_tables_in_latex_claim_no_interval() -> None:
    text = render(board_of((boards.robustbench("a"),)), "latex")
    title = "reported by RobustBench, not measured here: cifar10, Linf"
    assert rf"\caption{{{title}. Accuracies in percent and ranks as RobustBench gives them.}}" in text


@pytest.mark.parametrize("format", ["md", "latex", "csv", "json"])
def test_numbers_keep_their_zeros(format: str) -> None:
    text = render(board_of((quick("a", 150), boards.robustbench("b", clean_acc="90.00", external="50.10"))), format)
    assert all(number in text for number in ("80.0" if format == "json" else "80.00", "50.00", "90.00", "50.10"))


@pytest.mark.parametrize("format", ["md", "latex", "csv", "json"])
def test_the_same_board_gives_the_same_bytes_for_any_order_of_rows(format: str) -> None:
    rows = list(boards.mixed().rows)
    asked = Asked(retracted=True, sort="model")
    expected = render(boards.mixed(), format, asked)
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        assert render(board_of(tuple(rows)), format, asked) == expected


PRINT = """
import sys
from awpbench.cli import main
for format in ("md", "latex", "csv", "json"):
    assert main(["leaderboard", "--format", format, "--retracted"]) == 0
"""


def test_no_locale_width_or_hash_seed_changes_a_byte(tmp_path: Path) -> None:
    (tmp_path / "leaderboard.json").write_bytes(store.canonical(boards.mixed()))
    environments = [
        {"LC_ALL": "C", "PYTHONHASHSEED": "1", "COLUMNS": "40", "TERM": "dumb"},
        {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2", "COLUMNS": "300", "TERM": "xterm-256color"},
    ]
    outputs = set()
    for changes in environments:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **changes}
        words = [sys.executable, "-c", PRINT]
        found = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert (found.returncode, found.stderr) == (0, b"")
        outputs.add(found.stdout)
    assert len(outputs) == 1


def test_a_long_cell_makes_only_its_own_line_longer() -> None:
    text = render(board_of((quick("a" * 5000, 50), quick("b", 40))), "md", Asked(columns=("model", "rank")))
    assert [len(line) for line in text.splitlines() if line.startswith("|")] == [71, 71, 5011, 71]
    assert re.search(r"\| a{5000} \| 1-2  \|", text)
