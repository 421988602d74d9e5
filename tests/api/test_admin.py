"""What operators change and look at."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from engine.settings import without_password
from tests.running_shop import (
    RunningShop,
    charge,
    place,
    problem,
    put_campaign,
    put_product,
    take_coupon,
)
from tests.servers import Databases
from tests.shop_servers import opened_shop


def put(client: httpx.Client, product: str, **changes: Any) -> httpx.Response:
    stock = [{"stock_id": "S", "option": "small", "initial_quantity": 5}]
    return client.put(f"/admin/v1/products/{product}", json={"name": "Tee", "price": 100, "stock": stock, **changes})


def adjust(client: httpx.Client, product: str, delta: int, stock_id: str = "S") -> httpx.Response:
    path = f"/admin/v1/products/{product}/stock/{stock_id}/adjustments"
    return client.post(path, json={"delta": delta, "reason": "count"})


@pytest.mark.requirement("R2.1", "R2.2")
def test_a_product_is_made_then_changed(client: httpx.Client, product: str) -> None:
    made = put(client, product)
    assert (made.status_code, made.headers["location"]) == (201, f"/v1/products/{product}")
    more = [
        {"stock_id": "S", "option": "petit", "initial_quantity": 99},
        {"stock_id": "L", "option": "large", "initial_quantity": 7},
    ]
    changed = put(client, product, name="반팔 티셔츠", price=0, stock=more)
    assert changed.status_code == 200
    assert client.get(f"/v1/products/{product}").json() == {
        "product_id": product,
        "name": "반팔 티셔츠",
        "price": 0,
        "currency": "KRW",
        "available": 12,
        "stock": [
            {"stock_id": "S", "product_id": product, "option": "petit", "available": 5},
            {"stock_id": "L", "product_id": product, "option": "large", "available": 7},
        ],
    }


def test_a_stock_item_left_out_stays(client: httpx.Client, product: str) -> None:
    put_product(client, product, S=5, M=6)
    put(client, product)
    assert [item["available"] for item in client.get(f"/v1/products/{product}").json()["stock"]] == [5, 6]


@pytest.mark.requirement("R0.8")
def test_a_price_beyond_the_policy_is_refused(client: httpx.Client, product: str) -> None:
    answer = put(client, product, price=100_000_001)
    assert problem(answer, 422, "invalid-request")["errors"][0]["location"] == "body.price"
    problem(client.get(f"/v1/products/{product}"), 404, "not-found")


def test_a_product_cannot_grow_more_stock_items_than_it_may_have(client: httpx.Client, product: str) -> None:
    def items(first: int, count: int) -> list[dict[str, Any]]:
        return [{"stock_id": f"s{n}", "option": "o", "initial_quantity": 1} for n in range(first, first + count)]

    assert put(client, product, stock=items(0, 200)).status_code == 201
    assert problem(put(client, product, stock=items(200, 1)), 422, "invalid-request")
    assert len(client.get(f"/v1/products/{product}").json()["stock"]) == 200


@pytest.mark.requirement("R0.3", "R2.2")
def test_stock_is_adjusted_and_never_falls_below_zero(client: httpx.Client, user: str, product: str) -> None:
    put(client, product)
    place(client, user, (product, "S", 2))
    lowered = adjust(client, product, -3)
    assert (lowered.status_code, lowered.json()["available"], lowered.json()["option"]) == (201, 0, "small")
    assert problem(adjust(client, product, -1), 409, "stock-limit")["available"] == 0
    assert adjust(client, product, 4).json()["available"] == 4
    assert problem(adjust(client, product, 2**53 - 1), 409, "stock-limit")["available"] == 4
    for product_id, stock_id in ((product, "XXL"), (f"{product}-b", "S")):
        refused = problem(adjust(client, product_id, 1, stock_id), 404, "not-found")
        assert refused["detail"] == f"There is no product {product_id} with a stock item {stock_id}."


def test_a_campaign_is_made_then_changed_and_keeps_what_it_issued(
    client: httpx.Client, user: str, campaign: str
) -> None:
    assert put_campaign(client, campaign, quantity=3)["remaining"] == 3
    for number in range(2):
        take_coupon(client, f"{user}-{number}", campaign)
    assert put_campaign(client, campaign, quantity=2, name="여름")["remaining"] == 0
    shown = client.get(f"/v1/campaigns/{campaign}").json()
    assert (shown["name"], shown["quantity"], shown["remaining"]) == ("여름", 2, 0)
    body = {key: shown[key] for key in ("name", "discount", "opens_at", "closes_at", "valid_days")}
    refused = client.put(f"/admin/v1/campaigns/{campaign}", json={**body, "quantity": 1})
    assert problem(refused, 409, "quantity-below-issued")["issued"] == 2


def test_a_campaign_that_would_close_before_it_opens_is_refused(client: httpx.Client, campaign: str) -> None:
    body = {
        "name": "Odd",
        "discount": {"kind": "amount", "value": 1},
        "quantity": 1,
        "opens_at": "2026-01-02T00:00:00.000Z",
        "closes_at": "2026-01-01T00:00:00.000Z",
        "valid_days": 1,
    }
    problem(client.put(f"/admin/v1/campaigns/{campaign}", json=body), 422, "invalid-request")
    problem(client.get(f"/v1/campaigns/{campaign}"), 404, "not-found")


def test_operators_changes_can_be_waited_for(client: httpx.Client, product: str, campaign: str) -> None:
    durable = {"Prefer": "durable, wait=10"}
    stock = [{"stock_id": "S", "option": "small", "initial_quantity": 5}]
    body = {"name": "Tee", "price": 100, "stock": stock}
    made = client.put(f"/admin/v1/products/{product}", json=body, headers=durable)
    assert made.json()["durable"] is True
    path = f"/admin/v1/products/{product}/stock/S/adjustments"
    changed = client.post(path, json={"delta": 1, "reason": "count"}, headers=durable)
    assert changed.json()["durable"] is True


def test_the_status_tells_partitions_backlog_servers_and_versions(shop: RunningShop, client: httpx.Client) -> None:
    shop.settle()
    status = client.get("/admin/v1/status").json()
    assert (status["trusted"], status["backlog"], len(status["partitions"])) == (64, 0, 64)
    assert status["lag_ms"] == 0
    assert [(server["kind"], server["reachable"]) for server in status["servers"]] == [
        ("redis", True),
        ("postgresql", True),
    ]
    assert {partition["state"] for partition in status["partitions"]} == {"trusted"}


def test_the_servers_addresses_are_shown_without_their_passwords(shop: RunningShop, client: httpx.Client) -> None:
    servers = client.get("/admin/v1/status").json()["servers"]
    assert {server["kind"]: server["address"] for server in servers} == {
        "redis": without_password(shop.redis_url),
        "postgresql": without_password(shop.database_url),
    }


def test_a_shop_in_which_nothing_went_wrong_has_no_alarms(client: httpx.Client) -> None:
    for state in ("open", "cleared"):
        assert client.get("/admin/v1/alarms", params={"state": state}).json() == {"items": [], "next_cursor": None}


@pytest.fixture(scope="module")
def paid_orders(databases: Databases) -> Iterator[tuple[RunningShop, list[str]]]:
    """A shop with five paid orders and no data platform to tell."""
    with opened_shop(databases) as shop:
        client = shop.client()
        put_product(client, "tea", price=1)
        charge(client, "mina")
        orders = [place(client, "mina", ("tea", "one", 1), at="checkout").json()["order_id"] for _ in range(5)]
        shop.settle()
        yield shop, orders


@pytest.mark.requirement("R3.5")
def test_deliveries_wait_while_there_is_no_data_platform(paid_orders: tuple[RunningShop, list[str]]) -> None:
    shop, orders = paid_orders
    client = shop.client()
    listed: list[dict[str, Any]] = []
    query: dict[str, str | int] = {"limit": 2, "state": "pending"}
    while True:
        page = client.get("/admin/v1/deliveries", params=query).json()
        listed += page["items"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert [(item["order_id"], item["user_id"], item["tries"]) for item in listed] == [
        (order, "mina", 0) for order in reversed(orders)
    ]
    assert client.get("/admin/v1/deliveries", params={"state": "delivered"}).json()["items"] == []
    filters: list[tuple[dict[str, str | int], list[str]]] = [
        ({"order_id": orders[1]}, [orders[1]]),
        ({"order_id": "nobody-knows-it"}, []),
        ({"user_id": "mina", "state": "pending", "limit": 3}, orders[:1:-1]),
        ({"user_id": "nobody"}, []),
    ]
    for chosen, wanted in filters:
        found = client.get("/admin/v1/deliveries", params=chosen).json()["items"]
        assert [item["order_id"] for item in found] == wanted
    replayed = client.post(f"/admin/v1/deliveries/{listed[0]['delivery_id']}/replay")
    assert (replayed.status_code, replayed.json()["state"]) == (200, "pending")
    problem(client.post("/admin/v1/deliveries/999999/replay"), 404, "not-found")
    problem(client.post(f"/admin/v1/deliveries/{'9' * 16}/replay"), 404, "not-found")


@pytest.mark.parametrize("path", ["deliveries", "alarms"])
@pytest.mark.parametrize("cursor", ["x", "YWJj", "LTE=", "MTIzNDU2Nzg5MDEyMzQ1Njc="])
def test_operators_cursors_are_checked_too(client: httpx.Client, path: str, cursor: str) -> None:
    answer = client.get(f"/admin/v1/{path}", params={"cursor": cursor})
    assert problem(answer, 422, "invalid-request")["errors"][0]["location"] == "query.cursor"
