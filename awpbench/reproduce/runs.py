"""The runs of a table: recipes at a scale and with a seed, each with its folder, its training and its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awpbench import recipes, rundir
from awpbench.config import TrainConfig
from awpbench.data.sources import data_folder
from awpbench.defaults import resolve_training
from awpbench.errors import UsageError, lookup
from awpbench.evaluation.plan import EvalConfig, resolve_evaluation
from awpbench.evaluation.suites import SUITES
from awpbench.recipes import Recipe
from awpbench.reproduce.scales import SCALES, Scale

GROUPS = ("table1", "table2", "figures", "all")
UNLABELLED = "unlabelled.npz"  # of a scale that makes its own
ATTACKS: dict[str, dict[str, str | tuple[str, ...]]] = {
    "table1": {"best": "quick", "last": "quick"},
    "table2": {"best": "full", "last": "quick"},
    "figures": {"best": ("pgd-10", "pgd-20"), "last": ("pgd-10", "pgd-20")},
    "stages": {"best": "quick"},
}  # per checkpoint: a suite, or attacks one by one


@dataclass(frozen=True)
class Run:
    """A recipe at a scale, with a seed; all that it writes lies in `folder`."""

    recipe: Recipe
    seed: int
    scale: Scale
    out: Path
    data_dir: Path | None

    @property
    def name(self) -> str:
        """The recipe and the seed: `table1-cifar10-linf-at-s0`."""
        return f"{self.recipe.name}-s{self.seed}"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out / self.name

    def config(self) -> TrainConfig:
        """Return what the run trains; raises InputError where a file that it starts from is missing."""
        flags = {**self.scale.shrink(self.recipe.values), "seed": self.seed, **self._files()}
        return resolve_training(flags, named=(f"recipe {self.recipe.name}", self.recipe.values))[0]

    def _files(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for need in self.recipe.needs:
            if need.instead and self.scale.stand_ins:
                found[need.field] = str(self.out / f"{need.instead}-s{self.seed}" / rundir.BEST)
            elif need.field == "unlabelled" and self.scale.own_unlabelled:
                found[need.field] = str(self.out / UNLABELLED)
            else:
                found[need.field] = str(need.find(data_folder(self.data_dir)))
        return found

    def stages(self) -> list[Run]:
        """Return the runs whose checkpoint this one starts from."""
        names = [need.instead for need in self.recipe.needs if need.instead and self.scale.stand_ins]
        return [Run(recipes.get(name), self.seed, self.scale, self.out, self.data_dir) for name in names]

    def evaluations(self, config: TrainConfig) -> dict[str, EvalConfig]:
        """Return by checkpoint how it is evaluated: with the threat and the step of the training."""
        return {checkpoint: self._evaluation(config, how) for checkpoint, how in ATTACKS[self.recipe.group].items()}

    def _evaluation(self, config: TrainConfig, how: str | tuple[str, ...]) -> EvalConfig:
        attacks = SUITES[how].attacks if isinstance(how, str) else how
        flags: dict[str, Any] = {
            ("suite" if isinstance(how, str) else "attacks"): how,
            "dataset": config.dataset,
            "norm": config.norm,
            "eps": config.eps,
            "step_size": config.step_size,
            "n_examples": self.scale.n_examples,
            "limits": {name: n for name, n in self.scale.limits.items() if name in attacks},
            "block": self.scale.block,
        }
        return resolve_evaluation(flags)[0]

    def results(self, config: TrainConfig) -> dict[str, Path]:
        """Return by checkpoint the folder of its result."""
        return {
            checkpoint: self.folder / rundir.EVAL / f"{checkpoint}-{how.label}"
            for checkpoint, how in self.evaluations(config).items()
        }


def plan(
    which: str, *, scale: str, seeds: int, only: Sequence[str], out: Path | None, data_dir: Path | None
) -> list[Run]:
    """Return the runs of a group of recipes with the seeds 0 to `seeds` - 1, each after those that it starts from.

    `only` keeps the recipes of these names; `out` is `reproduction/<scale>` where it is None. Raises UsageError.
    """
    lookup(dict.fromkeys(GROUPS), "group of recipes", which)
    size = lookup(SCALES, "scale", scale)
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}, which is no number of runs", "Give 1 or more.")
    group = {recipe.name: recipe for recipe in recipes.in_group(which)}
    chosen = [lookup(group, f"recipe of {which}", name) for name in only] or list(group.values())
    folder = out or Path("reproduction") / scale
    runs = [Run(recipe, seed, size, folder, data_dir) for recipe in chosen for seed in range(seeds)]
    return list({each.name: each for run in runs for each in [*run.stages(), run]}.values())
