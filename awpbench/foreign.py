"""Tell what a foreign state dict is: wrappers, prefixes, normalisation, and the architecture behind its keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from awpbench import models
from awpbench.defaults import facts_of, normalization_of
from awpbench.errors import InputError, UsageError, lookup

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "last", "best")  # in the order they are looked for
PREFIXES = ("module.", "model.", "1.")  # DataParallel, RobustBench, nn.Sequential(Normalize, net)
WITHOUT_BATCH_NORM = {f"{layer}.{kind}" for layer in ("conv1", "conv2", "conv3", "fc") for kind in ("weight", "bias")}
PREPROCESSING = ("none", "meanstd", "plus-minus-1")

_NORMALIZATION = re.compile(r"(?:(?:normalize|0)\.)?(mean|std|mu|sigma)")
_UNUSED = re.compile(r"sub_block1\..+|n_averaged")  # in TRADES' and RobustBench's WRN; in torch's AveragedModel
_MAIR_VGG = (("conv_layer.", "features."), ("fc_layer.0.", "classifier."))
_WIDE_BLOCK = re.compile(r"block1\.layer\.\d+\.conv1\.weight")

PerChannel = tuple[float, ...] | None


@dataclass(frozen=True)
class Recognised:
    """What key names and shapes tell of a net; `width` is None where it is the architecture's own."""

    architecture: str
    width: int | None
    classes: int
    channels: int


def describe(
    state: dict[str, Tensor], path: object, *, arch: str | None, dataset: str | None, preprocessing: str | None
) -> dict[str, Any]:
    """Return what our own checkpoints hold under `model`, and take the normalisation buffers out of `state`.

    `arch` is only looked at where the keys belong to no known family. Without a `dataset`, nets of 3 channels take
    32x32 images and others 28x28. Raises InputError and UsageError.
    """
    found = recognise(state)
    if found is None and arch is None:
        mend = (
            f"Known: {', '.join(models.MODELS)}, wrn-D-W. For a net of RobustBench use --robustbench ID --weights "
            "FILE, for any other --model FILE.py:factory."
        )
        raise InputError(f"{path} holds the weights of no architecture known here", mend)
    facts = facts_of(dataset) if dataset is not None else None
    if found is None:  # whoever compares the keys with the architecture's will say what is missing
        found = Recognised(str(arch), None, classes=10, channels=facts.shape[0] if facts else 3)
    size = 32 if found.channels == 3 else 28
    shape = facts.shape if facts else (found.channels, size, size)
    if shape[0] != found.channels:
        what = f"{path} takes images of {found.channels} channels, and those of {dataset} have {shape[0]}"
        raise InputError(what, "Choose another --dataset or checkpoint.")
    mean, std = _normalization(state, path, found.channels, dataset, preprocessing)
    model = {"architecture": found.architecture, "width": found.width, "classes": found.classes}
    return {**model, "shape": shape, "mean": mean, "std": std}


def unwrap(raw: Any, path: object) -> dict[str, Tensor]:
    """Take wrappers, repeated prefixes and unused weights off; raises InputError where no weights are left.

    Keys of MAIR's VGG become our own: `conv_layer.0.weight` is `features.0.weight`.
    """
    state = {key: value for key, value in bare_state(raw, path).items() if not _UNUSED.fullmatch(key)}
    if "conv_layer.0.weight" not in state:
        return state
    for theirs, ours in _MAIR_VGG:
        state = {ours + key.removeprefix(theirs) if key.startswith(theirs) else key: v for key, v in state.items()}
    return state


def bare_state(raw: Any, path: object) -> dict[str, Tensor]:
    """Take wrappers and repeated prefixes off; raises InputError where no weights are left, or two nets are mixed."""
    raw = opened(raw)[-1][1]
    tensors = {str(key): value for key, value in raw.items() if isinstance(value, Tensor)} if _is_state(raw) else {}
    if not tensors:
        raise InputError(f"{path} holds no weights", "Save the state dict: torch.save(model.state_dict(), 'x.pt').")
    state = {bare(key): value for key, value in tensors.items()}
    if len(state) < len(tensors):
        what = f"{path} holds two nets whose keys differ only by a prefix"
        raise InputError(what, "Save the state dict of one of them.")
    return state


def opened(raw: Any) -> list[tuple[str, Any]]:
    """Return what a file holds, named "", and then what each wrapper in it holds with the wrapper's name."""
    layers = [("", raw)]
    for _ in WRAPPERS:  # no more of them than there are: a hostile file may hold itself
        outer = layers[-1][1]
        inside = ((key, outer[key]) for key in WRAPPERS if isinstance(outer, Mapping) and _is_state(outer.get(key)))
        if (inner := next(inside, None)) is None:
            break
        layers.append(inner)
    return layers


