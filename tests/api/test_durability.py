"""A shop whose answers wait for PostgreSQL by a setting, and what it answers when nobody writes there."""

from collections.abc import Iterator

import httpx
import pytest

from engine.partitions import Partitions
from tests.running_shop import (
    PARTITIONS,
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

BACKLOG_MAX = 12
AT_ONCE = {"Prefer": "wait=0"}


@pytest.fixture(scope="module")
def waiting_shop(databases: Databases) -> Iterator[RunningShop]:
    """Little may be waiting for its worker."""
    with opened_shop(
        databases, durable_by_default="true", backlog_max=BACKLOG_MAX, backlog_headroom=1_000, walk_every_ms=100
    ) as shop:
        put_product(shop.client(), "tea", price=100)
        put_campaign(shop.client(), "spring")
        yield shop


def test_answers_wait_until_they_are_durable_where_that_is_the_default(waiting_shop: RunningShop) -> None:
    client = waiting_shop.client()
    answer = client.post("/v1/users/ann/balance/charges", json={"amount": 500})
    assert (answer.status_code, answer.json()["durable"]) == (201, True)
    assert "preference-applied" not in answer.headers, "nobody has asked"
    assert client.get(f"/v1/positions/{answer.json()['position']}").json()["state"] == "durable"
    coupon = take_coupon(client, "ann", "spring")
    order = place(client, "ann", ("tea", "one", 4), coupon=coupon).json()
    paid = client.post(f"/v1/users/ann/orders/{order['order_id']}/payment").json()
    assert (order["durable"], paid["durable"], paid["status"]) == (True, True, "completed")


def test_waiting_ends_when_its_time_is_over_and_who_opts_out_does_not_wait(waiting_shop: RunningShop) -> None:
    """No worker is there, so nothing becomes durable: whoever waits for long is seen to."""
    client, (worker,) = waiting_shop.client(), waiting_shop.workers
    worker.stop()
    try:
        at_once = [charge_at_once(client, "bob") for _ in range(3)]
        waited = client.post("/v1/users/bob/balance/charges", json={"amount": 1})
    finally:
        worker.start()
    for answer in (*at_once, waited):
        assert (answer.status_code, answer.json()["durable"]) == (201, False)
    assert min(answer.elapsed.total_seconds() for answer in at_once) < 1
    assert waited.elapsed.total_seconds() >= 2
    eventually(lambda: state_of(client, waited) == "durable", what="it is durable once somebody writes")


@pytest.mark.parametrize("way", ["checkout", "payment"])
def test_a_refusal_that_has_failed_an_order_waits_until_that_is_durable(waiting_shop: RunningShop, way: str) -> None:
    client, user = waiting_shop.client(), f"poor-{way}"

    def refused(wait: str) -> tuple[httpx.Response, bool]:
        """What it was answered, and whether the order was shown as durable right after."""
        headers = {"Prefer": f"durable, wait={wait}"}
        if way == "checkout":
            body = {"lines": [{"product_id": "tea", "quantity": 1}]}
            answer = client.post(f"/v1/users/{user}/checkout", json=body, headers=headers)
        else:
            order_id = place(client, user, ("tea", "one", 1)).json()["order_id"]
            answer = client.post(f"/v1/users/{user}/orders/{order_id}/payment", headers=headers)
        problem(answer, 402, "insufficient-balance")
        return answer, client.get(f"/v1/users/{user}/orders/{answer.json()['order_id']}").json()["durable"]

    answer, is_durable = refused("10")
    assert (answer.headers.get("preference-applied"), is_durable) == ("durable", True)
    (worker,) = waiting_shop.workers
    worker.stop()
    try:
        answer, is_durable = refused("1")
    finally:
        worker.start()
    assert ("preference-applied" in answer.headers, is_durable) == (False, False)
    assert answer.elapsed.total_seconds() >= 1


def test_a_full_backlog_refuses_new_work_finishes_what_was_begun_and_is_over_with_the_writers_return(
    waiting_shop: RunningShop,
) -> None:
    client, (worker,) = waiting_shop.client(), waiting_shop.workers
    charge(client, "kim", 5_000)
    order_id = place(client, "kim", ("tea", "one", 2)).json()["order_id"]
    waiting_shop.settle()
    worker.stop()
    try:
        available = units(client)
        answers = [charge_at_once(client, "kim") for _ in range(BACKLOG_MAX)]
        assert [answer.status_code for answer in answers] == [201] * BACKLOG_MAX
        refused = [charge_at_once(client, "kim"), place(client, "kim", ("tea", "one", 1), at="checkout")]
        for answer in refused:
            problem(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        # The product's partition had room for the refused order; nothing of it is held there.
        assert units(client) == available
        assert client.get("/v1/users/kim/balance").json()["balance"] == 5_000 + BACKLOG_MAX
        paid = client.post(f"/v1/users/kim/orders/{order_id}/payment", headers=AT_ONCE)
        assert (paid.status_code, paid.json()["status"]) == (200, "completed"), (
            "it finishes an order: there is headroom"
        )
        assert charge_at_once(client, elsewhere("kim")).status_code == 201, "another partition has room"
    finally:
        worker.start()
    waiting_shop.settle()
    answer = client.post("/v1/users/kim/balance/charges", json={"amount": 1})
    assert (answer.status_code, answer.json()["durable"]) == (201, True)
    assert answer.json()["balance"] == 5_000 + BACKLOG_MAX - 200 + 1
    waiting_shop.assert_conserved()
    assert waiting_shop.errors_logged() == []


def charge_at_once(client: httpx.Client, user: str) -> httpx.Response:
    return client.post(f"/v1/users/{user}/balance/charges", json={"amount": 1}, headers=AT_ONCE)


def state_of(client: httpx.Client, answer: httpx.Response) -> str:
    return str(client.get(f"/v1/positions/{answer.json()['position']}").json()["state"])


def units(client: httpx.Client) -> int:
    return int(client.get("/v1/products/tea").json()["stock"][0]["available"])


def elsewhere(user: str) -> str:
    """A user of another partition."""
    partitions = Partitions(PARTITIONS)
    return next(f"lee-{n}" for n in range(100) if partitions.of(f"lee-{n}") != partitions.of(user))
