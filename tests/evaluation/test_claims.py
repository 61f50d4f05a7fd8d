from __future__ import annotations

import math

import pytest

from awpbench.errors import CheckError, UsageError
from awpbench.evaluation.claims import check_clean, read_percent

MEND = "Check the weights, --dataset, --arch and --preprocessing, or the claim."


@pytest.mark.parametrize(("claimed", "correct"), [(85.36, 8536), (85.41, 8536), (85.31, 8536), (100, 10_000), (0, 0)])
def test_on_the_whole_test_set_a_twentieth_of_a_point_is_allowed(claimed: float, correct: int) -> None:
    check_clean(claimed, correct, 10_000, 10_000)


@pytest.mark.parametrize(("claimed", "correct"), [(85.36, 8542), (85.36, 8530), (0, 6), (100, 9994)])
def test_on_the_whole_test_set_more_than_that_is_a_failed_check(claimed: float, correct: int) -> None:
    with pytest.raises(CheckError) as caught:
        check_clean(claimed, correct, 10_000, 10_000)
    assert caught.value.exit_code == 5


def test_the_message_says_what_was_measured_what_was_expected_and_what_is_allowed() -> None:
    with pytest.raises(CheckError) as caught:
        check_clean(85.36, 8402, 10_000, 10_000)
    assert (caught.value.what, caught.value.mend) == (
        "the clean accuracy is 84.02 % (8402 of 10000 images; allowed: 0.05 points), not 85.36 % as expected",
        MEND,
    )
    with pytest.raises(CheckError) as caught:
        check_clean(95, 164, 200, 10_000)
    assert (caught.value.what, caught.value.mend) == (
        "the clean accuracy is 82.00 % (164 of 200 images; 95 % interval 76.09 - 86.71 %), not 95 % as expected",
        MEND,
    )


# 8 of 10: the Wilson interval is 49.02 - 94.33 % (Brown, Cai and DasGupta 2001 give the formula)
@pytest.mark.parametrize(("claimed", "right"), [(49.0, False), (49.1, True), (80.0, True), (94.3, True), (94.4, False)])
def test_on_a_part_of_the_test_set_the_claim_must_lie_in_the_wilson_interval(claimed: float, right: bool) -> None:
    if right:
        check_clean(claimed, 8, 10, 10_000)
    else:
        with pytest.raises(CheckError):
            check_clean(claimed, 8, 10, 10_000)


@pytest.mark.parametrize("percent", [0.0, 85.36, 100.0])
def test_a_percentage_is_taken_as_it_is(percent: float) -> None:
    assert read_percent(percent) == percent


@pytest.mark.parametrize(("percent", "shown"), [(-0.1, "-0.1"), (853.6, "853.6"), (math.nan, "nan"), (math.inf, "inf")])
def test_what_is_no_percentage_is_a_usage_error(percent: float, shown: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_percent(percent)
    assert caught.value.what == f"--expect-clean is {shown}, which is no percentage"
    assert caught.value.mend == "Write it as in: --expect-clean 85.36."
