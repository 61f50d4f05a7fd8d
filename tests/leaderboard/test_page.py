"""The page as a document: what stands in it without any script, its safety, and the command that writes it."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from awpbench import defaults
from awpbench.cli import main
from awpbench.defaults import resolve_training
from awpbench.errors import UsageError
from awpbench.leaderboard.details import Retraction
from awpbench.leaderboard.page import commands, is_page, render, scatter
from awpbench.leaderboard.page.parts import Facts, past, percent, web_address
from awpbench.leaderboard.page.scatter import Dot
from awpbench.leaderboard.papers import Paper, bibtex
from awpbench.leaderboard.row import Board, Reported, Row, board_of
from awpbench.leaderboard.store import canonical
from tests.leaderboard import crafted, hostile

CARD = {
    "name": "A Paper of Nets",
    "authors": "Ada Lovelace, Emmy Noether",
    "venue": "NeurIPS 2020",
    "link": "https://example.org/paper",
}


def reported(name: str, **keys: Any) -> Reported:
    """A row as RobustBench would list it."""
    base = {"link": "https://example.org/r", "name": f"Paper {name}", "authors": "B", "additional_data": True}
    base |= {"dataset": "cifar10", "venue": "ICML 2021", "architecture": "WideResNet-28-10", "eps": "8/255"}
    base |= {"clean_acc": "88.25", "reported": "60.04", "autoattack_acc": "60.04", "unreliable": False}
    threat = keys.pop("threat", "Linf")
    return hostile.quoted(f"rb.{name}", name, {**base, **keys}, reference="RobustBench 1.1.1", threat=threat)


def trained(**config: Any) -> Row:
    """The row of a run of ours."""
    name = f"cifar10-prn18-w16-at{'-awp' if config.get('awp', True) else ''}-s0/best"
    model = {"source": "checkpoint", "name": name, "architecture": "prn18", "width": 16}
    attacks = crafted.result()["attacks"]
    correct = 55 if config.get("awp", True) else 40
    attacks = {**attacks, "autoattack": crafted.attack("autoattack", correct, 300, complete=True)}
    return crafted.built(crafted.result(model=model, training=crafted.config(**config), attacks=attacks), CARD)


def without() -> dict[str, Any]:
    return {"awp": False, "awp_gamma": 0.0}


def board() -> Board:
    gone = crafted.row("gone").sealed(retracted=Retraction(date="2026-01-02", reason="wrong labels"))
    rows = [trained(), trained(**without()), gone, reported("One"), reported("Two", external="51.5")]
    return board_of((*rows, reported("Three", dataset="cifar100"), reported("Four", threat="corruptions", eps=None)))


class Document(html.parser.HTMLParser):
    """What a browser would make of the page, as far as the tests ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_same_leaderboard_gives_the_same_bytes() -> None:
    assert render(board()) == render(board_of(board().rows[::-1]))


def test_an_empty_leaderboard_gives_a_page_that_says_so() -> None:
    assert b"No results yet" in render(board_of(()))


def test_every_row_stands_in_the_document_once_and_the_retracted_one_apart() -> None:
    document = Document(render(board()).decode())
    ids = [found["id"] for tag, found in document.tags if tag in ("tr", "li") and found.get("id")]
    assert sorted(str(each) for each in ids) == sorted(f"row-{row.awpbench.id}" for row in board().rows)
    assert "wrong labels" in "".join(document.words)


