"""What `awpbench leaderboard` does to rows, and that no command touches a leaderboard of a newer schema."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from awpbench.cli import app, main
from awpbench.leaderboard import history, store
from awpbench.leaderboard.row import Row
from tests.leaderboard import crafted
from tests.leaderboard.robustbench.crafted import AWP

NEWER = b'{"schema_version": 3, "rows": [], "more": 1}'
A, B = (crafted.row(name).awpbench.id for name in "ab")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with no leaderboard at or above it, on the first day of a year."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AWPBENCH_LEADERBOARD", raising=False)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(history, "today", lambda: "2026-01-01")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `awpbench leaderboard ...`; return the exit code and the lines of both streams."""

    def command(*words: str) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main(["leaderboard", *words])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    return command


def only() -> Row:
    (row,) = store.read(Path("leaderboard.json")).measured
    return row


# add


def test_add_writes_the_row_and_says_where(folder: Path, run: Any) -> None:
    evaluation, path = crafted.write_run(folder), folder / "leaderboard.json"
    assert run("add", str(evaluation))[0] == 0
    name, before = only().awpbench.id, path.read_bytes()
    assert only().awpbench.result == evaluation.relative_to(folder).as_posix()
    unchanged = f"the row {name} in {path} is unchanged"
    assert run("add", str(evaluation / "result.json")) == (0, [unchanged], [])
    assert path.read_bytes() == before
    code, out, err = run("add", str(evaluation), "--json")
    assert json.loads("\n".join(out)) == {"file": str(path), "row": name, "outcome": "unchanged"}
    assert (code, err) == (0, [])


def test_a_row_added_without_a_card_keeps_its_bibliography(folder: Path, run: Any) -> None:
    evaluation = crafted.write_run(folder)
    Path("card.toml").write_text('venue = "NeurIPS 2020"\n')
    run("add", str(evaluation), "--card", "card.toml", "--file", "leaderboard.json")
    assert only().venue == "NeurIPS 2020"
    crafted.write_result(evaluation, crafted.result(training=crafted.config(), seed=7))
    said = [f"superseded the row {only().awpbench.id} in {Path('leaderboard.json')}"]
    assert run("add", str(evaluation), "--file", "leaderboard.json") == (0, said, [])
    assert (only().venue, only().awpbench.seed) == ("NeurIPS 2020", 7)


# retract, restore, history


def test_a_row_is_retracted_restored_and_its_history_printed(folder: Path, run: Any) -> None:
    path = folder / "leaderboard.json"
    store.upsert(path, [crafted.row("a"), crafted.row("b")])
    assert run("retract", "a", "--reason", "a bug") == (0, [f"retracted the row {A} in {path}"], [])
    assert run("retract", "a", "--reason", "again") == (
        3,
        [],
        [
            f"error: the row {A} was retracted on 2026-01-01: a bug",
            f"mend:  To give another reason, first: awpbench leaderboard restore {A}",
        ],
    )
    assert run("restore", A, "--reason", "it was none") == (0, [f"restored the row {A} in {path}"], [])
    row = store.by_id(store.read(path))[A]
    added, retracted = (event.digest[:12] for event in row.awpbench.history[1:])
    now = row.awpbench.digest[:12]
    assert run("history", "a") == (
        0,
        [
            A,
            "date        what       reported    digest        reason",
            "----------  ---------  ----------  ------------  -----------",
            "2026-01-01  added",
            f"2026-01-01  retracted  18.33       {added}  a bug",
            f"2026-01-01  restored   18.33       {retracted}  it was none",
            f"now         counts     18.33       {now}",
        ],
        [],
    )


def test_a_history_is_one_json_document(run: Any) -> None:
    store.upsert(Path("leaderboard.json"), [crafted.row("a")])
    code, out, _ = run("history", A, "--json")
    added = {"date": "2026-01-01", "action": "added", "digest": None, "reported": None}
    added |= {"result": None, "reason": None}
    expected = {"id": A, "digest": only().awpbench.digest, "retracted": None, "history": [added]}
    assert (code, json.loads("\n".join(out))) == (0, expected)


