"""Reading products over HTTP (R2)."""

from typing import Any

import httpx
import pytest

from tests.running_shop import RunningShop, charge, place, problem, put_product


@pytest.mark.requirement("R2.1", "R2.2", "R2.5", "R2.6")
def test_a_product_shows_each_stock_item_with_what_is_available(client: httpx.Client, product: str) -> None:
    put_product(client, product, price=1500, S=3, M=0)
    assert client.get(f"/v1/products/{product}").json() == {
        "product_id": product,
        "name": f"Product {product}",
        "price": 1500,
        "currency": "KRW",
        "available": 3,
        "stock": [
            {"stock_id": "S", "product_id": product, "option": "S", "available": 3},
            {"stock_id": "M", "product_id": product, "option": "M", "available": 0},
        ],
    }


@pytest.mark.requirement("R2.6")
def test_two_products_may_use_the_same_stock_id(client: httpx.Client, product: str) -> None:
    put_product(client, product, S=3)
    put_product(client, f"{product}-b", S=8)
    assert client.get(f"/v1/products/{product}").json()["available"] == 3
    assert client.get(f"/v1/products/{product}-b").json()["available"] == 8


@pytest.mark.core
@pytest.mark.requirement("R2.5")
def test_the_list_of_products_goes_through_all_of_them_once(client: httpx.Client, product: str) -> None:
    names = [f"{product}-{number}" for number in range(5)]
    for name in names:
        put_product(client, name)
    listed = [item["product_id"] for item in all_products(client, limit=2)]
    assert listed == sorted(set(listed))
    assert set(names) <= set(listed)


def all_products(client: httpx.Client, limit: int) -> list[Any]:
    """The list, page by page: the shop of these tests has products of others too."""
    items: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/v1/products", params={"limit": limit, **cursor}).json()
        assert len(page["items"]) <= limit
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.requirement("R2.1", "R2.5")
def test_the_list_adds_up_what_is_available(client: httpx.Client, product: str) -> None:
    put_product(client, product, S=3, M=4)
    (item,) = [item for item in all_products(client, limit=100) if item["product_id"] == product]
    assert item == {
        "product_id": product,
        "name": f"Product {product}",
        "price": 1000,
        "currency": "KRW",
        "available": 7,
    }


@pytest.mark.core
@pytest.mark.requirement("R2.3", "R2.4", "R3.11")
def test_an_order_lowers_what_every_process_shows_at_once(shop: RunningShop, product: str, user: str) -> None:
    put_product(shop.client(), product, S=3, M=4)
    assert place(shop.client(0), user, (product, "S", 1), (product, "M", 2)).status_code == 201
    shown = shop.client(1).get(f"/v1/products/{product}").json()
    assert (shown["available"], [item["available"] for item in shown["stock"]]) == (4, [2, 2])


@pytest.mark.requirement("R2.3")
def test_sold_units_stay_gone(shop: RunningShop, client: httpx.Client, product: str, user: str) -> None:
    put_product(client, product, S=3)
    charge(client, user)
    assert place(client, user, (product, "S", 2), at="checkout").status_code == 201
    shop.settle()
    assert client.get(f"/v1/products/{product}").json()["available"] == 1


def test_a_product_that_there_is_not_is_not_found(client: httpx.Client, product: str) -> None:
    problem(client.get(f"/v1/products/{product}"), 404, "not-found")
