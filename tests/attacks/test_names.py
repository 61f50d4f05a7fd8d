from __future__ import annotations

import pytest

from awpbench.attacks import ATTACKS, canonical, pgd_steps
from awpbench.errors import UsageError, load_object


@pytest.mark.parametrize("name", ["fgsm", "pgd-1", "pgd-20", "pgd-7", "cw-inf", "spsa", "autoattack", "PGD-20"])
def test_the_names_of_the_field_are_known(name: str) -> None:
    assert canonical(name) == name.lower()


def test_an_unknown_attack_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UsageError) as caught:
        canonical("autoatack")
    assert caught.value.what == "there is no attack called 'autoatack'"
    assert caught.value.mend == (
        "Did you mean 'autoattack'? Known: fgsm, cw-inf, spsa, autoattack, pgd-N, pgd-N-worst; "
        "N is any number, as in pgd-20."
    )


@pytest.mark.parametrize("name", ["pgd-0", "pgd-020", "pgd-N", "pgd-", "pgd", "pgd--1"])
def test_pgd_needs_a_number_of_steps(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        canonical(name)
    assert caught.value.what == f"there is no attack called {name.lower()!r}"


def test_the_steps_are_read_off_the_name() -> None:
    assert [pgd_steps(name) for name in ("pgd-20", "pgd-100", "fgsm")] == [20, 100, None]


def test_every_registered_attack_can_be_loaded() -> None:
    assert all(callable(load_object(spec)) for spec in ATTACKS.values())