def heads(text: str) -> list[list[str]]:
    tables = re.findall("(?s)<thead>.*?</thead>", text)
    return [re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", table) for table in tables]


def test_columns_are_robustbench_s_in_its_order_then_ours() -> None:
    measured, *others = heads(render(board()).decode())
    robustbench = ["Rank", "Method", "Standard accuracy", "AA accuracy", "Best known robust accuracy"]
    robustbench += ["Potentially unreliable", "Extra data", "Architecture", "Venue"]
    assert measured[:9] == robustbench
    assert measured[9:] == [
        *("Defense", "AWP", "fgsm", "pgd-20", "pgd-100", "cw-inf", "spsa"),
        *("Worst case", "AWP gain", "Gap", "Selection", "n"),
    ]
    corruptions = [*robustbench[:3], "Accuracy under corruptions", *robustbench[4:]]
    assert [each[:9] for each in others] == [robustbench, corruptions, robustbench]


def test_reported_rows_are_ranked_by_robustbench_s_rule_and_those_without_a_number_come_last() -> None:
    rows = [reported("Low"), reported("External", external="70"), reported("None", autoattack_acc="", reported="")]
    text = render(board_of(tuple(rows))).decode()
    assert re.findall(r'<tr class="row" id="row-rb\.(\w+)"', text) == ["External", "Low", "None"]
    assert "reported, not measured here" in text


def test_numbers_keep_their_zeros_and_carry_interval_and_n() -> None:
    text = render(board()).decode()
    assert '<span class="v">18.33</span>' in text
    assert '<span class="s">[14.36, 23.10] n=300</span>' in text
    assert '<span class="v">+5.00</span>' in text  # AWP's gain: 55 and 40 of 300


def test_the_worst_case_says_of_which_images_it_is() -> None:
    text = render(board()).decode()
    help_ = (
        "Images that withstood every attack, of those that all attacks saw (n in the cell). "
        "Fewer images than AutoAttack&#39;s: it can exceed AutoAttack&#39;s accuracy in the same row."
    )
    assert f'title="{help_}">Worst case</th>' in text
    guide = text[text.index("<b>Worst case</b>") :].partition("</li>")[0]
    assert "all attacks saw (n in the cell)" in guide
    assert guide.endswith("it can exceed AutoAttack's accuracy in the same row.")


def test_the_page_asks_for_nothing_and_allows_no_code_but_its_own() -> None:
    document = Document(render(board()).decode())
    (policy,) = [found["content"] for _, found in document.tags if "http-equiv" in found]
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for rule in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules[rule])
    assert [
        found for tag, found in document.tags if "src" in found or (tag == "link" and found["href"] != "data:,")
    ] == []


def test_only_web_addresses_become_links_and_all_of_them_without_an_opener() -> None:
    document = Document(render(hostile.board()).decode())
    links = [found for tag, found in document.tags if tag == "a" and not str(found["href"]).startswith("#")]
    assert links
    assert all(re.match("https?://", str(found["href"])) and found["rel"] == "noopener" for found in links)


def test_hostile_text_makes_no_tag_and_no_attribute_and_leaves_no_direction_mark() -> None:
    text = render(hostile.board()).decode()
    plain = Document(render(board()).decode())
    document = Document(text)
    assert {tag for tag, _ in document.tags} <= {tag for tag, _ in plain.tags} | {"li", "ul"}
    assert [name for _, found in document.tags for name in found if name.startswith("on") or name == "style"] == []
    assert re.search("[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]", text) is None
    assert text.count("</script") == 2
    assert text.count("</style") == 1


def test_the_data_for_the_script_is_json_without_any_markup() -> None:
    text = render(hostile.board()).decode()
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert set("<>&'") & set(data) == set()
    assert {row["id"] for table in json.loads(data) for row in table["rows"]} == {
        row.awpbench.id for row in hostile.board().rows if row.awpbench.retracted is None
    }


@pytest.mark.parametrize(
    ("value", "linked"),
    [
        ("https://example.org/a?b=c", True),
        ("HTTP://example.org", True),
        ("javascript:alert(1)", False),
        (" https://example.org", False),
        ("https://example.org/\u202e", False),
        ("https://example.org/ onclick", False),
        ("data:text/html,x", False),
        (None, False),
        ({"a": 1}, False),
    ],
)
def test_a_web_address_is_http_without_blanks(value: object, linked: bool) -> None:
    assert web_address(value) == (value if linked else None)


@pytest.mark.parametrize(
    ("value", "number"),
    [("56.10", 56.1), (56, 56.0), ("", None), ("nan", None), ("1e999", None), (True, None), (None, None), ([], None)],
)
def test_a_percentage_is_a_finite_number_or_nothing(value: object, number: float | None) -> None:
    assert percent(value) == number


# The drawing


def dot(name: str, clean: float, robust: float) -> Dot:
    return Dot(name, name, "awp", clean, robust)


def test_the_frontier_holds_what_nothing_beats_in_both() -> None:
    dots = [dot("a", 0.9, 0.4), dot("b", 0.8, 0.5), dot("c", 0.8, 0.45), dot("d", 0.7, 0.5), dot("e", 0.6, 0.6)]
    assert [each.name for each in scatter.frontier(dots)] == ["e", "b", "a"]


