from datetime import UTC, date, datetime, timedelta

import pytest

from engine.business_days import BusinessDays


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.requirement("R5.1", "R4.5")
@pytest.mark.parametrize(
    ("at", "day"),
    [
        ("2027-01-14T14:59:59.999", "20270114"),
        ("2027-01-14T15:00:00.000", "20270115"),
        ("2027-01-15T00:00:00.000", "20270115"),
        ("2027-12-31T15:00:00.000", "20280101"),
    ],
)
def test_the_day_of_seoul_begins_at_three_in_the_afternoon_of_utc(at: str, day: str) -> None:
    assert BusinessDays("Asia/Seoul").text(ms(at)) == day


def test_days_of_a_zone_that_changes_its_clocks_are_calendar_days() -> None:
    """In New York the 14th of March 2027 has 23 hours and the 7th of November has 25."""
    days = BusinessDays("America/New_York")
    assert (days.text(ms("2027-03-14T04:59")), days.text(ms("2027-03-14T05:00"))) == ("20270313", "20270314")
    assert (days.text(ms("2027-03-15T03:59")), days.text(ms("2027-03-15T04:00"))) == ("20270314", "20270315")
    assert (days.text(ms("2027-11-08T04:59")), days.text(ms("2027-11-08T05:00"))) == ("20271107", "20271108")
    around = days.last(3, ms("2027-03-15T04:30"))
    assert around == [date(2027, 3, 13), date(2027, 3, 14), date(2027, 3, 15)]


@pytest.mark.requirement("R5.1")
def test_the_last_days_hold_today_and_are_oldest_first() -> None:
    days = BusinessDays("UTC")
    assert days.last(1, ms("2028-03-01T00:00")) == [date(2028, 3, 1)]
    last = days.last(7, ms("2028-03-01T23:59"))
    assert last == [date(2028, 2, 24) + timedelta(days=n) for n in range(7)]
