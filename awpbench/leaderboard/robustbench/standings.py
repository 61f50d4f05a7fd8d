"""Where the rows of a ranking would stand among those that RobustBench published."""

from __future__ import annotations

from dataclasses import dataclass

from awpbench.leaderboard.attacks import Attack
from awpbench.leaderboard.details import Details
from awpbench.leaderboard.robustbench.published import DATE, Standing, same_budget, standing
from awpbench.leaderboard.view import Line, Ranking

AUTOATTACK = "autoattack"  # by which RobustBench ranks


@dataclass(frozen=True)
class Standings:
    """Each row of a ranking with its place, as if it alone were added to RobustBench's table; and what limits that."""

    title: str
    places: tuple[tuple[Line, Standing], ...]
    notes: tuple[str, ...]


def standings(ranking: Ranking) -> Standings:
    """Place the rows of a ranking; none without a complete AutoAttack, or where RobustBench has no table."""
    group = ranking.group
    title = f"RobustBench, {group.dataset} {group.norm} ({DATE}; reported, not measured here)"
    if group.ranked_by != AUTOATTACK:
        return Standings(title, (), (f"no place: RobustBench ranks by AutoAttack, this table by {group.ranked_by}",))
    places = [(line, _place(line, ranking)) for line in ranking.lines]
    known = tuple((line, place) for line, place in places if place is not None)
    if not known:
        return Standings(title, (), (f"no place: RobustBench has no table of {group.dataset} {group.norm}",))
    return Standings(title, known, tuple(_limits(known[0][1], ranking)))


def best_known(row: Details) -> Attack:
    """Return the attack that left least of AutoAttack's images, by which RobustBench ranks (`external`).

    Raises KeyError for a row without AutoAttack.
    """
    autoattack = row.attacks[AUTOATTACK]
    return min((each for each in row.attacks.values() if each.n == autoattack.n), key=lambda each: each.correct)


def _place(line: Line, ranking: Ranking) -> Standing | None:
    found, group = best_known(line.details), ranking.group
    return standing(group.dataset, group.norm, group.eps, found.correct / found.n, found.interval)


def _limits(place: Standing, ranking: Ranking) -> list[str]:
    others = [f"{count} have eps {eps}" for eps, count in place.budgets.items() if not same_budget(eps, place.eps)]
    budget = f"of the {place.total} published rows {place.comparable} have eps {place.eps}"
    budget += f"; {', '.join(others)}, which is another budget" if others else ""
    images = f"published rows were attacked on the whole test set, these on {ranking.group.n} images"
    return [budget, images] if any(line.details.partial for line in ranking.lines) else [budget]