def is_unused(key: str) -> bool:
    """Tell whether a key without prefixes is that of a weight that no net of ours has."""
    return _UNUSED.fullmatch(key) is not None


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0


def bare(key: str) -> str:
    """Take repeated prefixes off a key: `module.model.conv1.weight` is `conv1.weight`."""
    while prefix := next((prefix for prefix in PREFIXES if key.startswith(prefix)), ""):
        key = key[len(prefix) :]
    return key


def _normalization(
    state: dict[str, Tensor], path: object, channels: int, dataset: str | None, preprocessing: str | None
) -> tuple[PerChannel, PerChannel]:
    buffers = take_buffers(state)
    if buffers is not None:
        if preprocessing is not None:
            raise UsageError(f"{path} brings its own normalisation", "Leave --preprocessing out.")
        return buffers
    return normalization(preprocessing or "none", channels, dataset)


def normalization(preprocessing: str, channels: int, dataset: str | None) -> tuple[PerChannel, PerChannel]:
    """Return the mean and std per channel that a preprocessing stands for; raises UsageError."""
    lookup(dict.fromkeys(PREPROCESSING), "preprocessing", preprocessing)
    if preprocessing == "plus-minus-1":
        return (0.5,) * channels, (0.5,) * channels  # 2x - 1
    if preprocessing != "meanstd":
        return None, None
    if dataset is None:
        raise UsageError("--preprocessing meanstd takes a data set's mean and std, and none is named", "Add --dataset.")
    return normalization_of(dataset)


def is_normalization(key: str) -> bool:
    """Tell whether a key, with or without prefixes, is that of a mean or std per channel."""
    return _NORMALIZATION.fullmatch(bare(key)) is not None


def take_buffers(state: dict[str, Tensor]) -> tuple[PerChannel, PerChannel] | None:
    """Remove the normalisation buffers from `state` and return mean and std, or None where there are none."""
    found = {match[1]: key for key in state if (match := _NORMALIZATION.fullmatch(key))}
    for mean, std in (("mean", "std"), ("mu", "sigma")):
        if mean in found and std in found:
            taken = state.pop(found[mean]), state.pop(found[std])
            return tuple(taken[0].double().flatten().tolist()), tuple(taken[1].double().flatten().tolist())
    return None


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Read a net off key names and shapes; None for one of no known family."""
    for recogniser in (_wide, _preact, _residual, _small, _vgg):
        try:
            found = recogniser(state)
        except (KeyError, IndexError, ValueError):  # a key of the family is missing, or a tensor is too flat
            continue
        if found is not None:
            return found
    return None


def _wide(state: Mapping[str, Tensor]) -> Recognised:
    blocks = sum(1 for key in state if _WIDE_BLOCK.fullmatch(key))
    first, channels = state["block1.layer.0.conv1.weight"].shape[0], state["conv1.weight"].shape[1]
    widen = max(1, first // 16)
    width = None if first == 16 * widen else first
    return Recognised(f"wrn-{6 * blocks + 4}-{widen}", width, state["fc.weight"].shape[0], channels)


def _preact(state: Mapping[str, Tensor]) -> Recognised | None:
    if "bn.weight" not in state or "layer4.1.conv2.weight" not in state:
        return None
    width, channels = state["conv1.weight"].shape[:2]
    return Recognised("prn18", None if width == 64 else width, state["linear.weight"].shape[0], channels)


def _residual(state: Mapping[str, Tensor]) -> Recognised | None:
    if "bn1.weight" not in state or "layer4.1.conv2.weight" not in state:
        return None
    width, channels = state["conv1.weight"].shape[:2]
    return Recognised("resnet18", None if width == 64 else width, state["linear.weight"].shape[0], channels)


def _small(state: Mapping[str, Tensor]) -> Recognised | None:
    bare_keys = {key for key in state if not is_normalization(key)} == WITHOUT_BATCH_NORM
    if not bare_keys and ("bn3.weight" not in state or "conv3.weight" not in state):
        return None
    width, channels = state["conv1.weight"].shape[:2]
    name = "small-cnn-nobn" if bare_keys else "small-cnn"
    return Recognised(name, None if width == 32 else width, state["fc.weight"].shape[0], channels)


def _vgg(state: Mapping[str, Tensor]) -> Recognised | None:
    convolutions = sum(1 for key, value in state.items() if key.startswith("features.") and value.ndim == 4)
    if convolutions != 16:
        return None
    width, channels = state["features.0.weight"].shape[:2]
    return Recognised("vgg19", None if width == 64 else width, state["classifier.weight"].shape[0], channels)
