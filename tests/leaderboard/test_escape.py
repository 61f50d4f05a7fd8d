from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from awpbench.leaderboard.escape import bibtex, csv_cell, latex, markdown, plain
from tests.payloads import PAYLOADS

TEXT = st.one_of(
    st.sampled_from(PAYLOADS),
    st.text(),
    st.text(alphabet="\\`*_[](){}<>|~!#$&%^@:/.-+=\"', \n\t1aw"),
    st.builds("".join, st.lists(st.sampled_from(PAYLOADS), min_size=2, max_size=3)),
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\nc", "a b  c"),
        ("\x1b[31mred\x1b]8;;x\x07", " [31mred ]8;;x "),
        ("\u202egnp.exe\u202c", " gnp.exe "),
        ("zero\u200bwidth\ufeff", "zero width "),
        ("\u2028line\x85", " line "),
        ("\u3164\ufe0f\U000e0041", "   "),
        ("\u00a0é 中文 🙂", " é 中文 🙂"),
    ],
)
def test_plain_text_has_a_blank_for_what_is_not_to_be_seen(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(TEXT)
def test_plain_text_holds_no_control_character_and_keeps_all_others(text: str) -> None:
    found = plain(text)
    assert {unicodedata.category(character) for character in found} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} == set()
    assert len(found) == len(text)
    assert plain(found) == found
    assert all(new in (old, " ") for old, new in zip(text, found, strict=True))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("cifar10-prn18-w16-at-awp-s0/best", "cifar10-prn18-w16-at-awp-s0/best"),
        ("foreign_net", "foreign_net"),
        ("_a_ *b* `c` [d](e) ~f~ $g$ #h", r"\_a\_ \*b\* \`c\` \[d\](e) \~f\~ \$g\$ \#h"),
        ("a|b <i>&amp;", "a&#124;b &lt;i&gt;&amp;amp;"),
        ("https://a.b www.a.b me@a.b", r"https\://a.b www\.a.b me\@a.b"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("-1.72", r"\-1.72"),
        ("  a\\ ", r"a\\"),
    ],
)
def test_markdown_of_known_texts(text: str, written: str) -> None:
    assert markdown(text) == written


GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PLACES = ("{}", "### {}", "- {}", "| head | more |\n|---|---|\n| {} | ours |", "| head |\n|---|\n| ours |\n| {} |")


def texts_of(document: str) -> list[str]:
    """The texts that a document shows, block by block; fails where there is anything but text in one."""
    blocks = [
        token for token in GITHUB.parse(document) if token.type in ("inline", "html_block", "code_block", "fence")
    ]
    assert {block.type for block in blocks} <= {"inline"}
    children = [child for block in blocks for child in block.children or []]
    assert {child.type for child in children} <= {"text"}
    return ["".join(child.content for child in block.children or []) for block in blocks]


@pytest.mark.parametrize("place", PLACES)
@given(text=TEXT)
def test_markdown_shows_any_text_as_it_is_wherever_it_stands(place: str, text: str) -> None:
    expected = {"head", "more", "ours", plain(text).strip()} - {""}
    shown = texts_of(place.format(markdown(text)))
    assert set(shown) - {""} <= expected
    assert plain(text).strip() in [*shown, ""]


@given(TEXT)
def test_markdown_leaves_nothing_that_html_would_read(text: str) -> None:
    assert re.search(r"[<>|\n]|&(?!(?:amp|lt|gt|#124);)", markdown(text)) is None


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1.72", "'-1.72"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "' =1"),
        ("\u200b\uff1d1", "' \uff1d1"),
        ("a=1", "a=1"),
        ("8/255", "8/255"),
    ],
)
def test_csv_cells_of_known_texts(text: str, cell: str) -> None:
    assert csv_cell(text) == cell


@given(st.lists(TEXT, min_size=2, max_size=4))
def test_csv_gives_any_text_back_and_no_spreadsheet_computes_it(texts: list[str]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow([csv_cell(text) for text in texts])
    (cells,) = csv.reader(io.StringIO(file.getvalue()))
    assert [cell.removeprefix("'") for cell in cells] == [plain(text).removeprefix("'") for text in texts]
    assert [cell for cell in cells if re.match(r"\s*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]", cell)] == []


COMMANDS = {
    "textbackslash": "\\",
    "textbraceleft": "{",
    "textbraceright": "}",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textasciigrave": "`",
}


TOKEN = re.compile(
    r"\\(?P<command>[A-Za-z]+)(?=\})|\\(?P<quote>symbol)\{34\}|\\(?P<sign>[$&#%_])"
    r"|(?P<brace>[{}])|(?P<text>[^\\$&#%_~^`<>|\"{}]+)"
)


def typeset(source: str) -> str:
    """What a small TeX would typeset; fails at a command that is not of the list, and at any active character."""
    shown, depth, position = [], 0, 0
    while position < len(source):
        token = TOKEN.match(source, position)
        assert token, source[position : position + 80]
        position = token.end()
        depth += {"{": 1, "}": -1}.get(token["brace"] or "", 0)
        assert depth >= 0
        quote = '"' if token["quote"] else ""
        shown.append(COMMANDS[token["command"]] if token["command"] else quote or token["sign"] or token["text"] or "")
    assert depth == 0
    return "".join(shown)


@pytest.mark.parametrize("escape", [latex, bibtex])
@given(text=TEXT)
def test_latex_typesets_any_text_as_it_is(escape: Callable[[str], str], text: str) -> None:
    written = escape(text)
    assert typeset(written) == plain(text)
    assert re.search(r"--|''|,,|(?<!\{)[\[\]*]|\n", written) is None
    assert written.count("{") == written.count("}")  # BibTeX counts those of \{ too


@given(TEXT)
def test_bibtex_sees_no_entry_within_a_field(text: str) -> None:
    assert re.search(r"(?<!\{)@", bibtex(text)) is None


def test_latex_of_known_texts() -> None:
    assert latex("100 % of $x_1$ & #2") == r"100 \% of \$x\_1\$ \& \#2"
    assert latex("\\input{x}") == r"{\textbackslash}input{\textbraceleft}x{\textbraceright}"
    assert latex("prn18 (width 16), at-awp") == "prn18 (width 16), at-awp"
    assert bibtex("me@a.b") == "me{@}a.b"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed here")
def test_pdflatex_typesets_every_payload_and_runs_none(tmp_path: Path) -> None:
    """But for letters beyond Europe's, which need lualatex or xelatex and their fonts."""
    texts = [re.sub("[^\x00-\u017f]", "x", latex(text[:300])) for text in PAYLOADS]
    cells = [f"{text} & {text} \\\\" for text in texts]
    head = [r"\documentclass{article}", r"\begin{document}", *(f"% {text}" for text in texts), r"\begin{tabular}{ll}"]
    foot = [r"\end{tabular}", *(f"{text}\n" for text in texts), "the end", r"\end{document}"]
    (tmp_path / "all.tex").write_text("\n".join([*head, *cells, *foot]), encoding="utf-8")
    words = ["pdflatex", "-draftmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    found = subprocess.run(words, cwd=tmp_path, input=b"", capture_output=True, check=False, timeout=60)
    assert found.returncode == 0, found.stdout[-2000:]
    assert {path.suffix for path in tmp_path.iterdir()} == {".tex", ".log", ".aux"}
