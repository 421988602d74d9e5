import pytest

from tests.scripts.partition import NOW, Partition, order_id

DAY_MS = 86_400_000


@pytest.fixture
def coupon(partition: Partition) -> str:
    return partition.grant(value=300)


@pytest.fixture
def order(partition: Partition, coupon: str) -> str:
    """An order of 1,000 less 300."""
    order = order_id()
    partition.place(order, coupon_id=coupon)
    return order


def as_hash(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


@pytest.mark.requirement("R3.3", "R3.12", "R3.14", "R3.15", "R4.10", "R4.11")
def test_enough_balance_pays_the_order_and_uses_its_coupon(partition: Partition, order: str, coupon: str) -> None:
    partition.run("charge_wallet", amount=900)
    with partition.one_event("order.paid", order=order, user="kim", total=700, balance=200, coupon=coupon, at=NOW + 9):
        reply = partition.run("pay_order", order=order, now_ms=NOW + 9)
    fields = partition.order(order)
    assert reply[:2] + reply[3:] == ["paid", "1-4", "200"]
    assert as_hash(reply[2]) == fields
    assert (fields["status"], fields["failure"], fields["paid_at"], fields["seq"]) == (
        "completed", "", str(NOW + 9), "1-4",
    )  # fmt: skip
    assert partition.wallet() == {"balance": "200", "coupon_number": "1", "last_order": order, "seq": "1-4"}
    packed = partition.coupon(coupon)
    assert (packed[0], packed[10], packed[11], packed[12]) == ("used", order, str(NOW + 9), "1-4")


@pytest.mark.requirement("R3.4", "R3.7", "R3.17")
def test_too_little_balance_fails_the_order_and_frees_its_coupon(partition: Partition, order: str, coupon: str) -> None:
    partition.run("charge_wallet", amount=699)
    with partition.one_event("order.failed", order=order, user="kim", failure="insufficient_balance", coupon=coupon):
        reply = partition.run("pay_order", order=order)
    fields = partition.order(order)
    assert reply[:2] + reply[3:] == ["insufficient_balance", "1-4", "699"]
    assert as_hash(reply[2]) == fields
    assert (fields["status"], fields["failure"], fields["paid_at"]) == ("failed", "insufficient_balance", "")
    assert partition.wallet() == {"balance": "699", "coupon_number": "1", "last_order": order, "seq": "1-4"}
    packed = partition.coupon(coupon)
    assert (packed[0], packed[10], packed[11], packed[12]) == ("free", "", "", "1-4")
    assert partition.run("place_order", order=order_id(), coupon_id=coupon)[0] == "placed"


@pytest.mark.requirement("R3.13", "R3.17")
def test_a_late_payment_fails_the_order_as_expired(partition: Partition, order: str, coupon: str) -> None:
    partition.run("charge_wallet", amount=900)
    with partition.one_event("order.failed", order=order, failure="expired", coupon=coupon, at=NOW + DAY_MS):
        reply = partition.run("pay_order", order=order, now_ms=NOW + DAY_MS)
    assert reply[:2] == ["expired", "1-4"]
    assert as_hash(reply[2]) == partition.order(order)
    assert partition.order(order)["failure"] == "expired"
    assert partition.wallet()["balance"] == "900"
    assert partition.coupon(coupon)[0] == "free"
    with partition.unchanged():
        assert partition.run("pay_order", order=order, now_ms=NOW)[:2] == ["failed", "1-4"]


def test_the_last_moment_before_the_deadline_still_pays(partition: Partition, order: str) -> None:
    partition.run("charge_wallet", amount=900)
    assert partition.run("pay_order", order=order, now_ms=NOW + DAY_MS - 1)[0] == "paid"


def test_paying_again_changes_nothing_and_shows_the_order(partition: Partition, order: str) -> None:
    partition.run("charge_wallet", amount=900)
    first = partition.run("pay_order", order=order)
    with partition.unchanged():
        assert partition.run("pay_order", order=order) == ["completed", "1-4", first[2]]
        assert partition.run("pay_order", order=order, now_ms=NOW + 2 * DAY_MS) == ["completed", "1-4", first[2]]


def test_a_failed_order_stays_failed(partition: Partition, order: str) -> None:
    partition.run("pay_order", order=order)
    partition.run("charge_wallet", amount=5_000)
    with partition.unchanged():
        reply = partition.run("pay_order", order=order)
    assert reply[:2] == ["failed", "1-3"]
    assert as_hash(reply[2])["failure"] == "insufficient_balance"


def test_an_order_that_is_not_this_users_is_unknown(partition: Partition, order: str) -> None:
    partition.run("charge_wallet", amount=5_000, user="lee")
    voided = order_id()
    partition.run("void_order", order=voided)
    with partition.unchanged():
        assert partition.run("pay_order", order=order, user="lee") == ["unknown"]
        assert partition.run("pay_order", order=order_id()) == ["unknown"]
        assert partition.run("pay_order", order=voided) == ["unknown"]


def test_a_total_of_zero_is_paid_without_a_debit(partition: Partition) -> None:
    order = order_id()
    partition.place(order, coupon_id=partition.grant(value=1_000))
    with partition.one_event("order.paid", total=0, balance=0):
        assert partition.run("pay_order", order=order)[0] == "paid"
    assert partition.wallet().get("balance", "0") == "0"


@pytest.mark.requirement("R1.7")
def test_payments_and_charges_in_turn_leave_the_right_balance(partition: Partition) -> None:
    for turn in range(1, 6):
        partition.run("charge_wallet", amount=1_500)
        order = order_id()
        partition.place(order)
        assert partition.run("pay_order", order=order)[3] == str(turn * 500)
    assert partition.wallet()["balance"] == "2500"
