"""How a measured row follows from its result: what the `awpbench` object holds, and RobustBench's keys from that."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from awpbench import __version__, own_data
from awpbench.errors import CheckError, InputError, UsageError
from awpbench.leaderboard.attacks import strongest
from awpbench.leaderboard.details import Details, Outcomes, checked
from awpbench.models import published_name

RESULT_VERSION = 1  # of result.json
LIFTED = {"defense", "awp", "awp_gamma", "awp_warmup", "select_on"}  # of config.json: a row has fields for these
AGAIN = "Evaluate again with this version of awpbench."


def details_of(result: Mapping[str, Any], arrays: Mapping[str, Any], folder: str | None) -> Details:
    """Build the `awpbench` object of a finished evaluation of a named suite, still without history and digest.

    Takes result.json, the arrays of per_image.npz, and where the folder of both lies, from that of the leaderboard.
    Raises CheckError for NaN and infinity, InputError for anything else that does not fit.
    """
    config = result["training"] if isinstance(result.get("training"), dict) else None
    try:
        hashes = {"result": hash_of(result), "config": None if config is None else hash_of(config)}
    except ValueError:
        mend = "Evaluate again, and look for the attack that broke down."
        raise CheckError("the result holds NaN or infinity", mend) from None
    version = result.get("schema_version")
    if isinstance(version, int) and version > RESULT_VERSION:
        what = f"the result has schema version {version}; this awpbench reads {RESULT_VERSION}"
        raise InputError(what, "Update awpbench.")
    if version != RESULT_VERSION:
        raise InputError("the result is no result.json of awpbench", "Name the folder that awpbench eval wrote.")
    if not result.get("suite"):
        raise InputError("the result belongs to no named suite", "Evaluate with --suite quick, standard or full.")
    model, attacks, audit = (_object(result.get(key)) for key in ("model", "attacks", "audit"))
    copied = ("suite", "suite_version", "dataset", "norm", "eps", "dialect", "n", "partial", "seed")
    values = {
        "id": "unnamed",
        "model": model.get("name"),
        "source": model.get("source"),
        "architecture": model.get("architecture"),
        "width": model.get("width"),
        **{key: result.get(key) for key in copied},
        "dataset": _shown(result.get("dataset")),
        "attacks": {name: _measured(name, _object(attack)) for name, attack in attacks.items()},
        "worst_case": result.get("worst_case"),
        "outcomes": None,
        "audit": {"verdict": audit.get("verdict"), "findings": audit.get("findings") or []},
        **_training(config, str(model.get("name"))),
        "tracked": _tracked(result.get("tracked")) if config else None,
        "hashes": {**_object(result.get("hashes")), **hashes},
        "result": folder,
        "tool_version": __version__,
    }
    details = checked(Details, values, "the result", AGAIN)
    outcomes = _outcomes(details, arrays)
    return details.model_copy(update={"id": identifier(details), "outcomes": outcomes})


def _outcomes(details: Details, arrays: Mapping[str, Any]) -> Outcomes:
    name = strongest(details.attacks)
    if f"{name}.fooled" not in arrays:
        raise InputError(f"per_image.npz does not say which images withstood {name}", AGAIN)
    standing = [not fooled for fooled in arrays[f"{name}.fooled"]]
    if (len(standing), sum(standing)) != (details.attacks[name].n, details.attacks[name].correct):
        raise CheckError(f"the accuracy under {name} does not follow from per_image.npz", AGAIN)
    return Outcomes.of(name, standing)


def _tracked(metrics: Any) -> dict[str, Any] | None:
    """Return what a line of metrics.jsonl says of robustness."""
    if not isinstance(metrics, dict) or "epoch" not in metrics:
        return None
    images = next((each for each in ("validation", "test") if each in metrics), None)
    held_out = metrics[images] if images else None
    found = {"epoch": metrics["epoch"], "train": metrics.get("train"), "held_out": held_out}
    return {**found, "held_out_images": images}


def _shown(dataset: Any) -> Any:
    return own_data.shown(dataset) if isinstance(dataset, str) else dataset


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _measured(name: str, attack: dict[str, Any]) -> dict[str, Any]:
    measured = {key: attack.get(key) for key in ("n", "correct", "accuracy", "interval")}
    rest = {"definition": attack.get("definition") or {}, "parts": attack.get("parts") or {}}
    rest |= {"nan_logits": attack.get("nan_logits", 0), "nan_gradients": attack.get("nan_gradients")}
    return {**measured, **rest, "complete": attack.get("complete", name != "autoattack")}


def _training(config: dict[str, Any] | None, model: str) -> dict[str, Any]:
    """Return what a row says of the training; a model's name ends in its checkpoint's: `cifar10-prn18-at-s0/best`."""
    if config is None:
        return dict.fromkeys(("defense", "awp", "selection", "train"))
    checkpoint = re.search(r"(?:^|[^A-Za-z0-9])(best|last)(?:\.pt)?$", model)
    selection = {"best": config.get("select_on"), "last": "last"}.get(checkpoint[1]) if checkpoint else None
    awp = {"gamma": config.get("awp_gamma"), "warmup": config.get("awp_warmup")} if config.get("awp") else None
    lifted = LIFTED - {"awp_gamma", "awp_warmup"} if config.get("rwp") else LIFTED
    train = {key: value for key, value in config.items() if key not in lifted}
    if "dataset" in train:  # where it lay on somebody's machine is nobody's business
        train["dataset"] = _shown(train["dataset"])
    return {"defense": config.get("defense"), "awp": awp, "selection": selection, "train": train}


def robustbench_keys(details: Details) -> dict[str, Any]:
    """Return RobustBench's keys that follow from the measurements; a row in which they differ was edited."""
    attacks = details.attacks
    autoattack = attacks.get("autoattack")
    complete = autoattack is not None and autoattack.complete
    verdict = details.audit.verdict
    return {
        "number_forward_passes": 1,
        "architecture": published(details),
        "footnote": footnote(details) if details.partial else None,
        "dataset": details.dataset,
        "eps": details.eps,
        "clean_acc": attacks["clean"].percent,
        "reported": attacks[strongest(attacks)].percent,
        "autoattack_acc": autoattack.percent if autoattack and complete else None,
        "external": _external(details) if complete else None,
        "unreliable": None if verdict is None else verdict == "suspicious",
    }