@pytest.mark.parametrize("words", [("retract", "x", "--reason", "r"), ("restore", "x"), ("history", "x")])
def test_an_unknown_row_is_answered_with_the_nearest(run: Any, words: tuple[str, ...]) -> None:
    store.upsert(Path("leaderboard.json"), [crafted.row("a"), crafted.row("b")])
    command, _, *rest = words
    assert run(command, A.upper(), *rest) == (
        2,
        [],
        [
            f"error: there is no row called '{A.upper()}'",
            f"mend:  Did you mean '{A}'? Ids stand in: awpbench leaderboard --format csv",
        ],
    )


def test_a_reason_does_not_reach_the_terminal_as_it_is(run: Any) -> None:
    store.upsert(Path("leaderboard.json"), [crafted.row("a")])
    assert run("retract", A, "--reason", "\x1b[31mred\u202e [bold]x[/bold]\n|")[0] == 0
    line = next(line for line in run("history", A)[1] if "retracted  18.33" in line)
    assert line.endswith(r"\x1b[31mred\u202e [bold]x[/bold] |")


# check


def test_check_says_how_many_rows_were_built_again(folder: Path, run: Any) -> None:
    run("add", str(crafted.write_run(folder)))
    store.upsert(Path("leaderboard.json"), [crafted.row("a"), crafted.reported()])
    said = ["3 rows, 1 built again from the results that they name: as awpbench wrote it"]
    assert run("check") == (0, said, [])
    code, out, _ = run("check", "--json", "--file", "leaderboard.json")
    assert code == 0
    assert json.loads("\n".join(out)) == {"file": "leaderboard.json", "rows": 3, "built_again": 1, "findings": []}


def test_check_prints_a_line_per_finding_and_fails(folder: Path, run: Any) -> None:
    evaluation, path = crafted.write_run(folder), folder / "leaderboard.json"
    run("add", str(evaluation))
    store.upsert(path, [crafted.row("a")])
    name = next(row.awpbench.id for row in store.read(path).rows if row.awpbench.id != A)
    where = evaluation.relative_to(folder).as_posix()
    shutil.rmtree(evaluation)
    path.write_text(path.read_text().replace('"clean_acc": "81.33"', '"clean_acc": "91.33"', 1))
    edited = f"{A}: clean_acc is '91.33', but the awpbench object makes it '81.33'"
    missing = f"{name}: the folder of its result is missing: {where}"
    error = [
        f"error: {path} is not as awpbench wrote it: 2 findings",
        "mend:  Restore it from version control, or add the results of these rows again.",
    ]
    assert run("check") == (5, [edited, missing], error)
    code, out, err = run("check", "--json")
    findings = [{"row": text.split(": ", 1)[0], "what": text.split(": ", 1)[1]} for text in (edited, missing)]
    assert (code, json.loads("\n".join(out))["findings"], err) == (5, findings, error)


def test_check_of_a_file_that_cannot_be_read_fails_in_another_way(folder: Path, run: Any) -> None:
    assert run("check")[0] == 4
    Path("leaderboard.json").write_text("{")
    assert run("check")[0] == 4


# merge


def test_merge_says_what_came_from_where(run: Any) -> None:
    store.upsert(Path("a.json"), [crafted.row("a"), crafted.reported()])
    store.upsert(Path("b.json"), [crafted.row("b"), crafted.reported()])
    said = "3 rows, 1 only in a.json, 1 only in b.json"
    assert run("merge", "a.json", "b.json", "--out", "c.json") == (0, [f"c.json: {said}"], [])
    assert run("merge", "a.json", "b.json") == (0, [f"a.json: {said}"], [])
    assert Path("a.json").read_bytes() == Path("c.json").read_bytes()


def test_merge_refuses_what_contradicts_itself_until_a_side_is_preferred(run: Any) -> None:
    store.upsert(Path("a.json"), [crafted.row("a")])
    store.upsert(Path("b.json"), [crafted.row("a", seed=1)])
    code, out, err = run("merge", "a.json", "b.json")
    assert (code, out) == (3, [])
    assert err[0].startswith(f"error: the two files contradict each other in a row: {A}: a.json says 18.33 (awpbench ")
    assert err[0].endswith("which differ in seed, hashes")
    assert err[1] == "mend:  Nothing was written. Say whose rows stand: --prefer a or --prefer b"
    assert run("merge", "a.json", "b.json", "--prefer", "c") == (
        2,
        [],
        ["error: --prefer c names neither file", "mend:  Write --prefer a or --prefer b."],
    )
    assert run("merge", "a.json", "b.json", "--prefer", "b")[0] == 0
    assert store.read(Path("a.json")).measured[0].awpbench.seed == 1
    assert run("check", "--file", "a.json")[0] == 0


