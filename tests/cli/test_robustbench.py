"""RobustBench's rows through the command line: in, out, submitted, cited, quoted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from awpbench.cli import main
from awpbench.leaderboard import store
from awpbench.leaderboard.details import Retraction
from awpbench.leaderboard.robustbench import files
from awpbench.leaderboard.row import Reported, Row, board_of
from tests.leaderboard import crafted
from tests.leaderboard.robustbench.crafted import AWP, CORRUPTIONS, put
from tests.leaderboard.test_quote import write as write_quotation
from tests.leaderboard.test_submission import CARD, whole

AWP_ID = "robustbench.cifar10.Linf.Wu2020Adversarial"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with no leaderboard at or above it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AWPBENCH_LEADERBOARD", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.fixture
def theirs(folder: Path) -> Path:
    """A folder model_info with three files."""
    made = folder / "model_info"
    put(made, "cifar10/Linf/Wu2020Adversarial")
    put(made, "cifar10/L2/Wu2020Adversarial", eps="0.5", autoattack_acc="73.66", external="73.00", more=[1, None])
    put(made, "imagenet/corruptions/AlexNet", CORRUPTIONS, reported=None)
    return made


def run(*words: str) -> int:
    return main(["leaderboard", *words])


def keep(*rows: Row) -> None:
    """Write rows beside those that are there, as they are."""
    path = Path("leaderboard.json")
    there = store.read(path).rows if path.exists() else ()
    path.write_bytes(store.canonical(board_of((*there, *rows))))


def error(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


# In and out


def test_their_rows_come_in_once_and_a_changed_file_supersedes(
    folder: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "leaderboard.json"
    told = f"reported rows in {path}: added {{}}, superseded {{}}, unchanged {{}}\n"
    assert run("import", "robustbench", "model_info") == 0
    assert capsys.readouterr().out == told.format(3, 0, 0)
    before = path.read_bytes()
    assert run("import", "robustbench", "model_info") == 0
    assert capsys.readouterr().out == told.format(0, 0, 3)
    assert path.read_bytes() == before
    put(theirs, "cifar10/Linf/Wu2020Adversarial", external="55.00")
    assert run("import", "robustbench", "model_info", "--json") == 0
    counts = {"added": 0, "superseded": 1, "unchanged": 2}
    assert json.loads(capsys.readouterr().out) == {"file": str(path), **counts}


def test_an_imported_row_says_that_it_is_reported_and_whence(theirs: Path) -> None:
    run("import", "robustbench", "model_info", "--file", "b.json")
    rows = {row.awpbench.id: row for row in store.read(Path("b.json")).rows}
    other = "robustbench.imagenet.corruptions.AlexNet"
    assert list(rows) == ["robustbench.cifar10.L2.Wu2020Adversarial", AWP_ID, other]
    row = rows[AWP_ID]
    assert isinstance(row, Reported)
    assert list(row.keys.items()) == list(AWP.items())
    own = row.awpbench
    assert (own.kind, own.source.kind, own.source.reference) == (
        "reported", "robustbench", "RobustBench, model_info/cifar10/Linf/Wu2020Adversarial.json",
    )  # fmt: skip
    assert (own.model, own.dataset, own.threat, own.eps) == ("Wu2020Adversarial", "cifar10", "Linf", "8/255")
    assert rows[other].awpbench.dataset == "imagenet"  # its file says cifar10


def test_a_broken_file_stops_the_import_before_anything_is_written(
    folder: Path, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(theirs, "cifar10/Linf/x", clean_acc=1)
    assert run("import", "robustbench", "model_info") == 4
    assert error(capsys) == [
        "error: 'model_info/cifar10/Linf/x.json' does not fit: clean_acc: Input should be a valid string",
        "mend:  Take the file from RobustBench again, or out of the folder.",
    ]
    assert not (folder / "leaderboard.json").exists()


def test_their_files_come_out_as_they_went_in(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("import", "robustbench", "model_info")
    capsys.readouterr()
    assert run("export", "robustbench", "out") == 0
    assert capsys.readouterr().out == "out: written 3, replaced 0, unchanged 0\n"
    first, second = files.read(theirs), files.read(Path("out"))
    assert [json.dumps(entry.document) for entry in first] == [json.dumps(entry.document) for entry in second]
    assert first == second


def test_a_number_for_eps_as_their_update_json_writes_it_comes_back(folder: Path) -> None:
    put(folder / "model_info", "cifar10/Linf/a", eps=0.03137254901960784, name=None, clean_acc="85.4")
    run("import", "robustbench", "model_info")
    run("export", "robustbench", "out")
    assert files.read(Path("out")) == files.read(Path("model_info"))


def test_all_of_their_files_come_out_as_they_went_in(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = shared / "robustbench" / "model_info"
    assert run("import", "robustbench", str(theirs)) == 0
    assert run("import", "robustbench", str(theirs)) == 0
    assert run("export", "robustbench", "out") == 0
    assert [line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "added 236, superseded 0, unchanged 0",
        "added 0, superseded 0, unchanged 236",
        "written 236, replaced 0, unchanged 0",
    ]
    first, second = files.read(theirs), files.read(Path("out"))
    assert [json.dumps(entry.document) for entry in first] == [json.dumps(entry.document) for entry in second]
    assert first == second


def test_a_measured_row_comes_out_in_their_curated_style(capsys: pytest.CaptureFixture[str]) -> None:
    row = crafted.built(whole(), CARD)
    keep(row)
    assert run("export", "robustbench", "out") == 0
    (entry,) = files.read(Path("out"))
    assert (entry.dataset, entry.threat, entry.model) == ("cifar10", "Linf", row.awpbench.id)
    assert list(entry.document.items()) == [
        ("link", "https://arxiv.org/abs/2004.05884"),
        ("name", "Adversarial Weight Perturbation Helps Robust Generalization"),
        ("authors", "Dongxian Wu, Shu-tao Xia, Yisen Wang"),
        ("additional_data", True),
        ("number_forward_passes", 1),
        ("dataset", "cifar10"),
        ("venue", "NeurIPS 2020"),
        ("architecture", "PreActResNet-18"),
        ("eps", "8/255"),
        ("clean_acc", "85.36"),
        ("reported", "56.17"),
        ("autoattack_acc", "56.17"),
        ("external", "56.00"),
        ("unreliable", False),
    ]


def test_what_their_tables_have_no_place_for_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    retracted = crafted.row("b").sealed(retracted=Retraction(date="2026-01-01", reason="wrong file"))
    unfinished = crafted.result()["attacks"]
    unfinished["autoattack"] = crafted.attack("autoattack", 55, 300, complete=False)
    elsewhere = crafted.row("d", dataset="digits\x1b[31m")
    rows = [crafted.row("a"), retracted, crafted.row("c", attacks=unfinished), elsewhere]
    keep(*rows)
    run("quote", str(write_quotation(Path())))
    capsys.readouterr()
    assert run("export", "robustbench", "out", "--json") == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert {key: found[key] for key in found if key != "left_out"} == {
        "folder": "out", "written": 1, "replaced": 0, "unchanged": 0,
    }  # fmt: skip
    assert printed.err.splitlines() == [
        "left out 1 row: AutoAttack is not complete, by which RobustBench ranks",
        "left out 1 row: RobustBench has no table of digits [31m",
        "left out 1 row: quoted from a paper",
        "left out 1 row: retracted",
    ]
    assert found["left_out"][retracted.awpbench.id] == "retracted"
    assert [entry.model for entry in files.read(Path("out"))] == [rows[0].awpbench.id]


def test_a_file_that_says_something_else_is_replaced_only_by_force(
    theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("import", "robustbench", "model_info")
    path = put(theirs, "cifar10/Linf/Wu2020Adversarial", clean_acc="1.00")
    capsys.readouterr()
    assert run("export", "robustbench", "model_info") == 3
    assert error(capsys) == [
        "error: model_info/cifar10/Linf/Wu2020Adversarial.json is there and says something else",
        "mend:  Name another folder, or replace it with --force.",
    ]
    assert run("export", "robustbench", "model_info", "--force") == 0
    assert capsys.readouterr().out == "model_info: written 0, replaced 1, unchanged 2\n"
    assert json.loads(path.read_bytes()) == AWP


def test_hostile_text_goes_in_and_out_and_does_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile: dict[str, Any] = {
        "name": "<script>alert(1)</script>\x1b[31m",
        "authors": "]] \\input{x}, ../x",
        "venue": "=cmd|' /C calc'!A0",
        "footnote": "$\\write18{x}$\u202e",
        "link": "javascript:alert(1)",
        "architecture": "x" * 40_000,
        "__proto__": {"keys": 1},
        "keys": {"awpbench": "x"},
    }
    put(folder / "model_info", "cifar10/Linf/a", **hostile)
    assert run("import", "robustbench", "model_info") == 0
    assert run("export", "robustbench", "out") == 0
    (entry,) = files.read(Path("out"))
    assert list(entry.document.items()) == list({**AWP, **hostile}.items())
    capsys.readouterr()
    assert run("bibtex") == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\\input{" not in text
    assert "javascript" not in text


# Submitted and cited


def test_a_submission_is_the_title_and_the_text_and_its_doubts_go_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = crafted.row("a")
    keep(row)
    assert run("submit", row.awpbench.id) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("[New Model] <NameYearFirstWordOfTitle>\n\n# Paper Information\n")
    assert printed.err.splitlines() == [
        "warning: only a part of the test set was attacked; RobustBench asks for all of it",
        "warning: the evaluation was not audited",
        "to fill in by hand: the title, Paper Title, Paper URL, Paper authors, Checkpoint and code",
    ]


def test_only_a_measured_row_that_counts_is_submitted(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("import", "robustbench", "model_info")
    row = crafted.row("a").sealed(retracted=Retraction(date="2026-01-01", reason="wrong file"))
    keep(row)
    capsys.readouterr()
    assert run("submit", AWP_ID) == 3
    assert error(capsys) == [
        f"error: the row {AWP_ID} is reported: RobustBench, model_info/cifar10/Linf/Wu2020Adversarial.json",
        "mend:  Submit a row that awpbench measured.",
    ]
    assert run("submit", row.awpbench.id) == 3
    assert error(capsys) == [
        f"error: the row {row.awpbench.id} was retracted: wrong file",
        "mend:  Submit a row that counts.",
    ]
    assert run("submit", "robustbench.cifar10.Linf.Wu2021") == 2
    assert error(capsys) == [
        "error: there is no row called 'robustbench.cifar10.Linf.Wu2021'",
        f"mend:  Did you mean {AWP_ID!r}? Ids stand in: awpbench leaderboard --format csv",
    ]


def test_every_paper_has_one_entry_and_rows_without_one_are_named(
    theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("import", "robustbench", "model_info")
    bare = crafted.row("bare")
    keep(crafted.built(whole(), CARD), bare)
    capsys.readouterr()
    assert run("bibtex") == 0
    printed = capsys.readouterr()
    # RobustBench's file AlexNet holds AWP's title here: what it is called is RobustBench's word
    assert re.findall(r"^@article\{(.+),$", printed.out, re.MULTILINE) == ["AlexNet", "Wu2020Adversarial"]
    assert printed.err == f"no title or authors for 1 row: {bare.awpbench.id}\n"


def test_entries_of_some_rows(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("import", "robustbench", "model_info")
    capsys.readouterr()
    assert run("bibtex", AWP_ID, "robustbench.cifar10.L2.Wu2020Adversarial") == 0
    assert capsys.readouterr().out.count("@article{") == 1


def test_the_papers_of_robustbench_come_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    keep(crafted.built(whole(), CARD))
    assert run("bibtex", "--with", "robustbench") == 0
    text = capsys.readouterr().out
    keys = re.findall(r"^@article\{(.+),$", text, re.MULTILINE)
    assert keys == sorted(set(keys))
    assert len(keys) > 60
    assert keys.count("Wu2020Adversarial") == 1  # ours is the same paper
    assert "  author = {J\u00e9r\u00f4me Rony and " in text


# Quoted


def test_a_quotation_is_added_as_a_reported_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quotation = str(write_quotation(folder))
    assert run("quote", quotation) == 0
    path = folder / "leaderboard.json"
    assert capsys.readouterr().out == f"reported rows in {path}: added 1, superseded 0, unchanged 0\n"
    assert run("quote", quotation, "--json") == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 1
    (row,) = store.read(path).reported
    assert row.awpbench.source.attack == "PGD-20"
    assert store.read(path).measured == ()


def test_a_hostile_key_of_a_quotation_is_not_printed_raw(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quotation = str(write_quotation(folder, **{'"\\u001b[31m"': "1"}))
    assert run("quote", quotation) == 4
    assert "\x1b" not in capsys.readouterr().err
