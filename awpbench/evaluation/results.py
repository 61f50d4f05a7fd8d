"""What an evaluation found, per image and in sum, and the documents made of it. Importable without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from awpbench.evaluation.plan import EvalConfig, autoattack_parts, definition
from awpbench.evaluation.shards import Arrays
from awpbench.evaluation.statistics import wilson

SCHEMA_VERSION = 1  # of result.json
DIGITS = 6  # of fractions in result.json


@dataclass
class Table:
    """What an attack did to its first n images; `margin` is that of the image scored, -infinity for NaN logits."""

    fooled: npt.NDArray[np.bool_]
    margin: npt.NDArray[np.float32]
    broken: npt.NDArray[np.bool_]  # NaN among the logits
    prediction: npt.NDArray[np.int64]
    part: npt.NDArray[np.str_]  # of AutoAttack, that fooled the net

    @classmethod
    def empty(cls, n: int) -> Table:
        """Make a table for n images that nothing is known of."""
        return cls(
            np.zeros(n, dtype=np.bool_),
            np.full(n, np.inf, dtype=np.float32),
            np.zeros(n, dtype=np.bool_),
            np.full(n, -1, dtype=np.int64),
            np.full(n, "", dtype="U8"),
        )

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.fooled)

    def start_from(self, clean: Table) -> None:
        """Take over the clean outcome: what is misclassified already needs no attack."""
        for name in ("fooled", "margin", "broken", "prediction"):
            getattr(self, name)[:] = getattr(clean, name)[: self.n]
        self.part[self.fooled] = "clean"

    def put(self, block: list[int], found: Arrays, attack: str, part: str | None) -> None:
        """Write the outcome of a block."""
        for name in ("fooled", "margin", "broken", "prediction"):
            getattr(self, name)[block] = found[f"{attack}.{name}"]
        if part is not None:
            self.part[np.array(block)[found[f"{attack}.fooled"]]] = part


@dataclass
class Totals:
    """Passes (in images), broken gradients and seconds per job, and what AutoAttack's package warned of."""

    forward: dict[str, int] = field(default_factory=dict)
    backward: dict[str, int] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)  # backward passes that gave NaN or infinity
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: set[str] = field(default_factory=set)

    def add(self, job: str, found: Arrays) -> None:
        """Add a block's share."""
        forward, backward, broken = found["passes"].tolist()
        self.broken[job] = self.broken.get(job, 0) + broken
        self.forward[job] = self.forward.get(job, 0) + forward
        self.backward[job] = self.backward.get(job, 0) + backward
        self.seconds[job] = round(self.seconds.get(job, 0.0) + float(found["seconds"]), 3)
        self.warnings.update(found["warnings"].tolist())


def document(
    config: EvalConfig,
    tables: Mapping[str, Table],
    totals: Totals,
    model: Mapping[str, Any],
    hashes: Mapping[str, Any],
    *,
    classes: int,
    total: int,
    training: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return result.json; it holds no time of day and no duration, so equal computations give equal documents."""
    attacks = {each: _attack(config, each, table, classes, totals) for each, table in tables.items()}
    passes = {"forward": totals.forward, "backward": totals.backward}
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": config.suite,
        "suite_version": config.suite_version,
        "dataset": config.dataset,
        "norm": config.norm,
        "eps": config.eps.text,
        "n": tables["clean"].n,
        "partial": config.partial(total),
        "seed": config.seed,
        "dialect": config.dialect,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "model": dict(model),
        "training": None if training is None else dict(training),
        "attacks": attacks,
        "audit": {"verdict": None, "findings": []},
        "counts": {**{name: sum(of.values()) for name, of in passes.items()}, "jobs": passes},
        "hashes": dict(hashes),
    }


def _attack(config: EvalConfig, attack: str, table: Table, classes: int, totals: Totals) -> dict[str, Any]:
    found = {
        **_score(table.fooled),
        "nan_logits": int(table.broken.sum()),
        "nan_gradients": sum(n for job, n in totals.broken.items() if attack in re.split("[ +]", job)),
        "definition": definition(config, attack, classes),
    }
    if attack != "autoattack":
        return found
    parts = ("clean", *autoattack_parts(classes))
    after = {part: np.isin(table.part, parts[: i + 1]) for i, part in enumerate(parts)}
    scores = {part: _score(after[part]) for part in parts[1:]}
    return {**found, "complete": classes >= 4, "parts": scores, "warnings": sorted(totals.warnings)}


def _score(fooled: npt.NDArray[np.bool_]) -> dict[str, Any]:
    n, correct = len(fooled), int((~fooled).sum())
    interval = [round(bound, DIGITS) for bound in wilson(correct, n)]
    return {"n": n, "correct": correct, "accuracy": round(correct / n, DIGITS), "interval": interval}


def evidence(tables: Mapping[str, Table], labels: npt.NDArray[Any], indices: npt.NDArray[Any]) -> Arrays:
    """Return the arrays of per_image.npz; an attack on fewer images has shorter ones."""
    n = tables["clean"].n
    arrays: Arrays = {"index": indices[:n], "label": labels[:n], "clean.prediction": tables["clean"].prediction}
    for attack, table in tables.items():
        arrays[f"{attack}.fooled"] = table.fooled
        arrays[f"{attack}.margin"] = table.margin
        if attack == "autoattack":
            arrays["autoattack.part"] = table.part
    return arrays
