"""Results and configurations as docs/architecture.md lays them out, for every test of the leaderboard."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from awpbench.evaluation.results import Table, digest, key_told, worst_case
from awpbench.evaluation.shards import npz_bytes
from awpbench.evaluation.statistics import wilson as exact_wilson
from awpbench.leaderboard.attacks import strongest
from awpbench.leaderboard.details import Outcomes, Source
from awpbench.leaderboard.row import Reported, Row

DEFINITIONS: dict[str, dict[str, Any]] = {
    "clean": {},
    "fgsm": {"steps": 1},
    "pgd-20": {"steps": 20, "step_size": "2/255", "start": "uniform", "dialect": "awp", "scored": "last"},
    "pgd-100": {"steps": 100, "step_size": "2/255", "start": "uniform", "dialect": "awp", "scored": "last"},
    "cw-inf": {"steps": 100, "step_size": "2/255", "kappa": 0},
    "spsa": {"steps": 100, "samples": 256},
    "autoattack": {"version": "standard"},
}


def wilson(correct: int, n: int) -> list[float]:
    """The 95 % Wilson interval."""
    z = 1.959963984540054
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def attack(name: str, correct: int, n: int, **more: Any) -> dict[str, Any]:
    """One entry of a result's `attacks`."""
    measured = {"n": n, "correct": correct, "accuracy": correct / n, "interval": wilson(correct, n)}
    return {**measured, "definition": DEFINITIONS.get(name, {}), **more}


def result(**changes: Any) -> dict[str, Any]:
    """The result.json of a full evaluation with fewer images for the slow attacks; `changes` replace its keys."""
    attacks = {
        "clean": attack("clean", 8133, 10000),
        "fgsm": attack("fgsm", 4100, 10000),
        "pgd-20": attack("pgd-20", 2500, 10000),
        "pgd-100": attack("pgd-100", 74, 300),
        "cw-inf": attack("cw-inf", 70, 300),
        "spsa": attack("spsa", 17, 60),
        "autoattack": attack("autoattack", 55, 300, complete=True, parts={"apgd-ce": {"correct": 70}}),
    }
    document = {
        "schema_version": 1,
        "suite": "full",
        "suite_version": "1.0",
        "dataset": "cifar10",
        "norm": "Linf",
        "eps": "8/255",
        "n": 10000,
        "partial": True,
        "seed": 0,
        "dialect": "awp",
        "model": {
            "source": "checkpoint",
            "name": "cifar10-prn18-w16-at-awp-s0/best",
            "architecture": "prn18",
            "width": 16,
        },
        "attacks": attacks,
        "audit": {"verdict": None, "findings": []},
        "counts": {"forward": 1, "backward": 1},
        "hashes": {"checkpoint": "c" * 64, "weights": "e" * 64, "data": "d" * 64, "indices": "1" * 64},
    }
    return {**document, **changes}


def config(**changes: Any) -> dict[str, Any]:
    """The config.json of the run that trained the net."""
    values = {
        "dataset": "cifar10",
        "architecture": "prn18",
        "width": 16,
        "defense": "at",
        "norm": "Linf",
        "eps": "8/255",
        "steps": 10,
        "beta": None,
        "awp": True,
        "awp_gamma": 0.01,
        "awp_warmup": 0,
        "epochs": 150,
        "train_examples": 1000,
        "select_on": "validation",
        "seed": 0,
    }
    return {**values, **changes}


def named(name: str, **changes: Any) -> dict[str, Any]:
    """A result of a net of this name, with weights of its own."""
    model = {"source": "checkpoint", "name": name, "architecture": "prn18", "width": None}
    hashes = {**result()["hashes"], "weights": name}
    return result(model=model, hashes=hashes, **changes)


def outcomes(document: dict[str, Any]) -> dict[str, npt.NDArray[np.bool_]]:
    """The arrays of per_image.npz that a row needs: the first `correct` images withstand each attack."""
    attacks = document["attacks"] if isinstance(document["attacks"], dict) else {}
    known = {name: found for name, found in attacks.items() if isinstance(found, dict)}
    return {f"{name}.fooled": np.arange(found["n"]) >= found["correct"] for name, found in known.items()}


