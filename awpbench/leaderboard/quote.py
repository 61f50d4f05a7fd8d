"""A reported row from a paper, as somebody wrote it into a TOML file."""

from __future__ import annotations

import re
import tomllib
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from awpbench.errors import InputError
from awpbench.leaderboard.derived import hash_of
from awpbench.leaderboard.details import Eps, Link, Source, Strict, Threat, checked
from awpbench.leaderboard.row import Reported

LIMIT = 64 * 1024  # bytes
MEND = "docs/leaderboard.md shows such a file, under: Quote a paper."


def _percent(value: Any) -> str:
    """Write a percentage with two decimals; raises ValueError for what is none."""
    text = value.strip().removesuffix("%").rstrip() if isinstance(value, str) else str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,20})?", text) or Decimal(text) > 100:
        raise ValueError(f"{str(value)[:40]!r} is no percentage from 0 to 100")
    return str(Decimal(text).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _eps(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Word = Annotated[str, Field(min_length=1, max_length=1000)]
Percentage = Annotated[str, BeforeValidator(_percent)]


class Quote(Strict):
    """What a paper reports of a model; accuracies are percentages."""

    source: Word  # citation or link
    model: Word
    dataset: Word
    threat: Threat
    eps: Annotated[Eps | None, BeforeValidator(_eps)] = None
    architecture: Word
    clean_acc: Percentage
    robust_acc: Percentage
    attack: Word
    name: str = ""  # of the paper
    authors: str = ""
    venue: str = ""
    link: Link = ""
    additional_data: bool | None = None  # None: the paper does not say
    footnote: str | None = None

    @model_validator(mode="after")
    def _is_in_percent_and_has_a_budget(self) -> Quote:
        if 0 < Decimal(self.clean_acc) <= 1:
            raise ValueError(f"clean_acc {self.clean_acc} is a fraction, not a percentage")
        if self.eps is None and self.threat != "corruptions":
            raise ValueError(f"eps is missing, and {self.threat} has one")
        return self

    def keys(self) -> dict[str, Any]:
        """Return RobustBench's keys, in its order; null is what the paper does not say."""
        linked = self.source if re.match(r"https?://\S+$", self.source) else ""
        keys = {
            "link": self.link or linked,
            "name": self.name,
            "authors": self.authors,
            "additional_data": self.additional_data,
            "number_forward_passes": None,
            "dataset": self.dataset,
            "venue": self.venue,
            "architecture": self.architecture,
            "eps": self.eps,
            "clean_acc": self.clean_acc,
            "reported": self.robust_acc,
        }
        if self.threat == "corruptions":
            keys["corruptions_acc"] = self.robust_acc
        elif re.fullmatch(r"auto-?attack|aa", self.attack.strip(), re.IGNORECASE):
            keys["autoattack_acc"] = self.robust_acc
        return keys if self.footnote is None else {**keys, "footnote": self.footnote}

    def row(self) -> Reported:
        """Return the reported row; a correction of its numbers has the same id."""
        named = self.model_dump(include={"source", "model", "dataset", "threat", "eps", "attack"})
        readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{self.dataset}.{self.threat}.{self.model}")
        return Reported.of(
            f"paper.{readable[:100]}.{hash_of(named)[:12]}",
            model=self.model,
            dataset=self.dataset,
            threat=self.threat,
            keys=self.keys(),
            source=Source(kind="paper", reference=self.source, attack=self.attack),
        )


def quoted(path: Path) -> Reported:
    """Read a quotation and return its row. Raises InputError where the file is missing, broken or does not fit."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise InputError(f"{path} is larger than {LIMIT // 1024} KiB", MEND)
        values = tomllib.loads(data.decode())
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", MEND) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", MEND) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a TOML file: {error}", MEND) from None
    return checked(Quote, values, str(path), MEND).row()
