import pytest

from tests.scripts.partition import NOW, Partition, order_id

DUE = NOW + 86_400_000


@pytest.fixture
def coupon(partition: Partition) -> str:
    return partition.grant()


@pytest.fixture
def order(partition: Partition, coupon: str) -> str:
    partition.run("charge_wallet", amount=5_000)
    order = order_id()
    partition.place(order, coupon_id=coupon)
    return order


@pytest.mark.requirement("R3.13", "R3.17")
def test_an_order_past_its_deadline_is_failed_and_its_coupon_free(
    partition: Partition, order: str, coupon: str
) -> None:
    with partition.one_event("order.failed", order=order, user="kim", failure="expired", coupon=coupon, at=DUE):
        assert partition.run("expire_order", order=order, now_ms=DUE) == ["expired", "1-4"]
    fields = partition.order(order)
    assert (fields["status"], fields["failure"], fields["seq"]) == ("failed", "expired", "1-4")
    assert partition.wallet() == {"balance": "5000", "coupon_number": "1", "last_order": order, "seq": "1-4"}
    assert partition.coupon(coupon)[0] == "free"


def test_before_the_deadline_nothing_changes(partition: Partition, order: str) -> None:
    with partition.unchanged():
        assert partition.run("expire_order", order=order, now_ms=DUE - 1) == ["not_due", str(DUE)]


def test_a_finished_order_stays_as_it_is(partition: Partition, order: str) -> None:
    partition.run("pay_order", order=order)
    with partition.unchanged():
        assert partition.run("expire_order", order=order, now_ms=DUE) == ["completed", "1-4"]
    other = order_id()
    partition.place(other)
    partition.run("cancel_order", order=other)
    with partition.unchanged():
        assert partition.run("expire_order", order=other, now_ms=DUE) == ["failed", "1-6"]


def test_expiring_again_changes_nothing(partition: Partition, order: str) -> None:
    partition.run("expire_order", order=order, now_ms=DUE)
    with partition.unchanged():
        assert partition.run("expire_order", order=order, now_ms=DUE) == ["failed", "1-4"]


def test_an_order_that_is_not_this_users_is_unknown(partition: Partition, order: str) -> None:
    voided = order_id()
    partition.run("void_order", order=voided)
    with partition.unchanged():
        assert partition.run("expire_order", order=order, user="lee", now_ms=DUE) == ["unknown"]
        assert partition.run("expire_order", order=voided, now_ms=DUE) == ["unknown"]
        assert partition.run("expire_order", order=order_id(), now_ms=DUE) == ["unknown"]
