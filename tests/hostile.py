"""Checkpoint files that run a command, which creates the canary file, when they are unpickled naively."""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import marshal
import os
import pickle
import shutil
import subprocess
import tarfile
import time
import timeit
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


class Call:
    """Unpickles to the result of `function(*arguments)`; both may be calls themselves."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.reduced

    def __call__(self) -> None:
        """Be callable, as pickle demands of the function in a call."""


def corpus(canary: Path) -> dict[str, bytes]:
    """Return hostile files by name; those called `pickle ...` work with `pickle.loads`, others with `torch.load`."""
    system = Call(os.system, f"touch {canary}")
    pickles = {f"os.system, protocol {protocol}": pickle.dumps(system, protocol) for protocol in range(6)}
    pickles |= {name: pickle.dumps(call, 2) for name, call in _calls(canary).items()}
    pickles |= _handmade(canary, pickle.dumps(system, 2))
    return {f"pickle {name}": data for name, data in pickles.items()} | _containers(system)


def _calls(canary: Path) -> dict[str, Call]:
    source, touch = f"open({str(canary)!r}, 'w').close()", ["touch", str(canary)]
    code = Call(marshal.loads, marshal.dumps(compile(source, "", "exec")))
    nested = Call(io.BytesIO, pickle.dumps(Call(os.system, f"touch {canary}")))
    return {
        "eval": Call(builtins.eval, source),
        "exec": Call(builtins.exec, source),
        "open": Call(builtins.open, str(canary), "w"),
        "subprocess.run": Call(subprocess.run, touch),
        "subprocess.check_output": Call(subprocess.check_output, touch),
        "os.spawnlp": Call(os.spawnlp, os.P_WAIT, "touch", *touch),
        "shutil.copy": Call(shutil.copy, __file__, str(canary)),
        "Path.touch": Call(Path.touch, canary),
        "timeit": Call(timeit.timeit, source, "pass", time.perf_counter, 1),
        "partial": Call(functools.partial(os.system, f"touch {canary}")),
        "getattr of an import": Call(Call(getattr, Call(importlib.import_module, "os"), "system"), f"touch {canary}"),
        "marshalled code": Call(builtins.exec, code),
        "unsafe load within a load": Call(functools.partial(torch.load, weights_only=False), nested),
        "argument of an innocent call": Call(dict, Call(tuple, Call(map, os.system, [f"touch {canary}"]))),
    }


def _handmade(canary: Path, system: bytes) -> dict[str, bytes]:
    argument = f"Vtouch {canary}\n".encode()
    return {
        "INST opcode": b"(" + argument + b"ios\nsystem\n.",
        "OBJ opcode": b"(cos\nsystem\n" + argument + b"o.",
        "GLOBAL opcode": b"cposix\nsystem\n(" + argument + b"tR.",
        "Python 2 name": b"c__builtin__\neval\n(V__import__('os').system('touch " + str(canary).encode() + b"')\ntR.",
        "call inside a persistent id": system[:-1] + b"Q.",
        "call before the weights": system[:-1] + b"0}.",
    }


def _containers(system: Call) -> dict[str, bytes]:
    weights = {"conv1.weight": torch.zeros(2, 3, 3, 3, device="cpu")}
    own: dict[str, Any] = {"format_version": 1, "state_dict": weights}
    header = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)  # torch's legacy magic number and version
    return {
        "zip": _saved(system),
        "zip, one weight": _saved(weights | {"bn.weight": system}),
        "zip, one key": _saved({"state_dict": weights, "epoch": [{"a": (system,)}]}),
        "zip, our configuration": _saved(own | {"config": {"lr": system}}),
        "zip, our optimizer": _saved(own | {"optimizer": {"state": {0: system}}}),
        "legacy": _saved(system, legacy=True),
        "legacy, one weight": _saved({"state_dict": weights | {"bn.weight": system}}, legacy=True),
        "legacy, system information": header + pickle.dumps(system, 2) + pickle.dumps({}, 2) + pickle.dumps([], 2),
        "tar": _tar({"storages": system, "tensors": system, "pickle": system}),
    }


def _saved(value: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _tar(members: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, value in members.items():
            data = pickle.dumps(value, 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
