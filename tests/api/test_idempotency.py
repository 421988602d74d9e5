"""Idempotency keys over HTTP: one effect and one answer for each key, whoever asks, and however often."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.running_shop import (
    RunningShop,
    charge,
    place,
    problem,
    put_campaign,
    put_product,
    take_coupon,
)
from tests.servers import Databases, redis_client
from tests.shop_servers import opened_shop

AT_ONCE = 50


@pytest.fixture(scope="module")
def lost_shop(databases: Databases) -> Iterator[RunningShop]:
    """A shop of its own, whose Redis may be emptied."""
    with opened_shop(databases) as shop:
        yield shop
        shop.assert_conserved()


def order_lines(*lines: tuple[str, str, int]) -> list[dict[str, Any]]:
    return [{"product_id": product, "stock_id": stock, "quantity": quantity} for product, stock, quantity in lines]


def same(first: httpx.Response, again: httpx.Response) -> None:
    """The first answer again, but for how safe it is by now, and it says so."""
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.status_code == first.status_code
    changing = {"durable", "request_id"}
    before, after = first.json(), again.json()
    assert {name: value for name, value in after.items() if name not in changing} == {
        name: value for name, value in before.items() if name not in changing
    }
    assert again.headers.get("Location") == first.headers.get("Location")


def post(client: httpx.Client, path: str, key: str, body: Any = None) -> httpx.Response:
    return client.post(path, json=body, headers={"Idempotency-Key": key})


def balance(client: httpx.Client, user: str) -> int:
    return int(client.get(f"/v1/users/{user}/balance").json()["balance"])


def available(client: httpx.Client, product: str) -> int:
    return int(client.get(f"/v1/products/{product}").json()["available"])


@pytest.mark.core
def test_a_charge_of_one_key_is_made_once_and_answers_the_same(client: httpx.Client, user: str) -> None:
    path = f"/v1/users/{user}/balance/charges"
    first = post(client, path, "k", {"amount": 500})
    charge(client, user, 70)

    same(first, post(client, path, "k", {"amount": 500}))

    assert balance(client, user) == 570
    problem(post(client, path, "k", {"amount": 501}), 422, "idempotency-key-reused")
    assert post(client, path, "another", {"amount": 500}).status_code == 201
    assert balance(client, user) == 1070


def test_a_key_is_one_for_all_of_a_users_requests_and_no_other_users(
    client: httpx.Client, user: str, product: str, campaign: str
) -> None:
    put_product(client, product, price=100, S=5)
    put_campaign(client, campaign)
    assert post(client, f"/v1/users/{user}/balance/charges", "k", {"amount": 500}).status_code == 201

    lines = {"lines": order_lines((product, "S", 1)), "coupon_id": None}
    for path, body in (("orders", lines), ("checkout", lines), ("coupons", {"campaign_id": campaign})):
        problem(post(client, f"/v1/users/{user}/{path}", "k", body), 422, "idempotency-key-reused")
    assert post(client, f"/v1/users/{user}-2/orders", "k", lines).status_code == 201


def test_the_same_request_written_otherwise_is_the_same(client: httpx.Client, user: str) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    path = f"/v1/users/{user}/balance/charges"
    first = client.post(path, content=b'{"amount":500}', headers=headers)
    same(first, client.post(path, content=b'  {  "amount" : 500 }', headers=headers))


@pytest.mark.core
@pytest.mark.requirement("R3.10")
def test_a_placed_order_is_answered_as_it_was_though_it_is_paid_by_now(
    client: httpx.Client, user: str, product: str
) -> None:
    put_product(client, product, price=100, S=1)
    charge(client, user, 1000)
    body = {"lines": order_lines((product, "S", 1)), "coupon_id": None}
    first = post(client, f"/v1/users/{user}/orders", "k", body)
    assert first.status_code == 201
    same(first, post(client, f"/v1/users/{user}/orders", "k", body))
    paid = post(client, f"/v1/users/{user}/orders/{first.json()['order_id']}/payment", "pay")
    assert paid.json()["status"] == "completed"

    same(first, post(client, f"/v1/users/{user}/orders", "k", body))
    same(paid, post(client, f"/v1/users/{user}/orders/{first.json()['order_id']}/payment", "pay"))
    same(paid, post(client, f"/v1/users/{user}/orders/{first.json()['order_id']}/payment", "pay", {}))
    assert balance(client, user) == 900


@pytest.mark.requirement("R3.4")
@pytest.mark.parametrize("way", ["checkout", "payment"])
def test_too_small_a_balance_is_answered_again_though_there_is_enough_by_now(
    client: httpx.Client, user: str, product: str, way: str
) -> None:
    put_product(client, product, price=100, S=1)
    body: Any = {"lines": order_lines((product, "S", 1)), "coupon_id": None}
    path = f"/v1/users/{user}/checkout"
    if way == "payment":
        order = place(client, user, (product, "S", 1)).json()["order_id"]
        path, body = f"/v1/users/{user}/orders/{order}/payment", None
    first = post(client, path, "k", body)
    assert first.status_code == 402
    charge(client, user, 1000)

    same(first, post(client, path, "k", body))

    assert balance(client, user) == 1000
    assert client.get(f"/v1/products/{product}").json()["available"] == 1


def test_a_payment_that_changes_nothing_leaves_its_key_free(client: httpx.Client, user: str, product: str) -> None:
    """A key is spent by an effect: that of paying what is paid already may be another request's first."""
    put_product(client, product, price=10)
    charge(client, user)
    key = {"Idempotency-Key": "k"}
    order = place(client, user, (product, "one", 1), at="checkout").json()
    for _ in range(2):
        again = client.post(f"/v1/users/{user}/orders/{order['order_id']}/payment", headers=key)
        assert (again.status_code, again.json()["payment"]) == (200, order["payment"])
        assert "idempotent-replayed" not in again.headers
    other = place(client, user, (product, "one", 2)).json()
    for _ in range(2):
        paid = client.post(f"/v1/users/{user}/orders/{other['order_id']}/payment", headers=key)
        assert (paid.status_code, paid.json()["status"]) == (200, "completed")
    assert paid.headers["idempotent-replayed"] == "true"
    problem(
        client.post(f"/v1/users/{user}/orders/{order['order_id']}/payment", headers=key), 422, "idempotency-key-reused"
    )


