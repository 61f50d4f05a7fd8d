"""Leaderboards of older schema versions, read as the current one.

Each step turns plain values of one version into those of the next; the file is written in the new form by the next
change. A step says only what the older file said: what it did not hold is null.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from awpbench.leaderboard.derived import hash_of


def migrated(document: dict[str, Any], version: int) -> dict[str, Any]:
    """Bring a document of an older version to `version`, the current one; others are returned as they are."""
    found = document.get("schema_version")
    while type(found) is int and found in STEPS and found < version:  # true equals 1
        document, found = {**STEPS[found](document), "schema_version": found + 1}, found + 1
    return document


def _from_1(document: dict[str, Any]) -> dict[str, Any]:
    """Version 2 has kinds of rows, per-image outcomes, history, retractions, and a digest in every row."""
    rows = document.get("rows")
    return {**document, "rows": [_row_from_1(row) for row in rows] if isinstance(rows, list) else rows}


def _row_from_1(row: Any) -> Any:
    if not isinstance(row, dict) or not isinstance(row.get("awpbench"), dict):
        return row
    old = dict(row["awpbench"])
    if {"kind", "history", "retracted", "digest"} & old.keys():  # not of version 1: its digest is not to be made anew
        return {**row, "awpbench": {**old, "kind": None}}
    new: dict[str, Any] = {"kind": "measured"}
    for key, value in old.items():
        new[key] = value
        new |= {"attacks": {"worst_case": None, "outcomes": None}, "train": {"tracked": None}}.get(key, {})
        if key == "hashes":
            new["result"] = None
    event = {"date": None, "action": "migrated", "digest": None, "reported": row.get("reported"), "result": None}
    new |= {"history": [{**event, "reason": "from schema version 1"}], "retracted": None, "digest": None}
    try:
        return {**row, "awpbench": {**new, "digest": hash_of({**row, "awpbench": new})}}
    except ValueError:  # NaN or infinity, which whoever reads the row refuses
        return row


STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
