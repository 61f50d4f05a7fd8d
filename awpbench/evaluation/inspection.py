"""What a checkpoint file holds, its own or another project's, as one JSON document."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awpbench import checkpoints, foreign, models, rundir
from awpbench.checkpoints import Checkpoint
from awpbench.data.images import ImageSet
from awpbench.errors import AwpbenchError
from awpbench.evaluation import hashes
from awpbench.evaluation.preprocessing import find

# Whose public code spells its keys like this: the first whose patterns all have a key. Keys are without prefixes.
DIALECTS = {
    "TRADES, MART, RST (wide residual network with a second first stage that is never used)": (r"sub_block1\..+",),
    "AWP, robust_overfitting, RobustBench (wide residual network)": (r"block1\.layer\.\d+\.conv1\.weight",),
    "AWP (AT), robust_overfitting (PreAct ResNet-18)": (r"bn\.weight", r"layer4\.1\.conv2\.weight"),
    "MART, TRADES-AWP (ResNet-18)": (r"bn1\.weight", r"layer2\.0\.shortcut\.1\.weight"),
    "kuangliu/pytorch-cifar (VGG)": (r"features\.\d+\.weight", r"classifier\.weight"),
    "MAIR (VGG)": (r"conv_layer\.\d+\.weight", r"fc_layer\.0\.weight"),
    "awpbench (small-cnn)": (r"bn3\.weight", r"conv3\.weight", r"fc\.weight"),
}
TOLD = (
    "defense", "loss", "beta", "awp", "rwp", "awp_gamma", "init_from", "unlabelled", "train_examples", "epochs", "seed",
    "precision",
)  # fmt: skip
SHOWN = 5  # keys of a state dict of no known family

Load = Callable[[str], ImageSet]


def inspect(
    path: Path,
    *,
    load: Load,
    device: torch.device,
    arch: str | None = None,
    width: int | None = None,
    dataset: str | None = None,
    preprocessing: str | None = None,
) -> dict[str, Any]:
    """Describe a checkpoint.

    `load` returns the test images of a data set by name, for the trial of a foreign state dict's preprocessing; what
    keeps it from doing so is told in the document. A state dict of an unknown architecture is described as far as it
    goes. Errors as in `checkpoints.load`.
    """
    raw, digest = checkpoints.read(path)
    own = checkpoints.is_own(raw)
    document: dict[str, Any] = {
        "file": str(path),
        "sha256": digest,
        "kind": "checkpoint of awpbench" if own else "state dict of another project",
        "format_version": _plain(raw["format_version"]) if own else None,
    }
    if not own and arch is None and foreign.recognise(foreign.unwrap(raw, path)) is None:
        return {**document, **_unknown(foreign.bare_state(raw, path)), "layout": _layout(raw), "stored": _stored(raw)}
    loaded = checkpoints.load(path, arch=arch, width=width, dataset=dataset, preprocessing=preprocessing)
    found, loaded = _preprocessing(loaded, preprocessing, load, device)
    net = loaded.build()
    weights = hashes.of_weights(net)
    return {
        **document,
        "weights": weights,
        "net": _net(loaded) | {"parameters": sum(parameter.numel() for parameter in net.parameters())},
        "layout": {"keys of": _dialect(list(loaded.state_dict))} if own else _layout(raw),
        "preprocessing": found,
        "stored": _trained(loaded) if own else _stored(raw),
        "run": _run(path.resolve().parent, weights),
    }


def _net(loaded: Checkpoint) -> dict[str, Any]:
    spec = loaded.model_spec
    return {
        "architecture": spec.architecture,
        "published": models.published_name(spec.architecture, spec.width),
        "width": spec.width,
        "classes": spec.classes,
        "shape": list(spec.shape),
    }


def _unknown(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe the weights of no known architecture by their number and the names of the first."""
    keys = {key: list(tensor.shape) for key, tensor in list(state.items())[:SHOWN]}
    count = sum(tensor.numel() for tensor in state.values())
    return {"net": {"architecture": None, "tensors": len(state), "numbers": count, "first": keys}}


