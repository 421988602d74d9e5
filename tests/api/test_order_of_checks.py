"""What is wrong in several ways is refused for the reason that the specification lists first, whatever lies where."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.operations import OPERATIONS
from tests.running_shop import place, put_campaign, put_product

ORDER_CHECKS = [
    "line-limit: lines",
    "idempotency-key-reused",
    "unknown-reference",
    "stock-id-required",
    "line-limit: quantity",
    "out-of-stock",
    "order-in-progress",
    "coupon-not-valid",
    "payment-limit",
]
BIG = 60_000_000


@pytest.fixture
def spoil(client: httpx.Client, user: str, product: str) -> Callable[[dict[str, Any], dict[str, str], str], None]:
    """Makes a request wrong in the way that a problem names."""
    put_product(client, f"{product}-two", price=10, S=5, M=5)
    put_product(client, f"{product}-few", price=10, S=1)
    put_product(client, f"{product}-dear", price=BIG, S=5)

    def spoilt(body: dict[str, Any], headers: dict[str, str], problem: str) -> None:
        def add(product_id: str, stock_id: str | None = None, quantity: int = 1) -> None:
            body["lines"].append({"product_id": product_id, "stock_id": stock_id, "quantity": quantity})

        match problem:
            case "line-limit: lines":
                body["lines"] += [body["lines"][0]] * 501
            case "line-limit: quantity":
                add(f"{product}-two", "S", 100_001)
            case "idempotency-key-reused":
                headers["Idempotency-Key"] = "spent"
            case "unknown-reference":
                add(f"{product}-none", "S")
            case "stock-id-required":
                add(f"{product}-two")
            case "out-of-stock":
                add(f"{product}-few", "S", 2)
            case "order-in-progress":
                assert place(client, user, (f"{product}-two", "M", 1)).status_code == httpx.codes.CREATED
            case "coupon-not-valid":
                body["coupon_id"] = "no-such-coupon"
            case "payment-limit":
                add(f"{product}-dear", "S")

    return spoilt


@pytest.mark.parametrize("way", ["orders", "checkout"])
@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ORDER_CHECKS, 2)))
def test_an_order_that_is_wrong_in_two_ways_is_refused_for_the_first(
    client: httpx.Client, user: str, product: str, spoil: Callable[..., None], way: str, first: str, second: str
) -> None:
    put_product(client, product, price=10, S=5)
    client.post(
        f"/v1/users/{user}/balance/charges", json={"amount": 100}, headers={"Idempotency-Key": "spent"}
    ).raise_for_status()
    body: dict[str, Any] = {"lines": [{"product_id": product, "stock_id": "S", "quantity": 1}], "coupon_id": None}
    headers: dict[str, str] = {}
    for problem in (second, first):
        spoil(body, headers, problem)
    answer = client.post(f"/v1/users/{user}/{way}", json=body, headers=headers)
    assert answer.json()["type"] == f"/problems/{first.partition(':')[0]}"


def test_that_is_the_order_which_the_specification_lists() -> None:
    for operation in OPERATIONS:
        if operation.operation_id in {"place_order", "checkout"}:
            checked = [check.partition(":")[0] for check in ORDER_CHECKS]
            assert [kind.name for kind in operation.own_problems if kind.name in checked] == checked


def refused(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).removeprefix("/problems/")


def listed(operation_id: str) -> list[str]:
    """The operation's own checks, but for those about two requests at once and about a PostgreSQL that is away."""
    others = ("request-in-progress", "history-unavailable")
    (operation,) = [operation for operation in OPERATIONS if operation.operation_id == operation_id]
    return [kind.name for kind in operation.own_problems if kind.name not in others]


def test_a_charge_is_refused_for_the_first_reason(client: httpx.Client, user: str) -> None:
    path, spent = f"/v1/users/{user}/balance/charges", {"Idempotency-Key": "spent"}
    for number in range(10):
        headers = {"Idempotency-Key": "spent" if number == 0 else str(number)}
        assert client.post(path, json={"amount": 10_000_000}, headers=headers).is_success
    answers = [
        client.post(path, json={"amount": 0}, headers=spent),
        client.post(path, json={"amount": 5}, headers=spent),
        client.post(path, json={"amount": 5}),
    ]
    assert [refused(answer) for answer in answers] == listed("charge_balance")


def test_a_coupon_is_refused_for_the_first_reason(client: httpx.Client, user: str, campaign: str) -> None:
    def take(who: str, campaign_id: str, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return client.post(f"/v1/users/{who}/coupons", json={"campaign_id": campaign_id}, headers=headers)

    put_campaign(client, campaign, quantity=1)
    assert take(user, campaign, "spent").is_success
    exhausted = take(f"{user}-2", campaign)
    put_campaign(
        client, campaign, quantity=1, opens_at="2026-01-01T00:00:00.000Z", closes_at="2026-01-02T00:00:00.000Z"
    )
    answers = [
        take(user, f"{campaign}-none", "spent"),
        take(user, f"{campaign}-none"),
        take(user, campaign),
        take(f"{user}-2", campaign),
        exhausted,
    ]
    assert [refused(answer) for answer in answers] == listed("issue_coupon")


def test_a_payment_is_refused_for_the_first_reason(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, price=10, S=5)

    def pay(order_id: str, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return client.post(f"/v1/users/{user}/orders/{order_id}/payment", headers=headers)

    charge = client.post(f"/v1/users/{user}/balance/charges", json={"amount": 5}, headers={"Idempotency-Key": "spent"})
    assert charge.is_success
    cancelled = place(client, user, (product, "S", 1)).json()["order_id"]
    assert client.post(f"/v1/users/{user}/orders/{cancelled}/cancellation").is_success
    order = place(client, user, (product, "S", 1)).json()["order_id"]
    unknown = "0195586e-9c40-7000-8000-4d1f3a2b5c6d"
    answers = [pay(unknown, "spent"), pay(unknown), pay(cancelled), pay(order)]
    assert [refused(answer) for answer in answers] == listed("pay_order")


def test_an_adjustment_is_refused_for_the_first_reason(client: httpx.Client, product: str) -> None:
    put_product(client, product, price=10, S=5)

    def adjust(stock_id: str, delta: int, key: str | None = None) -> httpx.Response:
        path = f"/admin/v1/products/{product}/stock/{stock_id}/adjustments"
        headers = {} if key is None else {"Idempotency-Key": key}
        return client.post(path, json={"delta": delta, "reason": "test"}, headers=headers)

    assert adjust("S", 1, "spent").is_success
    answers = [adjust("none", -99, "spent"), adjust("none", -99), adjust("S", -99)]
    assert [refused(answer) for answer in answers] == listed("adjust_stock")
