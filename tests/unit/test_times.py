"""Times on the wire and in the program."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.times import (
    LAST_MS,
    TIME_PATTERN,
    format_moment,
    format_optional_moment,
    format_optional_time,
    format_time,
    parse_time,
)


def test_a_time_is_written_in_utc_with_milliseconds() -> None:
    assert format_time(1_767_323_045_678) == "2026-01-02T03:04:05.678Z"
    assert format_time(1_767_323_045_000) == "2026-01-02T03:04:05.000Z"
    assert format_time(0) == "1970-01-01T00:00:00.000Z"
    assert format_time(LAST_MS) == "9999-12-31T23:59:59.999Z"


def test_an_absent_time_stays_absent() -> None:
    assert format_optional_time(None) is None
    assert format_optional_time(5) == "1970-01-01T00:00:00.005Z"
    assert format_optional_moment(None) is None


def test_a_moment_of_any_zone_is_written_in_utc_rounded_to_a_millisecond() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 677_600, UTC)
    assert format_moment(moment) == "2026-01-02T03:04:05.678Z"
    assert format_optional_moment(moment.astimezone(timezone(timedelta(hours=9)))) == "2026-01-02T03:04:05.678Z"


@pytest.mark.parametrize("ms", [-1, LAST_MS + 1])
def test_a_time_outside_the_years_1970_to_9999_is_refused(ms: int) -> None:
    with pytest.raises(ValueError, match="between the years"):
        format_time(ms)


@given(st.integers(min_value=0, max_value=LAST_MS))
def test_reading_undoes_writing(ms: int) -> None:
    text = format_time(ms)
    assert parse_time(text) == ms
    assert re.search(TIME_PATTERN, text)


def test_fewer_decimals_are_taken() -> None:
    assert parse_time("2026-01-02T03:04:05Z") == 1_767_323_045_000
    assert parse_time("2026-01-02T03:04:05.6Z") == 1_767_323_045_600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-02",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05+00:00",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.6789Z",
        "2026-01-02T03:04:05.+12Z",
        "2026-02-30T03:04:05Z",
        "2026-01-02T24:00:00Z",
        "2026-12-31T23:59:60Z",
        "1969-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
        "2026-1-002T03:04:05Z",
        "٢٠٢٦-01-02T03:04:05Z",
        "2026-01-02T03:04:05Z\n",
        " 2026-01-02T03:04:05Z",
    ],
)
def test_what_is_not_such_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|has decimals"):
        parse_time(text)
