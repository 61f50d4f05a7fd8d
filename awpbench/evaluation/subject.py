"""The net to evaluate: from a checkpoint, or from a factory that the user names."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from awpbench import checkpoints, rundir
from awpbench.checkpoints import Checkpoint, ModelSpec
from awpbench.config import TrainConfig
from awpbench.data.images import ImageSet
from awpbench.errors import AwpbenchError, InputError, UsageError, lookup
from awpbench.evaluation.plan import EvalConfig
from awpbench.evaluation.preprocessing import Trial, find, trial_size
from awpbench.evaluation.results import Result


@dataclass(frozen=True)
class Subject:
    """A net, what result.json says of it, and those of `dataset`, `norm` and `eps` that are known of it."""

    net: nn.Module
    description: dict[str, Any]
    checkpoint: str | None  # hash of its file
    brings: dict[str, str]
    folder: Path  # of its evaluations
    training: dict[str, Any] | None = None  # the configuration of the run of ours that made it
    tracked: dict[str, Any] | None = None  # what that run measured at this checkpoint's epoch
    prefix: str = ""  # of an evaluation's name within the folder
    untold: Checkpoint | None = None  # a foreign state dict that does not tell its preprocessing: `net` has none

    @property
    def origin(self) -> str:
        """What the values of `brings` come from, as result.json says it: checkpoint, robustbench or factory."""
        return str(self.description["source"])

    def default_out(self, config: EvalConfig) -> Path:
        """Return where its evaluation goes: `<folder>/<prefix><suite>-v<version>`."""
        return self.folder / f"{self.prefix}{config.label}"


def from_checkpoint(
    path: Path, *, arch: str | None, width: int | None, dataset: str | None, preprocessing: str | None
) -> Subject:
    """Load a checkpoint of ours or a foreign one; errors as in `checkpoints.load`."""
    loaded = checkpoints.load(path, arch=arch, width=width, dataset=dataset, preprocessing=preprocessing)
    spec, run = loaded.model_spec, path.resolve().parent
    in_run = path.name in (rundir.BEST, rundir.LAST) and (run / rundir.CONFIG).exists()
    if loaded.name is not None:
        name = loaded.name
    elif in_run:
        name = f"{run.name}/{path.stem}"
    elif loaded.config is not None:
        name = f"{_trained(loaded.config, path).name()}/{'best' if loaded.optimizer is None else 'last'}"
    else:
        name = path.stem
    described: dict[str, Any] = {"architecture": spec.architecture, "width": spec.width}
    untold = loaded.foreign and preprocessing is None and spec.mean is None
    if loaded.foreign and not untold:
        described["preprocessing"] = _preprocessing(loaded, source="flag" if preprocessing else "file")
    return Subject(
        net=loaded.build(),
        description={"source": "checkpoint", "name": name, **described},
        checkpoint=loaded.sha256,
        brings=known(dataset=loaded.dataset, norm=loaded.threat_norm, eps=loaded.threat_eps),
        folder=path.parent / rundir.EVAL if in_run else results_folder(loaded.name or path.stem),
        training=loaded.config,
        tracked=loaded.metrics if isinstance(loaded.metrics, dict) and not loaded.step else None,
        prefix=f"{path.stem}-" if in_run else "",
        untold=loaded if untold else None,
    )


def _preprocessing(checkpoint: Checkpoint, **facts: Any) -> dict[str, Any]:
    spec = checkpoint.model_spec
    mean, std = (None if values is None else list(values) for values in (spec.mean, spec.std))
    return {"mean": mean, "std": std, **facts}


def with_preprocessing(
    subject: Subject, dataset: str, images: ImageSet, device: torch.device, out: Path | None = None
) -> tuple[Subject, Trial | None]:
    """Find the preprocessing of a foreign state dict that does not tell it, by trial on test images; else do nothing.

    A finished evaluation in `out` that tried the same file on the same images is taken at its word. Raises UsageError
    where none of those that are known is clearly the best (`preprocessing.choose`).
    """
    if subject.untold is None:
        return subject, None
    if out is not None and (before := _tried_before(subject, dataset, images, out)) is not None:
        return before, None
    trial = find(subject.untold, dataset, images, device)
    found = subject.untold.preprocessed(trial.name, dataset)
    description = {**subject.description, "preprocessing": _preprocessing(found, **trial.document())}
    return replace(subject, net=found.build(), description=description, untold=None), trial


def _tried_before(subject: Subject, dataset: str, images: ImageSet, out: Path) -> Subject | None:
    """Return the subject with the preprocessing that an undamaged result says was found by the same trial."""
    try:
        result = Result.read(out)
        result.check()
    except AwpbenchError:
        return None
    document = result.document
    model = dict(document["model"])
    found = model.pop("preprocessing", {})
    trial = (subject.description, dataset, subject.checkpoint, images.fingerprint(), ("trial", trial_size(images)))
    hashes = document["hashes"]
    told = (model, document["dataset"], hashes["checkpoint"], hashes["data"], (found.get("source"), found.get("n")))
    if told != trial:
        return None
    return replace(as_recorded(subject, document), description={**subject.description, "preprocessing": found})


def as_recorded(subject: Subject, result: Mapping[str, Any]) -> Subject:
    """Give a foreign state dict the preprocessing that a result.json records; raises InputError where that is none."""
    if subject.untold is None:
        return subject
    try:
        recorded = result["model"]["preprocessing"]
        spec = ModelSpec.of({**vars(subject.untold.model_spec), "mean": recorded["mean"], "std": recorded["std"]})
    except (KeyError, TypeError, ValueError):
        what = "the result does not say how its net normalises the input"
        raise InputError(what, "Evaluate again with this version of awpbench.") from None
    return replace(subject, net=replace(subject.untold, model_spec=spec).build(), untold=None)


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
    return Subject(net, description, None, {}, results_folder(name))


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


def known(**values: str | None) -> dict[str, str]:
    """Leave out what is None."""
    return {key: value for key, value in values.items() if value is not None}


def results_folder(name: str) -> Path:
    """Return the folder of the evaluations of a net that belongs to no run folder."""
    return Path("results") / (re.sub(r"[^A-Za-z0-9._+-]+", "-", name).lstrip("._+-") or "model")


def read_indices(path: Path, total: int) -> Tensor:
    """Read the places of test images in their file's order, one a line, `(M,)`; raises InputError."""
    mend = f"Write one number from 0 to {total - 1} a line, each at most once."
    try:
        words = path.read_text().split()
        places = [int(word) for word in words]
        if not all(word.isascii() and word.isdecimal() for word in words):
            raise ValueError("a line is no whole number")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no list of test images: {error}", mend) from None
    if not places or len(set(places)) < len(places) or not all(0 <= place < total for place in places):
        raise InputError(f"{path} names test images that are not there, twice, or none", mend)
    return torch.tensor(places, dtype=torch.int64, device="cpu")
