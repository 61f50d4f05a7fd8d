"""The leaderboard as one static page: tables, drawings and details in HTML, with a script that only rearranges them.

Names come from strangers: Jinja escapes everything, only http(s) addresses become links, and the page's own
Content-Security-Policy allows no script and no style but the ones in it, and no request at all.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from awpbench.leaderboard.details import Details
from awpbench.leaderboard.escape import plain
from awpbench.leaderboard.page import measured, reported
from awpbench.leaderboard.page.parts import FAMILIES, FILTERS, Table
from awpbench.leaderboard.row import Board, Reported, Row
from awpbench.leaderboard.view import rankings, retracted

GENERATOR = "awpbench leaderboard page"  # by which a page is known, and may be written anew


def render(board: Board) -> bytes:
    """Return the page as UTF-8: the same leaderboard gives the same bytes."""
    tables = [*map(measured.table, rankings(board)), *reported.tables(board)]
    style, script = (_packaged(f"page.{ending}") for ending in ("css", "js"))
    values = {
        "generator": GENERATOR,
        "policy": _policy(style, script),
        "style": Markup(style),  # our own files, not text of rows
        "script": Markup(script),
        "tables": tables,
        "retracted": [_taken_back(row) for row in retracted(board)],
        "filters": FILTERS,
        "options": {key: _options(tables, key) for key in FILTERS},
        "families": FAMILIES,
        "data": htmlsafe_json_dumps(_data(tables), dumps=_dumps),
    }
    return _template().render(values).encode()


def is_page(head: bytes) -> bool:
    """Tell from the first thousand bytes of a file whether it is a page that awpbench wrote."""
    return f'<meta name="generator" content="{GENERATOR}">'.encode() in head


def _taken_back(row: Row | Reported) -> Mapping[str, str]:
    own = row.awpbench
    when = own.retracted
    where = f"{own.dataset}, {own.norm}" if isinstance(own, Details) else f"{own.dataset}, {own.threat}"
    kind = "measured" if isinstance(own, Details) else "reported"
    said = {"date": when.date, "reason": when.reason} if when is not None else {"date": "", "reason": ""}
    return {"id": own.id, "model": own.model, "where": where, "kind": kind, **said}


def _options(tables: Sequence[Table], key: str) -> list[str]:
    found = {plain(entry.filters[key]) for table in tables for entry in table.entries}
    return sorted(found - {""})


def _data(tables: Sequence[Table]) -> list[dict[str, Any]]:
    return [
        {
            "key": table.key,
            "measured": table.measured,
            "group": dict(table.group),
            "columns": [[heading.key, heading.kind] for heading in table.columns],
            "rows": [
                {
                    "id": entry.id,
                    "name": entry.name,
                    "values": [cell.value for cell in entry.cells],
                    "text": " ".join(entry.words),
                    "filters": [entry.filters[key] for key in FILTERS],
                    "scores": entry.scores,
                    "outcomes": entry.outcomes,
                }
                for entry in table.entries
            ],
        }
        for table in tables
    ]


def _dumps(value: Any, **_: Any) -> str:
    return json.dumps(_cleaned(value), separators=(",", ":"), allow_nan=False)


def _cleaned(value: Any) -> Any:
    """Free all text of what is no visible character."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {key: _cleaned(each) for key, each in value.items()}
    return [_cleaned(each) for each in value] if isinstance(value, list | tuple) else value


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy: nothing from anywhere, and no code but this."""
    rules = {
        "default-src": "'none'",
        "script-src": _hash_source(script),
        "style-src": _hash_source(style),
        "img-src": "data:",  # the empty icon, which keeps browsers from asking for one
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packaged(name: str) -> str:
    return resources.files("awpbench.leaderboard.page").joinpath(name).read_text(encoding="utf-8")


def _visible(value: Any) -> Any:
    """Free a text of what is no visible character; Jinja escapes what is left."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, finalize=_visible, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_packaged("page.html.j2"))
