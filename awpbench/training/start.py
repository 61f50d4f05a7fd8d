"""What a run starts from and learns from beside its data set: a checkpoint's weights, and a file of pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from awpbench import checkpoints, models
from awpbench.checkpoints import Checkpoint, ModelSpec
from awpbench.config import TrainConfig
from awpbench.data.images import DataSet
from awpbench.errors import InputError, UsageError


def bound(config: TrainConfig, data: DataSet) -> TrainConfig:
    """Return the configuration with the hashes of the files that it names: it then says what they must hold.

    Raises InputError where a file holds something else than a hash in the configuration says.
    """
    check_unlabelled(config, data)
    found: dict[str, Any] = {}
    if config.init_from is not None:
        found["init_weights"] = _identified(config, checkpoints.load(Path(config.init_from)))
    if data.unlabelled is not None:
        found["unlabelled_fingerprint"] = data.unlabelled.fingerprint()
    return config.model_copy(update=found)


def check_unlabelled(config: TrainConfig, data: DataSet) -> None:
    """Raise InputError unless the pseudo-labelled images are there and those that the configuration knows."""
    if config.unlabelled is None:
        return
    if data.unlabelled is None:
        raise InputError(f"the images of {config.unlabelled} were not loaded", "Give them as DataSet.unlabelled.")
    known = config.unlabelled_fingerprint
    if known is not None and data.unlabelled.fingerprint() != known:
        what = f"{config.unlabelled} holds other images or labels than those that the run was started with"
        raise InputError(what, "Put the file back that it was started with, or start a new run.")


def fill(model: nn.Module, spec: ModelSpec, config: TrainConfig) -> None:
    """Load the weights of the checkpoint that `config.init_from` names into a fresh net.

    The last layer stays fresh in fine-tuning (Hendrycks, Lee and Mazeika 2019) and wherever the number of classes
    differs. Raises InputError for a file that cannot be read or holds other weights than `config.init_weights`, and
    UsageError where they do not fit the net or its normalisation.
    """
    checkpoint = checkpoints.load(Path(str(config.init_from)))
    _identified(config, checkpoint)
    _check_normalization(checkpoint, spec)
    head, fresh = last_layer(model), model.state_dict()
    found = dict(checkpoint.state_dict)
    _check_fit(checkpoint, spec, _without(head, found), _without(head, fresh))
    if config.defense == "finetuning" or any(found[key].shape != fresh[key].shape for key in _of(head, fresh)):
        found |= _of(head, fresh)
    model.load_state_dict(found)


def last_layer(model: nn.Module) -> str:
    """Return the name of the layer that gives the logits: the last linear one."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]


def _of(layer: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith(f"{layer}.")}


def _without(layer: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(f"{layer}.")}


def _identified(config: TrainConfig, checkpoint: Checkpoint) -> str:
    found: str = checkpoints.of_weights(checkpoint.build())
    if config.init_weights not in (None, found):
        what = f"{checkpoint.path} holds other weights than those that the configuration names"
        raise InputError(what, f"Give the checkpoint whose weights have the SHA-256 {config.init_weights}.")
    return found


def _check_normalization(checkpoint: Checkpoint, spec: ModelSpec) -> None:
    """Refuse a checkpoint of ours that was trained on normalised images where the run has none, or the other way."""
    had, has = checkpoint.model_spec.mean is not None, spec.mean is not None
    if not checkpoint.foreign and had != has:
        words = ("without", "with")
        what = f"{checkpoint.path} was trained {words[had]} normalisation, and this run goes {words[has]} it"
        raise UsageError(what, f"Add --normalization {'meanstd' if had else 'none'}.")


def _check_fit(checkpoint: Checkpoint, spec: ModelSpec, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if problems := checkpoints.mismatches(found, expected):
        has, wants = (models.published_name(each.architecture, each.width) for each in (checkpoint.model_spec, spec))
        what = f"{checkpoint.path} holds {has}, which does not fit {wants}: {'; '.join(problems)}"
        raise UsageError(what, "Train the architecture and --width of the checkpoint.")
