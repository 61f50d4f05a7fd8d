"""What an evaluation is: its configuration, where each value came from, and the exact definition of every attack.

Importable without torch.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from awpbench import own_data
from awpbench.attacks import AUTOATTACK_BATCH, AUTOATTACK_PARTS, AUTOATTACK_TARGETS, canonical, pgd_steps, worst_steps
from awpbench.config import LARGEST_SEED, Norm, Precision, Ratio, check_budget, check_step, of_file, validated
from awpbench.defaults import DATASETS, awp_dialect_step, dialect_source, facts_of
from awpbench.errors import UsageError, lookup
from awpbench.evaluation.suites import SUITES, USUAL_EXAMPLES

CW_STEPS = 100
SPSA_STEPS, SPSA_SAMPLES, SPSA_DELTA, SPSA_LR = 100, 256, 0.001, 0.01
BLOCK = 64  # images per call of the net
BLOCKS_TOGETHER = 4  # of attacks that images leave early: survivors of so many blocks share calls


@dataclass(frozen=True)
class Dialect:
    """A way of running PGD: the step as a ratio of eps per norm, and whether the start is clamped to the box."""

    linf: tuple[int, int]
    l2: tuple[int, int] | None  # None: its code knows no L2
    clamped: bool


DIALECTS = {
    "awp": Dialect((1, 4), (15, 128), clamped=True),  # 2/255 of 8/255, 15/255 of 128/255
    "trades": Dialect((3, 31), None, clamped=False),  # 0.003 of 0.031
    "mart-wrn": Dialect((1, 10), None, clamped=False),
    "mart-rn18": Dialect((3, 31), None, clamped=False),
}
DIALECT_ALIASES = {"mart": "mart-wrn"}


class EvalConfig(BaseModel):
    """Everything that decides what an evaluation computes, apart from the net; not where it runs and writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str | None  # None: attacks chosen one by one, and no row
    attacks: tuple[str, ...]
    dataset: str
    norm: Norm
    eps: Ratio
    dialect: str
    step_size: Ratio
    kappa: float = Field(ge=0, allow_inf_nan=False)
    n_examples: int | None = Field(ge=1)  # None: all, or as many as is usual for the attack
    limits: dict[str, PositiveInt]  # images per attack; they win over n_examples
    seed: int = Field(ge=0, le=LARGEST_SEED)
    block: int = Field(ge=1)  # images per call of the net, which is padded to it; decides the last bits of a result
    batch_size: Literal["auto"] | PositiveInt  # images attacked together, in whole blocks; decides nothing
    evidence: bool  # keep the adversarial images
    audit: bool  # ask whether the evaluation is to be trusted
    precision: Precision  # of the attacks; predictions are those of the fp32 net

    @property
    def suite_version(self) -> str | None:
        """The version of the suite, None without one."""
        return SUITES[self.suite].version if self.suite else None

    @property
    def label(self) -> str:
        """The name of its folder: `<suite>-v<version>`, or the attacks."""
        if self.suite:
            return f"{self.suite}-v{self.suite_version}"
        return "+".join(each for each in self.attacks if each != "clean") or "clean"

    def examples(self, attack: str, total: int) -> int:
        """Return how many of `total` test images an attack sees; clean predictions are made for every image used."""
        if attack == "clean":
            return max(self._examples(each, total) for each in self.attacks)
        return self._examples(attack, total)

    def _examples(self, attack: str, total: int) -> int:
        usual = min(USUAL_EXAMPLES.get(attack, total), total)
        return self.limits.get(attack) or min(self.n_examples or usual, usual)

    @property
    def blocks_together(self) -> int:
        """How many blocks an attack that images leave early takes at a time."""
        return BLOCKS_TOGETHER if self.batch_size == "auto" else max(1, self.batch_size // self.block)

    def check_examples(self, total: int) -> None:
        """Raise UsageError where more images are asked for than the test set has."""
        asked = {"--n-examples": self.n_examples, **{f"--limit {name}": n for name, n in self.limits.items()}}
        for flag, n in asked.items():
            if n is not None and n > total:
                raise UsageError(f"{flag} asks for {n} of {total} test images", f"Ask for at most {total}.")

    def partial(self, total: int) -> bool:
        """Tell whether an attack sees fewer images than its suite means it to: all, or the usual number (SPSA)."""
        usual = {each: min(USUAL_EXAMPLES.get(each, total), total) for each in self.attacks}
        return any(self.examples(each, total) < usual[each] for each in self.attacks)


def resolve_evaluation(
    flags: Mapping[str, Any],
    *,
    file: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    worst: bool = False,
) -> tuple[EvalConfig, dict[str, str]]:
    """Settle every value, flags before the file before the checkpoint before defaults, and say where each came from.

    None counts as not given. `checkpoint` holds what a checkpoint says of `dataset`, `norm` and `eps`. `worst` adds to
    the longest PGD the column of its worst iterates, on the same images. Raises UsageError for unknown names, values
    that make no sense, and where nothing names the data set or the threat.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    from_file = of_file(EvalConfig, file or {})
    for given, source in ((flags, "flag"), (from_file, "file"), (checkpoint or {}, "checkpoint")):
        for key, value in given.items():
            lookup(EvalConfig.model_fields, "configuration value", key)
            other_norm = source == "checkpoint" and key == "eps" and values["norm"] != given.get("norm")
            if value is not None and key not in values and not other_norm:  # a budget belongs to its norm
                values[key], sources[key] = value, source

    def settle(key: str, value: Any, source: str = "default") -> Any:
        if key not in values:
            values[key], sources[key] = value, source
        return values[key]

    missing = [f"--{key}" for key in ("dataset", "norm", "eps") if key not in values]
    if missing:
        what = f"nothing names the data and the threat to evaluate on: {', '.join(missing)} missing"
        raise UsageError(what, "Add them, for example: --dataset cifar10 --norm Linf --eps 8/255.")
    _settle_attacks(values, sources)
    if worst:
        _add_worst(values)
    facts = facts_of(values["dataset"])
    if values["dataset"] not in DATASETS:
        values["dataset"] = own_data.spelled(values["dataset"])
    eps = Ratio.parse(values["eps"])
    check_budget(values["norm"], eps.value, facts.shape)
    name = settle("dialect", "awp")
    values["dialect"] = dialect = DIALECT_ALIASES.get(name, name)
    ratio = lookup(DIALECTS, "dialect", dialect).linf if values["norm"] == "Linf" else DIALECTS[dialect].l2
    if dialect == "awp":
        ratio = awp_dialect_step(values["norm"], values["dataset"])
        settle("step_size", eps.times(*ratio), dialect_source(values["norm"], values["dataset"]))
    elif ratio is not None:
        settle("step_size", eps.times(*ratio), f"dialect {dialect}")
    elif "step_size" not in values:
        raise UsageError(f"the dialect {dialect} has no step size in L2", "Give --step-size, or --dialect awp.")
    defaults: dict[str, Any] = {"kappa": 0.0, "n_examples": None, "limits": {}, "seed": 0, "block": BLOCK}
    for key, default in {
        **defaults,
        "batch_size": "auto",
        "evidence": False,
        "audit": True,
        "precision": "fp32",
    }.items():
        settle(key, default)
    _check_limits(values["limits"], values["attacks"])
    if "cw-inf" not in values["attacks"] and sources["kappa"] != "default":
        raise UsageError("--kappa is the confidence of cw-inf, which does not run", "Leave it out.")
    check_step(values["norm"], Ratio.parse(values["step_size"]).value, eps.value)
    return validated(EvalConfig, values), {key: sources[key] for key in EvalConfig.model_fields}


def _settle_attacks(values: dict[str, Any], sources: dict[str, str]) -> None:
    if values.get("attacks"):
        if "suite" in values:
            raise UsageError("--suite and --attack exclude each other", "Leave one of them out.")
        chosen = [each if each == "clean" else canonical(each) for each in values["attacks"]]
        values["suite"], sources["suite"] = None, "single attacks"
        values["attacks"] = tuple(dict.fromkeys(["clean", *chosen]))
        return
    if "suite" not in values:
        values["suite"], sources["suite"] = "quick", "default"
    suite = lookup(SUITES, "suite", values["suite"])
    values["attacks"], sources["attacks"] = suite.attacks, f"suite {suite.name} {suite.version}"


def _add_worst(values: dict[str, Any]) -> None:
    longest = max(filter(pgd_steps, values["attacks"]), key=lambda each: pgd_steps(each) or 0, default=None)
    if longest is None:
        raise UsageError("--worst is of PGD, which does not run", "Leave it out, or add --attack pgd-20.")
    values["attacks"] = tuple(dict.fromkeys([*values["attacks"], f"{longest}-worst"]))
    limits = values.get("limits") or {}
    if longest in limits:
        values["limits"] = {f"{longest}-worst": limits[longest], **limits}


def read_limits(texts: list[str]) -> dict[str, int]:
    """Read `["spsa=60"]`. Raises UsageError."""
    found: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdecimal() or int(number) < 1:
            raise UsageError(f"--limit {text} names no number of images", "Write it as in --limit spsa=100.")
        attack = "clean" if name == "clean" else canonical(name)
        if found.setdefault(attack, int(number)) != int(number):
            raise UsageError(f"--limit gives {attack} two numbers of images", "Give one.")
    return found


def _check_limits(limits: Any, attacks: tuple[str, ...]) -> None:
    for attack in limits:
        if attack == "clean":
            what = "--limit clean=N: clean predictions are made for every image that an attack uses"
            raise UsageError(what, "Limit the attacks, or give --n-examples.")
        if attack not in attacks:
            raise UsageError(f"--limit names {attack}, which does not run", f"These run: {', '.join(attacks)}.")


def definition(config: EvalConfig, attack: str, classes: int) -> dict[str, Any]:
    """Return everything that decides what an attack does to an image, as plain values for result.json."""
    found = _definition(config, attack, classes)
    if config.precision == "fp32" or attack == "clean":
        return found
    stops = {"stops_at": "the fp32 net's word"} if attack == "spsa" else {}
    return {**found, **stops, "precision": config.precision}


def _definition(config: EvalConfig, attack: str, classes: int) -> dict[str, Any]:
    step = {"step_size": config.step_size.text, "start": _start(config), "dialect": config.dialect, "scored": "last"}
    if attack == "clean":
        return {}
    if attack == "fgsm":
        return {"loss": "cross-entropy", "step_size": config.eps.text, "start": "clean", "scored": "last"}
    if attack == "cw-inf":
        return {"loss": "margin", "kappa": config.kappa, "steps": CW_STEPS, **step}
    if attack == "spsa":
        return _spsa()
    if attack == "autoattack":
        return _autoattack(classes)
    if (steps := worst_steps(attack)) is not None:
        return {"loss": "cross-entropy", "steps": steps, **step, "scored": "any"}
    return {"loss": "cross-entropy", "steps": pgd_steps(attack), **step}


def _spsa() -> dict[str, Any]:
    return {
        "loss": "margin",
        "steps": SPSA_STEPS,
        "samples": SPSA_SAMPLES,  # directions of +-1, per image and step
        "forwards_per_step": 2 * SPSA_SAMPLES,
        "delta": SPSA_DELTA,
        "lr": SPSA_LR,
        "optimizer": "adam",
        "start": "clean",
        "scored": "any",
    }


def _autoattack(classes: int) -> dict[str, Any]:
    targets = min(AUTOATTACK_TARGETS, classes - 1)
    return {
        "implementation": f"pyautoattack {importlib.metadata.version('pyautoattack')}",
        "version": "standard" if targets == AUTOATTACK_TARGETS else f"custom: {classes} classes",
        "parts": list(autoattack_parts(classes)),
        "targets": targets,
        "batch": AUTOATTACK_BATCH,
        "scored": "any",
    }


def autoattack_parts(classes: int) -> tuple[str, ...]:
    """Return AutoAttack's parts; with fewer than four classes the targeted DLR loss of apgd-t is undefined."""
    return tuple(part for part in AUTOATTACK_PARTS if part != "apgd-t" or classes >= 4)


def _start(config: EvalConfig) -> str:
    start = "uniform in the ball" if config.norm == "Linf" else "uniform radius"
    return start if DIALECTS[config.dialect].clamped else f"{start}, not clamped to the box"
