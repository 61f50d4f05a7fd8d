"""Save and load checkpoints that describe themselves; no file is ever allowed to run code.

A checkpoint and the `.sha256` beside it are two files, so a kill can fall between their writes. `save` therefore first
lists the new hash beside the old one, then replaces the checkpoint, then leaves only the new hash: at every moment the
checkpoint matches one of the lines.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from awpbench import foreign, models, own_data, rundir
from awpbench.config import Ratio, check_budget
from awpbench.defaults import facts_of
from awpbench.errors import AwpbenchError, InputError, UsageError

FORMAT_VERSION = 1

_FETCH_AGAIN = "Copy or download the file again."
_RESAVE = "Have someone who trusts it save only the weights: torch.save(model.state_dict(), 'x.pt')."
_PLAIN = ("config", "epoch", "step", "best", "metrics", "processes")
_OPTIONAL = (*_PLAIN, "optimizer", "progress", "averaged")
_TOLD = ("format_version", "name", "model", "dataset", "threat", *_PLAIN)
_METADATA = "awpbench"  # the one key of a .safetensors file's metadata: of several, the order would be left to chance
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
_CODE = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build the net: `width` None is the architecture's own, `shape` is (C, H, W)."""

    architecture: str
    width: int | None
    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Make it from a checkpoint's `model`; raises KeyError, TypeError, ValueError or UsageError for a bad value."""
        channels, height, breadth = map(_positive, values["shape"])
        return cls(
            architecture=models.canonical(str(values["architecture"])),
            width=None if values["width"] is None else _positive(values["width"]),
            classes=_positive(values["classes"]),
            shape=(channels, height, breadth),
            mean=_per_channel(values["mean"], channels),
            std=_per_channel(values["std"], channels, divisor=True),
        )

    def build(self) -> nn.Module:
        """Build the net with fresh weights."""
        return models.build(
            self.architecture, classes=self.classes, shape=self.shape, width=self.width, mean=self.mean, std=self.std
        )


def _positive(value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise ValueError(f"{value!r} is no size")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _printable(value: Any) -> str:
    if not _text(value) or not value.isprintable():
        raise ValueError(f"{value!r} is no name")
    return str(value)


def _per_channel(values: Any, channels: int, *, divisor: bool = False) -> tuple[float, ...] | None:
    if values is None:
        return None
    numbers = tuple(map(float, values))
    usable = all(math.isfinite(number) and not (divisor and number == 0) for number in numbers)
    if len(numbers) != channels or not usable:
        raise ValueError(f"{list(numbers)} is no normalisation of {channels} channels")
    return numbers


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, on the CPU; what a foreign state dict does not tell is None.

    `step` counts the steps done within the epoch (0 between epochs); only a `last.pt` has `optimizer` and `progress`,
    and that of a run with averaged weights has them as `averaged`. Only a published one has a `name`: its run's folder
    and `best` or `last`.
    """

    path: Path
    sha256: str
    foreign: bool
    model_spec: ModelSpec
    state_dict: dict[str, Tensor]
    dataset: str | None = None
    threat_norm: str | None = None
    threat_eps: str | None = None
    config: dict[str, Any] | None = None
    epoch: int | None = None
    step: int | None = None
    best: Any = None
    metrics: Any = None
    optimizer: dict[str, Any] | None = None
    progress: Any = None
    processes: int | None = None  # that trained it
    averaged: dict[str, Tensor] | None = None
    name: str | None = None

    def build(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Build the net with these weights in eval mode on the CPU; it shares no memory with the checkpoint."""
        with torch.device("meta"):  # fresh weights would only be overwritten
            model = self.model_spec.build().to(dtype)
        for name, values in (("mean", self.model_spec.mean), ("std", self.model_spec.std)):
            if values is not None:  # again, without the rounding to float32
                buffer = model.get_buffer(f"normalize.{name}")
                buffer.copy_(torch.tensor(values, dtype=dtype, device="cpu").view(buffer.shape))
        model.load_state_dict({key: _own_copy(value, dtype) for key, value in self.state_dict.items()}, assign=True)
        return model.eval()

    def preprocessed(self, preprocessing: str, dataset: str) -> Checkpoint:
        """Return it with another normalisation of its input: one of `foreign.PREPROCESSING`."""
        mean, std = foreign.normalization(preprocessing, self.model_spec.shape[0], dataset)
        return replace(self, model_spec=replace(self.model_spec, mean=mean, std=std))


def _own_copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    dtype = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(dtype=dtype, copy=True, memory_format=torch.contiguous_format)


def save(path: Path, payload: Mapping[str, Any]) -> str:
    """Write a checkpoint and its `.sha256` atomically and return the hash.

    The payload's keys are those of docs/architecture.md; `format_version` is added here. Raises TypeError for a value
    that a safe load would refuse: only tensors, plain numbers, text, None and containers of them are allowed.
    """
    payload = {"format_version": FORMAT_VERSION, **payload}
    _require_plain(payload, "payload")
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    sidecar = _sidecar(path)
    line = f"{digest}  {path.name}\n"
    if path.exists():
        before = sidecar.read_text() if sidecar.exists() else f"{rundir.sha256(path)}  {path.name}\n"
        rundir.atomic_write(sidecar, (line + before).encode())
    rundir.atomic_write(path, data)
    rundir.atomic_write(sidecar, line.encode())
    return digest


def publishable(checkpoint: Checkpoint, name: str) -> bytes:
    """Return a checkpoint of ours as a `.safetensors` file that describes itself, without what only resuming needs.

    Equal checkpoints give equal bytes. Raises ValueError where its configuration or metrics hold NaN or infinity.
    """
    told = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "model": asdict(checkpoint.model_spec),
        "dataset": checkpoint.dataset,
        "threat": {"norm": checkpoint.threat_norm, "eps": checkpoint.threat_eps},
        **{key: getattr(checkpoint, key) for key in _PLAIN},
    }
    tensors = {key: _own_copy(value, value.dtype) for key, value in checkpoint.state_dict.items()}
    return safetensors.torch.save(tensors, {_METADATA: json.dumps(told, allow_nan=False)})