def _external(details: Details) -> str | None:
    """Return the lowest accuracy that another attack reached on AutoAttack's images, where it is below AutoAttack's."""
    autoattack = details.attacks["autoattack"]
    best = min(
        (attack for attack in details.attacks.values() if attack.n == autoattack.n),
        key=lambda attack: attack.correct,
    )
    return best.percent if best.correct < autoattack.correct else None


def published(details: Details) -> str:
    """Return the architecture as RobustBench spells it."""
    try:
        return published_name(details.architecture or "", details.width)
    except UsageError:
        return details.architecture or ""


def footnote(details: Details) -> str:
    """Say which attack saw how many images."""
    sizes = sorted({attack.n for attack in details.attacks.values()}, reverse=True)
    groups = {size: [name for name, attack in details.attacks.items() if attack.n == size] for size in sizes}
    told = "; ".join(f"{', '.join(names)} on {size} images" for size, names in groups.items())
    return f"Measured on part of the test set: {told}."


def identifier(details: Details) -> str:
    """Name what was measured: equal names mean that the newer row supersedes the older one (docs/leaderboard.md).

    A net that we trained is known by its name and configuration, any other by its weights.
    """
    hashes = details.hashes
    weights = hashes.get("weights") or hashes.get("checkpoint") or details.model
    measured = {
        "net": [details.model, hashes["config"]] if hashes.get("config") else [weights],
        "images": [details.dataset, hashes["data"], hashes["indices"]],
        "threat": [details.norm, details.eps, details.dialect],
        "suite": [details.suite, details.suite_series],
        "attacks": {name: [attack.n, attack.definition] for name, attack in details.attacks.items()},
    }
    ending = f".{details.suite}-v{details.suite_series}.{hash_of(measured)[:12]}"
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", details.model).lstrip("._+-") or "model"
    return readable[: 128 - len(ending)] + ending


def hash_of(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document with sorted keys and no blanks. Raises ValueError for NaN and infinity."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
