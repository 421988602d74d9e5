from typing import Any

import pytest
import redis

from tests.scripts.partition import NOW, Partition, order_id

HOUR = 3_600_000
LONG_AGO = NOW - 48 * HOUR
OLD = {"now_ms": LONG_AGO, "created_ms": LONG_AGO}
FINISHED = ["completed", "failed", "void"]


def ordered(partition: Partition, status: str, *, durable: bool = True, **arguments: Any) -> str:
    """An order made long ago, in this status."""
    order = order_id(LONG_AGO)
    given = {**OLD, **arguments}
    if status == "void":
        partition.run("void_order", order=order, **given)
    else:
        if status == "completed":
            partition.run("charge_wallet", amount=1_000, now_ms=LONG_AGO)
        partition.run("place_order" if status == "awaiting_payment" else "checkout_order", order=order, **given)
    assert partition.order(order)["status"] == status
    if durable:
        make_durable(partition)
    return order


def make_durable(partition: Partition) -> None:
    assert partition.run("mark_durable", seq=partition.seq()) == ["marked"]


def evict(partition: Partition, *orders: str, user: str = "kim", **arguments: Any) -> Any:
    """`evict_orders` of orders of one user that were made long ago."""
    keys, at = partition.keys, partition.index
    names = [
        name
        for order in orders
        for name in (keys.order(at, order), keys.wallet(at, user), keys.coupons(at, user))
    ]  # fmt: skip
    rest = [part for order in orders for part in (order, LONG_AGO)]
    given = {"hot_from_ms": NOW - HOUR, "repeated_keys": names, **arguments}
    return partition.run("evict_orders", *rest, **given)


def cold(partition: Partition) -> dict[str, str]:
    return partition.hash(partition.keys.cold(partition.index))


@pytest.mark.parametrize("status", FINISHED)
def test_what_is_finished_and_durable_leaves_without_an_event(partition: Partition, status: str) -> None:
    order = ordered(partition, status)
    events, seq = partition.events(), partition.seq()
    assert evict(partition, order) == ["evicted", "1"]
    assert partition.order(order) == {}
    assert "last_order" not in partition.wallet()
    assert cold(partition) == {"before": str(NOW - HOUR), "times": "1"}
    assert (partition.events(), partition.seq()) == (events, seq)
    with partition.unchanged():
        assert evict(partition, order) == ["evicted", "0"]


def test_an_order_in_progress_never_leaves(partition: Partition) -> None:
    order = ordered(partition, "awaiting_payment")
    with partition.unchanged():
        assert evict(partition, order) == ["evicted", "0"]


@pytest.mark.parametrize("status", FINISHED)
def test_what_is_not_durable_never_leaves(partition: Partition, status: str) -> None:
    order = ordered(partition, status, durable=False)
    partition.run("mark_durable", seq=partition.seq() - 1)
    with partition.unchanged():
        assert evict(partition, order) == ["evicted", "0"]


@pytest.mark.parametrize("status", FINISHED)
def test_what_is_hot_stays(partition: Partition, status: str) -> None:
    order = ordered(partition, status)
    with partition.unchanged():
        assert evict(partition, order, hot_from_ms=LONG_AGO - 1) == ["evicted", "0"]
        assert evict(partition, order, now_ms=LONG_AGO + 30_000) == ["evicted", "0"], "a late original would be let in"
    assert evict(partition, order, now_ms=LONG_AGO + 30_001) == ["evicted", "1"]


def test_a_late_original_of_what_has_left_is_refused(partition: Partition) -> None:
    order = ordered(partition, "failed")
    evict(partition, order)
    with partition.unchanged():
        for script in ("place_order", "checkout_order"):
            assert partition.run(script, order=order, created_ms=LONG_AGO) == ["too_old"]
        for script in ("pay_order", "cancel_order", "expire_order", "fail_order"):
            assert partition.run(script, order=order) == ["unknown"]


