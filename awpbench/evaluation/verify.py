"""Check a finished evaluation from its stored adversarial images, or by attacking some images afresh."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from awpbench import rundir
from awpbench.attack_model import AttackModel
from awpbench.attacks.pgd import misclassified
from awpbench.data.images import ImageSet
from awpbench.errors import CheckError, InputError, UsageError
from awpbench.evaluation import evidence, hashes
from awpbench.evaluation.fixed_batch import FixedBatch
from awpbench.evaluation.plan import EvalConfig, resolve_evaluation
from awpbench.evaluation.results import Result
from awpbench.evaluation.runner import Finished, Progress, evaluate
from awpbench.evaluation.shards import Arrays, read_npz
from awpbench.threat import ThreatModel

MEND = "Do not trust this result; restore the files, or evaluate again with --evidence."


@dataclass(frozen=True)
class Claim:
    """An accuracy of a result and what its stored images give, as counts of n; `failing` images, by index, disagree."""

    attack: str
    n: int
    claimed: int
    found: int
    failing: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Whether every image does to the net what the result says."""
        return not self.failing


@dataclass(frozen=True)
class Again:
    """An attack run afresh on n random images: how many withstood it, as the result says and now; others by index."""

    attack: str
    n: int
    claimed: int
    found: int
    differing: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Whether the net is no weaker than claimed, up to half a point, or two images but never a quarter of them."""
        return self.claimed - self.found <= max(0.005 * self.n, min(2, self.n / 4))


class Verifier:
    """A finished evaluation with the net and the test set that it is about.

    `dataset` is the path of a user's own data set where that has moved.

    Raises CheckError where the result, the net or the images are not those that were evaluated, InputError where a file
    is missing or was written before results could be verified.
    """

    def __init__(
        self,
        folder: Path,
        net: nn.Module,
        images: ImageSet,
        *,
        classes: int,
        device: torch.device,
        dataset: str | None = None,
    ) -> None:
        self.result = Result.read(folder)
        self.result.check()
        self._folder, self._classes, self._device = folder, classes, device
        self._net = net.to(device)
        self._config = _config(self.result.document, dataset or str(self.result.document["dataset"]))
        self._images = images.select(_positions(self.result.arrays["index"].tolist(), images))
        known = hashes.identify(net, images, self._images.indices)
        for name, what in (("weights", "net"), ("data", "test set"), ("indices", "choice of images")):
            if known[name] != self.result.document["hashes"][name]:
                raise CheckError(
                    f"the {what} is not the one that was evaluated", "Name the right one, or do not trust it."
                )
        self._verify = FixedBatch(AttackModel(self._net).verify, self._config.block)

    def claims(self) -> list[Claim]:
        """Compute every accuracy again from the stored images, in one forward pass over each.

        Images that are misclassified when clean need no stored image: they are adversarial at distance 0.
        """
        kept = self._evidence()
        wrong = self._wrong()
        found = [self._claim("clean", self.result.arrays["clean.fooled"], wrong)]
        for attack in self.result.document["attacks"]:
            if attack != "clean":
                fooled = self.result.arrays[f"{attack}.fooled"]
                shown = self._shown(_of(kept, attack), len(fooled)) | (fooled & wrong[: len(fooled)])
                found.append(self._claim(attack, fooled, shown))
        return found

    def clean(self) -> Claim:
        """Measure the clean accuracy again, on the same images."""
        return self._claim("clean", self.result.arrays["clean.fooled"], self._wrong())

    def _wrong(self) -> np.ndarray[Any, Any]:
        """Tell which of the images `(n,)` are misclassified when clean."""
        if self.result.arrays["label"].tolist() != self._images.labels.tolist():
            raise CheckError("per_image.npz holds other labels than the test set", MEND)
        return self._misclassified(self._images.images.float() / 255, np.arange(len(self._images)))

    def adversarial_images(self) -> tuple[Tensor, int]:
        """Return RobustBench's "new evaluation": for each image `(N, C, H, W)` the first stored one that fools the net,
        the clean one where none does, and how many are still classified correctly.
        """
        kept = self._evidence()
        images = self._images.images.float() / 255
        open_ = np.ones(len(images), dtype=np.bool_)
        for attack in self.result.document["attacks"]:
            if attack != "clean":
                encoded = _of(kept, attack)
                n = len(encoded["kept"])
                rows = np.flatnonzero(open_[:n] & (encoded["kept"] != evidence.NONE))
                images[rows] = evidence.decode(encoded, self._images.images[:n])[rows]
                open_[rows] = False
        return images, int((~self._misclassified(images, np.arange(len(images)))).sum())

    def again(self, n: int, seed: int, progress: Progress) -> list[Again]:
        """Attack n random images afresh and compare what happens to each.

        AutoAttack is left out: its draws depend on all images of a block.
        """
        attacks = [each for each in self._config.attacks if each not in ("clean", "autoattack")]
        sizes = {each: self.result.document["attacks"][each]["n"] for each in attacks}
        total = len(self._images)
        chosen = np.sort(np.random.RandomState(seed).permutation(total)[: min(n, total)])
        limits = {each: int((chosen < size).sum()) for each, size in sizes.items()}
        attacks = [each for each in attacks if limits[each]]
        if not attacks:
            what = "no attack can be run afresh: the draws of AutoAttack depend on all images of a block"
            raise UsageError(what, "Leave --reattack out.")
        changes = {"suite": None, "attacks": ("clean", *attacks), "n_examples": None, "evidence": False, "audit": False}
        config = self._config.model_copy(update={**changes, "limits": {each: limits[each] for each in attacks}})
        settings: dict[str, Any] = {"classes": self._classes, "model": {}, "checkpoint": None}
        settings |= {"device": self._device, "progress": progress}
        with tempfile.TemporaryDirectory() as folder:
            some = self._images.select(torch.tensor(chosen, device="cpu"))
            finished = evaluate(self._net, some, config, out=Path(folder), **settings)
            assert isinstance(finished, Finished)
            fresh = Result.read(Path(folder))
        return [self._again(attack, fresh, chosen) for attack in fresh.document["attacks"]]

    def _again(self, attack: str, fresh: Result, chosen: np.ndarray[Any, Any]) -> Again:
        now = fresh.arrays[f"{attack}.fooled"]
        before = self.result.arrays[f"{attack}.fooled"][chosen[: len(now)]]
        differing = self.result.arrays["index"][chosen[: len(now)]][now != before]
        return Again(attack, len(now), int((~before).sum()), int((~now).sum()), tuple(differing.tolist()))

    def _evidence(self) -> Arrays:
        path = self._folder / rundir.EVIDENCE
        known = self.result.document["hashes"].get("evidence")
        if known is None:
            raise InputError(f"{self._folder} holds no adversarial images", "Evaluate with --evidence --force.")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}", MEND) from None
        if hashes.of_bytes(data) != known:
            raise CheckError(f"{path} is not the one that result.json names", MEND)
        try:
            return read_npz(data)
        except ValueError:
            raise CheckError(f"{path} is damaged", MEND) from None

    def _shown(self, encoded: Arrays, n: int) -> np.ndarray[Any, Any]:
        """Tell for which of the first n images one is kept that is inside the threat and misclassified, `(n,)`."""
        shown = np.zeros(n, dtype=np.bool_)
        try:
            x_adv = evidence.decode(encoded, self._images.images[:n])
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise CheckError("the stored images do not fit the result", MEND) from error
        rows = np.flatnonzero(encoded["kept"] != evidence.NONE)
        clean = self._images.images[:n][rows].float() / 255
        threat = ThreatModel(self._config.norm, self._config.eps.value)
        shown[rows] = self._misclassified(x_adv[rows], rows) & threat.contains(x_adv[rows], clean).numpy()
        return shown

    def _misclassified(self, x: Tensor, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        labels = self._images.labels[rows]
        found = []
        for i in range(0, len(x), self._config.block):
            some = slice(i, i + self._config.block)
            logits = self._verify(x[some].to(self._device))
            found.append(misclassified(logits, labels[some].to(self._device)).cpu().numpy())
        return np.concatenate(found) if found else np.zeros(0, dtype=np.bool_)

    def _claim(self, attack: str, claimed: np.ndarray[Any, Any], shown: np.ndarray[Any, Any]) -> Claim:
        failing = self.result.arrays["index"][: len(claimed)][claimed != shown]
        counts = (len(claimed), int((~claimed).sum()), int((~shown).sum()))
        return Claim(attack, *counts, tuple(failing.tolist()))


def _positions(places: list[int], images: ImageSet) -> torch.Tensor:
    """Find images by their places in the data set's file, where a test set need neither begin nor be in one piece."""
    where = {place: position for position, place in enumerate(images.indices.tolist())}
    if not places or not where.keys() >= set(places):
        raise CheckError("the result is about images that the test set does not have", MEND)
    return torch.tensor([where[place] for place in places], device="cpu")


def _of(kept: Arrays, attack: str) -> Arrays:
    try:
        return {name: kept[f"{attack}.{name}"] for name in evidence.NAMES}
    except KeyError:
        raise CheckError(f"no images are stored for {attack}", MEND) from None


def _config(document: Mapping[str, Any], dataset: str) -> EvalConfig:
    """Return the configuration behind a result."""
    attacks = document["attacks"]
    steps = [each["definition"]["step_size"] for each in attacks.values() if "dialect" in each["definition"]]
    flags = {key: document[key] for key in ("norm", "eps", "dialect", "seed", "block", "precision")}
    flags["dataset"] = dataset
    flags |= {"attacks": tuple(attacks), "step_size": steps[0] if steps else None}
    if "cw-inf" in attacks:
        flags["kappa"] = attacks["cw-inf"]["definition"]["kappa"]
    return resolve_evaluation(flags)[0]
