from typing import Any

from tests.scripts.partition import NOW, Partition, order_id
from tests.scripts.test_evict_orders import HOUR, LONG_AGO, cold, make_durable


def granted(partition: Partition, *, valid_until: int = LONG_AGO + HOUR, campaign: str = "spring") -> str:
    """A coupon that was granted long ago."""
    given = {"issued_at": LONG_AGO, "valid_from": LONG_AGO, "now_ms": LONG_AGO}
    return partition.grant(valid_until=valid_until, campaign=campaign, **given)


def evict(partition: Partition, *coupons: str, mark: str = "", **arguments: Any) -> Any:
    """`evict_coupons` of one user."""
    names = [partition.keys.coupons(partition.index, "kim")] * len(coupons)
    given = {"hot_from_ms": NOW - HOUR, "repeated_keys": names, "mark": mark, **arguments}
    return partition.run("evict_coupons", *coupons, **given)


def held(partition: Partition) -> set[str]:
    return set(partition.hash(partition.keys.coupons(partition.index, "kim")))


def test_what_has_expired_and_is_durable_leaves_without_an_event(partition: Partition) -> None:
    coupon, valid = granted(partition), granted(partition, valid_until=NOW + HOUR, campaign="autumn")
    make_durable(partition)
    events = partition.events()
    assert evict(partition, coupon, valid, mark="77:x") == ["evicted", "1"]
    assert held(partition) == {valid, "campaign:autumn"}
    assert partition.events() == events
    assert cold(partition) == {"before": str(NOW - HOUR), "times": "1", "coupons": "77:x"}


def test_what_is_not_durable_or_just_expired_stays(partition: Partition) -> None:
    coupon = granted(partition)
    with partition.unchanged():
        assert evict(partition, coupon) == ["evicted", "0"]
    make_durable(partition)
    with partition.unchanged():
        assert evict(partition, coupon, hot_from_ms=LONG_AGO + HOUR - 1) == ["evicted", "0"]
        assert evict(partition, coupon, server="run:other") == ["unverified"]
        assert evict(partition, coupon, generation=2) == ["stale", "1"]


def test_what_an_order_in_progress_has_taken_stays_though_it_has_expired(partition: Partition) -> None:
    coupon = granted(partition)
    partition.place(order_id(LONG_AGO), coupon_id=coupon, now_ms=LONG_AGO, created_ms=LONG_AGO)
    make_durable(partition)
    with partition.unchanged():
        assert evict(partition, coupon) == ["evicted", "0"]


def test_the_index_by_campaign_is_no_coupon(partition: Partition) -> None:
    granted(partition)
    make_durable(partition)
    with partition.unchanged():
        assert evict(partition, "campaign:spring", "unknown") == ["evicted", "0"]


def test_a_coupon_that_has_left_is_not_granted_again(partition: Partition) -> None:
    coupon = granted(partition)
    make_durable(partition)
    evict(partition, coupon)
    with partition.unchanged():
        assert partition.run("grant_coupon", issued_at=LONG_AGO) == ["cold", "1"]
        assert partition.run("grant_coupon", issued_at=LONG_AGO, asked=0) == ["cold", "1"]
    assert partition.run("grant_coupon", campaign="autumn")[0] == "granted", "issued later than whatever has left"
    assert partition.run("grant_coupon", campaign="winter", issued_at=LONG_AGO, asked=1)[0] == "granted"


def test_a_coupon_that_has_left_is_unknown_to_orders(partition: Partition) -> None:
    coupon = granted(partition)
    make_durable(partition)
    evict(partition, coupon)
    with partition.unchanged():
        assert partition.run("place_order", order=order_id(), coupon_id=coupon) == ["coupon_not_valid", "unknown"]


def test_what_was_issued_at_the_very_moment_up_to_which_has_left_may_have_left(partition: Partition) -> None:
    coupon = granted(partition)
    make_durable(partition)
    evict(partition, coupon)
    assert cold(partition)["before"] == str(NOW - HOUR)
    with partition.unchanged():
        assert partition.run("grant_coupon", campaign="autumn", issued_at=NOW - HOUR) == ["cold", "1"]
    assert partition.run("grant_coupon", campaign="autumn", issued_at=NOW - HOUR + 1)[0] == "granted"