def test_a_cancellation_is_answered_again(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, price=100, S=1)
    order = place(client, user, (product, "S", 1)).json()["order_id"]
    first = post(client, f"/v1/users/{user}/orders/{order}/cancellation", "k")
    again = post(client, f"/v1/users/{user}/orders/{order}/cancellation", "k")
    assert (first.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json() | {"durable": False} == first.json() | {"durable": False}
    assert len(first.json()["position"].split(",")) == 2, "where it was cancelled, and where its stock was given back"


@pytest.mark.requirement("R4.9")
def test_a_coupon_is_answered_again_though_it_is_used_by_now(
    client: httpx.Client, user: str, product: str, campaign: str
) -> None:
    put_product(client, product, price=1000, S=5)
    put_campaign(client, campaign, quantity=1)
    path, body = f"/v1/users/{user}/coupons", {"campaign_id": campaign}
    first = post(client, path, "k", body)
    place(client, user, (product, "S", 1), coupon=first.json()["coupon_id"])

    same(first, post(client, path, "k", body))

    problem(post(client, path, "another", body), 409, "coupon-already-issued")
    problem(post(client, f"/v1/users/{user}-2/coupons", "k", body), 409, "coupons-exhausted")


def test_a_refusal_that_changed_nothing_leaves_the_key_free(
    client: httpx.Client, user: str, product: str, campaign: str
) -> None:
    put_product(client, product, price=100, S=1)
    body: Any = {"lines": order_lines((product, "S", 2)), "coupon_id": None}
    problem(post(client, f"/v1/users/{user}/orders", "k", body), 409, "out-of-stock")
    problem(post(client, f"/v1/users/{user}/coupons", "k", {"campaign_id": campaign}), 422, "unknown-reference")
    body["lines"][0]["quantity"] = 1
    assert post(client, f"/v1/users/{user}/orders", "k", body).status_code == 201


def test_an_adjustment_of_one_key_is_made_once_and_the_key_is_the_products(client: httpx.Client, product: str) -> None:
    put_product(client, product, price=100, S=1)
    put_product(client, f"{product}-2", price=100, S=1)
    path, body = "/admin/v1/products/{}/stock/S/adjustments", {"delta": 5, "reason": "found"}
    first = post(client, path.format(product), "k", body)

    same(first, post(client, path.format(product), "k", body))

    assert client.get(f"/v1/products/{product}").json()["available"] == 6
    problem(post(client, path.format(product), "k", {"delta": 6, "reason": "found"}), 422, "idempotency-key-reused")
    assert post(client, path.format(f"{product}-2"), "k", body).status_code == 201


@pytest.mark.parametrize("what", ["balance/charges", "orders", "checkout", "coupons"])
async def test_fifty_at_once_have_one_effect_and_one_answer(
    shop: RunningShop, client: httpx.Client, user: str, product: str, campaign: str, what: str
) -> None:
    """Through two processes, with stock and coupons for exactly one; and again when all is sold out."""
    put_product(client, product, price=100, S=1)
    put_campaign(client, campaign, quantity=1)
    charge(client, user, 1000)
    lines = {"lines": order_lines((product, "S", 1)), "coupon_id": None}
    more = {"lines": order_lines((product, "S", 2)), "coupon_id": None}
    body, other = {
        "balance/charges": ({"amount": 7}, {"amount": 8}),
        "orders": (lines, more),
        "checkout": (lines, more),
        "coupons": ({"campaign_id": campaign}, {"campaign_id": f"{campaign}-2"}),
    }[what]

    async def ask(crowd: httpx.AsyncClient) -> httpx.Response:
        while True:
            headers = {"Idempotency-Key": "rush"}
            answer = await crowd.post(f"/v1/users/{user}/{what}", json=body, headers=headers)
            if answer.status_code != httpx.codes.CONFLICT:
                return answer
            problem(answer, 409, "request-in-progress")
            await asyncio.sleep(0.01)

    async def at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=shop.url(0)) as here, httpx.AsyncClient(base_url=shop.url(1)) as there:
            return await asyncio.gather(*(ask((here, there)[number % 2]) for number in range(AT_ONCE)))

    answers = await at_once()
    assert {answer.status_code for answer in answers} == {201}
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    bodies = [{**answer.json(), "durable": None} for answer in answers]
    assert all(each == bodies[0] for each in bodies)
    # Sold out by now where anything was to be sold, and yet the same for everybody who comes with this key.
    again = await at_once()
    assert {answer.headers.get("Idempotent-Replayed") for answer in again} == {"true"}
    assert all({**answer.json(), "durable": None} == bodies[0] for answer in again)
    problem(post(client, f"/v1/users/{user}/{what}", "rush", other), 422, "idempotency-key-reused")
    if what in {"orders", "checkout"}:
        charge(client, f"{user}-2", 1000)
        problem(post(client, f"/v1/users/{user}-2/{what}", "rush", body), 409, "out-of-stock")
    expected = {"balance/charges": 1007, "checkout": 900}.get(what, 1000)
    assert balance(client, user) == expected
    assert available(client, product) == (0 if what in {"orders", "checkout"} else 1)


