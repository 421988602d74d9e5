"""Balance entries and orders from PostgreSQL, page by page, together with what it does not have yet (R1, R3)."""

from typing import Any

import httpx
import pytest

from tests.running_shop import RunningShop, charge, place, problem, put_product


def all_pages(client: httpx.Client, path: str, limit: int) -> list[dict[str, Any]]:
    """Every item of a list, in pages of at most `limit`."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.get(path, params={"limit": limit} | ({"cursor": cursor} if cursor else {})).json()
        assert 0 < len(page["items"]) <= limit or not found
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.core
@pytest.mark.requirement("R1.3", "R3.14")
def test_entries_tell_every_change_of_a_balance_newest_first(
    shop: RunningShop, client: httpx.Client, user: str, product: str
) -> None:
    put_product(client, product, price=40)
    for amount in (10, 20, 30):
        charge(client, user, amount)
    order = place(client, user, (product, "one", 1), at="checkout").json()
    shop.settle()
    entries = all_pages(client, f"/v1/users/{user}/balance/entries", 3)
    assert [(entry["kind"], entry["amount"], entry["balance"], entry["order_id"]) for entry in entries] == [
        ("payment", -40, 20, order["order_id"]),
        ("charge", 30, 60, None),
        ("charge", 20, 30, None),
        ("charge", 10, 10, None),
    ]
    assert entries[0]["at"] == order["payment"]["paid_at"]
    assert len({entry["entry_id"] for entry in entries}) == 4


@pytest.mark.core
@pytest.mark.requirement("R1.3")
def test_a_history_read_after_a_position_includes_that_change(client: httpx.Client, user: str) -> None:
    for amount in range(1, 21):
        answer = client.post(f"/v1/users/{user}/balance/charges", json={"amount": amount})
        entries = client.get(
            f"/v1/users/{user}/balance/entries", params={"limit": 1, "after": answer.json()["position"]}
        ).json()
        assert entries["items"][0]["amount"] == amount


def test_a_change_that_was_waited_for_is_in_postgresql(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, price=10)
    durable = {"Prefer": "durable; wait=10"}
    charged = client.post(f"/v1/users/{user}/balance/charges", json={"amount": 100}, headers=durable)
    assert charged.json()["durable"] is True
    assert charged.headers["preference-applied"] == "durable"
    assert client.get(f"/v1/users/{user}/balance/entries").json()["items"][0]["amount"] == 100
    lines = [{"product_id": product, "quantity": 1}]
    bought = client.post(f"/v1/users/{user}/checkout", json={"lines": lines}, headers=durable)
    assert bought.json()["durable"] is True
    position = client.get(f"/v1/positions/{bought.json()['position']}").json()
    assert position["state"] == "durable"


def test_nobody_waits_who_does_not_ask(client: httpx.Client, user: str) -> None:
    for preference in ({}, {"Prefer": "durable; wait=0"}, {"Prefer": "respond-async"}):
        answer = client.post(f"/v1/users/{user}/balance/charges", json={"amount": 1}, headers=preference)
        assert answer.json()["durable"] is False
        assert "preference-applied" not in answer.headers


@pytest.mark.requirement("R3.8", "R3.18")
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_orders_are_listed_newest_first_each_once_whatever_the_page(
    shop: RunningShop, client: httpx.Client, user: str, product: str, limit: int
) -> None:
    put_product(client, product, price=1)
    charge(client, user)
    made = [place(client, user, (product, "one", 1), at="checkout").json()["order_id"] for _ in range(4)]
    shop.settle()
    made.append(place(client, user, (product, "one", 2)).json()["order_id"])
    listed = all_pages(client, f"/v1/users/{user}/orders", limit)
    assert [order["order_id"] for order in listed] == made[::-1]
    assert [order["status"] for order in listed] == ["awaiting_payment"] + ["completed"] * 4
    shop.settle()
    again = all_pages(client, f"/v1/users/{user}/orders", limit)
    assert [order["order_id"] for order in again] == made[::-1]


def test_the_open_order_is_listed_before_it_is_durable(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product)
    for _ in range(10):
        order = place(client, user, (product, "one", 1)).json()["order_id"]
        listed = client.get(f"/v1/users/{user}/orders", params={"limit": 1}).json()["items"]
        assert [(item["order_id"], item["status"]) for item in listed] == [(order, "awaiting_payment")]
        client.post(f"/v1/users/{user}/orders/{order}/cancellation")
        listed = client.get(f"/v1/users/{user}/orders", params={"limit": 1}).json()["items"]
        assert [(item["order_id"], item["status"]) for item in listed] == [(order, "failed")]


def test_a_listed_order_is_the_same_as_the_one_read(
    shop: RunningShop, client: httpx.Client, user: str, product: str
) -> None:
    put_product(client, product, S=5, M=5)
    charge(client, user)
    order = place(client, user, (product, "M", 1), (product, "S", 2), at="checkout").json()
    place(client, user, (product, "M", 1))
    shop.settle()
    listed = client.get(f"/v1/users/{user}/orders").json()["items"][1]
    read = client.get(f"/v1/users/{user}/orders/{order['order_id']}").json()
    assert listed == read
    assert read["lines"] == order["lines"]
    assert read["durable"] is True


def test_a_user_nobody_has_seen_has_an_empty_history(client: httpx.Client, user: str) -> None:
    assert client.get(f"/v1/users/{user}/balance/entries").json() == {"items": [], "next_cursor": None}
    assert client.get(f"/v1/users/{user}/orders").json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("path", ["balance/entries", "orders", "coupons"])
@pytest.mark.parametrize("cursor", ["x", "====", "W10", "WyJhIl0", "bnVsbA", "W251bGwsbnVsbF0", "WzFd" * 100])
def test_a_cursor_that_no_page_gave_is_refused(client: httpx.Client, user: str, path: str, cursor: str) -> None:
    answer = client.get(f"/v1/users/{user}/{path}", params={"cursor": cursor})
    assert problem(answer, 422, "invalid-request")["errors"][0]["location"] == "query.cursor"
