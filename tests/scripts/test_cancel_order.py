import pytest

from tests.scripts.partition import NOW, Partition, order_id


@pytest.fixture
def coupon(partition: Partition) -> str:
    return partition.grant()


@pytest.fixture
def order(partition: Partition, coupon: str) -> str:
    partition.run("charge_wallet", amount=5_000)
    order = order_id()
    partition.place(order, coupon_id=coupon)
    return order


@pytest.mark.requirement("R3.17", "R3.7")
def test_a_cancelled_order_is_failed_and_its_coupon_free(partition: Partition, order: str, coupon: str) -> None:
    with partition.one_event("order.failed", order=order, user="kim", failure="cancelled", coupon=coupon, at=NOW + 1):
        reply = partition.run("cancel_order", order=order, now_ms=NOW + 1)
    fields = partition.order(order)
    assert reply[:2] == ["cancelled", "1-4"]
    assert dict(zip(reply[2][::2], reply[2][1::2], strict=True)) == fields
    assert (fields["status"], fields["failure"]) == ("failed", "cancelled")
    assert partition.wallet() == {"balance": "5000", "coupon_number": "1", "last_order": order, "seq": "1-4"}
    assert partition.coupon(coupon)[0] == "free"


def test_cancelling_again_changes_nothing(partition: Partition, order: str) -> None:
    _, *first = partition.run("cancel_order", order=order)
    with partition.unchanged():
        assert partition.run("cancel_order", order=order) == ["failed", *first]


def test_a_completed_order_cannot_be_cancelled(partition: Partition, order: str) -> None:
    partition.run("pay_order", order=order)
    with partition.unchanged():
        assert partition.run("cancel_order", order=order)[:2] == ["completed", "1-4"]


def test_an_order_that_failed_otherwise_is_not_cancelled(partition: Partition, order: str) -> None:
    partition.run("expire_order", order=order, now_ms=NOW + 10**9)
    with partition.unchanged():
        assert partition.run("cancel_order", order=order)[:2] == ["failed", "1-4"]


def test_an_order_that_is_not_this_users_is_unknown(partition: Partition, order: str) -> None:
    voided = order_id()
    partition.run("void_order", order=voided)
    with partition.unchanged():
        assert partition.run("cancel_order", order=order, user="lee") == ["unknown"]
        assert partition.run("cancel_order", order=voided) == ["unknown"]
        assert partition.run("cancel_order", order=order_id()) == ["unknown"]


def test_an_order_without_a_coupon_leaves_the_coupons_alone(partition: Partition) -> None:
    order = order_id()
    partition.grant(user="lee")
    partition.place(order, user="lee")
    coupons = partition.hash(partition.keys.coupons(partition.index, "lee"))
    with partition.one_event("order.failed", coupon=""):
        partition.run("cancel_order", order=order, user="lee")
    assert partition.hash(partition.keys.coupons(partition.index, "lee")) == coupons
