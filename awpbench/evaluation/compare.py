"""Two results on the same images, attack by attack: the difference, its interval, a paired test. Without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from awpbench.errors import UsageError
from awpbench.evaluation.results import Result
from awpbench.evaluation.statistics import mcnemar, paired_difference


@dataclass(frozen=True)
class Difference:
    """How the second of two nets fares against the first under one attack, on the n images that both were given.

    Accuracies and the difference (second minus first) are fractions; `only_first` and `only_second` count the images
    that only one of the two got right; p is that of the exact McNemar test.
    """

    attack: str
    n: int
    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p: float


def compare(first: Result, second: Result) -> list[Difference]:
    """Compare two results under every attack that both ran, defined alike, on the images that both were given.

    Raises UsageError where the data sets or the threats differ, or no attack is left.
    """
    for what in ("dataset", "norm", "eps"):
        one, other = first.document[what], second.document[what]
        if one != other:
            raise UsageError(f"the two results differ in {what}: {one} and {other}", "Compare like with like.")
    if first.document["hashes"]["data"] != second.document["hashes"]["data"]:
        raise UsageError("the two results are of different images", "Compare results on the same data.")
    found = [
        _difference(attack, first, second) for attack in first.document["attacks"] if _alike(attack, first, second)
    ]
    differences = [difference for difference in found if difference is not None]
    if not differences:
        raise UsageError("the two results share no attack on common images", "Evaluate both with the same suite.")
    return differences


def document(differences: list[Difference]) -> list[dict[str, Any]]:
    """Return plain values for JSON."""
    return [asdict(difference) for difference in differences]


def _alike(attack: str, first: Result, second: Result) -> bool:
    one, other = (result.document["attacks"].get(attack) for result in (first, second))
    return bool(one and other and one["definition"] == other["definition"])


def _difference(attack: str, first: Result, second: Result) -> Difference | None:
    one, other = first.correct(attack), second.correct(attack)
    common = one.keys() & other.keys()
    if not common:
        return None
    n = len(common)
    only_first = sum(one[i] and not other[i] for i in common)
    only_second = sum(other[i] and not one[i] for i in common)
    right = [sum(each[i] for i in common) / n for each in (one, other)]
    return Difference(
        attack=attack,
        n=n,
        first=right[0],
        second=right[1],
        difference=(only_second - only_first) / n,
        interval=paired_difference(only_second, only_first, n),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
    )
