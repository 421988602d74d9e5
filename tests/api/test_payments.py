"""Paying placed orders over HTTP: enough, too little, too late (R3.3, R3.4, R3.12 to R3.17)."""

from collections.abc import Iterator

import httpx
import pytest

from tests.running_shop import (
    RunningShop,
    charge,
    eventually,
    place,
    problem,
    put_campaign,
    put_product,
    take_coupon,
)
from tests.servers import Databases
from tests.shop_servers import opened_shop

DEADLINE_MS = 1200


@pytest.fixture(scope="module")
def hasty_shop(databases: Databases) -> Iterator[RunningShop]:
    """A shop whose orders expire soon."""
    with opened_shop(databases, payment_deadline_ms=DEADLINE_MS, walk_every_ms=100) as shop:
        yield shop
        shop.assert_conserved()
        assert shop.errors_logged() == []


def available(client: httpx.Client, product: str) -> list[int]:
    return [item["available"] for item in client.get(f"/v1/products/{product}").json()["stock"]]


def balance(client: httpx.Client, user: str) -> int:
    return int(client.get(f"/v1/users/{user}/balance").json()["balance"])


@pytest.mark.core
@pytest.mark.requirement("R3.3", "R3.7", "R3.12", "R3.14", "R3.15", "R4.10")
def test_paying_takes_the_total_completes_the_order_and_uses_up_the_coupon(
    client: httpx.Client, user: str, product: str, campaign: str
) -> None:
    put_product(client, product, price=1000, S=5)
    put_campaign(client, campaign)
    coupon = take_coupon(client, user, campaign)
    charge(client, user, 2000)
    order = place(client, user, (product, "S", 2), coupon=coupon).json()
    assert (order["subtotal"], order["discount"], order["total"]) == (2000, 300, 1700)
    assert balance(client, user) == 2000
    answer = client.post(f"/v1/users/{user}/orders/{order['order_id']}/payment")
    paid = answer.json()
    assert (answer.status_code, paid["status"], paid["payment"]["status"]) == (200, "completed", "paid")
    assert paid["payment"]["paid_at"] >= order["ordered_at"]
    assert balance(client, user) == 300
    used = client.get(f"/v1/users/{user}/coupons/{coupon}").json()
    assert (used["state"], used["reason"], used["order_id"]) == ("invalid", "used", order["order_id"])
    assert used["used_at"] == paid["payment"]["paid_at"]
    again = problem(place(client, user, (product, "S", 1), coupon=coupon), 409, "coupon-not-valid")
    assert (again["coupon_id"], again["reason"]) == (coupon, "used")
    assert available(client, product) == [3]


@pytest.mark.core
@pytest.mark.requirement("R3.14")
def test_paying_a_completed_order_again_answers_the_same_and_takes_nothing(
    client: httpx.Client, user: str, product: str
) -> None:
    put_product(client, product, price=1000, S=5)
    charge(client, user, 2500)
    path = f"/v1/users/{user}/orders/{place(client, user, (product, 'S', 1)).json()['order_id']}/payment"
    first, second = client.post(path, json={}), client.post(path)
    assert (first.status_code, second.status_code) == (200, 200)
    assert {**second.json(), "durable": False} == {**first.json(), "durable": False}
    assert balance(client, user) == 1500


@pytest.mark.parametrize("deed", ["payment", "cancellation"])
def test_who_pays_or_cancels_again_is_told_that_it_is_durable_by_now(
    shop: RunningShop, client: httpx.Client, user: str, product: str, deed: str
) -> None:
    put_product(client, product, price=1000, S=5)
    charge(client, user, 2500)
    path = f"/v1/users/{user}/orders/{place(client, user, (product, 'S', 1)).json()['order_id']}/{deed}"
    first = client.post(path)
    shop.settle()
    again = client.post(path)
    assert again.json() == {**first.json(), "durable": True}
    assert "idempotent-replayed" not in again.headers