def built(document: dict[str, Any], card: dict[str, Any] | None = None) -> Row:
    """The row of a result.json, with outcomes that fit it."""
    return Row.from_result(document, outcomes(document), card)


def row(name: str = "a", **changes: Any) -> Row:
    """The row of a net that awpbench did not train."""
    return built(named(name, **changes))


def reported(name: str = "Paper2020", **changes: Any) -> Reported:
    """A row whose numbers others reported."""
    keys = {"link": "https://arxiv.org/abs/2004.05884", "name": "A paper", "dataset": "cifar10", "eps": "8/255"}
    keys |= {"clean_acc": "85.36", "reported": "56.17", "autoattack_acc": "56.17", "additional_data": False, **changes}
    source = Source(kind="robustbench", reference=f"model_info/cifar10/Linf/{name}.json")
    return Reported.of(name, model=name, dataset="cifar10", threat="Linf", keys=keys, source=source)


def measured_again(row: Row) -> Row:
    """A row from before schema version 2, with which images withstood besides: its own measurement made again."""
    name = strongest(row.awpbench.attacks)
    found = row.awpbench.attacks[name]
    outcomes = Outcomes.of(name, [k < found.correct for k in range(found.n)])
    own = row.awpbench.model_copy(update={"outcomes": outcomes, "history": ()})
    return row.model_copy(update={"awpbench": own}).sealed()


def write_run(root: Path, folder: str = "best-full-v1.0", **changes: Any) -> Path:
    """Write a run folder with one evaluation, as `awpbench eval` does; return the evaluation's folder."""
    evaluation = root / "cifar10-prn18-w16-at-awp-s0" / "eval" / folder
    evaluation.mkdir(parents=True)
    write_result(evaluation, result(**{"training": config(), **changes}))
    return evaluation


def write_result(folder: Path, document: dict[str, Any]) -> None:
    """Write result.json and per_image.npz with the hashes that tie them together."""
    n = max(found["n"] for found in document["attacks"].values())
    arrays: dict[str, Any] = {"index": np.arange(n), "label": np.zeros(n, dtype=np.int64)}
    fooled = outcomes(document)
    arrays["clean.prediction"] = fooled["clean.fooled"].astype(np.int64)
    for name in document["attacks"]:
        arrays[f"{name}.fooled"] = fooled[f"{name}.fooled"]
    tables = {name: Table.empty(found["n"]) for name, found in document["attacks"].items()}
    for name, table in tables.items():
        table.fooled[:] = fooled[f"{name}.fooled"]
        scored = score(document["attacks"][name])
        document = {**document, "attacks": {**document["attacks"], name: {**document["attacks"][name], **scored}}}
    if "autoattack" in document["attacks"]:
        parts = np.where(fooled["autoattack.fooled"], "apgd-ce", "").astype("U8")
        arrays["autoattack.part"] = parts
        document["attacks"]["autoattack"] |= {"parts": {"apgd-ce": score(document["attacks"]["autoattack"])}}
    data = npz_bytes(arrays)
    hashes = {**document["hashes"], "answers": "a" * 64, "per_image": hashlib.sha256(data).hexdigest()}
    document = {**document, "block": 64, "worst_case": worst_case(tables), "hashes": hashes}
    document["hashes"] |= {"evaluation": key_told(document)}
    document["hashes"] |= {"document": digest(document)}
    (folder / "per_image.npz").write_bytes(data)
    (folder / "result.json").write_text(json.dumps(document))


def score(found: dict[str, Any]) -> dict[str, Any]:
    """Accuracy and interval as `awpbench eval` rounds them."""
    n, correct = found["n"], found["correct"]
    interval = [round(bound, 6) for bound in exact_wilson(correct, n)]
    return {"n": n, "correct": correct, "accuracy": round(correct / n, 6), "interval": interval}
