"""The text of RobustBench's issue "New Model(s)", filled with a measured row."""

from __future__ import annotations

from typing import NamedTuple

from awpbench.leaderboard import escape
from awpbench.leaderboard.attacks import strongest, told
from awpbench.leaderboard.papers import Paper, address
from awpbench.leaderboard.robustbench.published import standing
from awpbench.leaderboard.row import Row

NAME = "NameYearFirstWordOfTitle"
ARCHITECTURES = "https://github.com/RobustBench/robustbench/tree/master/robustbench/model_zoo/architectures"
MAIL = "adversarial.benchmark@gmail.com"


class Submission(NamedTuple):
    """An issue's title and text, and what speaks against sending it; `to_fill` are the fields nobody knows here."""

    title: str
    text: str
    doubts: tuple[str, ...]
    to_fill: tuple[str, ...]


def submission(row: Row) -> Submission:
    """Fill RobustBench's issue template with a measured row."""
    paper = Paper.of(row.model_dump(include={"link", "name", "authors", "venue"}))
    label = paper.label if paper else None
    about = {
        "Paper Title": escape.markdown(row.name) or _fill("the paper's title"),
        "Paper URL": _link(row.link) or _fill("where the paper is"),
        "Paper authors": escape.markdown(row.authors) or _fill("the authors, separated by commas"),
    }
    code = f"the URL of the checkpoint and of the code, or a mail to {MAIL}"
    claim = {
        "Architecture": escape.markdown(row.architecture) or _fill("the architecture"),
        "Threat Model": row.awpbench.norm,
        "eps": row.eps,
        "Clean accuracy": row.clean_acc,
        "Robust accuracy": row.autoattack_acc or row.reported,
        "Additional data": "true" if row.additional_data else "false",
        "Evaluation method": escape.markdown(_method(row)),
        "Checkpoint and code": _fill(code),
    }
    empty = [name for name, value in {**about, **claim}.items() if value.startswith("FILL IN")]
    return Submission(
        f"[New Model] {label or f'<{NAME}>'}",
        f"# Paper Information\n\n{_list(about)}\n# Leaderboard Claim(s)\n\n## Model 1\n\n{_list(claim)}\n{_zoo()}",
        tuple(_doubts(row)),
        (*([] if label else ["the title"]), *empty),
    )


def _list(fields: dict[str, str]) -> str:
    return "".join(f"- **{name}**: {value}\n" for name, value in fields.items())


def _fill(what: str) -> str:
    return f"FILL IN: {what}"


def _link(link: str) -> str:
    safe = address(link)
    return f"<{safe}>" if safe else ""


def _method(row: Row) -> str:
    """Say what the robust accuracy was measured with, and what another attack left where that is less."""
    attacks, own = row.awpbench.attacks, row.awpbench
    name = strongest(attacks)
    how = told(attacks[name].definition)
    parts = "" if name == "autoattack" else " (not AutoAttack)"
    text = f"{name}{parts} on {attacks[name].n} images{f': {how}' if how else ''}; awpbench {own.tool_version}"
    text += f", suite {own.suite} {own.suite_version}, row {own.id}"
    return text + (f"; another attack left {row.external}" if row.external is not None else "")


def _zoo() -> str:
    return (
        "# Model Zoo:\n\n"
        "- [ ] I want to add my models to the Model Zoo (check if true)\n"
        f"- [ ] I use an architecture that is included among those [here]({ARCHITECTURES}) or in `timm`. If not, I "
        "added the link to the architecture implementation so that it can be added.\n"
        "- [ ] I agree to release my model(s) under MIT license (check if true) **OR** under a custom license, located "
        "here: FILL IN: the license's URL, if it is not MIT\n"
    )


def _doubts(row: Row) -> list[str]:
    own, doubts = row.awpbench, []
    autoattack = own.attacks.get("autoattack")
    if autoattack is None or not autoattack.complete:
        doubts.append("AutoAttack is not complete, by which RobustBench ranks")
    if own.partial:
        doubts.append("only a part of the test set was attacked; RobustBench asks for all of it")
    if own.audit.verdict != "reliable":
        doubts.append("the audit found it suspicious" if own.audit.verdict else "the evaluation was not audited")
    table = standing(own.dataset, own.norm, own.eps, float(row.reported) / 100)
    if table is None:
        doubts.append(f"RobustBench has no table of {own.dataset}, {own.norm}")
    elif not table.comparable:
        doubts.append(f"no row of RobustBench's table has eps {own.eps}; most have {next(iter(table.budgets))}")
    return doubts
