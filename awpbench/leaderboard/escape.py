"""Text of strangers made harmless: one function per format. JSON needs none, and rich takes `plain` text in a Text."""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = {  # letters and marks by their category, with nothing to be seen; and what only modifies how others look
    *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE10),
    *range(0xE0100, 0xE01F0),
}
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # what a spreadsheet would compute; some read the wide forms alike
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_MARKDOWN = re.compile(
    r"[\\`*\[\]~#$]"  # code, emphasis, links, headings; GitHub's strikethrough and mathematics
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # within a word it is no emphasis
    r"|:(?=//)|(?<=www)\.|@"  # what becomes a link by itself
    r"|^[-+=]",  # lists and underlines
    re.IGNORECASE,
)
_LATEX = {
    **{character: f"\\{character}" for character in "$&#%_"},
    "\\": r"{\textbackslash}",
    "{": r"{\textbraceleft}",  # BibTeX counts the braces of \{ too
    "}": r"{\textbraceright}",
    "~": r"{\textasciitilde}",
    "^": r"{\textasciicircum}",
    "<": r"{\textless}",
    ">": r"{\textgreater}",
    "|": r"{\textbar}",
    "`": r"{\textasciigrave}",
    '"': r"{\symbol{34}}",
    "[": "{[}",  # an option of the command before it, as is a star
    "]": "{]}",
    "*": "{*}",
}


def plain(text: str) -> str:
    """Replace what is no visible character (line ends, escape codes, marks of direction) by a blank each."""
    if text.isascii() and text.isprintable():  # as nearly all is, and much faster
        return text
    return "".join(" " if _unseen(character) else character for character in text)


def _unseen(character: str) -> bool:
    return unicodedata.category(character)[0] in "CZ" or ord(character) in _INVISIBLE


def markdown(text: str) -> str:
    """Return the Markdown that shows a text as it is, wherever it stands: no HTML, link, emphasis, list, or new cell.

    GitHub makes a link of a mail address whatever is done.
    """
    text = _MARKDOWN.sub(r"\\\g<0>", plain(text).strip())
    text = re.sub(r"^(\d{1,9})([.)])(?=\s|$)", r"\1\\\2", text)
    return re.sub("[&<>|]", lambda found: _ENTITIES[found[0]], text)


def csv_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: a `'` stands before what would be one."""
    text = plain(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def latex(text: str) -> str:
    """Return the LaTeX that typesets a text as it is: no command, comment or ligature in it, braces in balance."""
    text = "".join(_LATEX.get(character, character) for character in plain(text))
    return re.sub(r"(['\-,])(?=\1)", r"\1{}", text)  # a dash or a quotation mark otherwise


def bibtex(text: str) -> str:
    """Return what stands between the braces of a BibTeX field."""
    return latex(text).replace("@", "{@}")
