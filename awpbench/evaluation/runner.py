"""Run an evaluation block by block, each checked and saved when done: an interruption loses at most one block."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

import awpbench
from awpbench import provenance, rundir
from awpbench.attack_model import AttackModel
from awpbench.attacks import pgd_steps
from awpbench.attacks.autoattack import autoattack_part
from awpbench.attacks.cw import cw, margin
from awpbench.attacks.fgsm import fgsm
from awpbench.attacks.pgd import pgd_iterates
from awpbench.attacks.spsa import spsa
from awpbench.data.images import ImageSet
from awpbench.errors import CheckError, InputError, Interrupted, RefusedError
from awpbench.evaluation import hashes, results
from awpbench.evaluation.jobs import Job, blocks, jobs
from awpbench.evaluation.plan import (
    CW_STEPS,
    DIALECTS,
    SPSA_DELTA,
    SPSA_LR,
    SPSA_SAMPLES,
    SPSA_STEPS,
    EvalConfig,
    autoattack_parts,
    definition,
)
from awpbench.evaluation.shards import Arrays, Shards, key_of, npz_bytes
from awpbench.randomness import ImageDraws
from awpbench.threat import ThreatModel


class Progress(Protocol):
    """What an evaluation tells its watcher."""

    def advance(self, job: str, done: float, total: int, accuracy: float | None) -> None:
        """Report that `done` of a job's `total` images are attacked.

        `accuracy` is that of the images seen so far, or an upper bound where only standing images are attacked; None
        before the first block.
        """


@dataclass(frozen=True)
class Finished:
    """The result.json of an evaluation, and whether it was there already."""

    document: dict[str, Any]
    reused: bool


def evaluate(
    net: nn.Module,
    images: ImageSet,
    config: EvalConfig,
    *,
    classes: int,
    model: Mapping[str, Any],
    checkpoint: str | None,
    training: Mapping[str, Any] | None = None,
    out: Path,
    device: torch.device,
    progress: Progress,
    stop: Callable[[], int | None] = lambda: None,
    force: bool = False,
) -> Finished:
    """Attack a net on test images, all or the first of them, and write result.json, per_image.npz and timing.json.

    `model` is what result.json says of the net, `checkpoint` the hash of its file, `training` the configuration of the
    run that made it (None: not ours). `stop` is asked at every forward
    pass; when it returns a signal's number, Interrupted is raised, and the same call continues where it stopped. A
    finished evaluation is returned as it is. Raises RefusedError where `out` holds another one and `force` is not
    given, InputError for a net that does not give `classes` logits, CheckError when an attack left its ball.
    """
    config.check_examples(len(images))
    run = _Run(net.to(device), images, config, classes, device, progress, stop)
    known = {"checkpoint": checkpoint, **hashes.identify(run.net, images, config.examples("clean", len(images)))}
    key = _key(config, classes, model, known, len(images))
    if (old := _finished(out, key, force)) is not None:
        return Finished(old, reused=True)
    shards = Shards(out / rundir.SHARDS, _with_versions(key))
    for job in run.jobs:
        run.execute(job, shards)
    evidence = npz_bytes(results.evidence(run.tables, images.labels.cpu().numpy(), images.indices.cpu().numpy()))
    known |= {"per_image": hashes.of_bytes(evidence), "evaluation": key}
    settings: dict[str, Any] = {"classes": classes, "total": len(images), "training": training}
    document = results.document(config, run.tables, run.totals, model, known, **settings)
    rundir.atomic_write(out / rundir.PER_IMAGE, evidence)
    rundir.write_json(out / rundir.EVAL_TIMING, {"seconds": run.totals.seconds, **_machine(device)})
    rundir.write_json(out / rundir.RESULT, document)
    shards.remove()
    return Finished(document, reused=False)


def _key(config: EvalConfig, classes: int, model: Mapping[str, Any], known: Mapping[str, Any], total: int) -> str:
    attacks = {each: [config.examples(each, total), definition(config, each, classes)] for each in config.attacks}
    threat = {"dataset": config.dataset, "norm": config.norm, "eps": config.eps.text, "seed": config.seed}
    suite = [config.suite, config.suite_version]
    return key_of({"model": dict(model), "hashes": dict(known), "suite": suite, "attacks": attacks, **threat})


def _with_versions(key: str) -> str:
    """Never mix blocks that different versions computed."""
    return key_of({"evaluation": key, "awpbench": awpbench.__version__, "torch": torch.__version__})


def _finished(out: Path, key: str, force: bool) -> dict[str, Any] | None:
    file = out / rundir.RESULT
    if not file.exists():
        return None
    if force:
        file.unlink()
        return None
    try:
        document = json.loads(file.read_text())
        same = document["hashes"]["evaluation"] == key
    except (ValueError, KeyError, TypeError):
        same = False
    if same:
        return dict(document)
    raise RefusedError(
        f"{out} holds the result of another evaluation", "Replace it with --force, or give another --out."
    )


def _machine(device: torch.device) -> dict[str, Any]:
    return {**provenance.describe(str(device)), "threads": torch.get_num_threads()}


class _Run:
    """The state of an evaluation: per attack a table of what each image's adversarial version did to the net."""

    def __init__(
        self,
        net: nn.Module,
        images: ImageSet,
        config: EvalConfig,
        classes: int,
        device: torch.device,
        progress: Progress,
        stop: Callable[[], int | None],
    ) -> None:
        self.net, self.images, self.config, self.classes = net, images, config, classes
        self.threat = ThreatModel(config.norm, config.eps.value)
        self.jobs = jobs(config, classes)
        self.tables = {each: results.Table.empty(config.examples(each, len(images))) for each in config.attacks}
        self.totals = results.Totals()
        self._device = device
        self._attacked = AttackModel(net, config.precision)
        self._attacked_fp32 = AttackModel(net) if config.precision != "fp32" else self._attacked
        self._progress, self._stop = progress, stop
        self._forward = self._backward = 0  # passes of this block, in images
        self._broken_gradients = torch.zeros((), dtype=torch.int64, device=device)  # of these, with NaN or infinity
        self._watch: Callable[[], None] = lambda: None
        self._check_output()

    def execute(self, job: Job, shards: Shards) -> None:
        """Run a job on all its images, or take finished blocks from their shards."""
        positions = self._positions(job)
        done = 0
        for block in blocks(positions, job.block, [self.tables[each].n for each in job.attacks]):
            found = shards.load(job.name, block)
            if found is None:
                self._watch = self._watcher(job, done, len(positions), len(block))
                found = self._attack_block(job, block)
                shards.save(job.name, block, found)
            self._record(job, block, found)
            done += len(block)
            self._progress.advance(job.name, done, len(positions), self._accuracy(job, block[-1] + 1))
        if job.name == "clean" and self.tables["clean"].broken.all():
            mend = "Mend the net; nothing was attacked."
            raise CheckError("the net gives logits that are not finite for every image", mend)

    def _positions(self, job: Job) -> list[int]:
        """Return the images of a job: all, or those still classified correctly (at first those correct when clean)."""
        n = max(self.tables[each].n for each in job.attacks)
        if not job.standing:
            return list(range(n))
        table = self.tables[job.attacks[0]]
        if job.part in (None, autoattack_parts(self.classes)[0]):
            table.start_from(self.tables["clean"])
        return [int(i) for i in np.flatnonzero(~table.fooled)]

    def _attack_block(self, job: Job, block: list[int]) -> Arrays:
        started = time.perf_counter()
        self._forward = self._backward = 0
        self._broken_gradients.zero_()
        positions = torch.tensor(block, device=self.images.images.device)
        x, y = self.images.batch(positions, self._device)
        arrays: Arrays = {}
        warnings: list[str] = []
        for attack, x_adv in self._adversaries(job, block, x, y, warnings):
            self._check(attack, block, x_adv, x)
            logits = self._verify(x_adv)
            spread = margin(logits, y).float()
            broken = ~logits.isfinite().all(1)
            arrays[f"{attack}.fooled"] = ((logits.argmax(1) != y) | broken).cpu().numpy()
            arrays[f"{attack}.margin"] = spread.masked_fill(broken, float("-inf")).cpu().numpy()
            arrays[f"{attack}.broken"] = broken.cpu().numpy()
            arrays[f"{attack}.prediction"] = logits.argmax(1).cpu().numpy()
        arrays["passes"] = np.array([self._forward, self._backward, int(self._broken_gradients)], dtype=np.int64)
        arrays["seconds"] = np.array(time.perf_counter() - started)
        arrays["warnings"] = np.array(warnings, dtype=np.str_)
        return arrays

    def _adversaries(
        self, job: Job, block: list[int], x: Tensor, y: Tensor, warnings: list[str]
    ) -> Iterator[tuple[str, Tensor]]:
        name, config, threat = job.attacks[0], self.config, self.threat
        if name == "clean":
            yield name, x
        elif name == "fgsm":
            yield name, fgsm(self._model, x, y, threat=threat)
        elif name == "cw-inf":
            settings: dict[str, Any] = {"step_size": config.step_size.value, "kappa": config.kappa}
            start = self._start("cw", block, x)
            yield name, cw(self._model, x, y, threat=threat, steps=CW_STEPS, start=start, **settings)
        elif name == "spsa":
            draws = ImageDraws(config.seed, "spsa", self._indices(block))
            settings = {"steps": SPSA_STEPS, "samples": SPSA_SAMPLES, "delta": SPSA_DELTA, "lr": SPSA_LR}
            settings |= {"threat": threat, "max_batch": config.batch_size}
            yield name, spsa(self._fp32_model, x, y, generator=draws, **settings)
        elif name == "autoattack":
            yield name, self._autoattack(str(job.part), x, y, warnings)
        else:
            active = {pgd_steps(each) or 0: each for each in job.attacks if block[-1] < self.tables[each].n}
            start, step_size = self._start("pgd", block, x), config.step_size.value
            found = pgd_iterates(self._model, x, y, at=set(active), threat=threat, step_size=step_size, start=start)
            for steps, each in active.items():
                yield each, found[steps]

    def _autoattack(self, part: str, x: Tensor, y: Tensor, warnings: list[str]) -> Tensor:
        """Run a part through the fast copy; what only the copy holds for fooled is attacked through the net itself."""
        settings: dict[str, Any] = {"threat": self.threat, "classes": self.classes, "seed": self.config.seed}
        x_adv, found = autoattack_part(part, self._model, x, y, **settings)
        warnings += found
        with torch.no_grad():
            disputed = (self._model(x_adv).argmax(1) != y) & (self._verify(x_adv).argmax(1) == y)
        if bool(disputed.any()):
            exact = copy.deepcopy(self.net).eval().requires_grad_(False)
            x_adv[disputed], _ = autoattack_part(part, exact, x[disputed], y[disputed], **settings)
        return x_adv

    def _start(self, family: str, block: list[int], x: Tensor) -> Tensor:
        draws = ImageDraws(self.config.seed, family, self._indices(block))
        return self.threat.random_start(x, draws, clamp=DIALECTS[self.config.dialect].clamped)

    def _indices(self, block: list[int]) -> list[int]:
        return [int(self.images.indices[position]) for position in block]

    def _model(self, x: Tensor) -> Tensor:
        differentiable = x.requires_grad and torch.is_grad_enabled()
        self._count(len(x), backward=differentiable)
        if differentiable:
            x.register_hook(self._look_at_gradient)  # type: ignore[no-untyped-call]
        return self._attacked(x)

    def _look_at_gradient(self, grad: Tensor) -> None:
        """Count images whose gradient is not finite: attacks take it for zero, and their accuracy says nothing."""
        self._broken_gradients += (~grad.isfinite()).flatten(1).any(1).sum()

    def _fp32_model(self, x: Tensor) -> Tensor:
        self._count(len(x), backward=False)
        return self._attacked_fp32(x)

    def _verify(self, x: Tensor) -> Tensor:
        self._count(len(x), backward=False)
        return self._attacked.verify(x)

    def _count(self, n: int, *, backward: bool) -> None:
        self._forward += n
        self._backward += n if backward else 0
        self._watch()
        if (number := self._stop()) is not None:
            what = "the evaluation was stopped; every finished block is saved"
            raise Interrupted(what, "Run the same command again: it continues there.", signal_number=number)

    def _watcher(self, job: Job, done: int, total: int, size: int) -> Callable[[], None]:
        expected = size * (job.forward + job.backward)
        accuracy = self._accuracy(job, done)

        def watch() -> None:
            share = min(0.99, (self._forward + self._backward) / expected)
            self._progress.advance(job.name, done + share * size, total, accuracy)

        return watch

    def _accuracy(self, job: Job, seen: int) -> float | None:
        """Return the accuracy under a job's strongest attack: over the images seen, or an upper bound over all."""
        table = self.tables[job.attacks[-1]]
        fooled = table.fooled if job.standing else table.fooled[:seen]
        return 1 - float(fooled.mean()) if len(fooled) else None

    def _record(self, job: Job, block: list[int], found: Arrays) -> None:
        for each in job.attacks:
            if f"{each}.fooled" in found:
                self.tables[each].put(block, found, each, job.part)
        self.totals.add(job.name, found)

    def _check(self, attack: str, block: list[int], x_adv: Tensor, x: Tensor) -> None:
        problem = self.threat.violation(x_adv, x)
        if problem is not None:
            where = f"{attack}, images {block[0]} to {block[-1]}"
            raise CheckError(
                f"{where}: {problem}", "Nothing of this block counts; report it, this is a bug in the attack."
            )

    def _check_output(self) -> None:
        x, _ = self.images.batch(torch.arange(min(2, len(self.images)), device=self.images.images.device), self._device)
        shape = "x".join(map(str, x.shape[1:]))
        try:
            logits: Any = self._attacked.verify(x)
        except Exception as error:  # a foreign forward may raise anything
            what = f"the model cannot take {shape} images: {type(error).__name__}: {error}"
            raise InputError(what, "Choose another --dataset, or mend the model.") from error
        if not isinstance(logits, Tensor):
            what = f"the model answers with a {type(logits).__name__}, not with a tensor of logits"
            raise InputError(what, f"Give a model that returns {self.classes} logits per image.")
        if logits.shape != (len(x), self.classes):
            what = f"the model answers {len(x)} images with a tensor of shape {tuple(logits.shape)}"
            raise InputError(what, f"Give a model that returns {self.classes} logits per image, or another --dataset.")
