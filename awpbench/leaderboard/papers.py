"""The papers behind rows: names in RobustBench's manner, and BibTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from awpbench.leaderboard import escape

_WHEN = re.compile(r"(?:[A-Z][a-z]{2}\.? )?((?:19|20)[0-9]{2})$")  # at the end of a venue: `Oct 2020`, `2020`
_LONGEST = 64  # characters of a word in a name or key


@dataclass(frozen=True)
class Paper:
    """The bibliographic keys of a row, taken apart. `venue` is without the year; year and link may be empty."""

    title: str
    authors: tuple[str, ...]
    venue: str
    year: str
    link: str

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> Paper | None:
        """Read RobustBench's bibliographic keys; None without a title or authors, or where the venue is `N/A`."""
        title, authors, venue, link = (str(keys.get(key) or "") for key in ("name", "authors", "venue", "link"))
        words, names, where = _line(title), _names(authors), _line(venue.replace("<br>", " "))
        if not words or not names or where == "N/A":
            return None
        found = _WHEN.search(where)
        if found is None:
            return cls(words, names, where, "", link)
        return cls(words, names, where[: found.start()].rstrip(" ,"), found[1], link)

    @property
    def label(self) -> str | None:
        """RobustBench's `<Name><Year><First word of the title>`; None where one of the three is missing."""
        first = self.authors[0]
        surname = _word(first.split(",")[0] if "," in first else first.split()[-1])
        word = next(filter(None, map(_word, self.title.split())), "")
        return f"{surname}{self.year}{word}" if surname and self.year and word else None


def bibtex(papers: Iterable[tuple[str | None, Paper]]) -> str:
    """Write one entry per paper, each with the key asked for or its label; sorted, keys unique, text escaped.

    The entries are `@article`s, as RobustBench writes them, whatever the venue is.
    """
    keys: dict[str, tuple[tuple[str, ...], Paper]] = {}
    for wanted, paper in papers:
        same = (paper.title.casefold(), *map(str.casefold, paper.authors))
        stem = _word(wanted or "") or paper.label or _word(paper.authors[0].split()[-1]) or "paper"
        key, number = stem, 1
        while key in keys and keys[key][0] != same:
            number += 1
            key = f"{stem}-{number}"
        keys.setdefault(key, (same, paper))
    return "\n".join(_entry(key, paper) for key, (_, paper) in sorted(keys.items()))


def address(text: str) -> str:
    """Write a web address with nothing in it but what RFC 3986 allows; `""` for anything that is no http(s) address."""
    return quote(text, safe=":/?#[]@!$&'()*+,;=%-._~") if re.match(r"https?://", text) else ""


def _entry(key: str, paper: Paper) -> str:
    fields = {
        "title": f"{{{escape.bibtex(paper.title)}}}",  # braces keep its capitals
        "author": " and ".join(map(escape.bibtex, paper.authors)),
        "journal": escape.bibtex(paper.venue),
        "year": paper.year,
        "url": address(paper.link),
    }
    lines = [f"  {name} = {{{value}}},\n" for name, value in fields.items() if value]
    return f"@article{{{key},\n{''.join(lines)}}}\n"


def _names(authors: str) -> tuple[str, ...]:
    """Split authors: `A B, C D`, `A B, C D, and E F`, or BibTeX's `A B and C D` and `B, A and D, C`."""
    text = _line(authors)
    parts = text.split(" and ")
    if len(parts) > 1 and len({part.count(",") for part in parts}) == 1 and parts[0].count(",") <= 1:
        names = parts
    else:
        names = re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", text)
    return tuple(name.strip() for name in names if name.strip())


def _word(text: str) -> str:
    """Keep what can stand in a name of RobustBench and a key of BibTeX: ASCII letters, digits and hyphens within."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]", "", ascii_text).strip("-")[:_LONGEST]


def _line(text: str) -> str:
    return " ".join(escape.plain(text).split())
