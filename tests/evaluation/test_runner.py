from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from awpbench.attack_model import AttackModel
from awpbench.attacks.autoattack import autoattack
from awpbench.attacks.pgd import pgd_iterates
from awpbench.data.images import ImageSet
from awpbench.errors import CheckError, InputError, Interrupted, RefusedError, UsageError
from awpbench.evaluation import attacking, jobs
from awpbench.evaluation.runner import Finished, Share, Unfinished
from awpbench.randomness import ImageDraws
from awpbench.threat import ThreatModel
from tests.evaluation.conftest import Silent, settle

Attack = Callable[..., Any]
EVERYTHING = ("fgsm", "pgd-2", "pgd-4", "cw-inf", "spsa", "autoattack")


def evidence(folder: Path) -> dict[str, Any]:
    with np.load(folder / "per_image.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file}


class Patience:
    """Asks an evaluation to stop after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> int | None:
        self.looks -= 1
        return 15 if self.looks < 0 else None


def test_a_result_holds_what_the_architecture_document_lists(attack: Attack, tmp_path: Path) -> None:
    found = attack(settle("fgsm", "pgd-2", limits={"pgd-2": 7})).document
    assert json.loads((tmp_path / "result" / "result.json").read_text()) == found
    assert list(found) == [
        "schema_version", "suite", "suite_version", "dataset", "norm", "eps", "n", "partial", "seed", "dialect",
        "block", "precision", "model", "training", "tracked", "attacks", "worst_case", "audit", "counts", "hashes",
    ]  # fmt: skip
    assert (found["n"], found["partial"], found["eps"]) == (16, True, "0.02")
    clean = found["attacks"]["clean"]
    assert (clean["n"], clean["correct"], clean["accuracy"]) == (16, 15, 0.9375)
    assert clean["interval"] == [pytest.approx(0.7167, abs=1e-4), pytest.approx(0.9889, abs=1e-4)]
    assert found["attacks"]["pgd-2"]["n"] == 7
    assert found["audit"] == {"verdict": None, "findings": []}
    # a forward per clean image; two with FGSM's look afterwards; two steps and a look of PGD on seven
    assert (found["counts"]["forward"], found["counts"]["backward"]) == (16 + 2 * 16 + 3 * 7, 16 + 2 * 7)
    assert {path.name for path in (tmp_path / "result").iterdir()} == {"result.json", "timing.json", "per_image.npz"}


def test_the_evidence_says_of_every_image_what_happened_to_it(
    attack: Attack, tmp_path: Path, net: nn.Module, images: ImageSet
) -> None:
    found = attack(settle("fgsm", "pgd-2", limits={"pgd-2": 7})).document
    arrays = evidence(tmp_path / "result")
    assert arrays["index"].tolist() == list(range(100, 116))
    assert arrays["label"].tolist() == images.labels.tolist()
    assert arrays["clean.fooled"].tolist() == [False] * 15 + [True]
    assert (arrays["clean.prediction"] == arrays["label"]).tolist() == [True] * 15 + [False]
    assert len(arrays["pgd-2.fooled"]) == 7
    for name in ("clean", "fgsm", "pgd-2"):
        assert ((arrays[f"{name}.margin"] < 0) == arrays[f"{name}.fooled"]).all()
        assert int((~arrays[f"{name}.fooled"]).sum()) == found["attacks"][name]["correct"]


def test_interrupted_again_and_again_it_ends_with_the_same_bytes(attack: Attack, tmp_path: Path) -> None:
    config = settle(*EVERYTHING, limits={"pgd-4": 7, "spsa": 2, "autoattack": 6}, eps="0.05")
    attack(config, "whole")
    looks, stops = 40, 0
    while not (tmp_path / "pieces" / "result.json").exists():
        with suppress(Interrupted):
            attack(config, "pieces", stop=Patience(looks))
        looks, stops = looks * 2, stops + 1
    assert stops >= 5
    for name in ("result.json", "per_image.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()
    assert not (tmp_path / "pieces" / "shards").exists()


def test_an_interruption_says_what_is_saved_and_how_to_go_on(attack: Attack, tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        attack(settle("pgd-4"), stop=Patience(12))
    assert caught.value.exit_code == 143
    assert caught.value.what == "the evaluation was stopped; every finished block is saved"
    assert caught.value.mend == "Run the same command again: it continues there."
    assert {path.name for path in (tmp_path / "result").iterdir()} == {"shards"}


def test_a_finished_block_is_not_attacked_again(attack: Attack) -> None:
    config = settle("pgd-4")
    with pytest.raises(Interrupted):
        attack(config, stop=Patience(4 + 3 * 5 + 2))  # four blocks of clean images, three of PGD, a bit of the fourth
    watched = Silent()
    attack(config, progress=watched)
    assert {each.done for each in watched.told if each.job == "pgd-4" and each.done < 12} == set()
    assert any(12 < each.done < 16 for each in watched.told if each.job == "pgd-4")


def test_another_seed_starts_afresh(attack: Attack, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        attack(settle("pgd-4"), "result", stop=Patience(12))
    attack(settle("pgd-4", seed=1), "result")
    attack(settle("pgd-4", seed=1), "fresh")
    for name in ("result.json", "per_image.npz"):
        assert (tmp_path / "result" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_a_finished_evaluation_is_not_run_again(attack: Attack) -> None:
    first = attack(settle("fgsm"))
    again = attack(settle("fgsm"), stop=lambda: 2)
    assert again == Finished(first.document, reused=True)


def test_another_evaluation_in_the_same_folder_is_refused_unless_forced(attack: Attack, tmp_path: Path) -> None:
    attack(settle("fgsm"))
    with pytest.raises(RefusedError) as caught:
        attack(settle("fgsm", eps="0.03"))
    assert caught.value.what == f"{tmp_path / 'result'} holds the result of another evaluation"
    assert caught.value.mend == "Replace it with --force, or give another --out."
    assert attack(settle("fgsm", eps="0.03"), force=True).document["eps"] == "0.03"


def test_other_weights_are_another_evaluation(attack: Attack, net: nn.Module) -> None:
    attack(settle("fgsm"))
    with torch.no_grad():
        next(net.parameters()).add_(0.1)
    with pytest.raises(RefusedError):
        attack(settle("fgsm"))


@pytest.mark.usefixtures("short_spsa")
@pytest.mark.parametrize("precision", ["fp32", "bf16-attack"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_result_has_the_same_bytes_for_every_batch_size_and_number_of_shards(
    attack: Attack, tmp_path: Path, norm: str, precision: str
) -> None:
    eps = {"Linf": "0.05", "L2": "0.4"}[norm]
    some = {"eps": eps, "norm": norm, "precision": precision, "limits": {"spsa": 9, "pgd-2": 11}, "evidence": True}
    some["audit"] = precision == "fp32"
    attacks = ("fgsm", "pgd-2", "pgd-9", "pgd-9-worst", "cw-inf", "spsa")
    found = attack(settle(*attacks, **some), "auto").document["attacks"]
    assert 0 < found["cw-inf"]["correct"] < 15, "the budget must fool some images"
    for batch_size in (1, 7, 64):
        attack(settle(*attacks, **some, batch_size=batch_size), f"batch {batch_size}")
    for count in (2, 4):
        shares = [Share(i, count) for i in range(count)]
        ended = [attack(settle(*attacks, **some), f"{count} shards", share=share) for share in reversed(shares)]
        assert [type(each) for each in ended] == [Unfinished] * (count - 1) + [Finished]
    for name in ("result.json", "per_image.npz", "evidence.npz"):
        expected = (tmp_path / "auto" / name).read_bytes()
        for folder in ("batch 1", "batch 7", "batch 64", "2 shards", "4 shards"):
            assert (tmp_path / folder / name).read_bytes() == expected, (folder, name)


@pytest.mark.usefixtures("short_spsa")
def test_what_happens_to_an_image_does_not_depend_on_its_neighbours(
    attack: Attack, tmp_path: Path, images: ImageSet
) -> None:
    attacks, some = ("fgsm", "pgd-4", "pgd-4-worst", "cw-inf", "spsa"), {"eps": "0.05"}
    attack(settle(*attacks, **some), "all")
    chosen = torch.tensor([14, 3, 9, 2, 7])
    attack(settle(*attacks, **some), "some", images=images.select(chosen), whole=images)
    one, other = evidence(tmp_path / "all"), evidence(tmp_path / "some")
    for name in attacks:
        assert one[f"{name}.margin"][chosen].tolist() == other[f"{name}.margin"].tolist()


def test_autoattack_in_shards_has_the_same_bytes(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "AUTOATTACK_BATCH", 3)
    config = settle("autoattack", eps="0.05", n_examples=8, evidence=True)
    attack(config, "whole")
    for i in (1, 0):
        attack(config, "shards", share=Share(i, 2))
    for name in ("result.json", "per_image.npz", "evidence.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "shards" / name).read_bytes()


def test_the_worst_iterate_is_never_better_than_the_last_and_leaves_it_alone(attack: Attack, tmp_path: Path) -> None:
    found = attack(settle("pgd-9", "pgd-9-worst", eps="0.05")).document["attacks"]
    arrays = evidence(tmp_path / "result")
    assert (arrays["pgd-9.fooled"] <= arrays["pgd-9-worst.fooled"]).all()
    assert found["pgd-9"]["definition"]["scored"] == "last"
    assert found["pgd-9-worst"]["definition"] == {**found["pgd-9"]["definition"], "scored": "any"}
    alone = attack(settle("pgd-9", eps="0.05"), "alone").document["attacks"]
    assert alone["pgd-9"] == found["pgd-9"]


def test_the_worst_iterate_is_the_first_that_plain_pgd_finds(
    attack: Attack, tmp_path: Path, net: nn.Module, images: ImageSet
) -> None:
    attack(settle("pgd-9-worst", eps="0.05"))
    x, y = images.batch(torch.arange(16), "cpu")
    start = ThreatModel("Linf", 0.05).random_start(x, ImageDraws(0, "pgd", list(range(100, 116))))
    threat = ThreatModel("Linf", 0.05)
    walked = pgd_iterates(net, x, y, at=range(10), threat=threat, step_size=0.0125, start=start)
    fooled = torch.stack([net(walked[step]).argmax(1) != y for step in range(1, 10)]).any(0)
    assert evidence(tmp_path / "result")["pgd-9-worst.fooled"].tolist() == fooled.tolist()


class Turned(nn.Module):
    """A net whose code changed while its weights did not."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(1 - x)
        return logits


class Unturned(Turned):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


def test_changed_code_with_the_same_weights_is_another_evaluation(attack: Attack, net: nn.Module) -> None:
    attack(settle("fgsm"), net=Unturned(net))
    with pytest.raises(RefusedError):
        attack(settle("fgsm"), net=Turned(net))


def test_a_finished_result_that_was_touched_is_computed_again(attack: Attack, tmp_path: Path) -> None:
    first = attack(settle("fgsm"))
    path = tmp_path / "result" / "result.json"
    written = path.read_bytes()
    document = json.loads(written)
    document["attacks"]["fgsm"]["correct"] = 16
    path.write_text(json.dumps(document))
    assert attack(settle("fgsm")) == Finished(first.document, reused=False)
    assert path.read_bytes() == written
    (tmp_path / "result" / "per_image.npz").unlink()
    assert not attack(settle("fgsm")).reused


def test_a_forced_evaluation_that_fails_leaves_the_old_result(attack: Attack, tmp_path: Path) -> None:
    attack(settle("fgsm", evidence=True))
    before = {path.name: path.read_bytes() for path in (tmp_path / "result").iterdir()}
    with pytest.raises(Interrupted):
        attack(settle("pgd-2", eps="0.03"), force=True, stop=Patience(6))
    assert {name: (tmp_path / "result" / name).read_bytes() for name in before} == before
    attack(settle("pgd-2", eps="0.03"), force=True)
    assert {path.name for path in (tmp_path / "result").iterdir()} == {"result.json", "timing.json", "per_image.npz"}


class Forgetful(AttackModel):
    """Has memory for so many images at a time."""

    room = 4
    error: RuntimeError = torch.OutOfMemoryError("no room")

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise self.error
        return super().__call__(x)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("no room"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9")],
    ids=["cuda", "cpu"],
)
def test_a_block_that_does_not_fit_into_memory_is_answered_with_a_smaller_one(
    error: RuntimeError, attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacking, "AttackModel", Forgetful)
    monkeypatch.setattr(Forgetful, "error", error)
    attack(settle("fgsm", block=4), "fits")
    with pytest.raises(UsageError) as caught:
        attack(settle("fgsm", block=8))
    assert caught.value.what == "8 images at a time do not fit into memory"
    assert caught.value.mend == "Give a smaller --block, such as 2."


def test_blocks_that_do_not_fit_into_memory_together_are_attacked_one_by_one(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack(settle("cw-inf", eps="0.05"), "whole")
    plain = attacking.walk

    def small(model: Any, x: Tensor, y: Tensor, **settings: Any) -> Any:
        if len(x) > 4:
            raise torch.OutOfMemoryError("no room")
        return plain(model, x, y, **settings)

    monkeypatch.setattr(attacking, "walk", small)
    watched = Silent()
    attack(settle("cw-inf", eps="0.05"), "pieces", progress=watched)
    assert watched.notes == [f"out of memory: going on with --batch-size {size}" for size in (8, 4)]
    for name in ("result.json", "per_image.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()


def test_bf16_attacks_are_declared_with_every_number(
    attack: Attack, tmp_path: Path, net: nn.Module, images: ImageSet
) -> None:
    attack(settle("pgd-4", "spsa", eps="0.05", limits={"spsa": 2}), "fp32")
    found = attack(settle("pgd-4", "spsa", eps="0.05", limits={"spsa": 2}, precision="bf16-attack"), "bf16").document
    assert found["precision"] == "bf16-attack"
    assert found["attacks"]["pgd-4"]["definition"]["precision"] == "bf16-attack"
    assert found["attacks"]["spsa"]["definition"]["precision"] == "bf16-attack"
    assert "precision" not in found["attacks"]["clean"]["definition"]
    one, other = evidence(tmp_path / "fp32"), evidence(tmp_path / "bf16")
    for name in ("spsa", "pgd-4"):
        assert one[f"{name}.margin"].tolist() != other[f"{name}.margin"].tolist()
        assert one[f"{name}.margin"].tolist() == pytest.approx(other[f"{name}.margin"].tolist(), abs=0.1)


@pytest.mark.slow
def test_autoattack_in_parts_is_the_official_one_on_all_images_in_batches(
    attack: Attack, tmp_path: Path, net: nn.Module, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "AUTOATTACK_BATCH", 5)
    found = attack(settle("autoattack", eps="0.03", seed=3, n_examples=8)).document["attacks"]["autoattack"]
    x, y = images.batch(torch.arange(8), "cpu")
    fast = AttackModel(net)
    with torch.random.fork_rng():
        official = pyautoattack.AutoAttack(fast, norm="Linf", eps=0.03, seed=3, device="cpu", version="standard")
        x_adv, _ = official.run_standard_evaluation(x, y, batch_size=5)
    fooled = (net(x_adv).argmax(1) != y).tolist()
    arrays = evidence(tmp_path / "result")
    assert arrays["autoattack.fooled"].tolist() == fooled
    assert 0 < sum(fooled) < 8, "the budget must leave some images standing"
    parts = ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert set(arrays["autoattack.part"][fooled]) <= set(parts)
    after = [found["parts"][part]["correct"] for part in parts[1:]]
    assert after == sorted(after, reverse=True)
    assert (after[-1], found["complete"]) == (found["correct"], True)


def test_what_only_the_fast_copy_holds_for_fooled_is_attacked_through_the_net_itself(
    attack: Attack, tmp_path: Path, net: nn.Module, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(AttackModel):
        def __call__(self, x: Tensor) -> Tensor:
            return super().__call__(x).roll(1, dims=1)  # misclassifies everything, so every attack stops at once

    monkeypatch.setattr(attacking, "AttackModel", Wrong)
    attack(settle("autoattack", eps="0.3", n_examples=6))
    x, y = images.batch(torch.arange(6), "cpu")
    threat = ThreatModel("Linf", 0.3)
    correct = ~torch.from_numpy(evidence(tmp_path / "result")["clean.fooled"])
    x_adv = autoattack(net.requires_grad_(False), x[correct], y[correct], threat=threat, classes=10)
    expected = (net(x_adv).argmax(1) != y[correct]).tolist()
    assert evidence(tmp_path / "result")["autoattack.fooled"][correct.numpy()].tolist() == expected
    assert any(expected)


class BrokenAbove(nn.Module):
    """Gives NaN for images whose first pixel is bright."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return torch.where(x[:, 0, 0, :1] > 0.6, torch.full_like(logits, float("nan")), logits)


def test_nan_logits_count_as_misclassified_and_are_flagged(
    attack: Attack, tmp_path: Path, net: nn.Module, images: ImageSet
) -> None:
    bright = images.images[:, 0, 0, 0] > 153
    assert 0 < int(bright.sum()) < 16
    found = attack(settle("pgd-2", eps="0.001"), net=BrokenAbove(net)).document["attacks"]
    arrays = evidence(tmp_path / "result")
    assert arrays["clean.fooled"][bright.numpy()].all()
    assert (arrays["clean.margin"][bright.numpy()] == -np.inf).all()
    assert found["clean"]["nan_logits"] == int(bright.sum()) <= found["pgd-2"]["nan_logits"]


class Masked(nn.Module):
    """Gives the logits of a net and a gradient of NaN: the derivative of a root at zero."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        nothing = (x - x).pow(2).flatten(1).sum(1, keepdim=True).sqrt()
        logits: Tensor = self.net(x) + nothing
        return logits


def test_gradients_of_nan_are_counted_for_they_make_an_attack_look_weak(attack: Attack, net: nn.Module) -> None:
    sound = attack(settle("fgsm", "pgd-2", eps="0.05"), "sound").document["attacks"]
    found = attack(settle("fgsm", "pgd-2", eps="0.05"), "masked", net=Masked(net)).document["attacks"]
    assert (found["clean"]["nan_logits"], found["clean"]["correct"]) == (0, sound["clean"]["correct"])
    assert found["fgsm"]["correct"] == found["clean"]["correct"] > sound["fgsm"]["correct"]
    assert {name: each["nan_gradients"] for name, each in found.items()} == {"clean": 0, "fgsm": 16, "pgd-2": 32}
    assert {each["nan_gradients"] for each in sound.values()} == {0}


def test_a_net_that_gives_nan_for_every_image_is_refused(attack: Attack, net: nn.Module, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(CheckError) as caught:
        attack(settle("fgsm"))
    assert caught.value.what == "the net gives logits that are not finite for every image"
    assert not (tmp_path / "result" / "result.json").exists()


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (lambda x: (x, x), "the model answers with a tuple, not with a tensor of logits"),
        (lambda x: [][0], "the model cannot take 1x8x8 images: IndexError: list index out of range"),
    ],
)
def test_a_model_that_answers_with_no_logits_is_refused(
    attack: Attack, answer: Callable[[Tensor], object], what: str
) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> object:
            return answer(x)

    with pytest.raises(InputError) as caught:
        attack(settle("fgsm"), net=Wrong())
    assert caught.value.what == what


class Failing(nn.Module):
    """Fails in the forward, or in the backward pass, of one call after so many."""

    def __init__(self, net: nn.Module, error: BaseException, looks: int, backward: bool = False) -> None:
        super().__init__()
        self.net, self.error, self.looks, self.backward = net, error, [looks], backward

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        return self  # one count for all copies

    def forward(self, x: Tensor) -> Tensor:
        assert not bool(x.isnan().any())  # a look at the values keeps torch.fx from tracing the failure away
        self.looks[0] -= 1
        if self.looks[0] < 0 and not self.backward:
            raise self.error
        logits: Tensor = self.net(x)
        if self.looks[0] < 0 and bool(logits.requires_grad):
            logits.register_hook(self.give_up)
        return logits

    def give_up(self, grad: Tensor) -> None:
        raise self.error


@pytest.mark.parametrize("attacks", [("pgd-4",), ("autoattack",)], ids=str)
@pytest.mark.parametrize(
    ("error", "what"),
    [(ValueError("odd"), "ValueError: odd"), (SystemExit(3), "SystemExit: 3"), (SystemExit(), "SystemExit")],
    ids=str,
)
def test_whatever_a_foreign_forward_raises_in_an_attack_is_an_error_of_the_model(
    error: BaseException, what: str, attacks: tuple[str, ...], attack: Attack, net: nn.Module
) -> None:
    with pytest.raises(InputError) as caught:
        attack(settle(*attacks, n_examples=4), net=Failing(net, error, 5))
    assert caught.value.what == f"the model failed: {what}"
    assert caught.value.mend == "Mend the model; --debug shows where it failed."


def test_a_foreign_backward_pass_cannot_end_the_process(attack: Attack, net: nn.Module) -> None:
    with pytest.raises(InputError) as caught:
        attack(settle("pgd-4", n_examples=4), net=Failing(net, SystemExit(0), 5, backward=True))
    assert caught.value.what == "the model failed: SystemExit: 0"


def test_a_foreign_net_that_ends_the_process_when_it_is_first_called_is_refused(attack: Attack, net: nn.Module) -> None:
    with pytest.raises(InputError) as caught:
        attack(settle("fgsm"), net=Failing(net, SystemExit("enough"), 0))
    assert caught.value.what == "the model cannot take 1x8x8 images: SystemExit: enough"


def test_a_full_disk_at_any_write_names_the_file_and_loses_nothing_that_was_finished(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settle("fgsm", eps="0.05", evidence=True, block=8, batch_size=1)
    attack(config, "whole")
    sync, left, written, names = os.fsync, [0], [0], []

    def full(handle: int) -> None:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0], written[0] = left[0] - 1, written[0] + 1
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    for room in range(8):
        left[0] = room
        with pytest.raises(OSError, match="No space left") as caught:
            attack(config, f"room for {room}")
        assert Path(caught.value.filename).is_relative_to(tmp_path / f"room for {room}")
        names.append(Path(caught.value.filename).name.split("-")[0])
        left[0], written[0] = 99, 0
        assert isinstance(attack(config, f"room for {room}"), Finished)
        assert written[0] == max(8 - room, 4), "finished blocks are not computed again"
        for name in ("result.json", "per_image.npz", "evidence.npz"):
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / f"room for {room}" / name).read_bytes()
    blocks = ["clean", "clean", "fgsm", "fgsm"]
    assert names == [*blocks, "per_image.npz", "evidence.npz", "timing.json", "result.json"]


def test_an_image_outside_its_ball_stops_everything(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreatModel, "project", lambda self, x_adv, x: (x + 0.03).clamp(0, 1))
    with pytest.raises(CheckError) as caught:
        attack(settle("fgsm"))
    assert caught.value.what.startswith("fgsm, images 0 to 3: an adversarial image is 0.03")
    assert caught.value.what.endswith("away from the clean one, more than eps = 0.02")


def test_a_net_of_other_classes_is_refused(attack: Attack) -> None:
    with pytest.raises(InputError) as caught:
        attack(settle("fgsm"), net=nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))
    assert caught.value.what == "the model answers 2 images with a tensor of shape (2, 5)"
    assert caught.value.mend == "Give a model that returns 10 logits per image, or another --dataset."


def test_a_net_for_other_images_is_refused(attack: Attack) -> None:
    with pytest.raises(InputError) as caught:
        attack(settle("fgsm"), net=nn.Sequential(nn.Flatten(), nn.Linear(63, 10)))
    assert caught.value.what.startswith("the model cannot take 1x8x8 images: ")


def test_more_images_than_there_are_is_refused(attack: Attack) -> None:
    with pytest.raises(UsageError, match="--n-examples asks for 17 of 16 test images"):
        attack(settle("fgsm", n_examples=17))


def test_progress_tells_of_every_job_up_to_its_end(attack: Attack) -> None:
    watched = Silent()
    found = attack(settle("fgsm", "pgd-2"), progress=watched).document
    last = {each.job: (each.done, each.total, each.correct / each.seen) for each in watched.told if each.seen}
    accuracies = {name: pytest.approx(found["attacks"][name]["accuracy"]) for name in ("clean", "fgsm", "pgd-2")}
    assert last == {name: (16, 16, accuracy) for name, accuracy in accuracies.items()}
    assert watched.told[-1].standing == found["worst_case"]["correct"]
    bounds = [state.standing for state in watched.told]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 16


def test_batch_norm_and_mode_of_the_net_stay_as_they_were(attack: Attack, net: nn.Module) -> None:
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    attack(settle("fgsm"))
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
