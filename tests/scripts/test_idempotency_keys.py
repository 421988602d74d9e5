"""Idempotency keys in the scripts: one effect for each key, its result kept beside it, and no other request's."""

from typing import Any

import pytest

from tests.scripts.partition import NOW, Partition, order_id

DAY_MS = 86_400_000
MINE: dict[str, Any] = {"key": "k1", "fingerprint": "f1"}
ORDER = order_id()

SPENDING: dict[str, tuple[dict[str, Any], str]] = {
    "charge_wallet": ({"amount": 700}, f"charged 5700 {NOW}"),
    "place_order": ({"order": ORDER, "user": "lee", "held": "3:1-9,4:1-2"}, f"placed {ORDER} 3:1-9,4:1-2"),
    "checkout_order": (
        {"order": ORDER, "user": "park", "held": "3:1-9"},
        f"insufficient_balance {ORDER} 0 3:1-9",
    ),
    "pay_order": ({}, "paid {awaiting}"),
    "cancel_order": ({}, "cancelled {awaiting}"),
    "grant_coupon": ({"issued": "9:1-4"}, "granted kim-20270115-1 9:1-4"),
    "adjust_stock": ({"stock": "S", "delta": 2, "owner": ""}, "adjusted 12 small size"),
}
"""A call of each script that spends a key, and the result it keeps."""


@pytest.fixture(autouse=True)
def awaiting(partition: Partition) -> str:
    partition.run("put_product", "S", "small size", 10, product="shirt")
    partition.run("put_campaign")
    partition.run("charge_wallet", amount=5_000)
    order = order_id()
    partition.place(order)
    return order


@pytest.fixture(params=SPENDING)
def script(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def given(script: str, awaiting: str) -> dict[str, Any]:
    return {"order": awaiting, **SPENDING[script][0]}


def record(partition: Partition, arguments: dict[str, Any]) -> str:
    owner = arguments.get("owner", arguments.get("user", "kim"))
    return partition.keys.request_key(partition.index, owner, "k1")


def test_the_effect_spends_the_key_and_the_result_is_kept_for_a_day_and_in_the_event(
    partition: Partition, awaiting: str, script: str
) -> None:
    arguments, result = given(script, awaiting), SPENDING[script][1].format(awaiting=awaiting)
    before = partition.seq()

    reply = partition.run(script, **arguments, **MINE)

    place, event = partition.events()[-1]
    assert reply[1] == place == f"1-{before + 1}"
    assert (event["key"], event["fingerprint"], event["result"]) == ("k1", "f1", result)
    name = record(partition, arguments)
    assert partition.hash(name) == {"fingerprint": "f1", "place": place, "result": result}
    assert DAY_MS - 60_000 < int(partition.client.pttl(name)) <= DAY_MS


@pytest.mark.parametrize("script", sorted(SPENDING.keys() - {"grant_coupon"}))
def test_a_key_that_is_spent_acts_no_more_and_gives_its_result(
    partition: Partition, awaiting: str, script: str
) -> None:
    arguments, result = given(script, awaiting), SPENDING[script][1].format(awaiting=awaiting)
    place = partition.run(script, **arguments, **MINE)[1]
    if script in {"place_order", "checkout_order"}:
        arguments["order"] = order_id()

    with partition.unchanged():
        assert partition.run(script, **arguments, **MINE) == ["replayed", place, result]
        assert partition.run(script, **arguments, key="k1", fingerprint="f2") == ["key_reused"]


def test_without_a_key_nothing_is_kept(partition: Partition, awaiting: str, script: str) -> None:
    partition.run(script, **given(script, awaiting))

    assert not [key for key in partition.dump() if ":key:" in key]
    _, event = partition.events()[-1]
    assert (event["key"], event["fingerprint"], event["result"]) == ("", "", "")


def test_a_refusal_spends_no_key(partition: Partition) -> None:
    with partition.unchanged():
        assert partition.run("charge_wallet", amount=10**9, **MINE)[0] == "balance_limit"
        assert partition.run("place_order", order=order_id(), **MINE)[0] == "order_in_progress"
        assert partition.run("adjust_stock", stock="S", delta=-99, **MINE)[0] == "stock_limit"


@pytest.mark.parametrize("script", ["place_order", "checkout_order"])
def test_an_order_is_placed_only_by_the_flow_that_holds_the_claim(partition: Partition, script: str) -> None:
    lee: dict[str, Any] = {"user": "lee", **MINE}
    assert partition.run("claim_key", **lee, claim="a", lease_ms=1_000) == ["claimed"]
    with partition.unchanged():
        assert partition.run(script, order=order_id(), claim="b", **lee) == ["key_in_progress"]

    order = order_id()
    place = partition.run(script, order=order, claim="a", **lee)[1]

    with partition.unchanged():
        assert partition.run("claim_key", **lee, claim="b", lease_ms=1_000)[:2] == ["replayed", place]
        assert partition.run(script, order=order, claim="a", **lee)[0] == "exists"


def test_a_claim_holds_for_its_time_and_is_then_taken_over(partition: Partition) -> None:
    claim: dict[str, Any] = {**MINE, "lease_ms": 1_000}
    assert partition.run("claim_key", **claim, claim="a") == ["claimed"]
    assert partition.run("claim_key", **claim, claim="a", now_ms=NOW + 1) == ["claimed"]
    with partition.unchanged():
        assert partition.run("claim_key", **claim, claim="b", now_ms=NOW + 1_000) == ["key_in_progress"]
        assert partition.run("claim_key", **{**claim, "fingerprint": "f2"}, claim="b") == ["key_reused"]
    assert partition.run("claim_key", **claim, claim="b", now_ms=NOW + 1_001) == ["resumed"]
    assert partition.run("claim_key", **claim, claim="a", now_ms=NOW + 1_002) == ["key_in_progress"]


def test_a_claim_that_nobody_ends_is_gone_after_a_day(partition: Partition) -> None:
    partition.run("claim_key", **MINE, claim="a", lease_ms=1_000)
    left_ms = partition.client.pttl(record(partition, {}))
    assert DAY_MS - 60_000 < int(left_ms) <= DAY_MS


def test_only_the_flow_that_claimed_a_key_frees_it(partition: Partition) -> None:
    claim: dict[str, Any] = {**MINE, "lease_ms": 1_000}
    partition.run("claim_key", **claim, claim="a")
    with partition.unchanged():
        assert partition.run("free_key", **MINE, claim="b") == ["freed"]
    assert partition.run("free_key", **MINE, claim="a") == ["freed"]
    assert not [key for key in partition.dump() if ":key:" in key]
    assert partition.run("claim_key", **{**claim, "fingerprint": "f2"}, claim="b") == ["claimed"]


def test_a_spent_key_is_not_freed(partition: Partition) -> None:
    partition.run("charge_wallet", amount=1, **MINE)
    with partition.unchanged():
        assert partition.run("free_key", **MINE, claim="a") == ["freed"]
        assert partition.run("free_key", **MINE, claim="") == ["freed"]


@pytest.mark.parametrize("script", ["claim_key", "free_key"])
def test_the_guard_comes_first(partition: Partition, script: str) -> None:
    arguments: dict[str, Any] = {**MINE, "claim": "a", "lease_ms": 1}
    with partition.unchanged():
        assert partition.run(script, **arguments, server="other") == ["unverified"]
        assert partition.run(script, **arguments, generation=2) == ["stale", "1"]
        assert partition.run(script, **arguments, backlog_max=0) == ["overloaded"]
