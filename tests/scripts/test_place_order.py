import pytest
import redis

from tests.scripts.partition import NOW, Partition, order_id

DAY_MS = 86_400_000


@pytest.mark.requirement("R3.1", "R3.10", "R3.18", "R3.7")
def test_an_order_is_put_on_record_awaiting_payment(partition: Partition) -> None:
    order = order_id()
    lines = '[{"name":"셔츠","amount":1000}, []]'
    with partition.one_event(
        "order.placed", order=order, user="kim", lines=lines, subtotal=1000, discount=0, total=1000, coupon="", rule="",
        pay_before=NOW + DAY_MS, at=NOW, key="", fingerprint="",
    ):  # fmt: skip
        reply = partition.run("place_order", order=order, lines=lines)
    assert reply == ["placed", "1-1", "0", "1000", str(NOW), str(NOW + DAY_MS)]
    assert partition.order(order) == {
        "user": "kim", "status": "awaiting_payment", "failure": "", "lines": lines, "subtotal": "1000",
        "discount": "0", "total": "1000", "coupon": "", "ordered_at": str(NOW), "pay_before": str(NOW + DAY_MS),
        "paid_at": "", "seq": "1-1",
    }  # fmt: skip
    assert partition.wallet() == {
        "open_order": order, "open_pay_before": str(NOW + DAY_MS), "last_order": order, "seq": "1-1",
    }  # fmt: skip


@pytest.mark.requirement("R3.9", "R4.6", "R4.7", "R4.11")
def test_the_coupon_lowers_the_total_and_is_taken(partition: Partition) -> None:
    coupon = partition.grant(kind="percent", value=25, minimum_order=100, maximum_discount=200, number=8)
    order = order_id()
    rule = "spring,8,percent,25,100,200"
    with partition.one_event("order.placed", discount=200, total=800, coupon=coupon, rule=rule):
        reply = partition.run("place_order", order=order, coupon_id=coupon)
    assert reply[2:4] == ["200", "800"]
    fields = partition.coupon(coupon)
    assert (fields[0], fields[10], fields[11], fields[12]) == ("taken", order, "", "1-2")
    assert partition.order(order)["coupon"] == coupon


def test_a_repeated_call_says_that_the_order_exists(partition: Partition) -> None:
    order, coupon = order_id(), partition.grant()
    partition.place(order, coupon_id=coupon)
    with partition.unchanged():
        assert partition.run("place_order", order=order, coupon_id=coupon) == ["exists", "1-2", "awaiting_payment"]
        late = {"now_ms": NOW + 10**8}
        assert partition.run("place_order", order=order, **late) == ["exists", "1-2", "awaiting_payment"]


@pytest.mark.parametrize("script", ["place_order", "checkout_order"])
def test_a_late_original_of_a_voided_order_changes_nothing(partition: Partition, script: str) -> None:
    order = order_id()
    partition.run("void_order", order=order)
    with partition.unchanged():
        assert partition.run(script, order=order) == ["exists", "1-1", "void"]


@pytest.mark.parametrize("script", ["place_order", "checkout_order"])
def test_an_old_order_id_changes_nothing(partition: Partition, script: str) -> None:
    with partition.unchanged():
        assert partition.run(script, order=order_id(), now_ms=NOW + 30_001) == ["too_old"]
    assert partition.run("place_order", order=order_id(), now_ms=NOW + 30_000)[0] == "placed"


@pytest.mark.requirement("R3.8")
@pytest.mark.parametrize("script", ["place_order", "checkout_order"])
def test_a_user_has_one_order_in_progress_at_a_time(partition: Partition, script: str) -> None:
    partition.run("charge_wallet", amount=5_000)
    order = order_id()
    partition.place(order)
    with partition.unchanged():
        assert partition.run(script, order=order_id()) == ["order_in_progress", order, str(NOW + DAY_MS)]
    assert partition.run("place_order", order=order_id(), user="lee")[0] == "placed"
    partition.run("cancel_order", order=order)
    assert partition.run(script, order=order_id())[0] in {"placed", "completed"}


