from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awpbench.leaderboard.papers import Paper, bibtex

AWP = {
    "link": "https://arxiv.org/abs/2004.05884",
    "name": "Adversarial Weight Perturbation Helps Robust Generalization",
    "authors": "Dongxian Wu, Shu-tao Xia, Yisen Wang",
    "venue": "NeurIPS 2020",
}


def paper(**changes: Any) -> Paper:
    found = Paper.of({**AWP, **changes})
    assert found is not None
    return found


def test_a_paper_is_written_as_an_article_with_its_name_in_robustbenchs_manner() -> None:
    assert bibtex([(None, paper())]) == (
        "@article{Wu2020Adversarial,\n"
        "  title = {{Adversarial Weight Perturbation Helps Robust Generalization}},\n"
        "  author = {Dongxian Wu and Shu-tao Xia and Yisen Wang},\n"
        "  journal = {NeurIPS},\n"
        "  year = {2020},\n"
        "  url = {https://arxiv.org/abs/2004.05884},\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("venue", "journal", "year"),
    [
        ("NeurIPS 2020", "NeurIPS", "2020"),
        ("arXiv, Oct 2020", "arXiv", "2020"),
        ("arXiv, Dec. 2022", "arXiv", "2022"),
        ("GitHub,<br>Sep 2019", "GitHub", "2019"),
        ("Pattern Recognition 2024", "Pattern Recognition", "2024"),
        ("TMLR, Aug 2024", "TMLR", "2024"),
        ("Submitted", "Submitted", ""),
        ("2020", "", "2020"),
        ("", "", ""),
    ],
)
def test_a_venue_is_taken_apart_as_robustbench_writes_it(venue: str, journal: str, year: str) -> None:
    assert (paper(venue=venue).venue, paper(venue=venue).year) == (journal, year)


@pytest.mark.parametrize(
    ("authors", "names"),
    [
        ("A B, C D", ("A B", "C D")),
        ("A B, C D, and E F", ("A B", "C D", "E F")),
        ("A B, C D and E F", ("A B", "C D", "E F")),
        ("A B and C D", ("A B", "C D")),
        ("B, A and D, C", ("B, A", "D, C")),
        (" A\n B ,", ("A B",)),
    ],
)
def test_authors_are_separated_by_commas_or_by_and(authors: str, names: tuple[str, ...]) -> None:
    assert paper(authors=authors).authors == names


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "Wu2020Adversarial"),
        ({"authors": "J\u00e9r\u00f4me R\u00f8ny"}, "Rny2020Adversarial"),
        ({"authors": "Seyed-Mohsen Moosavi-Dezfooli"}, "Moosavi-Dezfooli2020Adversarial"),
        ({"authors": "Kundu, Souvik and Nazemi, Mahdi"}, "Kundu2020Adversarial"),
        ({"name": '"LAS-AT": Learning'}, "Wu2020LAS-AT"),
        ({"venue": "Submitted"}, None),
        ({"authors": "\u5434"}, None),
        ({"name": "!!!"}, None),
    ],
)
def test_a_label_is_surname_year_and_first_word(changes: dict[str, str], label: str | None) -> None:
    assert paper(**changes).label == label


@pytest.mark.parametrize(
    "changes", [{"name": ""}, {"authors": ""}, {"name": None}, {"venue": "N/A"}, {"authors": ", ,"}]
)
def test_without_title_or_authors_there_is_no_paper(changes: dict[str, Any]) -> None:
    assert Paper.of({**AWP, **changes}) is None


def test_a_paper_of_several_rows_has_one_entry_and_another_paper_never_its_key() -> None:
    other = paper(name="Adversarial things")
    text = bibtex([(None, paper()), ("Wu2020Adversarial", other), (None, paper()), (None, other)])
    assert re.findall(r"@article\{(.+),", text) == ["Wu2020Adversarial", "Wu2020Adversarial-2"]


def test_a_key_is_found_where_no_label_is() -> None:
    keys = [("a b{,}", paper()), (None, paper(venue="")), (None, paper(authors="\u5434", venue=""))]
    assert re.findall(r"@article\{(.+),", bibtex(keys)) == ["Wu", "ab", "paper"]


def test_special_characters_are_written_out_and_braces_stay_balanced() -> None:
    text = bibtex([(None, paper(name="100 % & $x_1^2$ } \\input{/etc/passwd} {", link="javascript:alert(1)"))])
    title = (
        "100 \\% \\& \\$x\\_1{\\textasciicircum}2\\$ {\\textbraceright} "
        "{\\textbackslash}input{\\textbraceleft}/etc/passwd{\\textbraceright} {\\textbraceleft}"
    )
    assert f"  title = {{{{{title}}}}},\n" in text
    assert "javascript" not in text


def test_long_hostile_text_takes_no_time() -> None:
    start = time.process_time()
    for text in ("," * 60_000, " " * 60_000, " and " * 12_000, "<br>" * 15_000, "x" * 60_000, "{" * 60_000):
        bibtex([(None, paper(name=f"x{text}", authors=f"A{text}", venue=text))])
    assert time.process_time() - start < 2


TEXT = st.one_of(st.text(max_size=30), st.sampled_from(["}", "{", "\\", "@article{x,", " and ", "%", "\x1b[31m", "\n"]))


@given(st.lists(st.fixed_dictionaries({"name": TEXT, "authors": TEXT, "venue": TEXT, "link": TEXT}), max_size=4))
def test_whatever_the_text_the_entries_can_be_parsed(rows: list[dict[str, str]]) -> None:
    papers = [found for found in map(Paper.of, rows) if found]
    text = bibtex((None, found) for found in papers)
    depth = 0
    for character in re.sub(r"\\.", "", text):  # an escaped character is none of BibTeX's
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert text.count("{") == text.count("}")  # BibTeX counts escaped braces too
    keys = re.findall(r"^@article\{([A-Za-z0-9-]+),$", text, re.MULTILINE)
    different = {(each.title.casefold(), *map(str.casefold, each.authors)) for each in papers}
    assert len(set(keys)) == len(keys) == len(different)
    assert all(character.isprintable() or character == "\n" for character in text)
