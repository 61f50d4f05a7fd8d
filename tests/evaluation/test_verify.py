"""Results are checked from their stored images, and no change of a file passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from awpbench.data.images import ImageSet
from awpbench.errors import AwpbenchError, CheckError, InputError
from awpbench.evaluation import hashes, results
from awpbench.evaluation.shards import npz_bytes, read_npz
from awpbench.evaluation.verify import Again, Claim, Verifier
from tests.evaluation.conftest import Silent, settle

Attack = Callable[..., Any]
ATTACKS = ("fgsm", "pgd-4", "pgd-4-worst", "cw-inf", "spsa", "autoattack")


@pytest.fixture
def images(images: ImageSet) -> ImageSet:
    return ImageSet(images.images, images.labels, torch.arange(16))


def evaluated(attack: Attack, norm: str = "Linf", *attacks: str) -> dict[str, Any]:
    eps = {"Linf": "0.05", "L2": "0.4"}[norm]
    limits = {each: 5 for each in ("spsa", "autoattack") if each in (attacks or ATTACKS)}
    config = settle(*(attacks or ATTACKS), eps=eps, norm=norm, limits=limits, evidence=True)
    document: dict[str, Any] = attack(config).document
    return document


def verifier(folder: Path, net: nn.Module, images: ImageSet) -> Verifier:
    return Verifier(folder, net, images, classes=10, device=torch.device("cpu"))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_every_claimed_accuracy_follows_from_the_stored_images(
    norm: str, attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    document = evaluated(attack, norm)
    claims = verifier(tmp_path / "result", net, images).claims()
    expected = {name: (each["n"], each["correct"]) for name, each in document["attacks"].items()}
    assert {each.attack: (each.n, each.claimed) for each in claims} == expected
    assert all(each.holds and each.claimed == each.found for each in claims)
    assert any(each.claimed < expected["clean"][1] for each in claims), "some images must be fooled"


def test_an_image_that_is_no_longer_adversarial_is_named(
    attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    evaluated(attack, "Linf", "pgd-4")
    folder = tmp_path / "result"
    arrays = read_npz((folder / "evidence.npz").read_bytes())
    victim = int(np.flatnonzero(arrays["pgd-4.kept"] == 1)[0])
    arrays["pgd-4.delta"][0] = 0
    forge(folder, "evidence", arrays)
    (claim,) = (each for each in verifier(folder, net, images).claims() if not each.holds)
    assert (claim.attack, claim.failing, claim.found) == ("pgd-4", (victim,), claim.claimed + 1)


def test_an_image_outside_the_ball_is_named(attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path) -> None:
    evaluated(attack, "Linf", "pgd-4")
    folder = tmp_path / "result"
    arrays = read_npz((folder / "evidence.npz").read_bytes())
    victim = int(np.flatnonzero(arrays["pgd-4.kept"] == 1)[0])
    arrays["pgd-4.delta"][0] += np.where(images.images[victim].numpy() > 128, -40, 40).astype(np.int8)
    forge(folder, "evidence", arrays)
    assert [each.failing for each in verifier(folder, net, images).claims() if not each.holds] == [(victim,)]


def test_a_claim_of_a_fooled_image_without_one_is_named(
    attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    evaluated(attack, "Linf", "fgsm")
    folder = tmp_path / "result"
    arrays = read_npz((folder / "per_image.npz").read_bytes())
    standing = int(np.flatnonzero(~arrays["fgsm.fooled"])[0])
    arrays["fgsm.fooled"][standing] = True
    forge(folder, "per_image", arrays)
    (claim,) = (each for each in verifier(folder, net, images).claims() if not each.holds)
    assert (claim.attack, claim.failing) == ("fgsm", (standing,))


def test_another_net_another_test_set_and_missing_evidence_are_refused(
    attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    evaluated(attack, "Linf", "fgsm")
    other = ImageSet(images.images.flip(0), images.labels, images.indices)
    with pytest.raises(CheckError, match="the test set is not the one that was evaluated"):
        verifier(tmp_path / "result", net, other)
    attack(settle("fgsm"), "plain")
    with pytest.raises(InputError, match="plain holds no adversarial images"):
        verifier(tmp_path / "plain", net, images).claims()
    with torch.no_grad():
        next(net.parameters()).add_(1e-3)
    with pytest.raises(CheckError, match="the net is not the one that was evaluated"):
        verifier(tmp_path / "result", net, images)


def test_a_number_that_does_not_follow_from_the_images_is_refused(
    attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    document = evaluated(attack, "Linf", "fgsm")
    document["attacks"]["fgsm"]["correct"] += 1
    path = tmp_path / "result" / "result.json"
    path.write_text(json.dumps(document))
    with pytest.raises(CheckError, match=r"result\.json is not as it was written"):
        verifier(tmp_path / "result", net, images)
    document["hashes"]["document"] = results.digest(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckError, match=r"the accuracy under fgsm does not follow from per_image\.npz"):
        verifier(tmp_path / "result", net, images)


def doubled(document: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["index"][1] = arrays["index"][0]


def right_when_wrong(document: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["autoattack.fooled"][arrays["clean.fooled"][:5]] = False


def larger_budget(document: dict[str, Any], arrays: dict[str, Any]) -> None:
    document["eps"] = "0.1"


def invented_worst_case(document: dict[str, Any], arrays: dict[str, Any]) -> None:
    document["worst_case"]["correct"] += 1


def another_part(document: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["autoattack.part"][:] = "square"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (doubled, "an image counts twice"),
        (right_when_wrong, "an image that is wrong when clean counts as right under autoattack"),
        (
            larger_budget,
            "what result.json says of the net, the threat and the attacks is not what was evaluated",
        ),
        (invented_worst_case, "the worst case does not follow from per_image.npz"),
        (another_part, "the accuracy after apgd-ce does not follow from per_image.npz"),
    ],
)
def test_a_contradiction_is_found_though_all_hashes_are_right(
    change: Callable[..., None], what: str, attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    labels = images.labels.clone()
    labels[0] = (labels[0] + 1) % 10  # wrong when clean
    images = ImageSet(images.images, labels, images.indices)
    config = settle("fgsm", "autoattack", eps="0.05", limits={"autoattack": 5}, evidence=True)
    attack(config, images=images)
    folder = tmp_path / "result"
    assert all(each.holds for each in verifier(folder, net, images).claims())
    document = json.loads((folder / "result.json").read_text())
    arrays = read_npz((folder / "per_image.npz").read_bytes())
    change(document, arrays)
    (folder / "result.json").write_text(json.dumps(document))
    forge(folder, "per_image", arrays, worst_case=change is not invented_worst_case)
    with pytest.raises(CheckError) as caught:
        verifier(folder, net, images)
    assert caught.value.what == what


def test_a_newer_schema_is_refused(attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path) -> None:
    document = evaluated(attack, "Linf", "fgsm")
    document["schema_version"] = 2
    (tmp_path / "result" / "result.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="has schema version 2; this awpbench reads 1"):
        verifier(tmp_path / "result", net, images)


@pytest.mark.parametrize(("n", "lost", "holds"), [(2, 1, False), (4, 1, True), (20, 2, True), (20, 3, False)])
def test_a_few_images_may_differ_but_not_a_quarter_of_them(n: int, lost: int, holds: bool) -> None:
    assert Again("fgsm", n, n, n - lost, ()).holds is holds


def test_images_attacked_afresh_fare_as_before(
    attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    evaluated(attack)
    again = verifier(tmp_path / "result", net, images).again(7, 3, Silent())
    assert [each.attack for each in again] == ["clean", *ATTACKS[:5]]
    assert {each.attack: each.n for each in again}["cw-inf"] == 7
    assert all(each.claimed == each.found and not each.differing for each in again)


def test_the_exported_images_fool_the_net_as_often_as_all_attacks_together(
    attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    evaluated(attack, "Linf", "fgsm", "pgd-4", "cw-inf")
    check = verifier(tmp_path / "result", net, images)
    x_adv, correct = check.adversarial_images()
    assert (x_adv.shape, x_adv.dtype) == ((16, 1, 8, 8), torch.float32)
    assert float((x_adv - images.images.float() / 255).abs().max()) <= 0.05 + 1e-6
    assert correct == check.result.document["worst_case"]["correct"]
    assert correct == int((net(x_adv).argmax(1) == images.labels).sum())


@pytest.mark.parametrize("changes", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_wrong_number_passes_whatever_bytes_are_changed(
    changes: int, attack: Attack, net: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    evaluated(attack, "Linf", "fgsm", "pgd-4")
    folder = tmp_path / "result"
    expected = verifier(folder, net, images).claims()
    draws = np.random.RandomState(0)
    refused = 0
    for _ in range(changes):
        path = folder / ("result.json", "per_image.npz", "evidence.npz")[draws.randint(3)]
        before = path.read_bytes()
        path.write_bytes(corrupted(before, draws))
        try:
            assert verifier(folder, net, images).claims() == expected
        except AwpbenchError:
            refused += 1
        path.write_bytes(before)
    assert refused > 0.9 * changes
    assert verifier(folder, net, images).claims() == expected


def corrupted(data: bytes, draws: np.random.RandomState) -> bytes:
    """Flip some bits, or cut the end off."""
    if draws.rand() < 0.2:
        return data[: draws.randint(len(data))]
    changed = bytearray(data)
    for _ in range(draws.randint(1, 4)):
        changed[draws.randint(len(data))] ^= 1 << draws.randint(8)
    return bytes(changed)


def forge(folder: Path, name: str, arrays: dict[str, Any], worst_case: bool = True) -> None:
    """Change an array file and put all hashes and counts of result.json right again."""
    data = npz_bytes(arrays)
    (folder / f"{name}.npz").write_bytes(data)
    document = json.loads((folder / "result.json").read_text())
    document["hashes"][name] = hashes.of_bytes(data)
    if name == "per_image":
        for attack, each in document["attacks"].items():
            each |= results._score(arrays[f"{attack}.fooled"])
        tables = {each: results.Table.empty(found["n"]) for each, found in document["attacks"].items()}
        for attack, table in tables.items():
            table.fooled[:] = arrays[f"{attack}.fooled"]
        if worst_case:
            document["worst_case"] = results.worst_case(tables)
    document["hashes"]["document"] = results.digest(document)
    (folder / "result.json").write_text(json.dumps(document))


def test_a_claim_holds_where_no_image_fails() -> None:
    assert Claim("fgsm", 3, 2, 2, ()).holds
    assert not Claim("fgsm", 3, 2, 2, (5, 7)).holds
