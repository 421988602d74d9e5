"""Every limit that holds is told (R0.8)."""

from collections.abc import Iterator

import httpx
import pytest

from tests.running_shop import RunningShop, problem, put_product
from tests.servers import Databases
from tests.shop_servers import opened_shop


@pytest.mark.requirement("R0.8", "R3.13")
def test_the_policies_tell_every_limit_currency_and_time_zone(client: httpx.Client) -> None:
    assert client.get("/v1/policies").json() == {
        "currency": "KRW",
        "time_zone": "Asia/Seoul",
        "minimum_charge": 1,
        "maximum_charge": 10_000_000,
        "maximum_balance": 100_000_000,
        "maximum_payment": 50_000_000,
        "maximum_unit_price": 100_000_000,
        "maximum_quantity": 100_000,
        "maximum_lines": 500,
        "minimum_discount": 1,
        "maximum_discount": 1_000_000,
        "payment_deadline_seconds": 86_400,
    }


@pytest.fixture(scope="module")
def strict_shop(databases: Databases) -> Iterator[RunningShop]:
    """Every limit is another number."""
    limits = {
        "charge_min": 10,
        "charge_max": 20,
        "balance_max": 30,
        "lines_max": 1,
        "payment_max": 40,
        "unit_price_max": 1_050,
        "line_quantity_max": 60,
        "discount_min": 7,
        "discount_max": 80,
        "payment_deadline_ms": 90_000,
    }
    with opened_shop(databases, **limits, currency="USD", time_zone="Europe/Paris") as shop:
        yield shop


@pytest.mark.requirement("R0.8")
def test_what_is_set_otherwise_is_told_and_holds(strict_shop: RunningShop) -> None:
    client = strict_shop.client()
    policies = client.get("/v1/policies").json()
    assert policies == {
        "currency": "USD",
        "time_zone": "Europe/Paris",
        "minimum_charge": 10,
        "maximum_charge": 20,
        "maximum_balance": 30,
        "maximum_payment": 40,
        "maximum_unit_price": 1_050,
        "maximum_quantity": 60,
        "maximum_lines": 1,
        "minimum_discount": 7,
        "maximum_discount": 80,
        "payment_deadline_seconds": 90,
    }
    assert put_product(client, "tea")["currency"] == policies["currency"] == "USD"
    path = "/v1/users/mina/balance/charges"
    assert problem(client.post(path, json={"amount": 9}), 422, "charge-limit")["minimum"] == 10
    assert problem(client.post(path, json={"amount": 21}), 422, "charge-limit")["maximum"] == 20
    assert client.post(path, json={"amount": 20}).status_code == 201
    assert problem(client.post(path, json={"amount": 11}), 409, "balance-limit")["maximum"] == 30
    lines = [{"product_id": "tea", "quantity": 1}] * 2
    assert problem(client.post("/v1/users/mina/orders", json={"lines": lines}), 422, "line-limit")["maximum"] == 1
