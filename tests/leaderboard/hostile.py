"""Rows whose every text field is an attack on whoever shows it."""

from __future__ import annotations

from typing import Any

from awpbench.leaderboard.details import Retraction, Source, Threat
from awpbench.leaderboard.row import Board, Reported, Row, board_of
from tests import payloads
from tests.leaderboard import crafted

MARK = "window.pwned=1"
PAYLOADS = (
    f"<script>{MARK}</script>",
    f"</script><script>{MARK}</script>",
    f"</style><script>{MARK}</script>",
    f"</noscript><script>{MARK}</script>",
    f"</title></textarea></template><img src=x onerror={MARK}>",
    f"<img src=x onerror={MARK}>",
    f"<svg onload={MARK}>",
    f"<svg><script>{MARK}</script></svg>",
    f"<math><mi//xlink:href='data:x,<script>{MARK}</script>'>",
    f'" onmouseover="{MARK}" x="',
    f"' autofocus onfocus='{MARK}' x='",
    f"` onclick={MARK} `",
    f"javascript:{MARK}",
    f"JaVaScRiPt:{MARK}",
    f"java\tscript:{MARK}",
    f"data:text/html,<script>{MARK}</script>",
    f"<a href='javascript:{MARK}'>x</a>",
    f"<iframe srcdoc='<script>{MARK}</script>'>",
    f"<details open ontoggle={MARK}>",
    f"<body onload={MARK}>",
    f"<base href='https://evil.example/'><form action=javascript:{MARK}>",
    f"<meta http-equiv=refresh content='0;url=javascript:{MARK}'>",
    f"<link rel=stylesheet href='data:text/css,*{{}}'><style onload={MARK}>",
    f"<!--<script>{MARK}",
    f"-->]]><script>{MARK}</script>",
    f"&lt;script&gt;{MARK}&lt;/script&gt;",
    f"&#60;script&#62;{MARK}",
    f"\\u003cscript\\u003e{MARK}\\u003c/script\\u003e",
    *payloads.PAYLOADS,
)


def measured(payload: str, number: int) -> Row:
    """A measured row with the payload in every text that may hold it."""
    card = {key: payload for key in ("name", "authors", "venue")} | {"link": f"https://example.org/{payload}"}
    strange = {"name": payload, payload: payload}
    attacks = {name: {**found, "definition": strange} for name, found in crafted.result()["attacks"].items()}
    attacks["autoattack"]["parts"] = strange
    model = {"source": payload, "name": payload, "architecture": payload, "width": None}
    training = crafted.config(defense=payload, architecture=payload, note=payload, **{payload: strange})
    hashes = {**crafted.result()["hashes"], payload: payload, "weights": f"{number}"}
    document = crafted.result(
        model=model, attacks=attacks, training=training, dataset=payload, dialect=payload, hashes=hashes
    )
    document["audit"] = {"verdict": "suspicious", "findings": [strange]}
    return crafted.built(document, card)


def reported(payload: str, number: int) -> Reported:
    """A reported row with the payload in every key, and in keys of its own."""
    keys: dict[str, Any] = dict.fromkeys(
        ("link", "name", "authors", "venue", "architecture", "footnote", "clean_acc", "reported", "autoattack_acc"),
        payload,
    )
    keys |= {"dataset": payload, "eps": "8/255", "additional_data": payload, "unreliable": payload, payload: [payload]}
    keys["external"] = f"{number}.5"
    return quoted(f"hostile-{number}", payload, keys, reference=payload)


def quoted(name: str, model: str, keys: dict[str, Any], *, reference: str, threat: Threat = "Linf") -> Reported:
    """A reported row with these keys of RobustBench's."""
    source = Source(kind="paper", reference=reference)
    return Reported.of(name, model=model, dataset=keys["dataset"], threat=threat, keys=keys, source=source)


def board() -> Board:
    """All payloads, each in a measured and a reported row; every fifth row is retracted for a hostile reason."""
    rows: list[Row | Reported] = []
    for number, payload in enumerate(PAYLOADS):
        for row in (measured(payload, number), reported(payload, number)):
            gone = Retraction(date="2026-01-02", reason=payload)
            rows.append(row.sealed(retracted=gone) if number % 5 == 4 else row)
    return board_of(tuple(rows))
