"""What has left Redis answers as what has not: the client does not notice where it is kept."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from engine.engine import open_engine
from engine.keys import Keys
from engine.partitions import Partitions
from engine.settings import EngineSettings
from tests.running_shop import (
    PARTITIONS,
    RunningShop,
    charge,
    place,
    problem,
    put_campaign,
    put_product,
    take_coupon,
)
from tests.servers import redis_client


@contextmanager
def cold(shop: RunningShop, user: str, *orders: str, coupons: tuple[str, ...] = ()) -> Iterator[int]:
    """Within it, these orders, with the coupons that they used, and these coupons have left Redis; how many did.

    By the worker's own scripts, which are told here that nothing is too young. Afterwards all is back, for whoever
    compares the stores as wholes.
    """
    shop.settle()
    partitions = Partitions(PARTITIONS)
    at, names = partitions.of(user), Keys(partitions)
    touched = [names.wallet(at, user), names.coupons(at, user), *(names.order(at, order_id) for order_id in orders)]
    settings = EngineSettings(redis_url=shop.redis_url, partitions=PARTITIONS, order_age_max_ms=0)
    with redis_client(shop.redis_url) as redis:
        kept = {name: redis.dump(name) for name in touched}
        yield asyncio.run(_evict(settings, user, orders, coupons))
        redis.delete(names.cold(at))
        for name, content in kept.items():
            if content is not None:
                assert isinstance(content, bytes)
                redis.restore(name, 0, content, replace=True)


async def _evict(settings: EngineSettings, user: str, orders: tuple[str, ...], coupons: tuple[str, ...]) -> int:
    async with open_engine(settings) as engine:
        partition, eviction = engine.partitions.of(user), engine.eviction
        await eviction.marks(partition)  # as the worker does, which learns the generation by it
        await asyncio.sleep(0.01)
        until = engine.runner.now_ms(partition)
        left = await eviction.orders(partition, [(order_id, user) for order_id in orders], until)
        return left + await eviction.coupons(partition, [(coupon_id, user) for coupon_id in coupons], until)


@pytest.mark.parametrize(
    ("action", "other", "refusal"),
    [("payment", "cancellation", "order-not-cancellable"), ("cancellation", "payment", "order-not-payable")],
)
def test_what_finished_an_order_is_answered_alike_when_it_is_asked_again_much_later(
    shop: RunningShop, client: httpx.Client, user: str, product: str, action: str, other: str, refusal: str
) -> None:
    put_product(client, product, price=1000, S=5)
    charge(client, user, 2000)
    path = f"/v1/users/{user}/orders/{place(client, user, (product, 'S', 2)).json()['order_id']}"
    client.post(f"{path}/{action}")
    shop.settle()
    order, listed = client.get(path).json(), client.get(f"/v1/users/{user}/orders").json()

    with cold(shop, user, order["order_id"]) as left:
        assert left == 1
        assert client.get(path).json() == order
        assert client.get(f"/v1/users/{user}/orders").json() == listed
        again = client.post(f"{path}/{action}", headers={"Prefer": "durable"})
        assert (again.status_code, again.json()) == (200, order)
        assert again.headers["Preference-Applied"] == "durable"
        assert problem(client.post(f"{path}/{other}"), 409, refusal)["order_status"] == order["status"]
        problem(client.post(path.replace(user, "somebody") + f"/{action}"), 404, "not-found")


def test_a_used_coupon_is_listed_shown_and_refused_alike_much_later(
    shop: RunningShop, client: httpx.Client, user: str, product: str, campaign: str
) -> None:
    names = [f"{campaign}-{number}" for number in range(4)]
    put_product(client, product, price=1000, S=5)
    charge(client, user, 5000)
    for name in names:
        put_campaign(client, name)
    coupons = [take_coupon(client, user, name) for name in names]
    line = (product, "S", 1)
    orders = [place(client, user, line, coupon=coupon, at="checkout").json() for coupon in coupons[:2]]
    shop.settle()

    def answers() -> list[object]:
        asked = [f"/v1/users/{user}/coupons/{coupon}" for coupon in coupons]
        asked += [f"/v1/users/{user}/coupons{query}" for query in ("", "?state=valid", "?state=invalid")]
        return [client.get(path).json() for path in asked] + pages(client, user)

    before = answers()
    with cold(shop, user, orders[0]["order_id"]) as left:
        assert left == 1
        assert answers() == before
    with cold(shop, user, *(order["order_id"] for order in orders)) as left:
        assert left == len(orders)
        assert answers() == before
        refused = place(client, user, line, coupon=coupons[0])
        assert problem(refused, 409, "coupon-not-valid")["reason"] == "used"
        for _ in range(2):
            again = client.post(
                f"/v1/users/{user}/coupons", json={"campaign_id": names[0]}, headers={"Idempotency-Key": "key-1"}
            )
            assert problem(again, 409, "coupon-already-issued")["coupon_id"] == coupons[0]
        problem(client.get(f"/v1/users/somebody/coupons/{coupons[0]}"), 404, "not-found")


def test_a_coupon_that_is_valid_stays(shop: RunningShop, client: httpx.Client, user: str, campaign: str) -> None:
    put_campaign(client, campaign)
    coupon = take_coupon(client, user, campaign)
    with cold(shop, user, coupons=(coupon,)) as left:
        assert left == 0


def pages(client: httpx.Client, user: str) -> list[object]:
    """The user's coupons, one by one."""
    found: list[object] = []
    path, more = f"/v1/users/{user}/coupons?limit=1", ""
    while True:
        page = client.get(path + more).json()
        found.append(page["items"])
        if page["next_cursor"] is None:
            return found
        more = f"&cursor={page['next_cursor']}"
