"""What a value resolves to when nobody gives it, per data set and defense, and why. Importable without torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awpbench.config import Ratio, TrainConfig, check_budget, of_file, validated
from awpbench.errors import InputError, UsageError, lookup


@dataclass(frozen=True)
class DatasetFacts:
    """A data set's shape `(C, H, W)`, its published normalisation, and the field's usual budgets on it."""

    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    eps_linf: str
    eps_l2: str
    augmentation: str
    padding: str
    validation: int
    model: str  # a net that fits the images


DATASETS = {
    "cifar10": DatasetFacts(
        10,
        (3, 32, 32),
        (0.4914, 0.4822, 0.4465),
        (0.2471, 0.2435, 0.2616),
        "8/255",
        "128/255",
        "crop-flip",
        "reflect",
        1000,
        "prn18",
    ),
    "mnist": DatasetFacts(10, (1, 28, 28), (0.1307,), (0.3081,), "0.3", "2", "none", "zero", 1000, "small-cnn"),
    "digits": DatasetFacts(10, (1, 8, 8), (0.3057,), (0.3761,), "0.15", "0.5", "none", "zero", 200, "small-cnn"),
}


@dataclass(frozen=True)
class DefenseDefaults:
    """The hyperparameters of a defense in the AWP paper's experiments (Wu, Xia and Wang 2020, section 5)."""

    normalization: str
    padding: str | None  # None: the data set's
    steps: int
    beta: float | None
    awp_gamma: float
    awp_warmup_share: float  # of the epochs: TRADES-AWP starts after 10 of 200


DEFENSES = {
    "standard": DefenseDefaults("meanstd", None, 0, None, 0.01, 0.0),
    "at": DefenseDefaults("meanstd", None, 10, None, 0.01, 0.0),
    "trades": DefenseDefaults("none", "zero", 10, 6.0, 0.005, 0.05),
    "mart": DefenseDefaults("none", "zero", 10, 5.0, 0.005, 0.05),
}

MART_BETA_WRN = 6.0  # the public code's, which has 5 for ResNet-18

COMMON: dict[str, Any] = {
    "dataset": "cifar10",
    "architecture": "prn18",
    "width": None,
    "defense": "at",
    "norm": "Linf",
    "awp": False,
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "schedule": "piecewise",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "train_examples": None,
    "select_on": "validation",
    "track_every": 1,
    "track_examples": 1000,
    "track_steps": 20,
    "precision": "fp32",
    "compile": False,
    "rwp": False,
    "awp_steps": 1,
    "awp_alternations": 1,
    "awp_size": "l2",
    "init_from": None,
    "init_weights": None,
    "loss": None,
    "unlabelled": None,
    "unlabelled_fingerprint": None,
    "unlabelled_fraction": 0.5,
    "unlabelled_weight": 1.0,
    "lr_end": 0.0,
    "nesterov": False,
    "l1": 0.0,
    "l2": 0.0,
    "mixup": 0.0,
    "cutout": 0,
    "label_smoothing": 0.0,
    "ema": 0.0,
    "patience": None,
    "compat": (),
    "seed": 0,
}


@dataclass(frozen=True)
class Resolved:
    """A value and where it came from: `flag`, `file`, `data set cifar10`, `defense trades`, `default`."""

    value: Any
    source: str


def default_eps(dataset: str, norm: str) -> Ratio:
    """Return the field's usual budget on a data set."""
    facts = lookup(DATASETS, "data set", dataset)
    return Ratio.parse(facts.eps_linf if norm == "Linf" else facts.eps_l2)


def awp_dialect_step(norm: str, eps: Ratio) -> Ratio:
    """Return the AWP code's step size: eps/4 in L-inf, eps * 15/128 in L2."""
    return eps.times(1, 4) if norm == "Linf" else eps.times(15, 128)


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a TOML file of configuration values; keys are the fields of TrainConfig, with - or _. Raises InputError."""
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"there is no configuration file {path}", "Check the path given to --config.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check the path given to --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}", "Write lines such as: epochs = 200") from None
    return {key.replace("-", "_"): value for key, value in values.items()}


def resolve_training(
    flags: Mapping[str, Any],
    file: Mapping[str, Any] | None = None,
    *,
    named: tuple[str, Mapping[str, Any]] = ("", {}),
) -> tuple[TrainConfig, dict[str, str]]:
    """Fill in every value that neither a flag nor the file gives, and say where each came from.

    A flag of None counts as not given. `named` holds values that a flag and the file win over, after their source.
    Raises UsageError for unknown names and values that make no sense.
    """
    source, values = named
    found = {key: Resolved(value, source) for key, value in of_file(TrainConfig, values).items()}
    for key, value in of_file(TrainConfig, file or {}).items():
        found[key] = Resolved(value, "file")
    found.update({key: Resolved(value, "flag") for key, value in flags.items() if value is not None})

    def settle(key: str, value: Any, source: str = "default") -> Any:
        return found.setdefault(key, Resolved(value, source)).value

    for key, value in COMMON.items():
        settle(key, value)
    dataset, defense, norm = (found[key].value for key in ("dataset", "defense", "norm"))
    check_budget(norm, 0.0)
    facts, method = lookup(DATASETS, "data set", dataset), lookup(DEFENSES, "defense", defense)
    of_data, of_defense = f"data set {dataset}", f"defense {defense}"
    eps = Ratio.parse(settle("eps", default_eps(dataset, norm), of_data))
    settle("steps", method.steps, of_defense)
    settle("step_size", awp_dialect_step(norm, eps), "dialect awp")
    settle("normalization", method.normalization, of_defense)
    if defense == "mart" and str(found["architecture"].value).startswith("wrn-"):
        settle("beta", MART_BETA_WRN, "defense mart, wide residual network")
    settle("beta", method.beta, of_defense)
    settle("augmentation", facts.augmentation, of_data)
    if method.padding and facts.augmentation != "none":
        settle("padding", method.padding, of_defense)
    settle("padding", facts.padding, of_data)
    if found["select_on"].value == "test":
        settle("validation_examples", 0, "select-on test")
    settle("validation_examples", facts.validation, of_data)
    if found["awp"].value:
        settle("awp_gamma", method.awp_gamma, of_defense)
        settle("awp_warmup", round(method.awp_warmup_share * found["epochs"].value), of_defense)
    elif found.get("awp_gamma") or found.get("awp_warmup"):
        raise UsageError("--awp-gamma and --awp-warmup belong to AWP, which is off", "Add --awp, or leave them out.")
    settle("awp_gamma", 0.0)
    settle("awp_warmup", 0)
    if method.beta is None and found["beta"].value is not None:
        raise UsageError(f"the defense {defense} has no beta", "Leave --beta out, or choose --method trades or mart.")
    config = validated(TrainConfig, {key: resolved.value for key, resolved in found.items()})
    check_budget(norm, eps.value, facts.shape)
    return config, {key: found[key].source for key in TrainConfig.model_fields}