def _layout(raw: Any) -> dict[str, Any]:
    """Say how a foreign file wraps its weights, and whose keys they have."""
    layers = foreign.opened(raw)
    keys = [str(key) for key, value in layers[-1][1].items() if isinstance(value, Tensor)]
    bare = [foreign.bare(key) for key in keys]
    prefixes = {key[: len(key) - len(short)] for key, short in zip(keys, bare, strict=True)} - {""}
    return {
        "keys of": _dialect(bare),
        "wrappers": [name for name, _ in layers[1:]],
        "prefixes": sorted(prefixes),
        "unused": sum(map(foreign.is_unused, bare)),
        "normalisation": sorted(key for key in keys if foreign.is_normalization(key)),
    }


def _dialect(keys: Sequence[str]) -> str | None:
    def there(pattern: str) -> bool:
        return any(re.fullmatch(pattern, key) for key in keys)

    return next((whose for whose, patterns in DIALECTS.items() if all(map(there, patterns))), None)


def _preprocessing(
    loaded: Checkpoint, flag: str | None, load: Load, device: torch.device
) -> tuple[dict[str, Any], Checkpoint]:
    """Say what normalises the images and how that is known; a trial needs the name of a data set and its images."""
    if not loaded.foreign:
        return _normalisation(loaded) | {"source": "checkpoint"}, loaded
    if flag is not None or loaded.model_spec.mean is not None:
        return _normalisation(loaded) | {"source": "flag" if flag else "file"}, loaded
    if loaded.dataset is None:
        return {"source": None, "why": "it is found by trial on test images, and no --dataset is named"}, loaded
    try:
        trial = find(loaded, loaded.dataset, load(loaded.dataset), device)
    except AwpbenchError as error:
        return {"source": None, "why": error.what}, loaded
    loaded = loaded.preprocessed(trial.name, loaded.dataset)
    return _normalisation(loaded) | {"name": trial.name, **trial.document()}, loaded


def _normalisation(loaded: Checkpoint) -> dict[str, Any]:
    spec = loaded.model_spec
    mean, std = (None if values is None else list(values) for values in (spec.mean, spec.std))
    return {"name": "none" if mean is None else "mean and std", "mean": mean, "std": std}


def _trained(loaded: Checkpoint) -> dict[str, Any]:
    config = loaded.config or {}
    return {
        "dataset": loaded.dataset,
        "norm": loaded.threat_norm,
        "eps": loaded.threat_eps,
        "training": {key: _plain(config[key]) for key in TOLD if config.get(key) is not None},
        "epoch": loaded.epoch,
        "step": loaded.step,
        "best": _plain(loaded.best),
        "metrics": _plain(loaded.metrics),
        "can be resumed": loaded.optimizer is not None,
    }


def _stored(raw: Any) -> dict[str, Any]:
    """Return the numbers and texts that lie beside the weights of a foreign file."""
    layers = [layer for _, layer in foreign.opened(raw)]
    scalars = (item for layer in layers for item in layer.items() if isinstance(item[1], str | int | float))
    return {str(key): _plain(value) for key, value in scalars}


def _run(folder: Path, weights: str) -> dict[str, Any] | None:
    """Return what the run folder around a checkpoint says of its making, and its evaluations of these very weights."""
    if not (folder / rundir.CONFIG).exists():
        return None
    made = _document(folder / rundir.PROVENANCE)
    results = {path.parent.name: _document(path) for path in sorted((folder / rundir.EVAL).glob(f"*/{rundir.RESULT}"))}
    return {
        "folder": folder.name,
        **{key: made.get(key) for key in ("command", "versions", "git", "device")},
        "resumed": len(made.get("resumed", [])),
        "evaluations": [name for name, each in results.items() if each.get("hashes", {}).get("weights") == weights],
    }


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(value: Any, depth: int = 4) -> Any:
    """Bring what a file holds to values of JSON; what is none is named by its type."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float | None):
        return value
    if depth and isinstance(value, Mapping):
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    return type(value).__name__
