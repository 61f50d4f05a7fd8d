"""The net to evaluate: from a checkpoint, or from a factory that the user names."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from awpbench import checkpoints, rundir
from awpbench.config import TrainConfig
from awpbench.errors import InputError, UsageError, lookup
from awpbench.evaluation.plan import EvalConfig


@dataclass(frozen=True)
class Subject:
    """A net, what result.json says of it, and the `dataset`, `norm` and `eps` that it brings, None where unknown."""

    net: nn.Module
    description: dict[str, Any]
    checkpoint: str | None  # hash of its file
    brings: dict[str, str | None]
    folder: Path  # of its evaluations
    training: dict[str, Any] | None = None  # the configuration of the run of ours that made it
    prefix: str = ""  # of an evaluation's name within the folder

    def default_out(self, config: EvalConfig) -> Path:
        """Return where its evaluation goes: `<folder>/<prefix><suite>-v<version>`."""
        if config.suite:
            label = f"{config.suite}-v{config.suite_version}"
        else:
            label = "+".join(each for each in config.attacks if each != "clean") or "clean"
        return self.folder / f"{self.prefix}{label}"


def from_checkpoint(
    path: Path, *, arch: str | None, width: int | None, dataset: str | None, preprocessing: str | None
) -> Subject:
    """Load a checkpoint of ours or a foreign one; errors as in `checkpoints.load`."""
    loaded = checkpoints.load(path, arch=arch, width=width, dataset=dataset, preprocessing=preprocessing)
    spec, run = loaded.model_spec, path.resolve().parent
    in_run = path.name in (rundir.BEST, rundir.LAST) and (run / rundir.CONFIG).exists()
    if in_run:
        name = f"{run.name}/{path.stem}"
    elif loaded.config is not None:
        name = f"{_trained(loaded.config, path).name()}/{'best' if loaded.optimizer is None else 'last'}"
    else:
        name = path.stem
    return Subject(
        net=loaded.build(),
        description={"source": "checkpoint", "name": name, "architecture": spec.architecture, "width": spec.width},
        checkpoint=loaded.sha256,
        brings={"dataset": loaded.dataset, "norm": loaded.threat_norm, "eps": loaded.threat_eps},
        folder=path.parent / rundir.EVAL if in_run else _results(path.stem),
        training=loaded.config,
        prefix=f"{path.stem}-" if in_run else "",
    )


def _trained(config: dict[str, Any], path: Path) -> TrainConfig:
    try:
        return TrainConfig(**config)
    except (ValidationError, UsageError, TypeError):
        what = f"{path} holds a training configuration that this version of awpbench does not know"
        raise InputError(what, "Update awpbench, or take another checkpoint.") from None


def from_factory(spec: str) -> Subject:
    """Call the factory that `FILE.py:factory` or `package.module:factory` names.

    This runs the user's own code. Raises UsageError for a malformed specification or an unknown factory, InputError for
    a file or module that cannot be imported and for a factory that fails or makes no torch.nn.Module.
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name:
        raise UsageError(f"--model {spec} names no factory", "Write FILE.py:factory or package.module:factory.")
    module = _module(where)
    factory = lookup({key: value for key, value in vars(module).items() if callable(value)}, "factory", name)
    try:
        net = factory()
    except (Exception, SystemExit) as error:
        what = f"{spec} failed: {type(error).__name__}: {error}"
        raise InputError(what, "Make it return the net when called without arguments.") from error
    if not isinstance(net, nn.Module):
        what = f"{spec} gives back {type(net).__name__}, no torch.nn.Module"
        raise InputError(what, "Make it return the net when called without arguments.")
    description = {"source": "factory", "name": name, "architecture": None, "width": None}
    return Subject(net, description, None, {}, _results(name))


def _module(where: str) -> ModuleType:
    path = Path(where)
    if path.suffix == ".py" and not path.is_file():
        raise InputError(f"there is no file {path}", "Check the path given to --model.")
    try:
        if path.suffix != ".py":
            return importlib.import_module(where)
        spec = importlib.util.spec_from_file_location(f"awpbench_model_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where data classes and pickle look for it
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:
        what = f"{where} cannot be imported: {type(error).__name__}: {error}"
        raise InputError(what, "Check the file or module given to --model.") from error


def _results(name: str) -> Path:
    return Path("results") / (re.sub(r"[^A-Za-z0-9._+-]+", "-", name).lstrip("._+-") or "model")


def read_indices(path: Path, total: int) -> Tensor:
    """Read the places of test images in their file's order, one a line, `(M,)`; raises InputError."""
    mend = f"Write one number from 0 to {total - 1} a line, each at most once."
    try:
        places = [int(line) for line in path.read_text().split()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no list of test images: {error}", mend) from None
    if not places or len(set(places)) < len(places) or not all(0 <= place < total for place in places):
        raise InputError(f"{path} names test images that are not there, twice, or none", mend)
    return torch.tensor(places, dtype=torch.int64, device="cpu")
