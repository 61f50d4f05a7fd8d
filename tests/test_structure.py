"""The shape of the code: who imports whom, what stays free of torch, and what must not stand anywhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "awpbench"

# Lowest layer first. A module imports from its own unit (a name in this table) and from units of lower layers only.
LAYERS = (
    ("errors",),
    ("own_data",),
    ("config", "provenance"),
    ("randomness", "rundir", "defaults", "recipes", "robustbench_compat"),
    ("models", "threat"),
    ("foreign", "attacks", "data", "differences"),
    ("defenses", "weight_perturbation", "checkpoints", "attack_model"),
    ("training", "evaluation", "analysis"),
    ("leaderboard",),
    ("reproduce", "zoo"),
    ("cli",),
)
LAYER_OF = {unit: height for height, units in enumerate(LAYERS) for unit in units}
EVERYWHERE = {"awpbench", "awpbench.__main__"}  # the version, and the entry point above all layers

TORCH_FREE = (
    "config", "defaults", "errors", "own_data", "provenance", "robustbench_compat", "rundir",
    "zoo.cards", "zoo.placing",
)  # fmt: skip
TORCH_FREE_PACKAGES = ("leaderboard",)  # with all their modules; of the other packages, `__init__` alone

# Every function of torch that makes a tensor out of no tensor and takes `device=`.
FACTORIES = {
    "arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "normal", "ones",
    "rand", "randint", "randn", "randperm", "range", "scalar_tensor", "sparse_coo_tensor", "tensor", "tril_indices",
    "triu_indices", "zeros", "Generator",
}  # fmt: skip
CPU_BORN = {
    "from_numpy",
    "frombuffer",
    "from_file",
}  # cannot name a device: only awpbench/data, whose sets live on the CPU
DEFAULT_DEVICE = {"Tensor", "FloatTensor", "DoubleTensor", "LongTensor", "IntTensor", "ByteTensor", "BoolTensor"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(), str(path))
    return found


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the dotted name of what it calls, as far as it has one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""


def keywords(call: ast.Call) -> dict[str | None, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def unit_of(module: str) -> str:
    return module.split(".")[1]


def importers(package: str) -> list[str]:
    """The modules that import a third-party package."""
    return [
        name
        for name, tree in modules().items()
        if any(imported.split(".")[0] == package for _, imported in imports(tree))
    ]


def test_the_layers_are_those_of_the_architecture_document() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    line = re.search(r"\*\*Imports point one way:\*\* `([^`]+)`", text)
    assert line is not None
    documented = [{unit.strip() for unit in re.split("[/,]", layer)} for layer in line[1].split("->")]
    assert documented[::-1] == [set(units) for units in LAYERS]


def test_every_module_belongs_to_a_layer() -> None:
    assert {unit_of(name) for name in set(modules()) - EVERYWHERE} == set(LAYER_OF)


def test_imports_point_from_higher_layers_to_lower_ones() -> None:
    wrong = []
    for name, tree in modules().items():
        if name in EVERYWHERE:
            continue
        own = unit_of(name)
        for line, imported in imports(tree):
            parts = imported.split(".")
            if parts[0] != "awpbench" or len(parts) == 1 or parts[1] == own or parts[1] == "__version__":
                continue
            if parts[1] not in LAYER_OF or LAYER_OF[parts[1]] >= LAYER_OF[own]:
                wrong.append(f"{name}:{line} imports {imported}")
    assert wrong == []


def torch_free() -> list[str]:
    packages = [name for name in modules() if (ROOT / Path(*name.split(".")) / "__init__.py").exists()]
    whole = [name for name in modules() if name != "awpbench" and unit_of(name) in TORCH_FREE_PACKAGES]
    return sorted({*packages, *whole, *(f"awpbench.{name}" for name in TORCH_FREE)})


def run(code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


IMPORT_EACH = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    assert "torch" not in sys.modules, module
"""

RUN_COMMAND = """
import sys
from awpbench.cli import main
code = main(sys.argv[1:])
assert code == 0, code
assert "torch" not in sys.modules
"""