def of_weights(net: nn.Module) -> str:
    """Hash every parameter and buffer with its name, those that no state dict holds (the normalisation) included."""
    digest = hashlib.sha256()
    tensors: list[tuple[str, Tensor]] = [*net.named_parameters(), *net.named_buffers()]
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _require_plain(value: Any, where: str) -> None:
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            _require_plain(item, f"{where}[{i}]")
    elif not isinstance(value, Tensor) and type(value) not in (str, int, float, bool, type(None)):
        raise TypeError(f"{where} is a {type(value).__name__}, which a checkpoint cannot hold")


def load(
    path: Path,
    *,
    arch: str | None = None,
    width: int | None = None,
    dataset: str | None = None,
    preprocessing: str | None = None,
) -> Checkpoint:
    """Load a checkpoint of ours, or a foreign state dict in `.pt` or `.safetensors`, and check that it fits its net.

    `arch` and `width` override what the file says. `dataset` must have the net's shape and classes. `preprocessing` is
    for a foreign file without normalisation buffers: `none` (the default), `meanstd` (the data set's), `plus-minus-1`
    (2x - 1). Raises InputError for a file that is missing, damaged, no checkpoint, newer than this version, not finite
    or of another architecture; UsageError for an unknown name or a `preprocessing` that the file contradicts.
    """
    raw, digest = read(path)
    if is_own(raw):
        if preprocessing is not None:
            raise UsageError(f"{path} says itself how it normalises its input", "Leave --preprocessing out.")
        checkpoint = _own(path, raw, digest)
    else:
        checkpoint = _foreign(path, raw, digest, arch, dataset, preprocessing)
    checkpoint = replace(checkpoint, model_spec=_overridden(checkpoint.model_spec, arch, width))
    _check_fit(checkpoint)
    if dataset is not None:
        _check_dataset(checkpoint, dataset)
    return checkpoint


