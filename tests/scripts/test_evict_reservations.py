from typing import Any

import pytest

from tests.scripts.partition import NOW, Partition, order_id
from tests.scripts.test_evict_orders import HOUR, LONG_AGO, cold, make_durable


def reserved(partition: Partition, state: str) -> str:
    """A reservation of two shirts, made long ago, in this state."""
    order = order_id(LONG_AGO)
    assert partition.reserve(order, ("shirt", "S", 2), now_ms=LONG_AGO, created_ms=LONG_AGO)[0] == "reserved"
    if state == "sold":
        partition.confirm(order, "shirt", now_ms=LONG_AGO)
    elif state == "released":
        partition.run("release_stock", "shirt", order=order, now_ms=LONG_AGO)
    return order


def evict(partition: Partition, *orders: str, mark: str = "", **arguments: Any) -> Any:
    """`evict_reservations` of orders that were made long ago."""
    names = [partition.keys.reservation(partition.index, order) for order in orders]
    given = {"hot_from_ms": NOW - HOUR, "repeated_keys": names, "mark": mark, **arguments}
    return partition.run("evict_reservations", *[part for order in orders for part in (order, LONG_AGO)], **given)


@pytest.fixture(autouse=True)
def shop(partition: Partition) -> None:
    partition.stock_shop()


@pytest.mark.parametrize("state", ["sold", "released"])
def test_what_is_finished_and_durable_leaves_and_the_units_stay_as_they_are(partition: Partition, state: str) -> None:
    order = reserved(partition, state)
    make_durable(partition)
    before, events = partition.product(), partition.events()
    assert evict(partition, order, mark="77:x") == ["evicted", "1"]
    assert partition.reservation(order) == {}
    assert (partition.product(), partition.events()) == (before, events)
    assert cold(partition) == {"before": str(NOW - HOUR), "times": "1", "reservations": "77:x"}


@pytest.mark.parametrize("state", ["sold", "released"])
def test_what_has_left_is_never_taken_anew(partition: Partition, state: str) -> None:
    order = reserved(partition, state)
    make_durable(partition)
    evict(partition, order)
    with partition.unchanged():
        assert partition.reserve(order, ("shirt", "S", 2), created_ms=LONG_AGO) == ["too_old"]
        assert partition.run("release_stock", "shirt", order=order) == ["missing"]
        assert partition.confirm(order, "shirt") == ["missing", ""]


def test_what_is_held_never_leaves(partition: Partition) -> None:
    order = reserved(partition, "held")
    make_durable(partition)
    with partition.unchanged():
        assert evict(partition, order) == ["evicted", "0"]


@pytest.mark.parametrize("state", ["sold", "released"])
def test_what_is_not_durable_or_hot_stays(partition: Partition, state: str) -> None:
    order = reserved(partition, state)
    with partition.unchanged():
        assert evict(partition, order) == ["evicted", "0"]
    make_durable(partition)
    with partition.unchanged():
        assert evict(partition, order, hot_from_ms=LONG_AGO - 1) == ["evicted", "0"]
        assert evict(partition, order, now_ms=LONG_AGO + 30_000) == ["evicted", "0"]
        assert evict(partition, order, server="run:other") == ["unverified"]
        assert evict(partition, order, generation=2) == ["stale", "1"]
    assert evict(partition, order, now_ms=LONG_AGO + 30_001) == ["evicted", "1"]


def test_the_walk_is_noted_where_nothing_leaves(partition: Partition) -> None:
    assert evict(partition, mark="77:x") == ["evicted", "0"]
    assert cold(partition) == {"reservations": "77:x"}


def test_what_was_released_and_has_left_can_be_adopted(partition: Partition) -> None:
    order = reserved(partition, "released")
    make_durable(partition)
    evict(partition, order)
    assert partition.run("adopt_stock", "shirt", order=order, packed="shirt:S:2")[0] == "adopted"
    make_durable(partition)
    with partition.unchanged():
        assert evict(partition, order) == ["evicted", "0"]


def test_how_far_has_left_never_goes_back(partition: Partition) -> None:
    """A worker with another setting, or a slower clock, lets go of less."""
    orders = [reserved(partition, "sold") for _ in range(2)]
    make_durable(partition)
    assert evict(partition, orders[0]) == ["evicted", "1"]
    assert evict(partition, orders[1], hot_from_ms=NOW - 2 * HOUR) == ["evicted", "1"]
    assert cold(partition) == {"before": str(NOW - HOUR), "times": "2"}
