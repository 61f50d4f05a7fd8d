"""Several results of one configuration, trained from different seeds: mean and standard deviation. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

from awpbench.errors import UsageError
from awpbench.evaluation.results import Result
from awpbench.evaluation.statistics import mean_std


@dataclass(frozen=True)
class Spread:
    """Accuracies, as fractions, of nets trained from `n` seeds under one attack on `images` images each.

    `std` is that of the sample (n - 1), None for one seed.
    """

    attack: str
    n: int
    images: int
    mean: float
    std: float | None
    lowest: float
    highest: float


def spread(results: list[Result]) -> list[Spread]:
    """Summarise results that differ in the seed of the training alone, attack by attack.

    Raises UsageError where the images, the threat or anything else of the training differs, two share a seed, or they
    share no attack that is defined alike.
    """
    first = results[0].document
    for result in results[1:]:
        document = result.document
        for what in ("dataset", "norm", "eps"):
            if document[what] != first[what]:
                values = f"{first[what]} and {document[what]}"
                raise UsageError(f"the results differ in {what}: {values}", "Summarise like with like.")
        if any(document["hashes"][each] != first["hashes"][each] for each in ("data", "indices")):
            raise UsageError("the results are of different images", "Summarise results on the same data.")
        if _settings(result) != _settings(results[0]):
            raise UsageError("the nets were trained differently", "Give results that differ in the seed alone.")
    seeds = [(result.document.get("training") or {}).get("seed") for result in results]
    if len(results) > 1 and None in seeds:
        what = "it is not known from which seed a net was trained"
        raise UsageError(what, "Summarise evaluations of checkpoints that awpbench train wrote.")
    if len(set(seeds)) < len(seeds):
        raise UsageError("two results are of one seed", "Give each seed once.")
    shared = [each for each in first["attacks"] if all(_alike(each, results[0], other) for other in results)]
    return [_of(attack, results) for attack in shared]


def selected_on_test(result: Result) -> bool:
    """Tell whether the net is the best of many checkpoints, chosen on the images that it is evaluated on."""
    training = result.document.get("training") or {}
    return training.get("select_on") == "test" and str(result.document["model"]["name"]).endswith("best")


def _of(attack: str, results: list[Result]) -> Spread:
    accuracies = [float((~result.arrays[f"{attack}.fooled"]).mean()) for result in results]
    mean, std = mean_std(accuracies)
    images = len(results[0].arrays[f"{attack}.fooled"])
    return Spread(attack, len(results), images, mean, std, min(accuracies), max(accuracies))


def _settings(result: Result) -> dict[str, object]:
    training = result.document.get("training") or {}
    checkpoint = str(result.document["model"]["name"]).rpartition("/")[2]
    return {**{key: value for key, value in training.items() if key != "seed"}, "checkpoint": checkpoint}


def _alike(attack: str, one: Result, other: Result) -> bool:
    first, second = (result.document["attacks"].get(attack) for result in (one, other))
    return bool(second) and (first["definition"], first["n"]) == (second["definition"], second["n"])
