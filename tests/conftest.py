"""Shared fixtures. The only place that knows where optional shared material lies (AWPBENCH_SHARED)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """The reference vectors, by file name without its ending."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))}


def cuda_param() -> Any:
    """The CUDA case of a test: one of `make test-gpu`, and skipped with its reason where there is no GPU."""
    import torch

    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
    return pytest.param("cuda", marks=[pytest.mark.gpu, missing])


@pytest.fixture(scope="session", params=["cpu", cuda_param()])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that an algorithm must give its reference vectors on."""
    return str(request.param)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material, or a skip that says what is missing."""
    where = os.environ.get("AWPBENCH_SHARED", "")
    if not where or not Path(where).is_dir():
        pytest.skip("AWPBENCH_SHARED names no folder of shared material")
    return Path(where).resolve()


@pytest.fixture(scope="session")
def cifar_root(shared: Path) -> Path:
    """A torchvision data folder with CIFAR-10 and MNIST, rebuilt once per machine from the shared material."""
    root = Path(tempfile.gettempdir()) / f"awpbench-test-data-{os.getuid()}"
    if not (root / "complete").exists():
        root.mkdir(exist_ok=True)
        prepare = [sys.executable, str(shared / "data" / "prepare.py"), str(root)]
        subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
        (root / "complete").touch()
    return root