@pytest.mark.parametrize("refused", [({"server": "run:other"}, ["unverified"]), ({"generation": 2}, ["stale", "1"])])
def test_nothing_leaves_where_a_recovery_has_come_between(
    partition: Partition, refused: tuple[dict[str, Any], list[str]]
) -> None:
    order = ordered(partition, "failed")
    arguments, reply = refused
    with partition.unchanged():
        assert evict(partition, order, **arguments) == reply


def test_a_newer_last_order_is_still_the_users_last(partition: Partition) -> None:
    first, second = ordered(partition, "failed"), ordered(partition, "awaiting_payment")
    assert evict(partition, first, second) == ["evicted", "1"]
    assert partition.wallet()["last_order"] == partition.wallet()["open_order"] == second


def test_a_used_coupon_leaves_with_its_order(partition: Partition) -> None:
    coupon = partition.grant(issued_at=LONG_AGO, valid_from=LONG_AGO, valid_until=NOW + HOUR, now_ms=LONG_AGO)
    order = ordered(partition, "completed", coupon_id=coupon)
    kept = partition.grant(campaign="autumn", issued_at=LONG_AGO, now_ms=LONG_AGO)
    make_durable(partition)
    assert evict(partition, order) == ["evicted", "1"]
    held = partition.hash(partition.keys.coupons(partition.index, "kim"))
    assert set(held) == {kept, "campaign:autumn"}
    assert partition.wallet()["coupon_number"] == "2"


@pytest.mark.parametrize(("valid_until", "leaves"), [(LONG_AGO + HOUR, True), (NOW + HOUR, False)])
def test_a_coupon_that_came_back_leaves_when_it_has_expired(
    partition: Partition, valid_until: int, leaves: bool
) -> None:
    coupon = partition.grant(issued_at=LONG_AGO, valid_from=LONG_AGO, valid_until=valid_until, now_ms=LONG_AGO)
    order = ordered(partition, "awaiting_payment", coupon_id=coupon)
    partition.run("cancel_order", order=order, now_ms=LONG_AGO)
    make_durable(partition)
    assert evict(partition, order) == ["evicted", "1"]
    assert (coupon not in partition.hash(partition.keys.coupons(partition.index, "kim"))) == leaves


def test_a_coupon_that_another_order_has_taken_since_stays(partition: Partition) -> None:
    coupon = partition.grant(issued_at=LONG_AGO, valid_from=LONG_AGO, valid_until=LONG_AGO + HOUR, now_ms=LONG_AGO)
    failed = ordered(partition, "failed", coupon_id=coupon, subtotal=1_000)
    ordered(partition, "awaiting_payment", coupon_id=coupon)
    assert evict(partition, failed) == ["evicted", "1"]
    assert partition.coupon(coupon)[0] == "taken"


def test_only_postgresql_says_what_became_of_what_may_have_left(partition: Partition) -> None:
    order, never = ordered(partition, "failed"), order_id(LONG_AGO)
    evict(partition, order)
    for each in (order, never):
        with partition.unchanged():
            assert partition.run("void_order", order=each, created_ms=LONG_AGO) == ["cold", "1"]
            assert partition.run("void_order", order=each, created_ms=LONG_AGO, asked=0) == ["cold", "1"]
    assert partition.run("void_order", order=never, created_ms=LONG_AGO, asked=1)[0] == "voided"
    assert partition.run("void_order", order=order_id(NOW), created_ms=NOW)[0] == "voided"


def test_whoever_asked_postgresql_before_something_left_asks_again(partition: Partition) -> None:
    first, second, never = ordered(partition, "failed"), ordered(partition, "void"), order_id(LONG_AGO)
    evict(partition, first)
    evict(partition, second)
    with partition.unchanged():
        assert partition.run("void_order", order=never, created_ms=LONG_AGO, asked=1) == ["cold", "2"]


def test_an_argument_that_is_no_time_changes_nothing(partition: Partition) -> None:
    order = ordered(partition, "failed")
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="no whole number"):
        evict(partition, order, hot_from_ms="soon")
