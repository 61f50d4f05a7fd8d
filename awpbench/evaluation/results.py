"""What an evaluation found, per image and in sum, and the documents made of it. Importable without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from awpbench import rundir
from awpbench.errors import CheckError, InputError
from awpbench.evaluation.plan import EvalConfig, autoattack_parts, definition
from awpbench.evaluation.shards import Arrays, key_of, read_npz
from awpbench.evaluation.statistics import wilson

SCHEMA_VERSION = 1  # of result.json
DIGITS = 6  # of fractions in result.json
STANDING = ("spsa", "autoattack")  # attack only what is right when clean: the rest counts as fooled
SCORE = ("n", "correct", "accuracy", "interval")
MEND = "Name a folder that awpbench eval wrote, with result.json and per_image.npz as they were."


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

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Which images something is known of."""
        return self.prediction >= 0

    def put(self, block: range, found: Arrays, attack: str) -> None:
        """Write the outcome of a block."""
        rows = slice(block.start, block.stop)
        for name in ("fooled", "margin", "broken", "prediction", "part"):
            if f"{attack}.{name}" in found:
                getattr(self, name)[rows] = found[f"{attack}.{name}"]


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
        forward, backward, broken = found["passes"].sum(0).tolist()
        self.broken[job] = self.broken.get(job, 0) + broken
        self.forward[job] = self.forward.get(job, 0) + forward
        self.backward[job] = self.backward.get(job, 0) + backward
        self.seconds[job] = round(self.seconds.get(job, 0.0) + float(found["seconds"]), 3)
        self.warnings.update(found["warnings"].tolist())

    def broken_under(self, attack: str) -> int:
        """Return how many gradients of an attack were not finite."""
        return sum(n for job, n in self.broken.items() if attack in re.split("[ +]", job))


def document(
    config: EvalConfig,
    tables: Mapping[str, Table],
    totals: Totals,
    model: Mapping[str, Any],
    hashes: Mapping[str, Any],
    *,
    classes: int,
    partial: bool,
    training: Mapping[str, Any] | None,
    tracked: Mapping[str, Any] | None,
    audit: Mapping[str, Any],
) -> dict[str, Any]:
    """Return result.json; it holds no time of day and no duration, so equal computations give equal documents.

    Its last hash is that of all the rest of it.
    """
    attacks = {each: _attack(config, each, table, classes, totals) for each, table in tables.items()}
    passes = {"forward": totals.forward, "backward": totals.backward}
    found = {
        "schema_version": SCHEMA_VERSION,
        "suite": config.suite,
        "suite_version": config.suite_version,
        "dataset": config.dataset,
        "norm": config.norm,
        "eps": config.eps.text,
        "n": tables["clean"].n,
        "partial": partial,
        "seed": config.seed,
        "dialect": config.dialect,
        "block": config.block,
        "precision": config.precision,
        "model": dict(model),
        "training": None if training is None else dict(training),
        "tracked": None if tracked is None else dict(tracked),
        "attacks": attacks,
        "worst_case": worst_case(tables),
        "audit": dict(audit),
        "counts": {**{name: sum(of.values()) for name, of in passes.items()}, "jobs": passes},
    }
    return {**found, "hashes": {**hashes, "document": digest({**found, "hashes": dict(hashes)})}}


IDENTITY = ("checkpoint", "weights", "data", "indices", "answers")  # hashes of what is evaluated


def evaluation_key(
    model: Mapping[str, Any],
    hashes: Mapping[str, Any],
    attacks: Mapping[str, tuple[int, Mapping[str, Any]]],
    how: Mapping[str, Any],
) -> str:
    """Hash all that decides a result: the net, the images, each attack's n and definition, and the other values.

    How a preprocessing was found (its source, the counts of a trial) decides nothing once it is there.
    """
    told = {each: [n, dict(definition)] for each, (n, definition) in attacks.items()}
    known = {name: hashes[name] for name in IDENTITY}
    net = dict(model)
    if "preprocessing" in net:
        net["preprocessing"] = {name: net["preprocessing"][name] for name in ("mean", "std")}
    return key_of({"model": net, "hashes": known, "attacks": told, **how})


def key_told(document: Mapping[str, Any]) -> str:
    """Return the key of the evaluation that a result.json describes."""
    attacks = {each: (found["n"], found["definition"]) for each, found in document["attacks"].items()}
    told = ("dataset", "norm", "seed", "suite", "suite_version", "block", "eps")
    how = {name: document[name] for name in told} | {"evidence": "evidence" in document["hashes"]}
    how["audit"] = document["audit"]["verdict"] is not None
    return evaluation_key(document["model"], document["hashes"], attacks, how)