# A newer schema

COMMANDS: dict[str, list[list[str]]] = {
    "": [[], ["--json"], ["--format", "csv"], ["--file", "leaderboard.json"]],
    "add": [["RESULT"], ["RESULT", "--file", "leaderboard.json"]],
    "retract": [[A, "--reason", "r"]],
    "restore": [[A]],
    "history": [[A], [A, "--json"]],
    "check": [[], ["--json"]],
    "merge": [
        ["leaderboard.json", "good.json"],
        ["good.json", "leaderboard.json"],
        ["good.json", "leaderboard.json", "--prefer", "a"],
        ["good.json", "good.json", "--out", "leaderboard.json"],
        ["good.json", "leaderboard.json", "--out", "leaderboard.json"],
        ["good.json", "leaderboard.json", "--out", "new.json"],
    ],
    "page": [["page.html"]],
    "import robustbench": [["model_info"]],
    "export robustbench": [["new"]],
    "quote": [["quote.toml"]],
    "submit": [[A]],
    "bibtex": [[], [A]],
}


def commands(group: Any, words: str = "") -> list[str]:
    """Every command below a group that does something, by its words."""
    below = [name for each, found in group.commands.items() for name in named(found, f"{words} {each}".strip())]
    return [words, *below] if group.invoke_without_command else below


def named(command: Any, words: str) -> list[str]:
    return commands(command, words) if hasattr(command, "commands") else [words]


EXISTING = commands(typer.main.get_command(app).commands["leaderboard"])


def test_every_command_is_tried_on_a_newer_leaderboard() -> None:
    assert set(EXISTING) <= set(COMMANDS)


@pytest.mark.parametrize("words", [f"{name} {' '.join(rest)}".strip() for name in EXISTING for rest in COMMANDS[name]])
def test_no_command_reads_or_changes_a_newer_leaderboard(folder: Path, run: Any, words: str) -> None:
    evaluation = crafted.write_run(folder / "runs")
    Path("leaderboard.json").write_bytes(NEWER)
    store.upsert(Path("good.json"), [crafted.row("a")])
    paper = folder / "model_info" / "cifar10" / "Linf" / "Paper2020.json"
    paper.parent.mkdir(parents=True)
    paper.write_text(json.dumps(AWP))
    quoted = {"source": "https://arxiv.org/abs/2004.05884", "model": "x", "dataset": "cifar10", "threat": "Linf"}
    quoted |= {
        "eps": "8/255",
        "architecture": "PreActResNet-18",
        "clean_acc": "82",
        "robust_acc": "55.39",
        "attack": "autoattack",
    }
    Path("quote.toml").write_text("\n".join(f'{key} = "{value}"' for key, value in quoted.items()))
    before = files(folder)
    code, out, err = run(*(str(evaluation) if word == "RESULT" else word for word in words.split()))
    if words.startswith("merge good.json good.json"):  # a third file that is there, whatever it holds
        assert (code, err[0]) == (3, "error: leaderboard.json is there already")
    else:
        assert (code, out) == (4, [])
        assert err[0].endswith("leaderboard.json has schema version 3; this awpbench reads 2")
        assert err[1] == "mend:  Update awpbench; the file was not changed."
    assert files(folder) == before


def files(folder: Path) -> dict[Path, bytes]:
    """Every file but the locks, and what it holds."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_an_evaluation_does_not_begin_for_a_newer_leaderboard(folder: Path) -> None:
    Path("leaderboard.json").write_bytes(NEWER)
    with pytest.raises(store.InputError, match="has schema version 3; this awpbench reads 2"):
        store.check_targets(file=None, card=None)
    assert Path("leaderboard.json").read_bytes() == NEWER
