"""Our attacks and those of torchattacks, foolbox and pyautoattack on the same images, one by one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-public" / "bin" / "python"
LINF = ("resnet2b", "mnist_01", "cifar10-prn18-w16-at-s0/best", "cifar10-prn18-w16-at-awp-s0/best")
L2 = ("cifar_l2",)
N, OF_SPSA, OF_AUTOATTACK = 100, 40, 16  # images; SPSA fools few of them

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(shared: Path, cifar_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What benchmarks/agreement.py found."""
    if not PYTHON.exists():
        pytest.skip("there is no .venv-public: make public-tools")
    command = [str(PYTHON), str(ROOT / "benchmarks" / "agreement.py"), "--shared", str(shared)]
    command += ["--data-dir", str(cifar_root), "--images", str(N), "--steps", "20", "--samples", "32"]
    parts = (
        f"--attack spsa --costly-images {OF_SPSA}",
        f"--attack fgsm --attack pgd --attack autoattack --costly-images {OF_AUTOATTACK}",
    )
    found: list[dict[str, Any]] = []
    for part in parts:
        out = tmp_path_factory.mktemp("agreement") / "agreement.json"
        words = [*command, *part.split(), "--out", str(out)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
        found += json.loads(out.read_text())["comparisons"]
    return found


def of(rows: list[dict[str, Any]], attack: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["attack"] == attack]


def test_every_attack_that_a_tool_knows_is_compared_on_every_net(rows: list[dict[str, Any]]) -> None:
    expected = {
        (net, attack, tool) for net in LINF + L2 for attack in ("fgsm", "pgd") for tool in ("torchattacks", "foolbox")
    }
    expected -= {(net, "fgsm", "torchattacks") for net in L2}  # it knows FGSM and SPSA in L-inf only
    expected |= {(net, "spsa", "torchattacks") for net in LINF}
    expected |= {(net, "autoattack", "pyautoattack") for net in LINF + L2}
    assert {(row["net"], row["attack"], row["tool"]) for row in rows} == expected
    assert {row["n"] for row in rows} == {N, OF_SPSA, OF_AUTOATTACK}


def test_fgsm_differs_only_where_the_margin_is_nothing(rows: list[dict[str, Any]]) -> None:
    for row in of(rows, "fgsm"):
        margins = [abs(one[side]) for one in row["differing"] for side in ("theirs", "ours")]
        assert all(margin < 1e-3 for margin in margins), row


def test_pgd_from_the_same_start_agrees_within_a_point(rows: list[dict[str, Any]]) -> None:
    for row in of(rows, "pgd"):
        assert sum(row["fooled_by_one"].values()) <= N // 100, row


def test_spsa_is_neither_stronger_nor_weaker_than_chance_explains(rows: list[dict[str, Any]]) -> None:
    for row in of(rows, "spsa"):
        assert row["p"] > 0.01, row
    fooled = [sum(row["n"] - row["robust"][side] for row in of(rows, "spsa")) for side in ("theirs", "ours")]
    assert min(fooled) >= 10  # otherwise nothing was compared
    assert abs(fooled[0] - fooled[1]) <= 0.2 * max(fooled)


def test_autoattack_leaves_the_same_images(rows: list[dict[str, Any]]) -> None:
    for row in of(rows, "autoattack"):
        assert row["differing"] == [], row
        assert 0 < row["robust"]["ours"] < OF_AUTOATTACK, row
