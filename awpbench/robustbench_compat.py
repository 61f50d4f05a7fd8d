"""RobustBench as PyPI has it: the one place that imports it.

RobustBench 1.1.1 needs `pkg_resources`, which setuptools no longer brings, and a module `autoattack`, which PyPI calls
`pyautoattack`. Where they are missing, stand-ins are put in their place before the import. Nothing that awpbench
promises of RobustBench's files needs RobustBench itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from awpbench.errors import InputError

MEND = "Install it again: pip install 'robustbench>=1.1,<2'"


def load(module: str = "robustbench") -> ModuleType:
    """Import RobustBench, or a module of it such as `robustbench.model_zoo.architectures.wide_resnet`.

    Raises InputError where it is missing or broken.
    """
    _stand_in()
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever its own dependencies raise on import
        raise InputError(f"{module} cannot be imported: {type(error).__name__}: {error}", MEND) from error


def _stand_in() -> None:
    if _missing("pkg_resources"):
        stub = ModuleType("pkg_resources")
        stub.resource_filename = _resource_filename  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = stub
    if _missing("autoattack"):
        for name in ("", ".state"):
            sys.modules[f"autoattack{name}"] = importlib.import_module(f"pyautoattack{name}")


def _missing(module: str) -> bool:
    return module not in sys.modules and importlib.util.find_spec(module) is None


def _resource_filename(module: str, resource: str) -> str:
    """Return the path of a file beside a module, as pkg_resources does."""
    return str(Path(str(sys.modules[module].__file__)).parent / resource)
