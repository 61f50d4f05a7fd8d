"""The tables of measured rows: RobustBench's columns in its order, then what awpbench measures besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from awpbench.leaderboard.attacks import Attack
from awpbench.leaderboard.columns import AFTER, column
from awpbench.leaderboard.details import Details, Score
from awpbench.leaderboard.page import commands
from awpbench.leaderboard.page.parts import (
    Cell,
    Entry,
    Facts,
    Heading,
    Kind,
    Table,
    figure,
    pairs,
    past,
    web_address,
    worded,
)
from awpbench.leaderboard.page.scatter import Dot, scatter
from awpbench.leaderboard.row import Row
from awpbench.leaderboard.view import Line, Ranking

GROUP = (
    "dataset",
    "norm",
    "eps",
    "suite",
    "series",
    "dialect",
    "ranked_by",
)  # what the CSV repeats


def table(ranking: Ranking) -> Table:
    """Lay out a group of comparable rows."""
    columns = _columns(ranking)
    entries = tuple(_entry(line, columns) for line in ranking.lines)
    group = ranking.group
    suite = f"Suite {group.suite} {group.series}, dialect {group.dialect}"
    ranked = f"ranked by {group.ranked_by} on {group.n} images"
    part = " (part of the test set)" if any(line.details.partial for line in ranking.lines) else ""
    return Table(
        f"t-{group.key}",
        f"{group.dataset}, {group.norm} {group.eps}",
        f"{suite}, {ranked}{part}. Data {group.data[:8]}, images {group.indices[:8]}.",
        True,
        tuple(heading for heading, _ in columns),
        entries,
        tuple(ranking.notes),
        scatter([_dot(line, group.ranked_by) for line in ranking.lines]),
        f"Accuracy under {group.ranked_by}",
        {field: str(getattr(group, field)) for field in GROUP},
    )


Column = tuple[Heading, Callable[[Line], Cell]]


def _columns(ranking: Ranking) -> list[Column]:
    """Return the columns of a table: RobustBench's in its order, then what awpbench measures besides."""
    others = [name for name in ranking.attacks if name not in ("clean", "autoattack")]
    robustbench: list[Column] = [
        (Heading("rank", "Rank", "Best and worst place that the interval allows.", "rank"), _shown("rank")),
        (Heading("method", "Method", "The paper, and the net that was measured.", "text"), _method),
        (Heading("clean", "Standard accuracy", "On clean images, in percent.", "accuracy"), _scored("clean", ranking)),
        (Heading("autoattack", "AA accuracy", "Under AutoAttack.", "accuracy"), _scored("autoattack", ranking)),
        (Heading("best_known", "Best known robust accuracy", BEST_KNOWN, "figure"), lambda line: _best_known(line.row)),
        (Heading("unreliable", "Potentially unreliable", "What the audit of the evaluation found.", "text"), _audit),
        (
            Heading("extra_data", "Extra data", MORE, "text"),
            _shown("extra data"),
        ),
        (Heading("architecture", "Architecture", "", "text"), lambda line: worded(line.row.architecture)),
        (Heading("venue", "Venue", "", "text"), lambda line: worded(line.row.venue)),
    ]
    ours: list[Column] = [
        (
            Heading("defense", "Defense", "How it was trained, where awpbench did it.", "text"),
            _shown("defense"),
        ),
        (Heading("awp", "AWP", "Gamma of the adversarial weight perturbation.", "text"), _shown("AWP")),
        *((Heading(name, name, f"Accuracy under {name}.", "accuracy"), _scored(name, ranking)) for name in others),
        *((Heading(name.replace(" ", "_"), *AFTERWARDS[name]), _shown(name)) for name in AFTER if name in AFTERWARDS),
    ]
    return robustbench + ours


MORE = "Trained on more than the data set's images."
BEST_KNOWN = "The lowest that any attack left on the images that AutoAttack saw; AutoAttack's own where none left less."
WORST_CASE = (
    "Images that withstood every attack, of those that all attacks saw (n in the cell). "
    "Fewer images than AutoAttack's: it can exceed AutoAttack's accuracy in the same row."
)
AFTERWARDS: Mapping[str, tuple[str, str, Kind]] = {
    "worst case": ("Worst case", WORST_CASE, "accuracy"),
    "gain": ("AWP gain", "Points above the same run without AWP, with a paired 95 % interval.", "difference"),
    "gap": ("Gap", "Robust accuracy in training less that on images held out, in points.", "figure"),
    "selection": ("Selection", "The images that chose the checkpoint.", "text"),
    "n": ("n", "Images that the attack which ranks saw.", "figure"),
}


def _shown(name: str) -> Callable[[Line], Cell]:
    shown = column(name)

    def cell(line: Line) -> Cell:
        text, value = shown.cell(line), shown.value(line)
        if isinstance(value, str):
            return worded(text)
        first, _, rest = text.partition(" ")
        return Cell(first, value, rest)

    return cell


def _scored(name: str, ranking: Ranking) -> Callable[[Line], Cell]:
    plainly = _shown(name)

    def with_bar(line: Line) -> Cell:
        cell, score = plainly(line), line.details.attacks.get(name)
        return cell if score is None else Cell(cell.text, cell.value, cell.below, bar=_bar(score))

    return with_bar if name == ranking.group.ranked_by else plainly


