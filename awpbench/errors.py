"""Errors that a user can mend, and lookups that answer an unknown name with the nearest one."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class AwpbenchError(Exception):
    """Base of every error that the command line reports as two lines: what happened and how to mend it."""

    exit_code = 1

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


class UsageError(AwpbenchError):
    """A flag, a name or a configuration that makes no sense."""

    exit_code = 2


class RefusedError(AwpbenchError):
    """A request that is understood and refused, because it would overwrite or mix results."""

    exit_code = 3


class InputError(AwpbenchError):
    """Bad or missing data, file or checkpoint, a failed download, or a newer schema."""

    exit_code = 4


class CheckError(AwpbenchError):
    """A sanity check failed: NaN, an image outside its ball, an accuracy that does not match its claim."""

    exit_code = 5


class Interrupted(AwpbenchError):
    """A signal stopped the work after what was finished was saved; the exit code is 128 + the signal's number."""

    def __init__(self, what: str, mend: str, *, signal_number: int) -> None:
        super().__init__(what, mend)
        self.exit_code = 128 + signal_number


def lookup(table: Mapping[str, T], kind: str, name: str) -> T:
    """Return `table[name]`, or raise a UsageError that names the nearest entry and all of them."""
    if name in table:
        return table[name]
    raise UsageError(f"there is no {kind} called {name!r}", hint(name, table))


def hint(name: str, known: Iterable[str]) -> str:
    """Say which of the known names is nearest, where one is, and all of them."""
    names = list(known)
    return f"{nearest(name, names)}Known: {', '.join(names)}."


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask whether the nearest of the known names was meant, `Did you mean 'at'? `; nothing where none is near."""
    lowered = {each.lower(): each for each in reversed(list(known))}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    return f"Did you mean {lowered[found[0]]!r}? " if found else ""


def load_object(spec: str) -> Any:
    """Import the object that a registry's `"module:object"` names."""
    module, _, name = spec.partition(":")
    return getattr(importlib.import_module(module), name)
