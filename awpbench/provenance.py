"""What made a result: versions, git commit, device, command line. Importable without torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import awpbench

PACKAGES = ("torch", "torchvision", "numpy", "pyautoattack", "robustbench")


def versions() -> dict[str, str]:
    """Return the versions of awpbench, Python, and the packages that numbers depend on."""
    found = {"awpbench": awpbench.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """Return the commit that awpbench runs from and whether it was changed since; nothing outside of a checkout."""
    folder = Path(awpbench.__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return {}
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10, check=True
            ).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "."])
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit.strip(), "dirty": bool(status.strip())}


def describe(device: str) -> dict[str, Any]:
    """Return what a run folder's provenance.json says."""
    return {
        "command": shlex.join(["awpbench", *sys.argv[1:]]),
        "versions": versions(),
        "git": git_state(),
        "device": device,
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
