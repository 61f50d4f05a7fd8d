"""What is run at which scale: the rules in numbers, the order of the runs, what is evaluated, what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from awpbench import recipes
from awpbench.config import TrainConfig
from awpbench.defaults import resolve_training
from awpbench.errors import InputError, UsageError
from awpbench.reproduce.forecast import passes
from awpbench.reproduce.runs import Run, plan
from awpbench.reproduce.scales import SCALES
from awpbench.reproduce.tables import table1, table2


def runs(which: str, *only: str, scale: str = "smoke", seeds: int = 1, out: Path = Path("out")) -> list[Run]:
    return plan(which, scale=scale, seeds=seeds, only=only, out=out, data_dir=None)


def test_a_table_has_its_rows_with_every_seed() -> None:
    assert [len(runs("table1", seeds=3)), len(runs("table2", scale="paper"))] == [36, 10]
    assert [run.name for run in runs("table1", "table1-svhn-l2-at", seeds=2)] == [
        "table1-svhn-l2-at-s0",
        "table1-svhn-l2-at-s1",
    ]
    assert {run.recipe.name for run in runs("all")} == set(recipes.names())


def test_a_run_comes_after_the_one_that_it_starts_from() -> None:
    found = runs("table2", "table2-pretraining", "table2-pretraining-awp", seeds=2)
    assert [run.name for run in found] == [
        "pretraining-s0", "table2-pretraining-s0", "pretraining-s1", "table2-pretraining-s1",
        "table2-pretraining-awp-s0", "table2-pretraining-awp-s1",
    ]  # fmt: skip


def test_at_the_papers_scale_nothing_is_put_in_the_place_of_a_missing_file(tmp_path: Path) -> None:
    (run,) = plan(
        "table2", scale="paper", seeds=1, only=["table2-pretraining"], out=tmp_path, data_dir=tmp_path / "data"
    )
    with pytest.raises(InputError, match=r"imagenet32-wrn-28-10\.pt is missing$"):
        run.config()


def test_at_the_papers_scale_a_run_is_the_recipe() -> None:
    (run,) = runs("table2", "table2-trades-awp", scale="paper")
    assert run.config() == resolve_training({}, named=("", run.recipe.values))[0]


def test_a_small_run_is_the_recipe_with_the_stated_values() -> None:
    (run,) = runs("table2", "table2-trades-awp", scale="small", seeds=1)
    whole = resolve_training({}, named=("", run.recipe.values))[0].model_dump()
    changed = {key: value for key, value in run.config().model_dump().items() if value != whole[key]}
    assert changed == {
        "width": 16, "train_examples": 1000, "validation_examples": 1000, "select_on": "validation", "epochs": 150,
        "awp_warmup": 8, "track_every": 5, "track_examples": 500, "track_steps": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("table1-cifar10-linf-at", {"eps": "0.15", "step_size": "0.0375", "batch_size": 64, "awp": False}),
        ("table1-svhn-linf-at-awp", {"eps": "0.15", "step_size": "0.01875", "lr": 0.01, "awp": True, "awp_warmup": 1}),
        ("table1-cifar10-l2-at-awp", {"eps": "0.5", "step_size": "0.05859375", "awp_gamma": 0.01, "awp_warmup": 0}),
        ("table2-mart-awp", {"defense": "mart", "beta": 6.0, "normalization": "none", "awp_gamma": 0.005}),
        ("figure3d-cutout", {"cutout": 4, "augmentation": "crop-flip", "padding": "reflect"}),
        ("figure3d-mixup", {"mixup": 1.4}),
        ("figure3d-at-es", {"patience": 1, "select_on": "validation", "validation_examples": 50}),
        ("appendix-c-cyclic", {"schedule": "cyclic", "epochs": 2, "track_steps": 10}),
        ("figure2a-a-3", {"awp_alternations": 3}),
        ("figure2b-l1-size", {"awp_size": "l1"}),
    ],
)
def test_a_smoke_run_keeps_its_own_defense_schedule_and_regulariser(name: str, expected: dict[str, object]) -> None:
    (run,) = runs("all", name)
    config = run.config().model_dump(mode="json")
    assert (config["dataset"], config["architecture"], config["train_examples"]) == ("digits", "small-cnn", 192)
    assert {key: config[key] for key in expected} == expected


def test_attacks_take_the_step_of_the_training_and_the_images_of_the_scale() -> None:
    (run,) = runs("table1", "table1-svhn-linf-at")
    evaluations = run.evaluations(run.config())
    assert {name: (how.suite, how.step_size.text, how.n_examples) for name, how in evaluations.items()} == {
        "best": ("quick", "0.01875", 40),
        "last": ("quick", "0.01875", 40),
    }
    (run,) = runs("table2", "table2-at", scale="small")
    best = run.evaluations(run.config())["best"]
    assert (best.suite, best.limits) == ("full", {"pgd-100": 300, "cw-inf": 300, "autoattack": 300, "spsa": 60})
    (run,) = runs("figures", "figure1-at", scale="paper")
    assert run.evaluations(run.config())["last"].attacks == ("clean", "pgd-10", "pgd-20")


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"which": "table3"}, "there is no group of recipes called 'table3'"),
        ({"scale": "tiny"}, "there is no scale called 'tiny'"),
        ({"only": ["table2-at"]}, "there is no recipe of table1 called 'table2-at'"),
        ({"seeds": 0}, "--seeds is 0, which is no number of runs"),
    ],
)
def test_what_makes_no_sense_is_refused(flags: dict[str, object], what: str) -> None:
    values = {"which": "table1", "scale": "smoke", "seeds": 1, "only": [], "out": None, "data_dir": None, **flags}
    with pytest.raises(UsageError) as caught:
        plan(values.pop("which"), **values)  # type: ignore[arg-type]
    assert caught.value.what == what


def test_every_cell_of_the_tables_has_a_published_number() -> None:
    cells = [cell for grid in (table1(), table2()) for _, row in grid.rows for cell in row]
    assert len(cells) == 24 + 70
    assert [cell for cell in cells if cell.published is None] == []


def test_the_rule_of_every_scale_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    assert [scale.name for scale in SCALES.values() if f"| `{scale.name}` | {scale.rule} |" not in page] == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 11),  # ten steps of the attack, one update
        ({"awp": True, "awp_gamma": 0.01}, 12),
        ({"awp": True, "awp_gamma": 0.01, "awp_steps": 5}, 16),
        ({"awp": True, "awp_gamma": 0.01, "awp_alternations": 2}, 23),
        ({"defense": "trades"}, 10 + 1 / 3 + 2),
        ({"defense": "standard", "steps": 0}, 1),
    ],
)
def test_the_passes_of_a_step_are_counted(values: dict[str, object], expected: float) -> None:
    config: TrainConfig = resolve_training({"architecture": "prn18", **values})[0]
    assert passes(config) == pytest.approx(expected)
