"""What a supervisor and a load balancer are told."""

import httpx
import pytest

from tests.running_shop import problem
from tests.servers import Databases, empty_redis
from tests.shop_servers import opened_shop


def test_a_shop_that_sells_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"alive": True}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "reason": None, "recovering_partitions": []}


@pytest.mark.parametrize("path", ["/v1/products", "/v1/policies", "/livez", "/readyz", "/v1/users/mina/balance"])
def test_head_answers_as_get_without_a_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_without_a_trusted_redis_an_api_is_alive_but_not_ready(databases: Databases) -> None:
    with opened_shop(databases) as shop:
        shop.workers[0].stop()
        empty_redis(shop.redis_url)
        client = shop.client()
        not_ready = client.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["ready"]) == (503, False)
        assert not_ready.json()["recovering_partitions"] == list(range(64))
        assert client.get("/livez").status_code == 200
        for answer in (
            client.post("/v1/users/mina/balance/charges", json={"amount": 1}),
            client.get("/v1/users/mina/balance"),
            client.get("/v1/products"),
        ):
            assert problem(answer, 503, "recovering")["retryable"] is True
            assert answer.headers["retry-after"].isdigit()
