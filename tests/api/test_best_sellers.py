"""The products sold most, over HTTP (R5). The shop is this module's own, so that nobody else sells in it."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.running_shop import RunningShop, charge, eventually, place, put_product
from tests.servers import Databases
from tests.shop_servers import opened_shop

ZONE = ZoneInfo("Asia/Seoul")
SOLD = {"p1": 5, "p2": 9, "p3": 1, "p4": 7, "p5": 3, "p6": 2}


@pytest.fixture(scope="module")
def shop(databases: Databases) -> Iterator[RunningShop]:
    """Six products were sold, in two sizes; one more was ordered and not paid, one ordered and cancelled."""
    with opened_shop(databases) as shop:
        client = shop.client()
        charge(client, "buyer")
        for product, units in SOLD.items():
            put_product(client, product, S=100, M=100)
            lines = [(product, "S", units - 1), (product, "M", 1)] if units > 1 else [(product, "S", 1)]
            assert place(client, "buyer", *lines, at="checkout").status_code == 201
        put_product(client, "unpaid", S=100)
        assert place(client, "slow", ("unpaid", "S", 50)).status_code == 201
        order = place(client, "fickle", ("p3", "S", 50)).json()["order_id"]
        assert client.post(f"/v1/users/fickle/orders/{order}/cancellation").status_code == 200
        eventually(
            lambda: sum(item["quantity_sold"] for item in best(client, limit=50)) == sum(SOLD.values()),
            what="every paid unit counts",
        )
        yield shop
        shop.assert_conserved()
        assert shop.errors_logged() == []


@pytest.fixture(scope="module")
def client(shop: RunningShop) -> httpx.Client:
    return shop.client()


def best(client: httpx.Client, **query: int) -> list[dict[str, Any]]:
    return list(client.get("/v1/best-sellers", params=query).json()["items"])


@pytest.mark.requirement("R5.1")
def test_the_five_sold_most_in_three_days_are_listed_by_rank(client: httpx.Client) -> None:
    listed = [(item["rank"], item["product_id"], item["quantity_sold"]) for item in best(client)]
    assert listed == [(1, "p2", 9), (2, "p4", 7), (3, "p1", 5), (4, "p5", 3), (5, "p6", 2)]


@pytest.mark.requirement("R5.1")
def test_a_best_seller_shows_its_name_and_price(client: httpx.Client) -> None:
    assert best(client, limit=1) == [
        {"rank": 1, "product_id": "p2", "name": "Product p2", "price": 1000, "quantity_sold": 9}
    ]


@pytest.mark.requirement("R5.2")
def test_what_is_ordered_and_not_paid_does_not_count(client: httpx.Client) -> None:
    counted = {item["product_id"]: item["quantity_sold"] for item in best(client, limit=50)}
    assert counted == SOLD


@pytest.mark.requirement("R5.1", "R5.2")
@pytest.mark.parametrize("days", [1, 3, 7])
def test_the_dates_are_business_days_with_today_included(client: httpx.Client, days: int) -> None:
    before = datetime.now(ZONE).date()
    answer = client.get("/v1/best-sellers", params={"days": days}).json()
    after = datetime.now(ZONE).date()
    assert answer["to"] in {before.isoformat(), after.isoformat()}
    first = datetime.fromisoformat(answer["to"]).date() - timedelta(days=days - 1)
    assert (answer["from"], answer["time_zone"]) == (first.isoformat(), "Asia/Seoul")
    assert len(answer["items"]) == 5
