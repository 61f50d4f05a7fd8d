"""Run an evaluation block by block, each checked and saved when done: an interruption loses at most those in work."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

import awpbench
from awpbench import provenance, rundir
from awpbench.data.images import ImageSet
from awpbench.errors import AwpbenchError, CheckError, InputError, Interrupted, RefusedError, UsageError
from awpbench.evaluation import claims, evidence, hashes, results
from awpbench.evaluation.attacking import OF_BLOCKS, Attacker
from awpbench.evaluation.audit import findings, verdict
from awpbench.evaluation.fixed_batch import failed, out_of_memory
from awpbench.evaluation.jobs import AUDIT, Job, blocks, jobs
from awpbench.evaluation.plan import EvalConfig, definition
from awpbench.evaluation.shards import Arrays, Shards, key_of, npz_bytes


@dataclass(frozen=True)
class Share:
    """The blocks that a process attacks: every `count`-th one, the `index`-th first, from 0."""

    index: int = 0
    count: int = 1


WHOLE = Share()


@dataclass(frozen=True)
class State:
    """Where an evaluation is: `done` of a job's `total` images of this process are attacked.

    `correct` of the `seen` images withstood the job. `standing` of all `n` images withstood everything so far, which
    bounds the accuracy under the whole suite from above.
    """

    job: str
    done: float
    total: int
    correct: int
    seen: int
    standing: int
    n: int


class Progress(Protocol):
    """What an evaluation tells its watcher."""

    def advance(self, state: State) -> None:
        """Report where the evaluation is."""

    def note(self, text: str) -> None:
        """Report in one line what the user should know."""


@dataclass(frozen=True)
class Finished:
    """The result.json of an evaluation, and whether it was there already."""

    document: dict[str, Any]
    reused: bool


@dataclass(frozen=True)
class Unfinished:
    """This process did its share; of `total` blocks, `missing` are still to come from others."""

    missing: int
    total: int


def evaluate(
    net: nn.Module,
    images: ImageSet,
    config: EvalConfig,
    *,
    classes: int,
    model: Mapping[str, Any],
    checkpoint: str | None,
    training: Mapping[str, Any] | None = None,
    tracked: Mapping[str, Any] | None = None,
    whole: ImageSet | None = None,
    out: Path,
    device: torch.device,
    progress: Progress,
    stop: Callable[[], int | None] = lambda: None,
    force: bool = False,
    share: Share = WHOLE,
    expect_clean: float | None = None,
) -> Finished | Unfinished:
    """Attack a net on test images, all or the first of them, and write result.json, per_image.npz and timing.json.

    `model` is what result.json says of the net, `checkpoint` the hash of its file, `training` the configuration of the
    run that made it (None: not ours), `tracked` what that run measured when it was saved, `whole` the test set that the
    images were chosen from. `stop` is asked at every forward pass; when it returns a signal's number, Interrupted is
    raised, and the same call continues where it stopped. Several processes, each with a `share`, write into one folder;
    whichever finds all blocks there assembles the result. A finished evaluation is returned as it is. Raises
    RefusedError where `out` holds another one and `force` is not given or another process works on this one, InputError
    for a net that fails or does not give `classes` logits, CheckError when an attack left its ball or the clean
    accuracy is not `expect_clean` percent, UsageError where a block does not fit into memory.
    """
    config.check_examples(len(images))
    run = _Run(net.to(device), images, config, classes, device, progress, stop, share)
    identity = hashes.identify(net, whole or images, images.indices[: config.examples("clean", len(images))])
    known = {"checkpoint": checkpoint, **identity, "answers": run.answers()}
    key = _key(config, classes, model, known, len(images))
    if (old := _finished(out, key, force)) is not None:
        return Finished(old, reused=True)
    shards = Shards(out / rundir.SHARDS, _with_versions(key, device))
    with shards.claimed(f"{share.index + 1}-of-{share.count}"):
        if (old := _finished(out, key, force)) is not None:  # by a process that has just left
            shards.remove()
            return Finished(old, reused=True)
        for job in run.jobs:
            run.execute(job, shards)
            if job.name == "clean" and share.count == 1:
                run.check_clean(expect_clean, len(whole or images))
        with shards.locked():
            if (old := _finished(out, key, force)) is not None:  # by the process of another share
                shards.remove()
                return Finished(old, reused=False)
            if missing := run.collect(shards):
                return Unfinished(missing, sum(len(run.blocks(job)) for job in run.jobs))
            partial = config.partial(len(images)) or len(images) < len(whole or images)
            settings: dict[str, Any] = {
                "classes": classes,
                "partial": partial,
                "training": training,
                "tracked": tracked,
            }
            settings["audit"] = run.audit(identity["weights"], hashes.of_weights(net))
            document = run.write(out, model, {**known, "evaluation": key}, **settings)
            shards.remove()
    return Finished(document, reused=False)


def _key(config: EvalConfig, classes: int, model: Mapping[str, Any], known: Mapping[str, Any], total: int) -> str:
    attacks = {each: (config.examples(each, total), definition(config, each, classes)) for each in config.attacks}
    how = {name: getattr(config, name) for name in ("dataset", "norm", "seed", "suite", "suite_version", "block")}
    how |= {"eps": config.eps.text, "evidence": config.evidence, "audit": config.audit}
    return results.evaluation_key(model, known, attacks, how)


def _with_versions(key: str, device: torch.device) -> str:
    """Never mix blocks that different versions or kinds of device computed."""
    versions = {"awpbench": awpbench.__version__, "torch": torch.__version__}
    return key_of({"evaluation": key, "device": device.type, **versions})


def _finished(out: Path, key: str, force: bool) -> dict[str, Any] | None:
    """Return a finished result, whole and as it was written; what is damaged counts as not finished.

    Raises RefusedError where it is another one's, and `force` is not given.
    """
    file = out / rundir.RESULT
    if force or not file.exists():
        return None
    try:
        same = json.loads(file.read_text())["hashes"]["evaluation"] == key
    except (ValueError, KeyError, TypeError):
        same = False
    if same:
        try:
            result = results.Result.read(out)
            result.check()
        except AwpbenchError:
            return None
        return result.document
    raise RefusedError(
        f"{out} holds the result of another evaluation", "Replace it with --force, or give another --out."
    )


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
        share: Share,
    ) -> None:
        self.jobs = jobs(config, classes)
        self._images, self._config, self._classes, self._device = images, config, classes, device
        self._progress, self._stop, self._share = progress, stop, share
        self._together = config.blocks_together
        self._attacker = Attacker(net, images, config, classes=classes, device=device, tick=self._tick)
        self._begin()
        self._passes = 0  # of the blocks in work, in images, forward and backward
        self._watch: Callable[[], None] = lambda: None
        self._check_output()

    def _begin(self) -> None:
        total = len(self._images)
        self._tables = {each: results.Table.empty(self._config.examples(each, total)) for each in self._config.attacks}
        self._totals = results.Totals()
        self._evidence: Arrays = {}
        self._probes: Arrays | None = None

    def blocks(self, job: Job) -> list[range]:
        """Return the blocks of a job, the same for every evaluation of as many images."""
        sizes = [self._tables[each].n for each in job.attacks]
        n = max(sizes)
        return blocks(min(n, job.most or n), job.block, sizes)

    def execute(self, job: Job, shards: Shards) -> None:
        """Run a job on this process's blocks, or take finished blocks from their shards."""
        own = self.blocks(job)[self._share.index :: self._share.count]
        waiting = []
        for block in own:
            found = shards.load(job.name, block)
            if found is None:
                waiting.append(block)
            else:
                self._record(job, block, found)
        total = sum(map(len, own))
        while waiting:
            group = waiting[: self._together if job.leaving else 1]
            self._watch = self._watcher(job, own, waiting, sum(map(len, group)))
            try:
                arrays = self._attacker.attack(job, group, self._left(job, group[0], shards))
            except RuntimeError as error:
                self._give_way(error, len(group))
                continue
            except SystemExit as error:  # from a backward pass of the model's own
                raise failed(error) from error
            for block, found in zip(group, arrays, strict=True):
                shards.save(job.name, block, found)
                self._record(job, block, found)
            waiting = waiting[len(group) :]
        self._progress.advance(self._state(job, own, total, total))

    def answers(self) -> str:
        """Hash the classes that the net gives to the first images: code may change where weights do not."""
        return hashes.of_bytes(self._attacker.classes(self._config.block).astype("<i8").tobytes())

    def check_clean(self, claimed: float | None, total: int) -> None:
        """Raise CheckError for a net that is NaN everywhere, or whose accuracy is not the claimed one."""
        clean = self._tables["clean"]
        if clean.broken.all():
            mend = "Mend the net; nothing was attacked."
            raise CheckError("the net gives logits that are not finite for every image", mend)
        if claimed is not None:
            claims.check_clean(claimed, int((~clean.fooled).sum()), clean.n, total)

    def _left(self, job: Job, block: range, shards: Shards) -> Arrays | None:
        if job.after is None:
            return None
        found = shards.load(job.after, block)
        if found is None:
            raise InputError("a finished block of AutoAttack has vanished", "Run the same command again.")
        return found

    def _give_way(self, error: RuntimeError, blocks: int) -> None:
        """Attack fewer blocks together where memory ran out; no result depends on it."""
        if not out_of_memory(error):
            raise error
        if blocks == 1:
            what = f"{self._config.block} images at a time do not fit into memory"
            raise UsageError(what, f"Give a smaller --block, such as {max(1, self._config.block // 4)}.") from error
        self._together = blocks // 2
        self._progress.note(f"out of memory: going on with --batch-size {self._together * self._config.block}")

    def collect(self, shards: Shards) -> int:
        """Read what all processes found; return how many blocks are missing."""
        self._begin()
        missing = 0
        kept: dict[str, list[Arrays]] = {}
        for job in self.jobs:
            last = not any(other.after == job.name for other in self.jobs)
            for block in self.blocks(job):
                found = shards.load(job.name, block)
                if found is None:
                    missing += 1
                    continue
                self._totals.add(job.name, found)
                if job.name == AUDIT:
                    self._probes = {name: values for name, values in found.items() if name not in OF_BLOCKS}
                    continue
                for each in job.attacks if last else ():
                    if f"{each}.fooled" in found:
                        self._tables[each].put(block, found, each)
                    if f"{each}.kept" in found:
                        kept.setdefault(each, []).append(found)
        if not missing:
            self._evidence = self._needed(kept)
        return missing

    def _needed(self, kept: Mapping[str, list[Arrays]]) -> Arrays:
        """Return the adversarial images of all attacks, without those that are misclassified when clean already."""
        found: Arrays = {}
        for attack, parts in kept.items():
            joined = evidence.joined(parts, f"{attack}.")
            wrong = self._tables["clean"].fooled[: len(joined[f"{attack}.kept"])]
            found |= evidence.dropped(joined, wrong, f"{attack}.")
        return found

    def audit(self, *weights: str) -> dict[str, Any]:
        """Judge what was collected; `weights` are the hashes of the net before and after the attacks."""
        if self._probes is None:
            return {"verdict": None, "findings": []}
        found = findings(
            self._tables,
            self._probes,
            weights=(weights[0], weights[1]),
            warnings=self._totals.warnings,
            nan_gradients={each: self._totals.broken_under(each) for each in self._tables},
        )
        return verdict(found)

    def write(self, out: Path, model: Mapping[str, Any], known: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
        """Write the files of a finished evaluation, result.json last, and return what that holds."""
        labels, indices = self._images.labels.cpu().numpy(), self._images.indices.cpu().numpy()
        per_image = npz_bytes(results.evidence(self._tables, labels, indices))
        files = {rundir.PER_IMAGE: per_image}
        if self._config.evidence:
            files[rundir.EVIDENCE] = npz_bytes(self._evidence, compressed=True)
        known = {**known, **{name.removesuffix(".npz"): hashes.of_bytes(data) for name, data in files.items()}}
        document = results.document(self._config, self._tables, self._totals, model, known, **settings)
        for name, data in files.items():
            rundir.atomic_write(out / name, data)
        if not self._config.evidence:
            (out / rundir.EVIDENCE).unlink(missing_ok=True)  # of a result that this one replaces
        machine = {**provenance.describe(str(self._device)), "threads": torch.get_num_threads()}
        rundir.write_json(out / rundir.EVAL_TIMING, {"seconds": self._totals.seconds, **machine})
        rundir.write_json(out / rundir.RESULT, document)
        return document

    def _tick(self, images: int, differentiable: bool) -> None:
        self._passes += 2 * images if differentiable else images
        self._watch()
        if (number := self._stop()) is not None:
            what = "the evaluation was stopped; every finished block is saved"
            raise Interrupted(what, "Run the same command again: it continues there.", signal_number=number)

    def _watcher(self, job: Job, own: list[range], waiting: list[range], size: int) -> Callable[[], None]:
        self._passes = 0
        total, expected = sum(map(len, own)), size * (job.forward + job.backward)
        done = total - sum(map(len, waiting))
        state = self._state(job, own, done, total)

        def watch() -> None:
            share = min(0.99, self._passes / expected)
            self._progress.advance(dataclasses.replace(state, done=done + share * size))

        return watch

    def _state(self, job: Job, own: list[range], done: float, total: int) -> State:
        table = self._tables[job.attacks[-1]]
        seen = np.zeros(table.n, dtype=np.bool_)
        for block in own:
            seen[block.start : block.stop] = True
        seen &= table.seen & (job.name != AUDIT)
        n = self._tables["clean"].n
        fooled = np.zeros(n, dtype=np.bool_)
        for each in self._tables.values():
            fooled[: each.n] |= each.fooled
        correct = int((~table.fooled & seen).sum())
        return State(job.name, done, total, correct, int(seen.sum()), int((~fooled).sum()), n)

    def _record(self, job: Job, block: range, found: Arrays) -> None:
        for each in job.attacks:
            if f"{each}.fooled" in found:
                self._tables[each].put(block, found, each)

    def _check_output(self) -> None:
        n = min(2, len(self._images))
        shape = "x".join(map(str, self._images.images.shape[1:]))
        try:
            logits = self._attacker.answer(n)
        except (Exception, SystemExit) as error:  # a foreign forward may raise anything
            what = f"the model cannot take {shape} images: {type(error).__name__}: {error}"
            raise InputError(what, "Choose another --dataset, or mend the model.") from error
        if not isinstance(logits, Tensor):
            what = f"the model answers with a {type(logits).__name__}, not with a tensor of logits"
            raise InputError(what, f"Give a model that returns {self._classes} logits per image.")
        if logits.shape != (n, self._classes):
            what = f"the model answers {n} images with a tensor of shape {tuple(logits.shape)}"
            raise InputError(what, f"Give a model that returns {self._classes} logits per image, or another --dataset.")
