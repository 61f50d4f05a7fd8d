"""A pickle gives arrays and nothing else; whatever else it names is neither imported nor called."""

from __future__ import annotations

import builtins
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awpbench.data.unpickling import load_arrays
from awpbench.errors import InputError

DATA = np.arange(2 * 3 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 3)
TARGETS = np.array([3, 7], dtype=">i8")


def pickled(value: Any, path: Path, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_are_read(protocol: int, tmp_path: Path) -> None:
    values = {"data": DATA, "turned": np.asfortranarray(DATA), "extrapolated_targets": TARGETS, "note": "x", "n": 3}
    found = load_arrays(pickled(values, tmp_path / "x.pickle", protocol))
    assert found.keys() == {"data", "turned", "extrapolated_targets"}
    assert np.array_equal(found["data"], DATA)
    assert np.array_equal(found["turned"], DATA)
    assert found["data"].dtype == np.uint8
    assert found["extrapolated_targets"].tolist() == [3, 7]


def test_the_names_of_numpy_1_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(
        pickle.dumps({"data": DATA}, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    )
    assert np.array_equal(load_arrays(path)["data"], DATA)


def test_lists_of_numbers_are_read_as_arrays(tmp_path: Path) -> None:
    found = load_arrays(pickled({"extrapolated_targets": [3, np.int64(7)]}, tmp_path / "x.pickle"))
    assert found["extrapolated_targets"].tolist() == [3, 7]


class Hostile:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, f"{os.name}.system"), (builtins.eval, "builtins.eval"), (np.fromfile, "numpy.fromfile")],
    ids=["os.system", "eval", "numpy.fromfile"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_something_is_refused_and_nothing_is_run(
    function: Any, name: str, protocol: int, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    argument = f"touch {ran}" if function is os.system else f"open({str(ran)!r}, 'w')"
    path = pickled({"data": DATA, "x": Hostile(function, argument)}, tmp_path / "x.pickle", protocol)
    with pytest.raises(InputError) as refused:
        load_arrays(path)
    assert refused.value.what.startswith(f"{path} names ")
    assert refused.value.what.endswith(f"{function.__name__}, which is no array, and was not loaded")
    assert not ran.exists()


@pytest.mark.parametrize("name", ["__import__", "getattr", "exec", "open", "bytearray"])
def test_no_builtin_can_be_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(b"cbuiltins\n" + name.encode() + b"\n.")
    with pytest.raises(InputError, match=f"names builtins.{name}, which is no array"):
        load_arrays(path)


def test_an_attribute_of_an_allowed_name_cannot_be_reached(tmp_path: Path) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.")
    with pytest.raises(InputError, match=r"names numpy\.ndarray\.__init__, which is no array"):
        load_arrays(path)


@pytest.mark.parametrize(
    "value",
    [
        [DATA],
        {"data": np.array([object], dtype=object)[:0]},  # an array of objects
        {"data": np.zeros(2, dtype=[("a", "u1")])},  # an array of records
        {"data": np.array(["a"])},
    ],
)
def test_what_is_no_array_of_numbers_is_refused(value: Any, tmp_path: Path) -> None:
    path = pickled(value, tmp_path / "x.pickle", protocol=2)
    with pytest.raises(InputError) as refused:
        load_arrays(path)
    assert refused.value.what == f"{path} is no pickled dict of arrays, or damaged"


def test_an_array_that_claims_more_than_its_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pickle"
    honest = pickle.dumps({"data": DATA}, protocol=2)
    shape = pickle.dumps((2, 3, 3, 3), protocol=2)[2:-3]  # without protocol, memo and stop
    assert honest.count(shape) == 1
    path.write_bytes(honest.replace(shape, shape.replace(b"K\x02", b"K\xff")))
    with pytest.raises(InputError, match="is no pickled dict of arrays, or damaged"):
        load_arrays(path)


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps({"data": DATA})[:-20]])
def test_damaged_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no pickled dict of arrays, or damaged"):
        load_arrays(path)