@pytest.mark.requirement("R4.3", "R4.4", "R4.10")
@pytest.mark.parametrize("script", ["place_order", "checkout_order"])
def test_a_coupon_that_is_not_valid_changes_nothing(partition: Partition, script: str) -> None:
    partition.run("charge_wallet", amount=5_000)
    used, taken = partition.grant(campaign="a"), partition.grant(campaign="b", user="lee")
    partition.run("checkout_order", order=order_id(), coupon_id=used)
    partition.place(order_id(), coupon_id=taken, user="lee")
    over = partition.grant(campaign="c", valid_until=NOW)
    early = partition.grant(campaign="d", valid_from=NOW + 1)
    small = partition.grant(campaign="e", minimum_order=1_001)
    little = partition.grant(campaign="f", value=9)
    with partition.unchanged():
        for coupon, reason in [
            ("kim-20270115-99", "unknown"),
            ("campaign:a", "unknown"),
            (taken, "unknown"),
            (used, "used"),
            (over, "expired"),
            (early, "not_started"),
            (small, "minimum_order"),
            (little, "minimum_discount"),
        ]:
            reply = partition.run(script, order=order_id(), coupon_id=coupon, discount_min=10)
            assert reply == ["coupon_not_valid", reason], coupon


def test_a_taken_coupon_is_refused_as_taken(partition: Partition) -> None:
    coupon = partition.grant()
    partition.place(order_id(), coupon_id=coupon)
    # Only a lost limit of one order at a time could bring it so far; the coupon holds for itself.
    partition.client.hdel(partition.keys.wallet(partition.index, "kim"), "open_order")
    with partition.unchanged():
        assert partition.run("place_order", order=order_id(), coupon_id=coupon) == ["coupon_not_valid", "taken"]


@pytest.mark.requirement("R0.8")
@pytest.mark.parametrize("script", ["place_order", "checkout_order"])
def test_a_total_past_the_highest_payment_changes_nothing(partition: Partition, script: str) -> None:
    partition.run("charge_wallet", amount=5_000)
    coupon = partition.grant(value=100)
    with partition.unchanged():
        assert partition.run(script, order=order_id(), payment_max=999) == ["payment_limit", "1000"]
        reply = partition.run(script, order=order_id(), payment_max=899, coupon_id=coupon)
        assert reply == ["payment_limit", "900"]
    reply = partition.run(script, order=order_id(), payment_max=900, coupon_id=coupon)
    assert reply[0] in {"placed", "completed"}


@pytest.mark.parametrize("script", ["place_order", "checkout_order"])
def test_refusals_come_in_the_order_of_the_head(partition: Partition, script: str) -> None:
    open_order = order_id()
    partition.place(open_order)
    old, bad, dear = {"now_ms": NOW + 40_000}, {"coupon_id": "none"}, {"payment_max": 1}
    with partition.unchanged():
        assert partition.run(script, order=open_order, **old, **bad, **dear)[0] == "exists"
        assert partition.run(script, order=order_id(), **old, **bad, **dear)[0] == "too_old"
        assert partition.run(script, order=order_id(), **bad, **dear)[0] == "order_in_progress"
        assert partition.run(script, order=order_id(), user="lee", **bad, **dear)[0] == "coupon_not_valid"
        assert partition.run(script, order=order_id(), user="lee", **dear)[0] == "payment_limit"


@pytest.mark.requirement("R0.8")
@pytest.mark.parametrize("script", ["place_order", "checkout_order"])
@pytest.mark.parametrize("subtotal", ["-1", "-1000", "1.5", "1e3", "", "abc", "nan", "-0", str(2**53)])
def test_a_malformed_subtotal_changes_nothing(partition: Partition, script: str, subtotal: str) -> None:
    partition.run("charge_wallet", amount=5_000)
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run(script, order=order_id(), subtotal=subtotal, payment_max=2**53 - 1)


@pytest.mark.parametrize("script", ["place_order", "checkout_order"])
@pytest.mark.parametrize(
    "wrong", ["created_ms", "age_max_ms", "payment_max", "discount_min", "discount_max", "pay_within_ms", "now_ms"]
)
def test_other_malformed_numbers_change_nothing(partition: Partition, script: str, wrong: str) -> None:
    if wrong == "pay_within_ms" and script == "checkout_order":
        return
    coupon = partition.grant()
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run(script, order=order_id(), coupon_id=coupon, **{wrong: "abc"})


def test_large_totals_are_exact_to_the_unit(partition: Partition) -> None:
    most = 2**53 - 1
    partition.run("charge_wallet", amount=most, balance_max=most)
    coupon = partition.grant(value=1)
    order = order_id()
    with partition.one_event("order.placed", subtotal=most, discount=1, total=most - 1):
        partition.run("place_order", order=order, subtotal=most, payment_max=most, coupon_id=coupon)
    assert partition.run("pay_order", order=order)[3] == "1"
    assert partition.wallet()["balance"] == "1"