def _bar(score: Attack | Score) -> tuple[float, float, float]:
    low, high = score.interval
    return (round(100 * low, 1), round(100 * high, 1), round(100 * score.correct / score.n, 1))


def _method(line: Line) -> Cell:
    row = line.row
    text = row.name or row.awpbench.model
    below = [row.awpbench.model if row.name else "", "part of the test set" if row.awpbench.partial else ""]
    return Cell(text, text.lower(), ", ".join(filter(None, below)), web_address(row.link))


def _audit(line: Line) -> Cell:
    verdict = line.details.audit.verdict
    said = {"suspicious": "yes", "reliable": "no", None: "unknown"}[verdict]
    return Cell(said, said if verdict else None, f"audit: {verdict}" if verdict else "")


def _best_known(row: Row) -> Cell:
    return figure(row.external or row.autoattack_acc)


def _family(row: Details) -> str:
    if row.defense is None:
        return "other"
    return "plain" if row.awp is None else "awp"


def _dot(line: Line, ranked_by: str) -> Dot:
    clean, robust = line.details.attacks["clean"], line.details.attacks[ranked_by]
    shares = (clean.correct / clean.n, robust.correct / robust.n)
    return Dot(line.details.id, line.details.model, _family(line.details), *shares, clean.interval, robust.interval)


def _entry(line: Line, columns: Sequence[Column]) -> Entry:
    row, details = line.row, line.details
    filters = {
        "dataset": details.dataset,
        "threat": details.norm,
        "defense": details.defense or "",
        "awp": {"awp": "yes", "plain": "no", "other": ""}[_family(details)],
        "extra": "yes" if row.additional_data else "no",
        "architecture": row.architecture,
    }
    scores: dict[str, Attack | Score] = {**details.attacks}
    if details.worst_case is not None:
        scores["worst case"] = details.worst_case
    return Entry(
        details.id,
        details.model,
        tuple(cell(line) for _, cell in columns),
        tuple(_facts(line)),
        filters,
        (details.id, details.model, row.name, row.authors, row.venue, row.architecture, *filters.values()),
        {name: (score.correct, score.n, *score.interval) for name, score in scores.items()},
        (details.outcomes.attack, details.outcomes.bits) if details.outcomes else None,
    )


MEASURED = (
    *("id", "model", "source", "architecture", "width", "suite", "suite_version", "dataset", "norm", "eps"),
    *("dialect", "n", "partial", "seed", "result", "tool_version"),
)


def _facts(line: Line) -> list[Facts]:
    details = line.details
    trained = commands.configuration(details) if details.train is not None else {}
    measured = {key: getattr(details, key) for key in MEASURED}
    parts = {name: _counts(attack.parts) for name, attack in details.attacks.items() if attack.parts}
    facts = [
        *_repeated(details),
        Facts("What was measured", pairs({**_card(line.row), **measured})),
        Facts("Training configuration", pairs({key: trained[key] for key in sorted(trained)})),
        Facts("Measured in training", _tracked(details)),
        Facts("What AWP adds", _gained(line)),
        Facts("Audit", pairs({"verdict": details.audit.verdict, **_numbered(details.audit.findings)})),
        Facts("Parts of attacks", pairs(parts)),
        Facts("Hashes (SHA-256)", pairs(details.hashes)),
    ]
    return [*(each for each in facts if each.values or each.lines), *past(line.row.document(), details)]


def _counts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Shorten what is said of the parts of an attack to their counts."""
    counted = {"correct", "n"}
    return {
        name: f"{part['correct']} of {part['n']}" if isinstance(part, dict) and counted <= part.keys() else part
        for name, part in parts.items()
    }


def _card(row: Row) -> dict[str, str | None]:
    return {"paper": row.name, "authors": row.authors, "link": row.link, "footnote": row.footnote}


def _numbered(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {f"finding {place}": finding for place, finding in enumerate(findings, 1)}


def _repeated(details: Details) -> list[Facts]:
    words, unsaid = commands.training(details)
    lines = [commands.line(command) for command in (words, commands.evaluation(details)) if command]
    note = "Written from the values of this row; definitions and hashes tell whether a result is the same."
    left = f" No flag gives: {'; '.join(unsaid)}." if unsaid else ""
    return [Facts("Reproduce", lines=tuple(lines), note=note + left)]


def _tracked(details: Details) -> tuple[tuple[str, str], ...]:
    tracked = details.tracked
    if tracked is None:
        return ()
    values = tracked.model_dump(mode="json")
    gap = None if tracked.gap is None else round(100 * tracked.gap, 2)
    return pairs({**values, "gap (points)": gap})


def _gained(line: Line) -> tuple[tuple[str, str], ...]:
    gain = line.gain
    if gain is None:
        return ()
    ends = [round(100 * end, 2) for end in gain.interval]
    values = {
        "same run without AWP": gain.without,
        "difference (points)": round(100 * gain.difference, 2),
        "95 % interval": f"{ends[0]} to {ends[1]}",
        "images right with AWP only": gain.only_with,
        "images right without AWP only": gain.only_without,
        "p (exact McNemar)": f"{gain.p:.3g}",
    }
    return pairs(values)
