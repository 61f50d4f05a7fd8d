"""RobustBench's L-inf and L2 rows as a snapshot in this package, and where a measured row would stand among them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from importlib import resources
from pathlib import Path

from awpbench.config import Ratio
from awpbench.leaderboard.robustbench.files import Entry, read

SOURCE = "https://github.com/RobustBench/robustbench"
COMMIT = "78fcc9e48a07a861268f295a777b975f25155964"
DATE = "2025-03-31"
THREATS = ("Linf", "L2")


@dataclass(frozen=True)
class Published:
    """A row of RobustBench; accuracies are RobustBench's words, in percent."""

    id: str
    dataset: str
    threat: str
    title: str
    authors: str
    venue: str
    link: str
    architecture: str
    eps: str
    clean: str
    autoattack: str
    external: str | None
    extra_data: bool

    @property
    def accuracy(self) -> float:
        """The accuracy in percent by which RobustBench ranks the row."""
        return float(self.autoattack if self.external is None else self.external)


@dataclass(frozen=True)
class Standing:
    """Where a row would stand among the published ones of its data set and threat model, if it were added to them."""

    dataset: str
    threat: str
    eps: str
    rank: int  # by the accuracy itself; behind published rows that are better, before equal ones
    best: int  # by the upper end of its interval
    worst: int  # by the lower end
    total: int  # published rows
    above: Published | None  # the nearest better one
    below: Published | None  # the nearest that is equal or worse
    budgets: Mapping[str, int]  # published rows by their eps

    @property
    def comparable(self) -> int:
        """The number of published rows whose eps is the same number: 0.031 is not 8/255."""
        return sum(count for eps, count in self.budgets.items() if same_budget(eps, self.eps))

    @property
    def ranks(self) -> str:
        """The ranks that the interval leaves open: `56`, or `54-58`."""
        return str(self.best) if self.best == self.worst else f"{self.best}-{self.worst}"

    def told(self) -> str:
        """Say it in sentences, with what limits the comparison; names and titles in it are RobustBench's."""
        table = f"the {self.total} rows of RobustBench, {self.dataset} {self.threat} ({DATE})"
        words = [f"Would rank {self.ranks} if added to {table}{_between(self.above, self.below)}."]
        others = {eps: count for eps, count in self.budgets.items() if not same_budget(eps, self.eps)}
        if others:
            listed = ", ".join(f"{count} have eps {eps}" for eps, count in others.items())
            words.append(f"{self.comparable} of them have eps {self.eps}; {listed}, which is another budget.")
        return " ".join(words)


def standing(
    dataset: str, norm: str, eps: str, accuracy: float, interval: tuple[float, float] | None = None
) -> Standing | None:
    """Say where a measured robust accuracy would stand among RobustBench's rows; None where it has no such table.

    Accuracy and interval are fractions in [0, 1], compared in percent with two decimals, as RobustBench gives them.
    Rows of the table are counted whatever their eps, as RobustBench does; `comparable` says how many share it.
    """
    rows = [row for row in published() if (row.dataset, row.threat) == (dataset, norm)]
    if not rows:
        return None
    rows.sort(key=lambda row: (-row.accuracy, row.id))
    low, high = interval or (accuracy, accuracy)
    rank = _rank(rows, accuracy)
    return Standing(
        dataset=dataset,
        threat=norm,
        eps=eps,
        rank=rank,
        best=min(rank, _rank(rows, high)),
        worst=max(rank, _rank(rows, low)),
        total=len(rows),
        above=rows[rank - 2] if rank > 1 else None,
        below=rows[rank - 1] if rank <= len(rows) else None,
        budgets=dict(Counter(row.eps for row in rows).most_common()),
    )


@cache
def published() -> tuple[Published, ...]:
    """Return the rows of the snapshot, sorted by data set, threat model and id."""
    file = resources.files("awpbench.leaderboard.robustbench") / "published.json"
    return tuple(Published(**row) for row in json.loads(file.read_text(encoding="utf-8"))["rows"])


def snapshot(folder: Path) -> str:
    """Return the snapshot of a folder `model_info` of RobustBench: one JSON document, a row a line.

    SOURCE, COMMIT and DATE have to be those of the folder. Raises what `files.read` raises.
    """
    rows = [_published(entry) for entry in read(folder) if entry.threat in THREATS]
    lines = ",\n".join(json.dumps(asdict(row), ensure_ascii=False) for row in rows)
    head = json.dumps({"source": SOURCE, "commit": COMMIT, "date": DATE}, indent=1)[:-2]
    return f'{head},\n "rows": [\n{lines}\n]}}\n'


def _published(entry: Entry) -> Published:
    document = entry.document
    words = {key: " ".join(str(document[key] or "").split()) for key in ("name", "authors", "venue", "architecture")}
    return Published(
        id=entry.model,
        dataset=entry.dataset,
        threat=entry.threat,
        title=words["name"],
        authors=words["authors"],
        venue=words["venue"].replace(",<br>", ", "),
        link=document["link"],
        architecture=words["architecture"],
        eps=document["eps"],
        clean=document["clean_acc"],
        autoattack=document["autoattack_acc"],
        external=document.get("external"),
        extra_data=document["additional_data"],
    )


def _rank(rows: list[Published], accuracy: float) -> int:
    percent = round(100 * accuracy, 2)
    return 1 + sum(row.accuracy > percent for row in rows)


def same_budget(one: str, other: str) -> bool:
    """Tell whether two texts are the same number: 0.5 and 128/256 are, 0.031 and 8/255 are not."""
    return _exact(one) == _exact(other)


def _exact(eps: str) -> Fraction:
    return Fraction(Ratio.parse(eps).text)


def _between(above: Published | None, below: Published | None) -> str:
    named = [f"{word} {row.id} ({row.accuracy:.2f})" for word, row in (("below", above), ("above", below)) if row]
    return ", " + " and ".join(named) if named else ""
