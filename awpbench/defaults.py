"""What a value resolves to when nobody gives it, per data set and defense, and why. Importable without torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from awpbench import own_data
from awpbench.config import Ratio, TrainConfig, check_budget, of_file, validated
from awpbench.errors import InputError, UsageError, lookup


@dataclass(frozen=True)
class DatasetFacts:
    """A data set's shape `(C, H, W)`, its published normalisation, and the field's usual budgets and settings on it."""

    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...] | None  # None: of the user's own images, and computed from them
    std: tuple[float, ...] | None
    eps_linf: str | None  # None: there is no usual one
    eps_l2: str | None
    augmentation: str
    padding: str
    validation: int
    model: str  # a net that fits the images
    step_linf: tuple[int, int] = (1, 4)  # of eps, in the dialect awp
    lr: float | None = None  # None: as everywhere
    at_warmup_share: float | None = None  # of the epochs before AWP starts in AT; None: the defense's


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
    "cifar100": DatasetFacts(
        100,
        (3, 32, 32),
        (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
        "8/255",
        "128/255",
        "crop-flip-rotate",
        "zero",
        1000,
        "prn18",
    ),
    "svhn": DatasetFacts(
        10,
        (3, 32, 32),
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        "8/255",
        "128/255",
        "none",
        "zero",
        1000,
        "prn18",
        step_linf=(1, 8),
        lr=0.01,
        at_warmup_share=0.025,  # 5 of 200 epochs
    ),
    "mnist": DatasetFacts(10, (1, 28, 28), (0.1307,), (0.3081,), "0.3", "2", "none", "zero", 1000, "small-cnn"),
    "fashion-mnist": DatasetFacts(10, (1, 28, 28), (0.286,), (0.353,), "0.1", None, "none", "zero", 1000, "small-cnn"),
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
    loss: str | None = None  # the defense whose attack and loss it takes, unless --loss names another
    own: Mapping[str, Any] = field(default_factory=dict)  # values that it has other defaults for than COMMON

    def lent_by(self, lender: DefenseDefaults) -> DefenseDefaults:
        """Return these defaults with what belongs to the attack and the loss taken from another defense's."""
        return replace(
            self,
            normalization=lender.normalization,
            steps=lender.steps,
            beta=lender.beta,
            awp_gamma=lender.awp_gamma,
            awp_warmup_share=lender.awp_warmup_share,
        )


DEFENSES = {
    "standard": DefenseDefaults("meanstd", None, 0, None, 0.01, 0.0),
    "at": DefenseDefaults("meanstd", None, 10, None, 0.01, 0.0),
    "trades": DefenseDefaults("none", "zero", 10, 6.0, 0.005, 0.05),
    "mart": DefenseDefaults("none", "zero", 10, 5.0, 0.005, 0.05),
    "finetuning": DefenseDefaults(
        "meanstd",
        "zero",
        10,
        None,
        0.01,
        0.0,
        loss="at",
        own={"epochs": 50, "lr": 0.001, "schedule": "cosine", "lr_end": 1e-6, "nesterov": True},
    ),
    "rst": DefenseDefaults(
        "none",
        "zero",
        10,
        6.0,
        0.005,
        0.05,
        loss="trades",
        own={"normalization": "none", "batch_size": 256, "schedule": "cosine", "nesterov": True},
    ),
}

OF_AWP = ("awp_gamma", "awp_warmup", "awp_steps", "awp_alternations", "awp_size")  # mean nothing without --awp or --rwp

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