def load_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Load the weights of a net of another project, wrappers and prefixes taken off, and the SHA-256 of their file.

    Raises InputError as `load` does, and UsageError for a checkpoint of ours, which brings a net of its own.
    """
    raw, digest = read(path)
    if is_own(raw):
        raise UsageError(f"{path} is a checkpoint of awpbench, which says itself what it is", "Give it with --ckpt.")
    state = foreign.bare_state(raw, path)
    _check_tensors(path, state)
    return state, digest


def read(path: Path) -> tuple[Any, str]:
    """Return the tensors and plain values that a file holds, as they lie in it, and the SHA-256 of its bytes.

    Raises InputError as `load`; nothing in the file is run.
    """
    data = _read(path)
    return _unpickle(path, data), hashlib.sha256(data).hexdigest()


def is_own(raw: Any) -> bool:
    """Tell a checkpoint of ours from a state dict of another project."""
    return isinstance(raw, dict) and "format_version" in raw


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a checkpoint", f"Name the file in it: {path / rundir.BEST}")
    sidecar = _sidecar(path)
    known = _hashes(sidecar)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"there is no checkpoint {path}", "Check the path; a run folder has best.pt and last.pt."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check the path and its permissions.") from None
    if not data:
        raise InputError(f"{path} is empty", _FETCH_AGAIN)
    if data.lstrip()[:1] == b"<":
        mend = "Open its address in a browser and download the file itself."
        raise InputError(f"{path} is a web page, not a checkpoint", mend)
    known |= _hashes(sidecar)  # again: a training run may have replaced both files in between
    if sidecar.exists() and hashlib.sha256(data).hexdigest() not in known:
        mend = f"{_FETCH_AGAIN} If it was changed on purpose, delete {sidecar.name}."
        raise InputError(f"{path} does not match {sidecar.name}: it is damaged or was changed", mend)
    return data


def _hashes(sidecar: Path) -> set[str]:
    text = sidecar.read_text(errors="replace") if sidecar.exists() else ""
    return {line.split()[0].lower() for line in text.splitlines() if line.strip()}


def _unpickle(path: Path, data: bytes) -> Any:
    """Turn bytes into tensors and plain values without running anything they ask for."""
    try:
        if path.suffix == ".safetensors":
            return _of_safetensors(data)
        if zipfile.is_zipfile(io.BytesIO(data)):
            broken = zipfile.ZipFile(io.BytesIO(data)).testzip()  # torch itself ignores the check sums
            if broken is not None:
                raise InputError(f"{path} is damaged: {broken} does not match its check sum", _FETCH_AGAIN)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True, mmap=False)
    except AwpbenchError:
        raise
    except Exception as error:  # hostile or damaged bytes raise almost anything
        if code := _CODE.search(str(error)):
            raise InputError(f"{path} holds code or objects ({code[1]}) and was not loaded", _RESAVE) from None
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):  # also TorchScript and legacy tar
            mend = f"{_FETCH_AGAIN} If it is whole: {_RESAVE[0].lower()}{_RESAVE[1:]}"
            raise InputError(f"{path} is no checkpoint of plain weights and was not loaded", mend) from None
        raise InputError(f"{path} is damaged, or no checkpoint at all", _FETCH_AGAIN) from None


def _of_safetensors(data: bytes) -> dict[str, Any]:
    """Return the tensors of a .safetensors file, or the checkpoint of ours that its metadata say it is."""
    tensors = safetensors.torch.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    told = header.get("__metadata__", {}).get(_METADATA)
    if told is None:
        return tensors
    found = json.loads(told, parse_constant=_no_number)
    if not isinstance(found, dict):
        raise ValueError("the metadata are no object")
    return {**{key: found[key] for key in _TOLD if key in found}, "state_dict": tensors}


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _own(path: Path, raw: dict[str, Any], digest: str) -> Checkpoint:
    version = raw["format_version"]
    if not isinstance(version, int):
        raise InputError(f"{path} has the checkpoint format {version!r}, which is none", _FETCH_AGAIN)
    if version > FORMAT_VERSION:
        raise InputError(f"{path} has checkpoint format {version}, newer than {FORMAT_VERSION}", "Update awpbench.")
    try:
        checkpoint = Checkpoint(
            path=path,
            sha256=digest,
            foreign=False,
            model_spec=ModelSpec.of(raw["model"]),
            state_dict={str(key): value for key, value in raw["state_dict"].items() if isinstance(value, Tensor)},
            dataset=_text(raw["dataset"]),
            threat_norm=_text(raw["threat"]["norm"]),
            threat_eps=_text(raw["threat"]["eps"]),
            name=None if raw.get("name") is None else _printable(raw["name"]),
            **{key: raw.get(key) for key in _OPTIONAL},
        )
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise InputError(f"{path} lacks a part of a checkpoint, or has a bad one: {error}", _FETCH_AGAIN) from None
    try:
        dataset, spec = str(checkpoint.dataset), checkpoint.model_spec
        shape = spec.shape if own_data.is_own(dataset) else facts_of(dataset).shape
        check_budget(str(checkpoint.threat_norm), Ratio.parse(str(checkpoint.threat_eps)).value, shape)
    except UsageError as error:
        raise InputError(f"{path} cannot be what it says: {error.what}", _FETCH_AGAIN) from None
    _check_tensors(path, checkpoint.state_dict)
    _check_tensors(path, checkpoint.averaged or {})
    return checkpoint


def _foreign(
    path: Path, raw: Any, digest: str, arch: str | None, dataset: str | None, preprocessing: str | None
) -> Checkpoint:
    state = foreign.unwrap(raw, path)
    _check_tensors(path, state)
    model = foreign.describe(state, path, arch=arch, dataset=dataset, preprocessing=preprocessing)
    try:
        spec = ModelSpec.of(model)
    except ValueError as error:
        raise InputError(f"{path} holds no net that can be built: {error}", _FETCH_AGAIN) from None
    return Checkpoint(path, digest, foreign=True, model_spec=spec, state_dict=state, dataset=dataset)


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are no plain numbers in memory, or not finite."""
    for key, tensor in state.items():
        dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.dtype in _DTYPES
        if not dense or tensor.untyped_storage().nbytes() < tensor.nbytes:  # less: one number repeated without end
            what = f"{path} holds {key} in a form that no net uses ({tensor.dtype}, {tensor.layout})"
            raise InputError(what, _RESAVE)
        if not tensor.isfinite().all():
            what = f"{path} holds NaN or infinity in {key}"
            raise InputError(what, "Take an earlier checkpoint: this training had diverged.")