@pytest.mark.core
@pytest.mark.requirement("R3.4", "R3.7", "R3.16", "R3.17")
def test_too_small_a_balance_fails_the_order_and_gives_stock_and_coupon_back(
    shop: RunningShop, client: httpx.Client, user: str, product: str, campaign: str
) -> None:
    """The coupon is usable in the very next order."""
    others = [f"{product}-{number}" for number in range(3)]
    for each in others:
        put_product(client, each, price=1000, S=5, M=5)
    put_campaign(client, campaign)
    coupon = take_coupon(client, user, campaign)
    charge(client, user, 5699)
    lines = [(each, stock, 1) for each in others for stock in "SM"]
    order = place(client, user, *lines, coupon=coupon).json()
    assert [available(client, each) for each in others] == [[4, 4]] * 3
    refused = problem(client.post(f"/v1/users/{user}/orders/{order['order_id']}/payment"), 402, "insufficient-balance")
    assert (refused["order_id"], refused["balance"], refused["total"]) == (order["order_id"], 5699, 5700)
    assert [available(shop.client(1), each) for each in others] == [[5, 5]] * 3
    failed = client.get(f"/v1/users/{user}/orders/{order['order_id']}").json()
    assert (failed["status"], failed["payment"]["status"]) == ("failed", "failed")
    assert failed["payment"]["failure"] == "insufficient_balance"
    assert client.get(f"/v1/users/{user}/coupons/{coupon}").json()["state"] == "valid"
    charge(client, user, 1)
    late = problem(client.post(f"/v1/users/{user}/orders/{order['order_id']}/payment"), 409, "order-not-payable")
    assert late["failure"] == "insufficient_balance"
    retried = place(client, user, *lines, coupon=coupon).json()
    paid = client.post(f"/v1/users/{user}/orders/{retried['order_id']}/payment").json()
    assert (paid["status"], paid["discount"], paid["coupon_id"]) == ("completed", 300, coupon)
    assert balance(client, user) == 0


@pytest.mark.requirement("R3.7", "R3.13", "R3.16", "R3.17")
def test_an_unpaid_order_expires_and_gives_stock_and_coupon_back(hasty_shop: RunningShop) -> None:
    client = hasty_shop.client()
    put_product(client, "tea", S=5, M=5)
    put_campaign(client, "spring")
    coupon = take_coupon(client, "slow", "spring")
    charge(client, "slow")
    order = place(client, "slow", ("tea", "S", 2), ("tea", "M", 1), coupon=coupon).json()
    path = f"/v1/users/slow/orders/{order['order_id']}"
    assert available(client, "tea") == [3, 4]
    eventually(lambda: client.get(path).json()["status"] == "failed", what="the order expires")
    assert client.get(path).json()["payment"]["failure"] == "expired"
    eventually(lambda: available(client, "tea") == [5, 5], what="the stock is back")
    assert client.get(f"/v1/users/slow/coupons/{coupon}").json()["state"] == "valid"
    late = problem(client.post(f"{path}/payment"), 409, "order-not-payable")
    assert (late["order_status"], late["failure"]) == ("failed", "expired")
    assert balance(client, "slow") == 100_000
    assert place(client, "slow", ("tea", "S", 5), coupon=coupon, at="checkout").json()["discount"] == 300


@pytest.mark.requirement("R3.13", "R3.16")
def test_a_payment_after_the_deadline_expires_the_order_even_while_no_worker_runs(databases: Databases) -> None:
    with opened_shop(databases, payment_deadline_ms=1) as shop:
        shop.workers[0].stop()
        client = shop.client()
        put_product(client, "tea", S=5)
        charge(client, "slow")
        order = place(client, "slow", ("tea", "S", 2)).json()["order_id"]
        late = problem(client.post(f"/v1/users/slow/orders/{order}/payment"), 409, "order-not-payable")
        assert (late["order_status"], late["failure"]) == ("failed", "expired")
        assert available(client, "tea") == [5]
        assert balance(client, "slow") == 100_000
        shop.workers[0].start()
        shop.assert_conserved()


@pytest.mark.requirement("R3.13")
def test_an_expired_order_that_nobody_swept_yet_does_not_bar_the_next_one_for_long(hasty_shop: RunningShop) -> None:
    client = hasty_shop.client()
    put_product(client, "cup", S=5)
    first = place(client, "late", ("cup", "S", 5)).json()["order_id"]
    eventually(lambda: place(client, "late", ("cup", "S", 1)).status_code == 201, what="the user may order again")
    expired = client.get(f"/v1/users/late/orders/{first}").json()
    assert (expired["status"], expired["payment"]["failure"]) == ("failed", "expired")
