"""Third-party robust nets: clean accuracies exactly as published, robust ones within a point of the public tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from awpbench.cli import main

CLEAN = {"resnet2b": 6925, "mnist_01": 9820, "cifar_l2": 5439}  # of all 10,000 test images
EPS = {"resnet2b": "2/255", "mnist_01": "0.1", "cifar_l2": "36/255"}


@pytest.fixture(params=list(CLEAN))
def peer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reference(peer: str, shared: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared / "peers" / "reference.json").read_text())[peer]
    return found


@pytest.fixture
def command(peer: str, reference: dict[str, Any], shared: Path, cifar_root: Path) -> list[str]:
    words = ["eval", "--model", f"{shared / 'peers' / 'factories.py'}:{peer}", "--dataset", reference["dataset"]]
    return [*words, "--norm", reference["norm"], "--eps", EPS[peer], "--data-dir", str(cifar_root), "--offline"]


def evaluate(words: list[str], out: Path) -> dict[str, Any]:
    assert main([*words, "--no-row", "--out", str(out)]) == 0
    attacks: dict[str, Any] = json.loads((out / "result.json").read_text())["attacks"]
    return attacks


def test_the_clean_accuracy_on_the_whole_test_set_is_the_published_one(
    peer: str, command: list[str], tmp_path: Path
) -> None:
    clean = evaluate([*command, "--attack", "clean"], tmp_path / "out")["clean"]
    assert (clean["correct"], clean["n"]) == (CLEAN[peer], 10_000)


@pytest.mark.parametrize(("attack", "key"), [("pgd-20", "pgd20"), ("pgd-100", "pgd100")])
def test_pgd_with_the_references_step_size_agrees_within_a_point(
    attack: str, key: str, reference: dict[str, Any], command: list[str], tmp_path: Path
) -> None:
    expected = reference["attacks"]
    words = ["--attack", "fgsm", "--attack", attack, "--step-size", str(expected[key]["alpha"]), "--n-examples", "200"]
    found = evaluate([*command, *words], tmp_path / "out")
    assert found["clean"]["correct"] == expected["clean"]["n_robust"]
    assert abs(found[attack]["correct"] - expected[key]["n_robust"]) <= 2
    if "fgsm" in expected:
        assert abs(found["fgsm"]["correct"] - expected["fgsm"]["n_robust"]) <= 2


@pytest.mark.slow
def test_autoattack_agrees_within_a_point_part_by_part(
    reference: dict[str, Any], command: list[str], tmp_path: Path
) -> None:
    found = evaluate([*command, "--suite", "standard", "--n-examples", "200"], tmp_path / "out")["autoattack"]
    assert found["complete"]
    for part, score in found["parts"].items():
        assert abs(score["correct"] - reference["attacks"][f"aa_after_{part}"]["n_robust"]) <= 2