def _overridden(spec: ModelSpec, arch: str | None, width: int | None) -> ModelSpec:
    if arch is not None and models.canonical(arch) != spec.architecture:
        spec = replace(spec, architecture=models.canonical(arch), width=None)
    return spec if width is None else replace(spec, width=width)


def _check_fit(checkpoint: Checkpoint) -> None:
    """Compare the keys and shapes of the weights with those of the net they are said to belong to."""
    spec, state = checkpoint.model_spec, checkpoint.state_dict
    with torch.device("meta"):
        expected = spec.build().state_dict()
    if problems := mismatches(state, expected):
        name = models.published_name(spec.architecture, spec.width)
        what = f"{checkpoint.path} does not hold the weights of {name}: {'; '.join(problems)}"
        raise InputError(what, "Give the --arch and --width that it was trained with, or leave them out.")


def mismatches(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Say in which keys and shapes weights are not those of a net; missing counts of batches are put into `state`."""
    for key in expected:
        if key.endswith("num_batches_tracked"):  # absent from very old files, and of no use to a trained net
            state.setdefault(key, torch.zeros((), dtype=torch.int64, device="cpu"))
    shapes = {key: (list(state[key].shape), list(expected[key].shape)) for key in expected if key in state}
    kinds = [key for key in shapes if state[key].is_floating_point() != expected[key].is_floating_point()]
    return [
        *_first("wrongly typed", [f"{key} ({state[key].dtype})" for key in kinds]),
        *_first("missing", [key for key in expected if key not in state]),
        *_first("unexpected", [key for key in state if key not in expected]),
        *_first("mis-shaped", [f"{key} {has} for {wants}" for key, (has, wants) in shapes.items() if has != wants]),
    ]


def _first(kind: str, items: list[str]) -> list[str]:
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    return [f"{kind} {items[0]}{more}"] if items else []


def _check_dataset(checkpoint: Checkpoint, dataset: str) -> None:
    spec, facts = checkpoint.model_spec, facts_of(dataset)
    if (spec.shape, spec.classes) != (facts.shape, facts.classes):
        net, data = ("{}x{}x{} images of {} classes".format(*side.shape, side.classes) for side in (spec, facts))
        what = f"{checkpoint.path} takes {net}, and {dataset} has {data}"
        raise InputError(what, "Choose another --dataset or checkpoint.")
