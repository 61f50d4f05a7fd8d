"""What is installed, what the wheel holds, and how the set-up refuses."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import awpbench

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, built without a network."""
    target = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(target)], cwd=ROOT, check=True)
    return target


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_installs_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert {Path(name).parts[0] for name in wheel.namelist()} == {
        "awpbench",
        f"awpbench-{awpbench.__version__}.dist-info",
    }


def test_the_wheel_holds_every_module_of_the_package(wheel: zipfile.ZipFile) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "awpbench").rglob("*.py")}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == modules


def test_the_wheel_holds_every_recipe(wheel: zipfile.ZipFile) -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "awpbench" / "recipes").glob("*.toml")}
    assert {name for name in wheel.namelist() if name.endswith(".toml")} == files != set()


def test_the_wheel_holds_the_snapshot_of_robustbench(wheel: zipfile.ZipFile) -> None:
    name = "awpbench/leaderboard/robustbench/published.json"
    assert wheel.read(name) == (ROOT / name).read_bytes()


def test_the_wheel_holds_what_the_page_is_made_of(wheel: zipfile.ZipFile) -> None:
    folder = "awpbench/leaderboard/page"
    assert {f"{folder}/page.{ending}" for ending in ("html.j2", "css", "js")} <= set(wheel.namelist())


def test_the_wheel_carries_the_version_of_the_package_and_its_command(wheel: zipfile.ZipFile) -> None:
    info = f"awpbench-{awpbench.__version__}.dist-info"
    assert email.message_from_bytes(wheel.read(f"{info}/METADATA"))["Version"] == awpbench.__version__
    assert wheel.read(f"{info}/entry_points.txt").decode() == "[console_scripts]\nawpbench = awpbench.__main__:main\n"


def test_the_source_distribution_holds_what_building_and_testing_need(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    assert {"LICENSE", "Makefile", "README.md", "pyproject.toml", "constraints/constraints.txt"} <= names
    assert {"awpbench/__init__.py", "tests/conftest.py"} <= names
    assert {name.split("/")[0] for name in names} & {".venv", "quickstart", "results", "runs"} == set()


def test_requirements_are_ranges_and_building_needs_no_torch(project: dict[str, Any]) -> None:
    needed = [Requirement(text) for text in project["project"]["dependencies"]]
    assert [str(need) for need in needed if {one.operator for one in need.specifier} & {"==", "===", "~="}] == []
    assert {need.name: str(need.specifier) for need in needed if need.name.startswith("torch")} == {
        "torch": "<3,>=2.6",
        "torchvision": "<1,>=0.21",
    }
    assert [Requirement(text).name for text in project["build-system"]["requires"]] == ["hatchling"]


def test_the_constraints_pin_one_allowed_version_of_every_direct_requirement(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints" / "constraints.txt").read_text().splitlines()
    pins = {pin.name: pin for pin in (Requirement(line) for line in lines if not line.startswith("#"))}
    extras = project["project"]["optional-dependencies"]
    for text in [*project["project"]["dependencies"], *extras["dev"], *extras["plot"], *extras["tensorboard"]]:
        need = Requirement(text)
        (pin,) = pins[need.name].specifier
        assert pin.operator == "=="
        assert need.specifier.contains(pin.version), f"{text} does not allow {pins[need.name]}"


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make on a copy of the Makefile that cannot reach this checkout's .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints/constraints.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_an_old_python_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)
    found = make(tmp_path, "test", f"PYTHON={old}")
    assert found.returncode == 2
    assert found.stderr.splitlines()[:2] == [
        f"error: awpbench needs Python 3.11 or newer, and {old} is Python 3.9.2",
        "mend:  name a newer one: make PYTHON=python3.12 test",
    ]
    assert not (tmp_path / ".venv").exists()
