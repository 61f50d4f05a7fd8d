"""Two results on the same images: known counts, what is refused, and the way through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from awpbench.cli import main
from awpbench.errors import InputError, UsageError
from awpbench.evaluation.compare import compare
from awpbench.evaluation.results import Result
from awpbench.evaluation.runner import Finished
from awpbench.evaluation.statistics import mcnemar, paired_difference
from tests.evaluation.conftest import settle

Attack = Callable[..., Finished]


def test_the_interval_is_that_of_bonett_and_price() -> None:
    """By hand: (7 - 17) / 163 = -0.06135, and 1.95996 sqrt((24 / 163 - 0.06135^2) / 163) = 0.05815."""
    low, high = paired_difference(6, 16, 161)
    assert (low, high) == (pytest.approx(-0.11950, abs=2e-5), pytest.approx(-0.00320, abs=2e-5))
    assert paired_difference(16, 6, 161) == pytest.approx((-high, -low))


@pytest.fixture
def two(attack: Attack, net: nn.Module, tmp_path: Path) -> tuple[Path, Path]:
    """Results of a net before and after its weights changed, the second on fewer images of PGD."""
    attack(settle("pgd-4", "fgsm", eps="0.05"), "one")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.7)
    attack(settle("pgd-4", "fgsm", eps="0.05", limits={"pgd-4": 9}), "other")
    return tmp_path / "one", tmp_path / "other"


def test_the_counts_are_those_of_the_images_that_both_were_given(two: tuple[Path, Path]) -> None:
    one, other = map(Result.read, two)
    found = {each.attack: each for each in compare(one, other)}
    assert {name: each.n for name, each in found.items()} == {"clean": 16, "pgd-4": 9, "fgsm": 16}
    for name, each in found.items():
        a, b = ~one.arrays[f"{name}.fooled"][: each.n], ~other.arrays[f"{name}.fooled"][: each.n]
        assert (each.first, each.second) == (a.mean(), b.mean())
        assert each.difference == pytest.approx(b.mean() - a.mean())
        assert (each.only_first, each.only_second) == ((a & ~b).sum(), (b & ~a).sum())
        assert each.p == mcnemar(each.only_first, each.only_second)
    assert any(each.only_first + each.only_second for each in found.values())


def test_a_result_against_itself_differs_in_nothing(two: tuple[Path, Path]) -> None:
    one = Result.read(two[0])
    assert {(each.difference, each.p) for each in compare(one, one)} == {(0.0, 1.0)}


def test_an_attack_that_is_defined_otherwise_is_left_out(two: tuple[Path, Path], attack: Attack) -> None:
    attack(settle("pgd-4", eps="0.05", step_size="0.001"), "third")
    assert [each.attack for each in compare(Result.read(two[0]), Result.read(two[0].parent / "third"))] == ["clean"]


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("eps", "0.1", "the two results differ in eps: 0.05 and 0.1"),
        ("dataset", "mnist", "the two results differ in dataset: digits and mnist"),
    ],
)
def test_results_that_are_not_alike_are_refused(two: tuple[Path, Path], key: str, value: str, what: str) -> None:
    one, other = map(Result.read, two)
    other.document[key] = value
    with pytest.raises(UsageError) as caught:
        compare(one, other)
    assert caught.value.what == what


def test_results_of_other_images_are_refused(two: tuple[Path, Path]) -> None:
    one, other = map(Result.read, two)
    other.document["hashes"]["data"] = "0"
    with pytest.raises(UsageError, match="different images"):
        compare(one, other)


def test_outcomes_that_were_changed_are_found(two: tuple[Path, Path]) -> None:
    file = two[0] / "per_image.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError) as caught:
        Result.read(two[0])
    assert caught.value.what == f"{file} does not belong to the result.json beside it"


def test_the_command_prints_both_names_and_a_line_per_attack(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, two)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["A:", "B:", "attack", lines[3].split()[0], "clean", "pgd-4", "fgsm"]
    assert main(["compare", *map(str, two), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["attack"] for each in document["attacks"]] == ["clean", "pgd-4", "fgsm"]
    assert document["selected_on_test"] == {"A": False, "B": False}
    assert main(["compare", str(two[0]), "nowhere"]) == 4
    assert (
        capsys.readouterr().err.splitlines()[0]
        == "error: nowhere/result.json cannot be read: No such file or directory"
    )


def test_a_checkpoint_that_was_chosen_on_the_test_images_is_flagged(
    attack: Attack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = {"source": "checkpoint", "architecture": "small-cnn", "width": 2}
    for name, select_on in (("run/best", "test"), ("run/last", "test"), ("other/best", "validation")):
        folder, model, training = name.replace("/", "-"), {**described, "name": name}, {"select_on": select_on}
        attack(settle("fgsm"), folder, model=model, training=training)
    for pair, flagged in ((("other-best", "run-best"), "B"), (("run-best", "run-last"), "A")):
        words = ["compare", *(str(tmp_path / each) for each in pair)]
        assert main(words) == 0
        last = f"{flagged} is selected on test: the best of its checkpoints on these images, so too good"
        assert [line for line in capsys.readouterr().out.splitlines() if "selected" in line] == [last]
        assert main([*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["selected_on_test"] == {each: each == flagged for each in "AB"}
