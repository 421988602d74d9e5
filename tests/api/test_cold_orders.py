"""An order that has left Redis answers as one that has not."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from engine.keys import Keys
from engine.partitions import Partitions
from tests.running_shop import PARTITIONS, RunningShop, charge, place, problem, put_product
from tests.servers import redis_client


@contextmanager
def cold(shop: RunningShop, user: str, order_id: str) -> Iterator[None]:
    """Within it, the settled order is in PostgreSQL alone."""
    shop.settle()
    partitions = Partitions(PARTITIONS)
    key = Keys(partitions).order(partitions.of(user), order_id)
    with redis_client(shop.redis_url) as redis:
        kept = redis.dump(key)
        assert isinstance(kept, bytes)
        redis.delete(key)
        yield
        redis.restore(key, 0, kept)


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
    order = client.get(path).json()
    with cold(shop, user, order["order_id"]):
        assert client.get(path).json() == order
        again = client.post(f"{path}/{action}", headers={"Prefer": "durable"})
        assert (again.status_code, again.json()) == (200, order)
        assert again.headers["Preference-Applied"] == "durable"
        assert problem(client.post(f"{path}/{other}"), 409, refusal)["order_status"] == order["status"]
        problem(client.post(path.replace(user, "somebody") + f"/{action}"), 404, "not-found")