def digest(document: Mapping[str, Any]) -> str:
    """Hash a result.json, but for the hash of itself."""
    hashes = {name: value for name, value in document["hashes"].items() if name != "document"}
    return key_of({**document, "hashes": hashes})


def worst_case(tables: Mapping[str, Table]) -> dict[str, Any]:
    """Score the images that every attack saw: one is right where it withstands all of them, and is right when clean."""
    n = min(table.n for table in tables.values())
    return _score(np.logical_or.reduce([table.fooled[:n] for table in tables.values()]))


def _attack(config: EvalConfig, attack: str, table: Table, classes: int, totals: Totals) -> dict[str, Any]:
    found = {
        **_score(table.fooled),
        "nan_logits": int(table.broken.sum()),
        "nan_gradients": totals.broken_under(attack),
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


@dataclass(frozen=True)
class Result:
    """A finished evaluation: result.json, and the arrays of per_image.npz."""

    document: dict[str, Any]
    arrays: Arrays

    @classmethod
    def read(cls, folder: Path) -> Result:
        """Read an evaluation's folder. Raises InputError where a file is missing, broken, or not that of the other."""
        try:
            document = json.loads((folder / rundir.RESULT).read_bytes())
            data = (folder / rundir.PER_IMAGE).read_bytes()
            known, version = document["hashes"]["per_image"], document["schema_version"]
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read: {error.strerror}", MEND) from None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{folder / rundir.RESULT} is no result.json of awpbench", MEND) from None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            what = f"{folder / rundir.RESULT} has schema version {version}; this awpbench reads {SCHEMA_VERSION}"
            raise InputError(what, "Update awpbench.")
        if not all(isinstance(document.get(key), dict) for key in ("model", "attacks", "audit")):
            raise InputError(f"{folder / rundir.RESULT} is no result.json of awpbench", MEND)
        if rundir.sha256(folder / rundir.PER_IMAGE) != known:
            raise InputError(f"{folder / rundir.PER_IMAGE} does not belong to the result.json beside it", MEND)
        try:
            return cls(document, read_npz(data))
        except ValueError:
            raise InputError(f"{folder / rundir.PER_IMAGE} is damaged", MEND) from None

    def correct(self, attack: str) -> dict[int, bool]:
        """Return whether each image, by its index, is still classified correctly."""
        fooled = self.arrays[f"{attack}.fooled"]
        return dict(zip(self.arrays["index"][: len(fooled)].tolist(), (~fooled).tolist(), strict=True))

    def check(self) -> None:
        """Raise CheckError where result.json is not as it was written, or a number does not follow from the images.

        Raises InputError for a result that was written before it held a hash of itself.
        """
        mend = "Do not trust this result; restore the files, or evaluate again."
        if self.document["hashes"].get("document") is None:
            raise InputError("the result was written before results held a hash of themselves", "Evaluate again.")
        if (problem := self.contradiction()) is not None:
            raise CheckError(problem, mend)

    def contradiction(self) -> str | None:
        """Say what in result.json does not follow from per_image.npz or from the rest of it, or return None."""
        try:
            return self._contradiction()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return "result.json or per_image.npz lacks what every result holds"

    def _contradiction(self) -> str | None:
        document, arrays = self.document, self.arrays
        if digest(document) != document["hashes"]["document"]:
            return "result.json is not as it was written"
        if key_told(document) != document["hashes"]["evaluation"]:
            return "what result.json says of the net, the threat and the attacks is not what was evaluated"
        index, label = arrays["index"], arrays["label"]
        if len(np.unique(index)) < len(index):
            return "an image counts twice"
        if ((arrays["clean.prediction"] != label) & ~arrays["clean.fooled"]).any():
            return "an image counts as right whose class is another"
        tables = {}
        for attack, claimed in document["attacks"].items():
            fooled = arrays[f"{attack}.fooled"]
            if {key: claimed[key] for key in SCORE} != _score(fooled):
                return f"the accuracy under {attack} does not follow from per_image.npz"
            if attack in STANDING and (arrays["clean.fooled"][: len(fooled)] & ~fooled).any():
                return f"an image that is wrong when clean counts as right under {attack}"
            tables[attack] = Table.empty(len(fooled))
            tables[attack].fooled[:] = fooled
            for part, score in claimed.get("parts", {}).items():
                parts = list(claimed["parts"])
                after = np.isin(arrays["autoattack.part"], ["clean", *parts[: parts.index(part) + 1]])
                if score != _score(after):
                    return f"the accuracy after {part} does not follow from per_image.npz"
        if document["worst_case"] != worst_case(tables):
            return "the worst case does not follow from per_image.npz"
        return None
