"""What a row says of how to repeat it: the commands that its values amount to, and what they leave unsaid."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from awpbench.config import TrainConfig
from awpbench.evaluation.suites import USUAL_EXAMPLES
from awpbench.leaderboard.details import Details
from awpbench.leaderboard.papers import Paper, bibtex

PERTURBED = ("awp_gamma", "awp_warmup", "awp_steps", "awp_alternations", "awp_size")  # refused without AWP and RWP
PSEUDO_LABELLED = ("unlabelled_fraction", "unlabelled_weight")  # refused but for rst
UNSAID = ("init_weights", "unlabelled_fingerprint", "compat")  # of a configuration: no flag gives them
NAMED = {"defense": "--method"}  # flags that are not called as the value of the configuration
MODELS = {"factory": "--model", "robustbench": "--robustbench"}  # by source; any other is a checkpoint


def training(row: Details) -> tuple[list[str], list[str]]:
    """Return the words of `awpbench train ...` that repeat the run, and the values that no flag gives."""
    if row.train is None:
        return [], []
    values = configuration(row)
    if not values.get("awp") and not values.get("rwp"):
        values = {key: value for key, value in values.items() if key not in PERTURBED}
    if row.defense != "rst":
        values = {key: value for key, value in values.items() if key not in PSEUDO_LABELLED}
    words = ["awpbench", "train", str(values.pop("architecture", ""))]
    unsaid = []
    for key in [*(key for key in TrainConfig.model_fields if key in values), *sorted(values)]:
        if key not in values:
            continue
        value = values.pop(key)
        if key in UNSAID or key not in TrainConfig.model_fields or isinstance(value, list | dict):
            unsaid += [f"{key} {json.dumps(value)}"] if value else []
        elif value is None:
            unsaid += ["track_examples null (all)"] if key == "track_examples" else []
        elif isinstance(value, bool):
            words.append(_flag(key) if value else f"--no-{_flag(key)[2:]}")
        else:
            words += [_flag(key), str(value)]
    return words, unsaid


def configuration(row: Details) -> dict[str, Any]:
    """Return the run's configuration: `train`, with what a row holds beside it."""
    values: dict[str, Any] = {**(row.train or {}), "defense": row.defense}
    if row.awp is not None:
        values |= {"awp": True, "awp_gamma": row.awp.gamma, "awp_warmup": row.awp.warmup}
    if row.selection in ("validation", "test"):
        values["select_on"] = row.selection
    return values


def evaluation(row: Details) -> list[str]:
    """Return the words of `awpbench eval ...` that repeat the measurement.

    What chose the images, where it was not `--n-examples`, is known by its hash only.
    """
    flag = MODELS.get(row.source, "--ckpt")
    subject = row.model if flag != "--ckpt" else f"runs/{row.model}.pt" if row.train is not None else row.model
    words = ["awpbench", "eval", flag, subject, "--suite", row.suite, "--dataset", row.dataset]
    words += ["--norm", row.norm, "--eps", row.eps, "--dialect", row.dialect, "--seed", str(row.seed)]
    if row.partial:
        words += ["--n-examples", str(row.n)]
    for name, attack in row.attacks.items():
        if attack.n != row.n and attack.n != USUAL_EXAMPLES.get(name):
            words += ["--limit", f"{name}={attack.n}"]
    definitions = [attack.definition for attack in row.attacks.values()]
    words += _shared("--precision", "precision", "fp32", definitions) + _shared("--kappa", "kappa", 0, definitions)
    return words


def _shared(flag: str, key: str, usual: object, definitions: list[dict[str, Any]]) -> list[str]:
    found = {str(each[key]) for each in definitions if each.get(key, usual) != usual}
    return [flag, found.pop()] if len(found) == 1 else []


def line(words: list[str]) -> str:
    """Write a command as it is typed into a shell."""
    return shlex.join(words)


def citation(keys: Mapping[str, Any]) -> list[str]:
    """Return the lines of a BibTeX entry of RobustBench's bibliographic keys; none where they name no paper."""
    paper = Paper.of(keys)
    return [] if paper is None else bibtex([(None, paper)]).splitlines()


def _flag(key: str) -> str:
    return NAMED.get(key, f"--{key.replace('_', '-')}")