def facts_of(dataset: str) -> DatasetFacts:
    """Return what is known of a data set of ours, or of the user's own `.npz` file or folder, read from its files.

    Raises UsageError for an unknown name, InputError as `own_data.read`.
    """
    if dataset not in DATASETS:
        dataset = own_data.spelled(dataset)
    if not own_data.is_own(dataset):
        return lookup(DATASETS, "data set", dataset)
    own = own_data.facts(dataset)
    small = min(own.shape[1:]) < 32
    return DatasetFacts(
        classes=own.classes,
        shape=own.shape,
        mean=None,
        std=None,
        eps_linf=None,
        eps_l2=None,
        augmentation="none",
        padding="zero",
        validation=min(1000, own.train // 10),
        model="small-cnn" if small else "prn18",
    )


def normalization_of(dataset: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel: the published ones, or those of the user's training images."""
    facts = facts_of(dataset)
    if facts.mean is not None and facts.std is not None:
        return facts.mean, facts.std
    return own_data.statistics(own_data.read(own_data.spelled(dataset), "train")[0])


def default_eps(dataset: str, norm: str) -> Ratio:
    """Return the field's usual budget on a data set. Raises UsageError where there is none."""
    facts = facts_of(dataset)
    usual = facts.eps_linf if norm == "Linf" else facts.eps_l2
    if usual is None:
        raise UsageError(f"there is no usual budget on {dataset} in {norm}", "Give one, such as --eps 8/255.")
    return Ratio.parse(usual)


def awp_dialect_step(norm: str, dataset: str) -> tuple[int, int]:
    """Return the AWP code's step size as a share of eps: 1/4 (SVHN 1/8) in L-inf, 15/128 in L2."""
    return facts_of(dataset).step_linf if norm == "Linf" else (15, 128)


def dialect_source(norm: str, dataset: str) -> str:
    """Say where the share comes from."""
    usual = awp_dialect_step(norm, dataset) in ((1, 4), (15, 128))
    return "dialect awp" if usual else f"dialect awp, data set {dataset}"


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

    defense = settle("defense", COMMON["defense"])
    of_defense, method = f"defense {defense}", lookup(DEFENSES, "defense", defense)
    for key, value in method.own.items():
        if key != "lr_end" or found["schedule"].value == "cosine":  # no other schedule has an end
            settle(key, value, of_defense)
    if method.loss:
        settle("loss", method.loss, of_defense)
    given = settle("dataset", COMMON["dataset"])
    facts = facts_of(given)
    dataset = given if given in DATASETS else own_data.spelled(given)
    found["dataset"] = Resolved(dataset, found["dataset"].source)
    of_data, of_loss, loss = f"data set {dataset}", of_defense, defense
    settle("architecture", facts.model, of_data)
    if facts.lr is not None:
        settle("lr", facts.lr, of_data)
    if "l2" in found and found["l2"].value:
        settle("weight_decay", 0.0, "l2")
    given_of_awp = [f"--{key.replace('_', '-')}" for key in OF_AWP if key in found]
    for key, value in COMMON.items():
        settle(key, value)
    norm = found["norm"].value
    check_budget(norm, 0.0)
    if method.loss:
        loss = found["loss"].value
        method, of_loss = method.lent_by(lookup(DEFENSES, "defense", loss)), f"loss {loss}"
    eps = Ratio.parse(found["eps"].value if "eps" in found else settle("eps", default_eps(dataset, norm), of_data))
    settle("steps", method.steps, of_loss)
    settle("step_size", eps.times(*awp_dialect_step(norm, dataset)), dialect_source(norm, dataset))
    settle("normalization", method.normalization, of_loss)
    if loss == "mart" and str(found["architecture"].value).startswith("wrn-"):
        settle("beta", MART_BETA_WRN, f"{of_loss}, wide residual network")
    settle("beta", method.beta, of_loss)
    settle("augmentation", facts.augmentation, of_data)
    if method.padding and facts.augmentation != "none":
        settle("padding", method.padding, of_defense)
    settle("padding", facts.padding, of_data)
    if found["select_on"].value == "test":
        settle("validation_examples", 0, "select-on test")
    settle("validation_examples", facts.validation, of_data)
    if found["awp"].value or found["rwp"].value:
        settle("awp_gamma", method.awp_gamma, of_loss)
        if loss == "at" and facts.at_warmup_share is not None:
            settle("awp_warmup", round(facts.at_warmup_share * found["epochs"].value), f"{of_loss} on {of_data}")
        settle("awp_warmup", round(method.awp_warmup_share * found["epochs"].value), of_loss)
    elif given_of_awp:
        what = f"{', '.join(given_of_awp)} would do nothing: AWP and RWP are off"
        raise UsageError(what, "Add --awp or --rwp, or leave them out.")
    settle("awp_gamma", 0.0)
    settle("awp_warmup", 0)
    if method.beta is None and found["beta"].value is not None:
        raise UsageError(f"the defense {loss} has no beta", "Leave --beta out, or choose --method trades or mart.")
    config = validated(TrainConfig, {key: resolved.value for key, resolved in found.items()})
    check_budget(norm, eps.value, facts.shape)
    if config.cutout > min(facts.shape[1:]):
        what = f"--cutout is {config.cutout}, and the images have {facts.shape[1]}x{facts.shape[2]} pixels"
        raise UsageError(what, "Give a side that fits into them.")
    return config, {key: found[key].source for key in TrainConfig.model_fields}
