"""RobustBench as PyPI has it: the one place that imports it.

RobustBench 1.1.1 needs `pkg_resources`, which setuptools no longer brings, and a module `autoattack`, which PyPI calls
`pyautoattack`. Where they are missing, stand-ins are put in their place before the import. Nothing that awpbench
promises of RobustBench's files needs RobustBench itself.

Nets of its model zoo are built by its own constructors, without its loader: that one downloads, and cuts the length of
a prefix off every key that contains it anywhere.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import socket
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from awpbench.errors import InputError, UsageError, nearest

if TYPE_CHECKING:
    from torch import nn

MEND = "Install it again: pip install 'robustbench>=1.1,<2'"
CORRUPTIONS = "corruptions"  # the zoo's table of nets that no norm bounds

# The budgets of RobustBench's leaderboards (Croce et al. 2021, section 3), and of the rows that have another one.
EPS = {("cifar10", "Linf"): "8/255", ("cifar10", "L2"): "0.5", ("cifar100", "Linf"): "8/255"}
ROW_EPS = {
    ("cifar10", "Linf", "Zhang2019Theoretically"): "0.031",
    ("cifar10", "Linf", "Huang2020Self"): "0.031",
    ("cifar10", "Linf", "Cui2020Learnable_34_10"): "0.031",
    ("cifar10", "Linf", "Cui2020Learnable_34_20"): "0.031",
}


@dataclass(frozen=True)
class ZooEntry:
    """A net of the model zoo: its table's data set and norm (None: corruptions), and the budget of its row."""

    name: str
    dataset: str
    norm: str | None
    eps: str | None
    files: int  # that RobustBench keeps its weights in: several for an ensemble
    constructor: Callable[[], Any]


def load(module: str = "robustbench") -> ModuleType:
    """Import RobustBench, or a module of it such as `robustbench.model_zoo.architectures.wide_resnet`.

    Raises InputError where it is missing or broken.
    """
    _stand_in()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it and timm import each other's old names
            return importlib.import_module(module)
    except Exception as error:  # whatever its own dependencies raise on import
        raise InputError(f"{module} cannot be imported: {type(error).__name__}: {error}", MEND) from error


def _stand_in() -> None:
    if _missing("pkg_resources"):
        stub = ModuleType("pkg_resources")
        stub.resource_filename = _resource_filename  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = stub
    if _missing("autoattack"):
        for name in ("", ".state"):
            sys.modules[f"autoattack{name}"] = importlib.import_module(f"pyautoattack{name}")


def _missing(module: str) -> bool:
    return module not in sys.modules and importlib.util.find_spec(module) is None


def _resource_filename(module: str, resource: str) -> str:
    """Return the path of a file beside a module, as pkg_resources does."""
    return str(Path(str(sys.modules[module].__file__)).parent / resource)


def find(name: str, *, dataset: str | None, norm: str | None, known: Collection[str]) -> ZooEntry:
    """Return the net that the model zoo calls by this name; `dataset` and `norm` pick where several tables have it.

    `known` are the data sets that can be evaluated on. Where a table of Linf or L2 has the name, that of the
    corruptions is not looked at. A `norm` of no table picks none, and does not matter where there is one table only.
    Raises UsageError for an unknown name, another data set, and where several tables are left.
    """
    every = list(_entries())
    found = [entry for entry in every if entry.name == name]
    if not found:
        mend = f"{nearest(name, dict.fromkeys(entry.name for entry in every))}RobustBench's README lists them."
        raise UsageError(f"RobustBench has no model called {name!r}", mend)
    datasets = list(dict.fromkeys(entry.dataset for entry in found))
    wanted = [dataset] if dataset is not None else [each for each in datasets if each in known] or datasets
    found = [entry for entry in found if entry.dataset in wanted]
    if not found:
        what = f"RobustBench has {name} for {' and '.join(datasets)}, not for {dataset}"
        raise UsageError(what, "Leave --dataset out, or choose another model.")
    if found[0].dataset not in known:
        what = f"RobustBench has {name} for {found[0].dataset}, which awpbench has no images of"
        raise UsageError(what, f"Choose a model for one of: {', '.join(known)}.")
    return _of_one_table(found, norm)


def _of_one_table(found: list[ZooEntry], norm: str | None) -> ZooEntry:
    found = [entry for entry in found if entry.norm is not None] or found
    found = [entry for entry in found if entry.norm == norm] or found
    if len(found) == 1:
        return found[0]
    tables = " and ".join(f"{entry.dataset} {entry.norm or CORRUPTIONS}" for entry in found)
    raise UsageError(f"RobustBench has {found[0].name} for {tables}", "Pick one with --dataset and --norm.")


def _entries() -> Iterator[ZooEntry]:
    for dataset, tables in load("robustbench.model_zoo").model_dicts.items():
        for threat, models in tables.items():
            for name, facts in models.items():
                key = dataset.value, threat.value
                files = facts["gdrive_id"]
                yield ZooEntry(
                    name=name,
                    dataset=dataset.value,
                    norm=None if threat.value.startswith(CORRUPTIONS) else threat.value,
                    eps=ROW_EPS.get((*key, name), EPS.get(key)),
                    files=len(files) if isinstance(files, list) else 1,
                    constructor=facts["model"],
                )


def build(entry: ZooEntry) -> nn.Module:
    """Build a net of the model zoo with fresh weights; nothing is downloaded, printed or drawn from global generators.

    Raises InputError where RobustBench's constructor fails: some want a CUDA device.
    """
    import torch

    timm = load("timm")
    registered = f"{entry.name}_{entry.dataset}_{entry.norm}".lower().replace("-", "_")
    try:
        with _quietly(), _without_network(), torch.random.fork_rng(devices=[]):
            known = timm.is_model(registered)  # RobustBench registers some of its nets there
            net = timm.create_model(registered, pretrained=False) if known else entry.constructor()
    except Exception as error:  # whatever a constructor raises
        what = f"RobustBench cannot build {entry.name} here: {type(error).__name__}: {error}"
        raise InputError(what, "Build it in a factory of your own: --model FILE.py:factory.") from error
    assert isinstance(net, torch.nn.Module)
    return net


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _without_network() -> Iterator[None]:
    """Let every connection fail, so that a constructor that asks for pretrained weights says so."""

    def refuse(*_: Any) -> NoReturn:
        raise OSError("it wants to download weights")

    connect = socket.socket.connect
    socket.socket.connect = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
