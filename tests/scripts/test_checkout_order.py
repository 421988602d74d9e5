import pytest

from tests.scripts.partition import NOW, Partition, order_id


@pytest.mark.requirement("R3.3", "R3.14", "R3.15", "R3.12", "R4.10", "R4.7")
def test_enough_balance_completes_the_order_and_uses_its_coupon(partition: Partition) -> None:
    partition.run("charge_wallet", amount=900)
    order, coupon = order_id(), partition.grant(value=300, number=4)
    with partition.one_event(
        "order.checked_out", order=order, user="kim", lines="[1]", subtotal=1000, discount=300, total=700,
        coupon=coupon, rule="spring,4,amount,300,,", status="completed", failure="", balance=200, at=NOW,
        key="", fingerprint="",
    ):  # fmt: skip
        reply = partition.run("checkout_order", order=order, coupon_id=coupon, lines="[1]")
    assert reply == ["completed", "1-3", "300", "700", str(NOW), "200"]
    assert partition.order(order) == {
        "user": "kim", "status": "completed", "failure": "", "lines": "[1]", "subtotal": "1000", "discount": "300",
        "total": "700", "coupon": coupon, "ordered_at": str(NOW), "pay_before": "", "paid_at": str(NOW), "seq": "1-3",
    }  # fmt: skip
    assert partition.wallet() == {"balance": "200", "coupon_number": "1", "last_order": order, "seq": "1-3"}
    fields = partition.coupon(coupon)
    assert (fields[0], fields[10], fields[11], fields[12]) == ("used", order, str(NOW), "1-3")


@pytest.mark.requirement("R3.4", "R3.17", "R3.7")
def test_too_little_balance_fails_the_order_on_record_and_leaves_the_coupon_free(partition: Partition) -> None:
    partition.run("charge_wallet", amount=699)
    order, coupon = order_id(), partition.grant(value=300)
    packed = partition.coupon(coupon)
    with partition.one_event(
        "order.checked_out", status="failed", failure="insufficient_balance", balance=699, total=700, coupon=coupon
    ):
        reply = partition.run("checkout_order", order=order, coupon_id=coupon)
    assert reply == ["insufficient_balance", "1-3", "300", "700", str(NOW), "699"]
    fields = partition.order(order)
    assert (fields["status"], fields["failure"], fields["paid_at"]) == ("failed", "insufficient_balance", "")
    assert partition.wallet() == {"balance": "699", "coupon_number": "1", "last_order": order, "seq": "1-3"}
    assert partition.coupon(coupon) == packed
    assert partition.run("checkout_order", order=order_id(), coupon_id=coupon, subtotal=900)[0] == "completed"


@pytest.mark.requirement("R0.8")
def test_the_balance_may_fall_to_zero_and_no_further(partition: Partition) -> None:
    partition.run("charge_wallet", amount=2_000)
    assert partition.run("checkout_order", order=order_id())[5] == "1000"
    assert partition.run("checkout_order", order=order_id())[5] == "0"
    assert partition.run("checkout_order", order=order_id())[0] == "insufficient_balance"
    assert partition.wallet()["balance"] == "0"


def test_a_user_that_was_never_seen_has_too_little(partition: Partition) -> None:
    assert partition.run("checkout_order", order=order_id())[5] == "0"
    assert "balance" not in partition.wallet()


@pytest.mark.parametrize("balance", [0, 5])
def test_a_total_of_zero_is_paid_without_a_debit(partition: Partition, balance: int) -> None:
    if balance:
        partition.run("charge_wallet", amount=balance)
    coupon = partition.grant(value=1_000)
    with partition.one_event("order.checked_out", discount=1_000, total=0, balance=balance, status="completed"):
        reply = partition.run("checkout_order", order=order_id(), coupon_id=coupon)
    assert reply[0] == "completed"
    assert partition.wallet().get("balance", "0") == str(balance)
    assert partition.run("checkout_order", order=order_id(), subtotal=0)[0] == "completed"


def test_a_discount_never_exceeds_the_subtotal(partition: Partition) -> None:
    coupon = partition.grant(value=5_000)
    with partition.one_event("order.checked_out", discount=1_000, total=0):
        partition.run("checkout_order", order=order_id(), coupon_id=coupon)


@pytest.mark.parametrize("balance", [1_000, 10])
def test_a_repeated_call_changes_nothing_and_says_what_became_of_the_order(partition: Partition, balance: int) -> None:
    partition.run("charge_wallet", amount=balance)
    order = order_id()
    partition.run("checkout_order", order=order)
    status = "completed" if balance == 1_000 else "failed"
    partition.run("charge_wallet", amount=5_000)
    with partition.unchanged():
        assert partition.run("checkout_order", order=order) == ["exists", "1-2", status]
        assert partition.run("checkout_order", order=order, now_ms=NOW + 10**7) == ["exists", "1-2", status]
