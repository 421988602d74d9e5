"""fail_order: an order that awaits payment and has no stock any more."""

from tests.scripts.partition import Partition, order_id


def test_an_order_without_its_stock_fails_and_frees_coupon_and_user(partition: Partition) -> None:
    order, coupon = order_id(), partition.grant()
    partition.place(order, coupon_id=coupon)
    with partition.one_event("order.failed", order=order, user="kim", failure="stock_lost", coupon=coupon):
        assert partition.run("fail_order", order=order) == ["failed", "1-3"]
    fields = partition.order(order)
    assert (fields["status"], fields["failure"], fields["seq"]) == ("failed", "stock_lost", "1-3")
    assert partition.coupon(coupon)[0] == "free"
    assert "open_order" not in partition.wallet()
    with partition.unchanged():
        assert partition.run("fail_order", order=order) == ["failed", "1-3"]


def test_what_is_finished_stays_as_it_is(partition: Partition) -> None:
    paid, cancelled = order_id(), order_id()
    partition.run("charge_wallet", amount=1_000)
    partition.place(paid)
    partition.run("pay_order", order=paid)
    partition.place(cancelled)
    partition.run("cancel_order", order=cancelled)
    with partition.unchanged():
        assert partition.run("fail_order", order=paid) == ["completed", "1-3"]
        assert partition.run("fail_order", order=cancelled) == ["failed", "1-5"]


def test_an_order_of_nobody_or_of_another_user_is_unknown(partition: Partition) -> None:
    order, void = order_id(), order_id()
    partition.place(order)
    partition.run("void_order", order=void)
    with partition.unchanged():
        assert partition.run("fail_order", order=order_id()) == ["unknown"]
        assert partition.run("fail_order", order=order, user="lee") == ["unknown"]
        assert partition.run("fail_order", order=void) == ["unknown"]
