"""Names that are almost right, and the exit code of each kind of error."""

from __future__ import annotations

import pytest

from awpbench import errors, models
from awpbench.errors import UsageError, load_object, lookup


def test_an_unknown_name_is_answered_with_the_nearest_one_and_all_of_them() -> None:
    with pytest.raises(UsageError) as refused:
        lookup({"trades": 1, "mart": 2}, "defense", "Tardes")
    assert refused.value.what == "there is no defense called 'Tardes'"
    assert refused.value.mend == "Did you mean 'trades'? Known: trades, mart."


def test_a_name_that_resembles_nothing_is_answered_with_all_of_them() -> None:
    with pytest.raises(UsageError) as refused:
        lookup({"trades": 1, "mart": 2}, "defense", "zzz")
    assert refused.value.mend == "Known: trades, mart."


def test_a_registry_entry_resolves_to_its_object() -> None:
    assert load_object("awpbench.errors:lookup") is lookup


def test_every_registered_model_resolves() -> None:
    for spec in models.MODELS.values():
        assert callable(load_object(spec))


@pytest.mark.parametrize(
    ("kind", "code"),
    [("UsageError", 2), ("RefusedError", 3), ("InputError", 4), ("CheckError", 5), ("AwpbenchError", 1)],
)
def test_each_kind_of_error_has_its_exit_code(kind: str, code: int) -> None:
    assert getattr(errors, kind)("what").exit_code == code


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_an_interruption_exits_with_128_plus_the_signal(number: int, code: int) -> None:
    assert errors.Interrupted("what", "mend", signal_number=number).exit_code == code


@pytest.mark.parametrize(
    ("name", "is_stored_as"),
    [("wrn34", "wrn-34-10"), ("WRN28", "wrn-28-10"), ("wrn-16-4", "wrn-16-4"), ("preactresnet-18", "prn18")],
)
def test_a_model_has_one_canonical_name(name: str, is_stored_as: str) -> None:
    assert models.canonical(name) == is_stored_as


def test_published_names_are_spelt_as_in_robustbench() -> None:
    assert models.published_name("wrn34") == "WideResNet-34-10"
    assert models.published_name("prn18") == "PreActResNet-18"
    assert models.published_name("prn18", 16) == "PreActResNet-18 (width 16)"
