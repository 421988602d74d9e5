"""Every script in every state: the transitions that are drawn in docs/diagrams are all there are."""

from typing import Any

import pytest

from tests.scripts.partition import NOW, Partition, order_id
from tests.scripts.transitions import COUPON, NONE, ORDER, RESERVATION, Transition

DUE = NOW + 10**9
ENOUGH = 5_000


@pytest.fixture(autouse=True)
def shop(partition: Partition) -> None:
    partition.stock_shop()
    partition.run("charge_wallet", amount=ENOUGH)
    partition.run("charge_wallet", user="poor", amount=1)


ORDER_CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("place_order", {}),
    ("checkout_order", {}),
    ("pay_order", {}),
    ("pay_order", {"now_ms": DUE}),
    ("cancel_order", {}),
    ("expire_order", {}),
    ("expire_order", {"now_ms": DUE}),
    ("fail_order", {}),
    ("void_order", {}),
)
"""Every script that takes an order, each so that it could act."""


def begin(partition: Partition, state: str, user: str, coupon: str = "") -> str:
    """An order in this state."""
    order = order_id()
    given: dict[str, Any] = {"order": order, "user": user, "coupon_id": coupon}
    if state == "awaiting_payment":
        assert partition.run("place_order", **given)[0] == "placed"
    if state == "completed":
        assert partition.run("checkout_order", **given)[0] == "completed"
    if state == "failed":
        partition.run("place_order", **given)
        assert partition.run("cancel_order", order=order, user=user)[0] == "cancelled"
    if state == "void":
        assert partition.run("void_order", order=order, user=user)[0] == "voided"
    return order


def test_an_order_has_these_transitions_and_no_others(partition: Partition) -> None:
    seen: set[Transition] = set()
    for user in ("kim", "poor"):
        for before in (NONE, "awaiting_payment", "completed", "failed", "void"):
            if user == "poor" and before == "completed":
                continue
            for script, more in ORDER_CALLS:
                free_the_way(partition, user)
                order = begin(partition, before, user)
                reply = partition.run(script, **{"order": order, "user": user, **more})
                after = partition.order(order).get("status", NONE)
                if after != before:
                    seen.add(Transition(before, script, reply[0], after))
    assert seen == ORDER


def free_the_way(partition: Partition, user: str) -> None:
    """End the user's order in progress, and let there be as much balance as before."""
    open_order = partition.wallet(user).get("open_order")
    if open_order:
        partition.run("cancel_order", order=open_order, user=user)
    if user == "kim":
        partition.run("charge_wallet", amount=ENOUGH)


def test_a_coupon_has_these_transitions_and_no_others(partition: Partition) -> None:
    seen: set[Transition] = set()
    number = 0
    for user in ("kim", "poor"):
        for before in (NONE, "free", "taken", "used"):
            if user == "poor" and before == "used":
                continue
            for script, more in (("grant_coupon", {}), *ORDER_CALLS):
                number += 1
                campaign: dict[str, Any] = {"campaign": f"c{number}", "number": number, "user": user}
                free_the_way(partition, user)
                coupon = "" if before == NONE else partition.grant(**campaign)
                state = {"taken": "awaiting_payment", "used": "completed"}.get(before, NONE)
                order = begin(partition, state, user, coupon)
                if script in {"place_order", "checkout_order"}:
                    order = order_id()
                reply = partition.run(script, **{"order": order, "coupon_id": coupon or "none", **campaign, **more})
                coupon = coupon or (reply[2] if reply[0] == "granted" else "")
                after = partition.coupon(coupon, user)[0] if coupon else NONE
                if after != before:
                    seen.add(Transition(before, script, reply[0], after))
    assert seen == COUPON


def test_a_reservation_has_these_transitions_and_no_others(partition: Partition) -> None:
    ways = {NONE: None, "held": "", "sold": "confirm_stock", "released": "release_stock"}
    seen: set[Transition] = set()
    for before, way in ways.items():
        for script in ("reserve_stock", "confirm_stock", "release_stock", "adopt_stock"):
            order = order_id()
            if way is not None:
                assert partition.reserve(order, ("shirt", "S", 1))[0] == "reserved"
            if way == "confirm_stock":
                partition.confirm(order, "shirt")
            elif way:
                partition.run(way, "shirt", order=order)
            if script == "reserve_stock":
                reply = partition.reserve(order, ("shirt", "S", 1))
            elif script == "confirm_stock":
                reply = partition.confirm(order, "shirt")
            else:
                reply = partition.run(script, "shirt", order=order, packed="shirt:S:1")
            after = partition.reservation(order).get("state", NONE)
            if after != before:
                seen.add(Transition(before, script, reply[0], after))
    assert seen == RESERVATION
