"""Read numpy arrays from a pickle without calling anything that the pickle names.

The few names that numpy's own pickles use stand for the classes below, which keep what they are given; a name beside
them ends the reading. Arrays are made afterwards, from bytes, a shape and a plain type of number, all of them checked.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awpbench.errors import InputError

NUMBERS = {"b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"}

_DAMAGED = "Copy or download the file again."
_SAVE_PLAIN = "Have someone who trusts it save the arrays: numpy.savez('x.npz', images=..., labels=...)."


class _Forbidden(Exception):
    """The pickle names something that is no part of an array."""


class _Type:
    """Stands for numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def plain(self) -> np.dtype[Any]:
        if self.code not in NUMBERS or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"{self.code!r} is no plain number")
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for numpy.ndarray."""

    def __init__(self, *_: Any) -> None:
        self.raw: Any = b""
        self.type: Any = None
        self.shape: Any = ()
        self.fortran: Any = False

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.type, self.fortran, self.raw = state

    def plain(self) -> NDArray[Any]:
        if not isinstance(self.raw, bytes | bytearray) or not isinstance(self.type, _Type):
            raise ValueError("an array without bytes or a type")
        shape = tuple(map(int, self.shape))
        dtype = self.type.plain()
        if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(self.raw):
            raise ValueError(f"{len(self.raw)} bytes are no array of shape {shape}")
        return np.frombuffer(self.raw, dtype).reshape(shape, order="F" if self.fortran else "C")


def _of_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: Any, raw: Any) -> _Array:
    return _of_buffer(raw, dtype, (), "C")


def _latin1(text: str, encoding: str) -> bytes:
    """Stand for codecs.encode: protocol 2 writes bytes as text."""
    if encoding != "latin1":
        raise ValueError(encoding)
    return text.encode("latin1")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


STANDS_FOR: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _latin1,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")  # of numpy 1 and numpy 2
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _of_buffer),
        )
    },
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STANDS_FOR:
            raise _Forbidden(f"{module}.{name}")
        return STANDS_FOR[module, name]


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays, and the lists of whole numbers as arrays, of a pickled dict.

    Raises InputError for a file that names any class or function beside numpy's arrays (none is run), or that is no
    pickled dict of arrays. An OSError is the caller's.
    """
    with path.open("rb") as file:
        try:
            found = _ArraysOnly(file, encoding="latin1").load()
            return {str(key): _array(value) for key, value in found.items() if isinstance(value, _Array | list)}
        except _Forbidden as error:
            raise InputError(f"{path} names {error}, which is no array, and was not loaded", _SAVE_PLAIN) from None
        except OSError:
            raise
        except Exception:  # damaged or hostile bytes raise almost anything
            raise InputError(f"{path} is no pickled dict of arrays, or damaged", _DAMAGED) from None


def _array(value: _Array | list[Any]) -> NDArray[Any]:
    if isinstance(value, _Array):
        return value.plain()
    return np.array([int(each.plain() if isinstance(each, _Array) else each) for each in value], dtype=np.int64)