def test_keys_of_the_last_day_survive_the_loss_of_redis(lost_shop: RunningShop) -> None:
    client = lost_shop.client()
    put_product(client, "cup", price=100, S=1)
    put_campaign(client, "spring")
    charge(client, "ann", 1000)
    coupon = take_coupon(client, "ann", "spring")
    body = {"lines": order_lines(("cup", "S", 1)), "coupon_id": None}
    first = [
        post(client, "/v1/users/bob/balance/charges", "k", {"amount": 500}),
        post(client, "/v1/users/ann/checkout", "k", body),
        post(client, "/v1/users/cho/coupons", "k", {"campaign_id": "spring"}),
        post(client, "/admin/v1/products/cup/stock/S/adjustments", "k", {"delta": 5, "reason": "found"}),
    ]
    assert coupon
    lost_shop.settle()
    with psycopg.connect(lost_shop.database_url) as connection:
        ((kept,),) = connection.execute("SELECT count(*) FROM idempotency_key").fetchall()
        assert kept == len(first)
        connection.execute("UPDATE idempotency_key SET spent_at = spent_at - interval '1 day' WHERE owner = 'cho'")
    with redis_client(lost_shop.redis_url) as redis:
        redis.flushall()
    lost_shop.wait_until_ready()

    for answer in (first[0], first[1], first[3]):
        request = answer.request
        same(answer, client.post(request.url.path, content=request.content, headers=request.headers))
    late = post(client, "/v1/users/cho/coupons", "k", {"campaign_id": "spring"})
    problem(late, 409, "coupon-already-issued")
    with redis_client(lost_shop.redis_url) as redis:
        ages = [redis.pttl(key) for key in redis.scan_iter("fc:*:key:*:*") if b"cho" not in key]
    assert len(ages) == 3
    assert all(86_400_000 - 600_000 < age <= 86_400_000 for age in ages)
