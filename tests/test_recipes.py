"""Every recipe is, field by field, what the AWP paper and the public codes say; the table here knows no TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from awpbench import recipes
from awpbench.config import TrainConfig
from awpbench.defaults import resolve_training
from awpbench.errors import InputError, UsageError

# AT on CIFAR-10 in L-inf with PreAct ResNet-18 (sections 4.4 and 5.1; the AWP code): every field of a training run.
AT: dict[str, Any] = {
    "dataset": "cifar10",
    "architecture": "prn18",
    "width": None,
    "normalization": "meanstd",
    "defense": "at",
    "loss": None,
    "init_from": None,
    "init_weights": None,
    "unlabelled": None,
    "unlabelled_fingerprint": None,
    "unlabelled_fraction": 0.5,
    "unlabelled_weight": 1.0,
    "norm": "Linf",
    "eps": "8/255",
    "steps": 10,
    "step_size": "2/255",
    "beta": None,
    "awp": False,
    "rwp": False,
    "awp_gamma": 0.0,
    "awp_warmup": 0,
    "awp_steps": 1,
    "awp_alternations": 1,
    "awp_size": "l2",
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "schedule": "piecewise",
    "lr_end": 0.0,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5e-4,
    "l1": 0.0,
    "l2": 0.0,
    "mixup": 0.0,
    "cutout": 0,
    "label_smoothing": 0.0,
    "ema": 0.0,
    "patience": None,
    "augmentation": "crop-flip",
    "padding": "reflect",
    "train_examples": None,
    "validation_examples": 0,
    "select_on": "test",
    "track_every": 1,
    "track_examples": 1000,
    "track_steps": 20,
    "precision": "fp32",
    "compile": False,
    "compat": [],
    "seed": 0,
}

SVHN = {"dataset": "svhn", "lr": 0.01, "augmentation": "none", "padding": "zero"}
CIFAR100 = {"dataset": "cifar100", "augmentation": "crop-flip-rotate", "padding": "zero"}
L2 = {"norm": "L2", "eps": "128/255", "step_size": "15/255"}
TRADES = {"defense": "trades", "normalization": "none", "padding": "zero", "beta": 6.0}
MART = {"defense": "mart", "normalization": "none", "padding": "zero"}
PRETRAINING = {
    "architecture": "wrn-28-10", "defense": "finetuning", "loss": "at", "init_from": "FILE", "padding": "zero",
    "epochs": 50, "lr": 0.001, "lr_end": 1e-6, "schedule": "cosine", "nesterov": True,
}  # fmt: skip
RST = {
    "defense": "rst", "loss": "trades", "unlabelled": "FILE", "normalization": "none", "padding": "zero", "beta": 6.0,
    "batch_size": 256, "nesterov": True,
}  # fmt: skip
EARLY = {"select_on": "validation", "validation_examples": 1000, "patience": 50}


def awp(gamma: float, warmup: int = 0) -> dict[str, Any]:
    return {"awp": True, "awp_gamma": gamma, "awp_warmup": warmup}


def rwp(gamma: float) -> dict[str, Any]:
    return {"rwp": True, "awp_gamma": gamma}


# What each recipe has otherwise.
TABLE: dict[str, dict[str, Any]] = {
    # Table 1: gamma 0.01; steps of 1/255 on SVHN in L-inf, 15/255 everywhere in L2
    "table1-svhn-linf-at": {**SVHN, "step_size": "1/255"},
    "table1-svhn-linf-at-awp": {**SVHN, "step_size": "1/255", **awp(0.01, 5)},
    "table1-cifar10-linf-at": {},
    "table1-cifar10-linf-at-awp": awp(0.01),
    "table1-cifar100-linf-at": CIFAR100,
    "table1-cifar100-linf-at-awp": {**CIFAR100, **awp(0.01)},
    "table1-svhn-l2-at": {**SVHN, **L2},
    "table1-svhn-l2-at-awp": {**SVHN, **L2, **awp(0.01)},
    "table1-cifar10-l2-at": L2,
    "table1-cifar10-l2-at-awp": {**L2, **awp(0.01)},
    "table1-cifar100-l2-at": {**CIFAR100, **L2},
    "table1-cifar100-l2-at-awp": {**CIFAR100, **L2, **awp(0.01)},
    # Table 2: gamma 0.005; WRN-34-10, for pre-training and RST WRN-28-10
    "table2-at": {"architecture": "wrn-34-10"},
    "table2-at-awp": {"architecture": "wrn-34-10", **awp(0.005)},
    "table2-trades": {"architecture": "wrn-34-10", **TRADES},
    "table2-trades-awp": {"architecture": "wrn-34-10", **TRADES, **awp(0.005, 10)},
    "table2-mart": {"architecture": "wrn-34-10", **MART, "beta": 6.0},
    "table2-mart-awp": {"architecture": "wrn-34-10", **MART, "beta": 6.0, **awp(0.005, 10)},
    "table2-pretraining": PRETRAINING,
    "table2-pretraining-awp": {**PRETRAINING, **awp(0.005)},
    "table2-rst": {"architecture": "wrn-28-10", **RST},
    "table2-rst-awp": {"architecture": "wrn-28-10", **RST, **awp(0.005, 10)},
    # Figure 1 and Appendix C: training and test attack PGD-10
    "figure1-at": {"track_steps": 10},
    "figure1-at-es": {"track_steps": 10, **EARLY},
    "figure1-trades": {"track_steps": 10, **TRADES},
    "figure1-mart": {"track_steps": 10, **MART, "beta": 5.0},
    "figure1-rst": {"track_steps": 10, **RST},
    "appendix-c-vgg19": {"track_steps": 10, "architecture": "vgg19"},
    "appendix-c-wrn34": {"track_steps": 10, "architecture": "wrn-34-10"},
    "appendix-c-svhn": {"track_steps": 10, **SVHN, "step_size": "1/255"},
    "appendix-c-cifar100": {"track_steps": 10, **CIFAR100},
    "appendix-c-l2": {"track_steps": 10, **L2},
    "appendix-c-cyclic": {"track_steps": 10, "schedule": "cyclic"},
    "appendix-c-cosine": {"track_steps": 10, "schedule": "cosine"},
    # Figure 2: K2 in {1, 5, 10}, A in {1, 2, 3}, gamma, size norm
    "figure2-at-awp": awp(0.005),
    "figure2a-k2-5": {**awp(0.005), "awp_steps": 5},
    "figure2a-k2-10": {**awp(0.005), "awp_steps": 10},
    "figure2a-a-2": {**awp(0.005), "awp_alternations": 2},
    "figure2a-a-3": {**awp(0.005), "awp_alternations": 3},
    "figure2b-at-awp-0.001": awp(0.001),
    "figure2b-at-awp-0.002": awp(0.002),
    "figure2b-at-awp-0.01": awp(0.01),
    "figure2b-at-awp-0.02": awp(0.02),
    "figure2b-trades": TRADES,
    "figure2b-trades-awp-0.001": {**TRADES, **awp(0.001, 10)},
    "figure2b-trades-awp-0.002": {**TRADES, **awp(0.002, 10)},
    "figure2b-trades-awp-0.005": {**TRADES, **awp(0.005, 10)},
    "figure2b-trades-awp-0.01": {**TRADES, **awp(0.01, 10)},
    "figure2b-trades-awp-0.02": {**TRADES, **awp(0.02, 10)},
    "figure2b-l1-size": {**awp(0.005), "awp_size": "l1"},
    # Figure 3 and Appendix F: RWP, and the regularisers with what Rice, Wong and Kolter (2020) tuned
    "figure3c-rwp-0.0001": rwp(0.0001),
    "figure3c-rwp-0.001": rwp(0.001),
    "figure3c-rwp-0.01": rwp(0.01),
    "figure3c-rwp-0.1": rwp(0.1),
    "figure3c-rwp-0.3": rwp(0.3),
    "figure3c-rwp-0.6": rwp(0.6),
    "figure3c-rwp-1": rwp(1.0),
    "figure3c-rwp-2": rwp(2.0),
    "figure3d-l1": {"l1": 5e-6},
    "figure3d-l2": {"l2": 5e-3, "weight_decay": 0.0},
    "figure3d-mixup": {"mixup": 1.4},
    "figure3d-cutout": {"cutout": 14},
    "figure3d-at-es": EARLY,
    "appendix-f-l1": {**L2, "l1": 5e-6},
    "appendix-f-l2": {**L2, "l2": 5e-3, "weight_decay": 0.0},
    "appendix-f-mixup": {**L2, "mixup": 1.4},
    "appendix-f-cutout": {**L2, "cutout": 14},
    "appendix-f-at-es": {**L2, **EARLY},
    "appendix-f-at-awp": {**L2, **awp(0.005)},
    # What others start from
    "pretraining": {
        "dataset": "cifar100", "architecture": "wrn-28-10", "padding": "zero", "epochs": 100, "batch_size": 256,
        "schedule": "cosine", "nesterov": True, "select_on": "validation", "validation_examples": 1000,
    },
    "pseudo-labeller": {
        "architecture": "wrn-28-10", "defense": "standard", "normalization": "none", "steps": 0, "padding": "zero",
        "schedule": "cosine", "nesterov": True, "select_on": "validation", "validation_examples": 1000,
    },
}  # fmt: skip

# Table 1 of the paper: best and last under PGD-20.
TABLE1 = {
    "svhn-linf": ((53.36, 44.49), (59.12, 55.87)),
    "cifar10-linf": ((52.79, 44.44), (55.39, 54.73)),
    "cifar100-linf": ((27.22, 20.82), (30.71, 30.28)),
    "svhn-l2": ((66.87, 65.03), (72.57, 67.73)),
    "cifar10-l2": ((69.15, 65.93), (72.69, 72.08)),
    "cifar100-l2": ((41.33, 35.27), (45.60, 44.66)),
}
# Table 2: Natural, FGSM, PGD-20, PGD-100, CW, SPSA, AutoAttack.
TABLE2 = {
    "at": (86.07, 61.76, 56.10, 55.79, 54.19, 61.40, 52.60),
    "at-awp": (85.57, 62.90, 58.14, 57.94, 55.96, 62.65, 54.04),
    "trades": (84.65, 61.32, 56.33, 56.07, 54.20, 61.10, 53.08),
    "trades-awp": (85.36, 63.49, 59.27, 59.12, 57.07, 63.85, 56.17),
    "mart": (84.17, 61.61, 58.56, 57.88, 54.58, 58.90, 51.10),
    "mart-awp": (84.43, 63.98, 60.68, 59.32, 56.37, 62.75, 54.23),
    "pretraining": (87.89, 63.27, 57.37, 56.80, 55.95, 62.55, 54.92),
    "pretraining-awp": (88.33, 66.34, 61.40, 61.21, 59.28, 65.55, 57.39),
    "rst": (89.69, 69.60, 62.60, 62.22, 60.47, 67.60, 59.53),
    "rst-awp": (88.25, 67.94, 63.73, 63.58, 61.62, 68.72, 60.05),
}
COLUMNS = ("clean", "fgsm", "pgd-20", "pgd-100", "cw-inf", "spsa", "autoattack")


def test_there_is_a_recipe_for_every_row_and_no_other() -> None:
    assert sorted(recipes.names()) == sorted(TABLE)
    groups = [recipes.get(name).group for name in recipes.names()]
    assert {group: groups.count(group) for group in groups} == {"table1": 12, "table2": 10, "figures": 47, "stages": 2}


def test_the_row_of_at_names_every_field() -> None:
    assert AT.keys() == TrainConfig.model_fields.keys()


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_resolves_to_its_row(name: str) -> None:
    recipe = recipes.get(name)
    files = {need.field: "FILE" for need in recipe.needs}
    config, _ = resolve_training(files, named=("recipe", recipe.values))
    assert config.model_dump(mode="json") == {**AT, **TABLE[name]}


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_itself_gives_what_decides_it_and_leaves_it_to_no_default(name: str) -> None:
    recipe = recipes.get(name)
    given = {key: str(value) if key in ("eps", "step_size") else value for key, value in recipe.values.items()}
    files = {need.field: "FILE" for need in recipe.needs}
    assert {**AT, **given, **files} == {**AT, **TABLE[name]}
    assert recipe.values.keys() >= {
        "dataset",
        "architecture",
        "normalization",
        "defense",
        "norm",
        "eps",
        "steps",
        "awp",
    }
    assert recipe.values.keys() >= {"step_size", "epochs", "lr", "schedule", "weight_decay", "augmentation", "padding"}


@pytest.mark.parametrize(("rows", "best_last"), TABLE1.items())
def test_the_recipes_of_table_1_carry_its_numbers_first(rows: str, best_last: tuple[tuple[float, float], ...]) -> None:
    for ending, numbers in zip(("at", "at-awp"), best_last, strict=True):
        first = recipes.get(f"table1-{rows}-{ending}").published[:2]
        assert [(each.attack, each.checkpoint, each.percent) for each in first] == [
            ("pgd-20", "best", numbers[0]),
            ("pgd-20", "last", numbers[1]),
        ]
        assert {each.source for each in first} == {"AWP paper (Wu, Xia and Wang 2020), Table 1"}


@pytest.mark.parametrize(("row", "numbers"), TABLE2.items())
def test_the_recipes_of_table_2_carry_its_numbers_first(row: str, numbers: tuple[float, ...]) -> None:
    first = recipes.get(f"table2-{row}").published[: len(COLUMNS)]
    assert [(each.attack, each.checkpoint, each.percent) for each in first] == [
        (attack, "best", number) for attack, number in zip(COLUMNS, numbers, strict=True)
    ]


def test_an_unknown_recipe_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UsageError) as caught:
        recipes.get("table2-trade")
    assert caught.value.what == "there is no recipe called 'table2-trade'"
    assert caught.value.mend.startswith("Did you mean 'table2-trades'? Known: table1-cifar10-l2-at, ")


def test_a_missing_file_is_answered_with_where_to_get_it(tmp_path: Path) -> None:
    (need,) = recipes.get("table2-rst").needs
    with pytest.raises(InputError) as caught:
        need.find(tmp_path)
    assert caught.value.what == f"{tmp_path / 'ti_500K_pseudo_labeled.pickle'} is missing"
    assert caught.value.mend == (
        "Put Carmon et al.'s 500K images with pseudo-labels there (github.com/yaircarmon/semisup-adv), "
        "or name a file with --unlabelled."
    )
    (tmp_path / need.file).touch()
    assert need.find(tmp_path) == tmp_path / need.file


def test_what_stands_in_for_a_file_is_a_recipe() -> None:
    needs = [need for name in recipes.names() for need in recipes.get(name).needs]
    assert {need.instead for need in needs} - {None} == {"pretraining"}
    assert "pretraining" in recipes.names()
