"""A net of RobustBench's model zoo: built by RobustBench, filled with the weights of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from awpbench import checkpoints, foreign, models, robustbench_compat
from awpbench.defaults import DATASETS
from awpbench.errors import InputError
from awpbench.evaluation.subject import Subject, known, results_folder
from awpbench.robustbench_compat import ZooEntry

# In published files, of no use to RobustBench's nets: a second first stage, a count of averaged steps, the masks of
# CARD's pruned layers, and a second name for the first layers (Andriushchenko and Flammarion 2020).
_UNUSED = re.compile(r"sub_block1\..+|n_averaged|(.+\.)?scores|model_preact_hl1\..+")


def from_robustbench(name: str, weights: Path, *, dataset: str | None, norm: str | None) -> Subject:
    """Build RobustBench's net of this name and load a file's weights into it.

    `dataset` and `norm` pick the table where several have the name. Raises InputError for a file that cannot be read
    safely or does not hold exactly the net's weights, and for a net that cannot be built; UsageError as
    `robustbench_compat.find`.
    """
    state, digest = checkpoints.load_weights(weights)
    entry = robustbench_compat.find(name, dataset=dataset, norm=norm, known=DATASETS)
    net = robustbench_compat.build(entry)
    fill(net, state, weights, entry)
    architecture, width = _architecture(net)
    return Subject(
        net=net.eval(),
        description={"source": "robustbench", "name": name, "architecture": architecture, "width": width},
        checkpoint=digest,
        brings=known(dataset=entry.dataset, norm=entry.norm, eps=entry.eps),
        folder=results_folder(name),
    )


def fill(net: nn.Module, state: Mapping[str, Tensor], path: Path, entry: ZooEntry) -> None:
    """Load weights whose prefixes are taken off into a net whose own keys may have prefixes.

    Every weight must be there. Normalisation buffers may be missing: the net has RobustBench's constants in them.
    Raises InputError for any other difference of keys or shapes.
    """
    own = net.state_dict()
    expected = {foreign.bare(key): tensor for key, tensor in own.items()}
    if len(expected) < len(own):
        what = f"RobustBench's {entry.name} has keys that differ only by a prefix"
        raise InputError(what, "Build it in a factory of your own: --model FILE.py:factory.")
    buffers = {foreign.bare(key): tensor for key, tensor in net.named_buffers()}
    constants = {key: buffers[key] for key in expected.keys() & buffers.keys() if foreign.is_normalization(key)}
    complete = constants | {key: value for key, value in state.items() if key in expected or not _UNUSED.fullmatch(key)}
    if problems := checkpoints.mismatches(complete, expected):
        what = f"{path} does not hold the weights of RobustBench's {entry.name}: {'; '.join(problems)}"
        mend = "Check the model's name, --dataset and --norm."
        if entry.files > 1:
            mend = f"It is an ensemble of {entry.files} files: save the state dict of the whole net in one."
        raise InputError(what, mend)
    net.load_state_dict({key: complete[foreign.bare(key)] for key in own})


def _architecture(net: nn.Module) -> tuple[str, int | None]:
    """Return our own name for a net that has our keys and shapes, and else the name of its class."""
    state = {foreign.bare(key): tensor for key, tensor in net.state_dict().items()}
    state = {key: value for key, value in state.items() if not foreign.is_normalization(key)}
    state = {key: value for key, value in state.items() if not _UNUSED.fullmatch(key)}
    inner = net
    while isinstance(inner, nn.Sequential):  # of a normalisation and the net
        inner = inner[-1]
    unknown = type(inner).__name__, None
    found = foreign.recognise(state)
    if found is None:
        return unknown
    shape = (found.channels, 32, 32)
    with torch.device("meta"):
        ours = models.build(found.architecture, classes=found.classes, shape=shape, width=found.width).state_dict()
    return unknown if checkpoints.mismatches(state, ours) else (found.architecture, found.width)
