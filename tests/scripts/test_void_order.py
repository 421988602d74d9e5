import pytest

from tests.scripts.partition import NOW, Partition, order_id


def test_an_order_that_is_not_on_record_becomes_a_tombstone(partition: Partition) -> None:
    order = order_id()
    with partition.one_event("order.voided", order=order, user="kim", at=NOW):
        assert partition.run("void_order", order=order) == ["voided", "1-1"]
    assert partition.order(order) == {"user": "kim", "status": "void", "seq": "1-1"}
    assert partition.wallet() == {}
    with partition.unchanged():
        assert partition.run("void_order", order=order) == ["voided", "1-1"]


@pytest.mark.parametrize("status", ["awaiting_payment", "completed", "failed"])
def test_an_order_on_record_is_the_answer(partition: Partition, status: str) -> None:
    order = order_id()
    if status == "completed":
        partition.run("charge_wallet", amount=1_000)
    partition.run("place_order" if status == "awaiting_payment" else "checkout_order", order=order)
    place = partition.order(order)["seq"]
    with partition.unchanged():
        assert partition.run("void_order", order=order) == ["exists", place, status]


def test_a_tombstone_does_not_keep_the_user_from_ordering(partition: Partition) -> None:
    partition.run("void_order", order=order_id())
    assert partition.run("place_order", order=order_id())[0] == "placed"