def test_the_torch_free_modules_import_without_torch() -> None:
    found = run(IMPORT_EACH, *torch_free())
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("command", ["--help", "train --help", "eval --help", "leaderboard --format md", "zoo list"])
def test_help_and_leaderboard_answer_without_torch(command: str) -> None:
    found = run(RUN_COMMAND, *command.split())
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("package", ["robustbench", "pyautoattack", "autoattack"])
def test_an_external_benchmark_is_imported_in_at_most_one_place(package: str) -> None:
    assert len(importers(package)) <= 1


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_only_the_command_line_knows_its_libraries(package: str) -> None:
    assert [name for name in importers(package) if unit_of(name) != "cli"] == []


def test_only_the_command_line_prints_or_exits() -> None:
    ways = {"print", "exit", "quit", "sys.exit", "os._exit", "input", "sys.stdout.write", "sys.stderr.write"}
    found = [
        f"{name}:{call.lineno} {called}"
        for name, tree in modules().items()
        if name != "awpbench.__main__" and not name.startswith("awpbench.cli")
        for call, called in calls(tree)
        if called in ways
    ]
    assert found == []


def test_every_tensor_factory_names_its_device() -> None:
    found = []
    for name, tree in modules().items():
        for call, called in calls(tree):
            module, _, function = called.rpartition(".")
            if module != "torch":
                continue
            if function in FACTORIES and "device" not in keywords(call):
                found.append(f"{name}:{call.lineno} {called} names no device")
            if function in DEFAULT_DEVICE or (function in CPU_BORN and not name.startswith("awpbench.data.")):
                found.append(f"{name}:{call.lineno} {called} cannot name a device")
    assert found == []


def test_tensor_factories_are_called_by_their_full_name() -> None:
    hidden = {f"torch.{function}" for function in FACTORIES | CPU_BORN | DEFAULT_DEVICE - {"Tensor", "Generator"}}
    found = [
        f"{name}:{line} {imported}"
        for name, tree in modules().items()
        for line, imported in imports(tree)
        if imported in hidden
    ]
    assert found == []


LOADERS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def test_no_code_is_executed_from_a_loaded_file() -> None:
    found = []
    for name, tree in modules().items():
        for call, called in calls(tree):
            if called in LOADERS:
                flag, value = LOADERS[called]
                given = keywords(call).get(flag)
                if not (isinstance(given, ast.Constant) and given.value is value):
                    found.append(f"{name}:{call.lineno} {called} without {flag}={value}")
            if called in {"eval", "exec", "pickle.load", "pickle.loads"}:
                found.append(f"{name}:{call.lineno} {called}")
    assert found == []


def test_no_call_changes_what_is_global_or_picks_a_device() -> None:
    setters = {"torch.set_num_threads", "torch.set_default_dtype", "torch.set_default_device"}
    found = [
        f"{name}:{call.lineno} {called}"
        for name, tree in modules().items()
        for call, called in calls(tree)
        if called in setters or called.endswith(".cuda")
    ]
    assert found == []


def test_nothing_is_imported_by_a_star() -> None:
    found = [
        f"{name}:{line}" for name, tree in modules().items() for line, what in imports(tree) if what.endswith(".*")
    ]
    assert found == []


def texts() -> Iterator[tuple[Path, str]]:
    """Every text of the repository that somebody wrote by hand."""
    endings = {".cfg", ".md", ".py", ".toml", ".txt", ".yaml"}
    for folder in ("awpbench", "benchmarks", "constraints", "docs", "model_zoo", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in endings:
                yield path, path.read_text()
    for path in sorted(ROOT.iterdir()):
        if path.is_file() and (path.suffix in endings or path.name == "Makefile"):
            yield path, path.read_text()


def lines_with(pattern: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in texts()
        if path != Path(__file__)
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_nothing_is_left_unfinished() -> None:
    assert lines_with(r"\b(TODO|FIXME|XXX|NotImplementedError)\b") == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert lines_with(r"(?<![\w.~}-])/(work|tmp|root|home|mnt)/") == []
    assert [line for line in lines_with(r"\.\./shared") if not line.startswith("tests/conftest.py:")] == []
