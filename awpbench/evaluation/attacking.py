"""Attack blocks of images: every adversarial image is checked, and its prediction is the untouched net's."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from awpbench.attack_model import AttackModel
from awpbench.attacks import pgd_steps, worst_steps
from awpbench.attacks.autoattack import autoattack_part
from awpbench.attacks.cw import margin, margin_objective
from awpbench.attacks.pgd import Model, Walk, misclassified, walk
from awpbench.attacks.spsa import descend
from awpbench.data.images import ImageSet
from awpbench.errors import CheckError
from awpbench.evaluation import evidence
from awpbench.evaluation.fixed_batch import FixedBatch, answered, differentiable
from awpbench.evaluation.jobs import AUDIT, Job
from awpbench.evaluation.plan import CW_STEPS, DIALECTS, SPSA_DELTA, SPSA_LR, SPSA_SAMPLES, SPSA_STEPS, EvalConfig
from awpbench.evaluation.probes import attached, probe
from awpbench.evaluation.shards import Arrays
from awpbench.randomness import ImageDraws
from awpbench.threat import ThreatModel

OF_BLOCKS = ("passes", "seconds", "warnings")  # arrays that say nothing of images
FORWARD, BACKWARD, BROKEN = range(3)  # columns of passes: images forward, images backward, gradients not finite


@dataclass(frozen=True)
class _Attacked:
    """Images that an attack made `(N, C, H, W)`, and what each cost `(N, 3)`."""

    attack: str
    x_adv: Tensor
    passes: Tensor


class Attacker:
    """Attacks blocks of a test set. `tick(images, differentiable)` is called before every call of the net."""

    def __init__(
        self,
        net: nn.Module,
        images: ImageSet,
        config: EvalConfig,
        *,
        classes: int,
        device: torch.device,
        tick: Callable[[int, bool], None],
    ) -> None:
        self.threat = ThreatModel(config.norm, config.eps.value)
        self._net, self._images, self._config, self._classes = net, images, config, classes
        self._device, self._tick = device, tick
        self._fast = AttackModel(net, config.precision)
        self.model = FixedBatch(attached(self._fast), config.block, tick)
        self.verify = FixedBatch(self._fast.verify, config.block, tick)
        self._part_passes = torch.zeros(3, dtype=torch.int64, device=device)

    def attack(self, job: Job, blocks: list[range], left: Arrays | None = None) -> list[Arrays]:
        """Run a job on blocks of positions; `left` is what an earlier part of AutoAttack found on the only one.

        Each block's arrays hold, per attack, `fooled`, `margin`, `broken`, `prediction` (and evidence), all `(N,)`, and
        `passes` `(N, 3)`. Raises CheckError when an attack left its ball or the pixel box, or gave NaN.
        """
        started = time.perf_counter()
        positions = [position for block in blocks for position in block]
        x, y, pixels = self._batch(positions)
        if job.name == AUDIT:
            found = [self._probes(blocks[0], x, y)]
        elif job.part is not None:
            found = [self._autoattack(job.part, blocks[0], x, y, pixels, left)]
        else:
            attacked = list(self._adversaries(job, positions, x, y))
            starts = np.cumsum([0, *map(len, blocks)])
            found = []
            for block, start in zip(blocks, starts.tolist(), strict=False):
                rows = slice(start, start + len(block))
                found.append(self._outcome(attacked, rows, block, x[rows], y[rows], pixels[rows]))
        seconds = (time.perf_counter() - started) / len(blocks)
        return [arrays | {"seconds": np.array(seconds)} for arrays in found]

    def answer(self, n: int) -> Any:
        """Return what the untouched net says to the first n images, whatever that is."""
        return self._fast.verify(self._batch(list(range(n)))[0])

    def classes(self, n: int) -> npt.NDArray[np.int64]:
        """Return the classes of the first n images, or of all if there are fewer."""
        x, _, _ = self._batch(list(range(min(n, len(self._images)))))
        look = FixedBatch(self._fast.verify, self._config.block)
        return np.asarray(look(x).argmax(1).cpu().numpy(), dtype=np.int64)

    def _batch(self, positions: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return images as floats, their labels, and the images as uint8."""
        chosen = torch.tensor(positions, device=self._images.images.device)
        x, y = self._images.batch(chosen, self._device)
        return x, y, self._images.images[chosen].to(self._device)

    def _outcome(
        self, attacked: list[_Attacked], rows: slice, block: range, x: Tensor, y: Tensor, pixels: Tensor
    ) -> Arrays:
        arrays: Arrays = {"warnings": np.array([], dtype=np.str_)}
        passes = torch.zeros((len(x), 3), dtype=torch.int64, device=x.device)
        for each in attacked:
            arrays |= self._seen(each.attack, each.x_adv[rows], block, x, y, pixels)
            passes += each.passes[rows]
            passes[:, FORWARD] += 1  # the look of the untouched net
        return arrays | {"passes": passes.cpu().numpy()}

    def _seen(self, attack: str, x_adv: Tensor, block: range, x: Tensor, y: Tensor, pixels: Tensor) -> Arrays:
        """Check adversarial images, and ask the untouched net about them."""
        problem = self.threat.violation(x_adv, x)
        if problem is not None:
            where = f"{attack}, images {block[0]} to {block[-1]}"
            mend = "Nothing of this block counts; report it, this is a bug in the attack."
            raise CheckError(f"{where}: {problem}", mend)
        logits = self.verify(x_adv)
        broken, fooled = ~logits.isfinite().all(1), misclassified(logits, y)
        found = {
            "fooled": fooled,
            "margin": margin(logits, y).float().masked_fill(broken, float("-inf")),
            "broken": broken,
            "prediction": logits.argmax(1),
        }
        arrays = {f"{attack}.{name}": values.cpu().numpy() for name, values in found.items()}
        return arrays | self._evidence(attack, x_adv, pixels, y, fooled)

    def _evidence(self, attack: str, x_adv: Tensor, pixels: Tensor, y: Tensor, fooled: Tensor) -> Arrays:
        if not self._config.evidence or attack == "clean":
            return {}
        kept = evidence.encode(x_adv, pixels, y, fooled, threat=self.threat, verify=self.verify)
        return {f"{attack}.{name}": values for name, values in kept.items()}

    def _adversaries(self, job: Job, positions: list[int], x: Tensor, y: Tensor) -> Iterator[_Attacked]:
        name, config = job.attacks[0], self._config
        step_size, nothing = config.step_size.value, torch.zeros((len(x), 3), dtype=torch.int64, device=x.device)
        if name == "clean":
            yield _Attacked(name, x, nothing)
        elif name == "fgsm":
            walked = self._walk(self.model, x, y, at={1}, start=x, step_size=config.eps.value)
            yield _Attacked(name, walked.iterates[1], _passes(walked))
        elif name == "cw-inf":
            settings: dict[str, Any] = {"objective": margin_objective(config.kappa), "step_size": step_size}
            settings |= {"start": self._start("cw", positions, x), "leave": _fooled if config.kappa == 0 else None}
            walked = self._walk(self.model, x, y, at={CW_STEPS}, **settings)
            yield _Attacked(name, walked.iterates[CW_STEPS], _passes(walked))
        elif name == "spsa":
            yield self._spsa(positions, x, y)
        elif (steps := worst_steps(name)) is not None:
            yield self._worst(name, steps, x, y, self._start("pgd", positions, x))
        else:
            active = {pgd_steps(each) or 0: each for each in job.attacks if self._sees(each, positions[-1])}
            start = self._start("pgd", positions, x)
            walked = self._walk(self.model, x, y, at=set(active), start=start, step_size=step_size)
            for i, (steps, each) in enumerate(active.items()):
                yield _Attacked(each, walked.iterates[steps], nothing if i else _passes(walked))

    def _sees(self, attack: str, position: int) -> bool:
        return position < self._config.examples(attack, len(self._images))

    def _walk(self, model: Model, x: Tensor, y: Tensor, **settings: Any) -> Walk:
        return walk(model, x, y, threat=self.threat, max_batch=self._config.block, **settings)

    def _worst(self, name: str, steps: int, x: Tensor, y: Tensor, start: Tensor) -> _Attacked:
        """Walk until misclassified; what only the fast copy holds for misclassified walks through the net itself."""
        settings: dict[str, Any] = {"at": {steps}, "step_size": self._config.step_size.value, "leave": misclassified}
        walked = self._walk(self.model, x, y, start=start, **settings)
        x_adv, passes = walked.iterates[steps].clone(), _passes(walked)
        disputed = walked.left & ~misclassified(self.verify(x_adv), y)
        passes[:, FORWARD] += 1
        if bool(disputed.any()):
            exact = FixedBatch(self._exact(), self._config.block, self._tick)
            again = self._walk(exact, x[disputed], y[disputed], start=start[disputed], **settings)
            x_adv[disputed] = again.iterates[steps]
            passes[disputed] += _passes(again)
        return _Attacked(name, x_adv, passes)

    def _spsa(self, positions: list[int], x: Tensor, y: Tensor) -> _Attacked:
        """Attack what is classified correctly."""
        correct = (~misclassified(self.verify(x), y)).nonzero().flatten()
        draws = ImageDraws(self._config.seed, "spsa", [self._index(positions[i]) for i in correct.tolist()])
        settings: dict[str, Any] = {"steps": SPSA_STEPS, "samples": SPSA_SAMPLES, "delta": SPSA_DELTA, "lr": SPSA_LR}
        settings |= {"threat": self.threat, "generator": draws, "max_batch": self._config.block}
        x_adv, passes = x.clone(), torch.zeros((len(x), 3), dtype=torch.int64, device=x.device)
        if self._config.precision != "fp32":
            settings |= {"near": self._near, "look": self.verify}
        x_adv[correct], gradients = descend(self.model, x[correct], y[correct], **settings)
        looks = gradients + (gradients < SPSA_STEPS)
        passes[:, FORWARD] = 1
        passes[correct, FORWARD] += looks + 2 * SPSA_SAMPLES * gradients
        return _Attacked("spsa", x_adv, passes)

    def _near(self, x: Tensor) -> Model:
        """Return the logits around an image, as a function of differences from it."""
        logits = self._fast.near(x)

        def call(d: Tensor) -> Tensor:
            self._tick(len(d), False)
            return answered(logits, d)

        return call

    def _autoattack(self, part: str, block: range, x: Tensor, y: Tensor, pixels: Tensor, left: Arrays | None) -> Arrays:
        """Run a part on what is still classified correctly, as one batch of the official package."""
        self._part_passes.zero_()
        if left is None:
            arrays = self._seen("autoattack", x, block, x, y, pixels)
            arrays["autoattack.part"] = np.where(arrays["autoattack.fooled"], "clean", "").astype("U8")
            self._part_passes[FORWARD] += len(x)
        else:
            arrays = {name: values.copy() for name, values in left.items()}
        standing = np.flatnonzero(~arrays["autoattack.fooled"])
        rows = torch.tensor(standing, device=x.device)
        x_adv, warnings = self._part(part, x[rows], y[rows])
        found = self._seen("autoattack", x_adv, block, x[rows], y[rows], pixels[rows])
        self._part_passes[FORWARD] += len(rows)
        for name in ("fooled", "margin", "broken", "prediction"):
            arrays[f"autoattack.{name}"][standing] = found[f"autoattack.{name}"]
        arrays["autoattack.part"][standing[found["autoattack.fooled"]]] = part
        if self._config.evidence:
            arrays |= evidence.merged(arrays, found, standing, "autoattack.")
        passes = np.zeros((len(x), 3), dtype=np.int64)
        passes[0] = self._part_passes.cpu().numpy()
        return arrays | {"passes": passes, "warnings": np.array(warnings, dtype=np.str_)}

    def _probes(self, block: range, x: Tensor, y: Tensor) -> Arrays:
        """Make the extra computations of the audit."""
        self._fast.settle(x)  # whose own backward passes are none of the net's
        self._part_passes.zero_()
        model, verify = self._counted(self.model), self._counted(self.verify)
        indices = [self._index(position) for position in block]
        settings: dict[str, Any] = {"threat": self.threat, "step_size": self._config.step_size.value}
        arrays = probe(model, verify, x, y, seed=self._config.seed, indices=indices, **settings)
        return arrays | {"passes": self._part_passes[None].cpu().numpy(), "warnings": np.array([], dtype=np.str_)}

    def _part(self, part: str, x: Tensor, y: Tensor) -> tuple[Tensor, list[str]]:
        """Run a part through the fast copy; what only the copy holds for fooled is attacked through the net itself."""
        if not len(x):
            return x, []
        fast, exact = self._counted(attached(self._fast)), self._counted(self._fast.verify)
        settings: dict[str, Any] = {"threat": self.threat, "classes": self._classes, "seed": self._config.seed}
        x_adv, warnings = autoattack_part(part, fast, x, y, **settings)
        with torch.no_grad():
            disputed = misclassified(fast(x_adv), y) & ~misclassified(exact(x_adv), y)
        if bool(disputed.any()):
            exact = self._counted(self._exact())
            x_adv[disputed], _ = autoattack_part(part, exact, x[disputed], y[disputed], **settings)
        return x_adv, warnings

    def _exact(self) -> Model:
        return attached(copy.deepcopy(self._net).eval().requires_grad_(False))

    def _counted(self, model: Model) -> Model:
        """Count passes of AutoAttack, which chooses its own batches, and of the audit."""

        def call(x: Tensor) -> Tensor:
            if not isinstance(model, FixedBatch):  # which does so itself
                self._tick(len(x), differentiable(x))
            self._part_passes[FORWARD] += len(x)
            if differentiable(x):
                self._part_passes[BACKWARD] += len(x)
                x.register_hook(self._look_at_gradient)  # type: ignore[no-untyped-call]
            return answered(model, x)

        return call

    def _look_at_gradient(self, grad: Tensor) -> None:
        self._part_passes[BROKEN] += (~grad.isfinite()).flatten(1).any(1).sum()

    def _start(self, family: str, positions: list[int], x: Tensor) -> Tensor:
        draws = ImageDraws(self._config.seed, family, [self._index(position) for position in positions])
        return self.threat.random_start(x, draws, clamp=DIALECTS[self._config.dialect].clamped)

    def _index(self, position: int) -> int:
        return int(self._images.indices[position])


def _fooled(logits: Tensor, y: Tensor) -> Tensor:
    """Tell where the gradient of CW's objective with kappa 0 is zero for good."""
    return margin(logits, y) < 0


def _passes(walked: Walk) -> Tensor:
    return torch.stack([walked.gradients, walked.gradients, walked.broken], 1)
