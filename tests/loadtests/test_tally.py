"""What users of a load test were answered is held against itself."""

import pytest

from loadtests.scenarios.tally import HAS_ONE, NONE_LEFT, Tally

MINE, OTHER = "mine", "other"


@pytest.mark.parametrize(
    ("told", "unknown"),
    [
        ([("", MINE)], False),
        ([(HAS_ONE, MINE), ("", MINE), (HAS_ONE, MINE)], False),
        ([(NONE_LEFT, None), (NONE_LEFT, None)], False),
        ([("", MINE), ("overloaded", None)], False),
        ([(HAS_ONE, MINE)], True),  # the one that was not answered has got it
        ([], True),
    ],
)
def test_one_request_of_a_user_gets_a_coupon_and_the_others_are_told_of_it(
    told: list[tuple[str, str | None]], unknown: bool
) -> None:
    tally = Tally()
    tally.wanted_one("ann", told, unknown)
    assert tally.broken == []


@pytest.mark.parametrize(
    "told",
    [
        [("", MINE), ("", OTHER)],
        [("", MINE), ("", MINE)],
        [("", MINE), (HAS_ONE, OTHER)],
        [("", MINE), (HAS_ONE, None)],
        [("", MINE), (NONE_LEFT, None)],
        [(HAS_ONE, MINE), (NONE_LEFT, None)],
        [(HAS_ONE, MINE), (HAS_ONE, MINE)],
    ],
)
def test_answers_that_contradict_each_other_break_the_outcome(told: list[tuple[str, str | None]]) -> None:
    tally = Tally()
    tally.wanted_one("ann", told, unknown=False)
    assert tally.broken == [f"ann asked for one coupon {len(told)} times and was told {told}"]