def test_twins_on_the_frontier_both_belong_to_it_and_twins_behind_it_do_not() -> None:
    dots = [dot("a", 0.9, 0.4), dot("b", 0.8, 0.5), dot("twin", 0.8, 0.5), dot("c", 0.7, 0.4), dot("d", 0.7, 0.4)]
    assert {each.name for each in scatter.frontier(dots)} == {"a", "b", "twin"}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.812, 0.853, (0.81, 0.82, 0.83, 0.84, 0.85, 0.86)),
        (0.5, 0.5, (0.5, 0.505, 0.51)),
        (0.0, 0.0, (0.0, 0.005, 0.01)),
        (1.0, 1.0, (0.99, 0.995, 1.0)),
        (0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    ],
)
def test_ticks_are_round_and_surround_what_they_measure(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert scatter.ticks(low, high) == pytest.approx(expected)


def test_dots_stand_where_the_axes_say() -> None:
    drawn = scatter.scatter([dot("a", 0.0, 0.0), dot("b", 1.0, 1.0)])
    assert drawn is not None
    assert [(mark.x, mark.y) for mark in drawn.marks] == [(drawn.left, drawn.bottom), (drawn.right, drawn.top)]
    assert scatter.scatter([]) is None


# The commands


def test_the_commands_of_a_row_name_its_values() -> None:
    details = trained().awpbench
    words, unsaid = commands.training(details)
    assert commands.line(words) == (
        "awpbench train prn18 --dataset cifar10 --width 16 --method at --norm Linf --eps 8/255 --steps 10 --awp "
        "--awp-gamma 0.01 --awp-warmup 0 --epochs 150 --train-examples 1000 --select-on validation --seed 0"
    )
    assert unsaid == []
    assert commands.line(commands.evaluation(details)) == (
        "awpbench eval --ckpt runs/cifar10-prn18-w16-at-awp-s0/best.pt --suite full --dataset cifar10 --norm Linf "
        "--eps 8/255 --dialect awp --seed 0 --n-examples 10000 --limit pgd-100=300 --limit cw-inf=300 --limit spsa=60 "
        "--limit autoattack=300"
    )


@pytest.mark.parametrize("given", [{"defense": "trades"}, {"defense": "at", "awp": True, "awp_gamma": 0.005}])
def test_the_training_command_of_a_whole_configuration_repeats_it(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve_training({"dataset": "digits", **given})[0]
    words, unsaid = commands.training(trained(**config.model_dump(mode="json")).awpbench)
    resolved = []

    def resolve(*arguments: Any, **named: Any) -> Any:
        resolved.append(resolve_training(*arguments, **named)[0])
        raise UsageError("enough", "Stop here.")

    monkeypatch.setattr(defaults, "resolve_training", resolve)
    assert main(words[1:]) == 2
    assert resolved == [config]
    assert unsaid == []


def test_values_that_no_flag_gives_are_told() -> None:
    words, unsaid = commands.training(trained(compat=["svhn-l2-start"], track_examples=None, strange={"a": 1}).awpbench)
    assert unsaid == ["track_examples null (all)", 'compat ["svhn-l2-start"]', 'strange {"a": 1}']
    assert "--compat" not in words


def test_a_citation_is_the_entry_that_bibtex_prints() -> None:
    keys = {**CARD, "venue": "ICLR 2021"}
    paper = Paper.of(keys)
    assert paper is not None
    assert commands.citation(keys) == bibtex([(None, paper)]).splitlines()
    assert commands.citation(keys)[0] == f"@article{{{paper.label},"
    assert commands.citation({"authors": "nobody"}) == []


def test_every_row_answers_how_to_cite_it() -> None:
    assert past(CARD, trained().awpbench)[-1].lines == tuple(commands.citation(CARD))
    assert past({}, trained().awpbench)[-1] == Facts("Cite", note="This row names no paper.")


# The command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "leaderboard.json"
    path.write_bytes(canonical(board_of(board().measured)))
    return path


def test_the_command_writes_the_page_and_says_where(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "site" / "index.html"
    assert main(["leaderboard", "page", str(out), "--file", str(file)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert out.read_bytes() == render(board_of(board().measured))
    assert is_page(out.read_bytes()[:1000])
    assert main(["leaderboard", "page", str(out), "--file", str(file), "--json"]) == 0  # a page may be written anew
    assert json.loads(capsys.readouterr().out) == {"file": str(out), "bytes": len(out.read_bytes())}


def test_the_command_overwrites_nothing_but_pages(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "thesis.html"
    out.write_text("mine")
    assert main(["leaderboard", "page", str(out), "--file", str(file)]) == 3
    assert capsys.readouterr().err == (
        f"error: {out} exists and is no page of awpbench\nmend:  Name another file, or overwrite it with --force.\n"
    )
    assert out.read_text() == "mine"
    assert main(["leaderboard", "page", str(out), "--file", str(file), "--force"]) == 0
    assert is_page(out.read_bytes()[:1000])
    assert main(["leaderboard", "page", str(tmp_path), "--file", str(file)]) == 2
