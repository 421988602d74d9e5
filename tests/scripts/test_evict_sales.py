from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.scripts.partition import NOW, Partition

TODAY = datetime.fromtimestamp(NOW / 1000, UTC).date()


def sold_on(partition: Partition, *days_ago: int) -> list[str]:
    """A unit sold on each of these days; the days."""
    days = [(TODAY - timedelta(days=back)).strftime("%Y%m%d") for back in days_ago]
    for day in days:
        partition.client.zadd(partition.keys.sales(partition.index, day), {"shirt": 1})
    return days


def evict(partition: Partition, *days: str, **arguments: Any) -> Any:
    names = [partition.keys.sales(partition.index, day) for day in days]
    return partition.run("evict_sales", *days, **{"keep_days": 7, "repeated_keys": names, **arguments})


def test_days_before_those_that_are_kept_leave(partition: Partition) -> None:
    days = sold_on(partition, *range(12), 40, 400, 4_000)
    assert evict(partition, *days) == ["evicted", "7"]
    left = [day for day in days if partition.client.exists(partition.keys.sales(partition.index, day))]
    assert left == days[:8]
    assert evict(partition, *days) == ["evicted", "0"]


def test_nothing_leaves_a_partition_that_is_not_trusted(partition: Partition) -> None:
    days = sold_on(partition, 30)
    with partition.unchanged():
        assert evict(partition, *days, server="run:other") == ["unverified"]
        assert evict(partition, *days, generation=2) == ["stale", "1"]


@pytest.mark.parametrize("today", ["2024-02-29", "2024-03-01", "2025-01-01", "2000-03-01", "2100-03-01"])
def test_days_are_counted_over_leap_years_and_their_exceptions(partition: Partition, today: str) -> None:
    now = datetime.fromisoformat(today).replace(tzinfo=UTC, hour=23)
    for back, leaves in ((7, "0"), (8, "1")):
        day = (now - timedelta(days=back)).strftime("%Y%m%d")
        partition.client.zadd(partition.keys.sales(partition.index, day), {"shirt": 1})
        assert evict(partition, day, now_ms=int(now.timestamp() * 1000)) == ["evicted", leaves]
