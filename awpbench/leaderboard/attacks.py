"""What the leaderboard knows of attacks: how they are ordered, and what is measured of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from awpbench.attacks import worst_steps
from awpbench.evaluation.statistics import wilson

ROUNDING = 5e-5  # result.json gives fractions to four decimals at least
COLUMNS = ("clean", "fgsm", "pgd", "cw-inf", "spsa", "autoattack")  # the order of the paper's Table 2
STRENGTH = ("clean", "fgsm", "spsa", "pgd", "cw-inf", "autoattack")  # weakest first; SPSA sees no gradients


def place(name: str, order: tuple[str, ...]) -> tuple[int, int, str]:
    """Return a sort key: the family's place in `order`, `pgd-20` before `pgd-100`, unknown families after `fgsm`."""
    match = re.fullmatch(r"(.+)-(\d{1,9})(?:-worst)?", name)
    family, steps = (match[1], int(match[2])) if match and match[1] in order else (name, 0)
    return (2 * order.index(family) if family in order else 2 * order.index("fgsm") + 1, steps, name)


def in_canonical_order(value: Any) -> Any:
    """Sort the keys of free-form JSON at every depth."""
    if isinstance(value, dict):
        return {key: in_canonical_order(value[key]) for key in sorted(value)}
    return [in_canonical_order(item) for item in value] if isinstance(value, list) else value


Json = Annotated[dict[str, JsonValue], AfterValidator(in_canonical_order)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Attack(BaseModel):
    """What one attack left: `correct` of `n` images still correct, a 95 % Wilson interval, the attack's definition."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    n: int = Field(ge=1)
    correct: int = Field(ge=0)
    accuracy: Fraction
    interval: tuple[Fraction, Fraction]
    nan_logits: int = Field(ge=0, description="images whose logits held NaN; they count as misclassified")
    nan_gradients: int | None = Field(
        default=None, ge=0, description="backward passes of an image that gave NaN or infinity; null: not counted"
    )
    definition: Json
    complete: bool = Field(description="false where AutoAttack did not run all of its parts on all n images")
    parts: Json

    @model_validator(mode="after")
    def _follows_from_its_counts(self) -> Attack:
        check_counts(self.correct, self.n, self.accuracy, self.interval)
        return self

    @property
    def percent(self) -> str:
        """The accuracy as RobustBench writes it: percent with two decimals, no sign."""
        return f"{100 * self.correct / self.n:.2f}"


def check_counts(correct: int, n: int, accuracy: float, interval: tuple[float, float]) -> None:
    """Raise ValueError where an accuracy or its 95 % Wilson interval does not follow from the counts."""
    if correct > n:
        raise ValueError(f"{correct} of {n} images are correct")
    if abs(accuracy - correct / n) > ROUNDING:
        raise ValueError(f"accuracy is {accuracy}, but {correct} of {n} is {correct / n:.4f}")
    low, high = wilson(correct, n)
    if max(abs(interval[0] - low), abs(interval[1] - high)) > ROUNDING:
        told = f"[{interval[0]}, {interval[1]}]"
        raise ValueError(f"the interval is {told}, but that of {correct} of {n} is [{low:.4f}, {high:.4f}]")


def told(definition: Mapping[str, Any]) -> str:
    """Write a definition on one line: `loss margin, steps 100, step_size 2/255`."""
    values = ((key, " + ".join(map(str, v)) if isinstance(v, list) else v) for key, v in definition.items())
    return ", ".join(f"{key} {value}" for key, value in values)


def strongest(attacks: Mapping[str, Attack]) -> str:
    """Name the attack that decides a rank: AutoAttack where it is complete, else the strongest of the others."""
    complete = [name for name, attack in attacks.items() if attack.complete and not beside(name)]
    return max(complete, key=lambda name: place(name, STRENGTH))


def beside(name: str) -> bool:
    """Tell whether an attack is a column beside those of the suite, which ranks nothing: `pgd-100-worst`."""
    return worst_steps(name) is not None


def in_columns(attacks: Mapping[str, Attack]) -> dict[str, Attack]:
    """Return the attacks in the order of the table's columns."""
    return {name: attacks[name] for name in sorted(attacks, key=lambda name: place(name, COLUMNS))}
