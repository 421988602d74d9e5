"""What a supervisor and a load balancer are told."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.commands.api import environment, program
from api.commands.listening import free_port, http_url
from api.commands.processes import ChildProcess, wait_until
from tests.engine.valkey_process import ValkeyProcess
from tests.running_shop import problem
from tests.servers import Databases, empty_redis
from tests.shop_servers import opened_shop

WITHIN_S = 20


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


def test_an_api_that_begins_before_redis_says_that_it_is_not_ready_and_serves_once_it_is_there(
    databases: Databases, tmp_path: Path
) -> None:
    server = ValkeyProcess(tmp_path)
    port = free_port()
    env = environment(FIRSTCOME_REDIS_URL=server.url, FIRSTCOME_DATABASE_URL=databases.make_migrated())
    api = ChildProcess("api", [*program(), "api", "--port", str(port)], tmp_path / "log", env)
    api.start()
    try:
        with httpx.Client(base_url=http_url("127.0.0.1", port), trust_env=False) as client:

            def answers(path: str, status: int) -> Callable[[], bool]:
                def answers_so() -> bool:
                    try:
                        return client.get(path).status_code == status
                    except httpx.TransportError:
                        return False

                return answers_so

            wait_until(answers("/livez", 200), timeout_s=WITHIN_S, what="the API is alive")
            assert client.get("/readyz").status_code == 503
            server.start()
            wait_until(answers("/v1/users/mina/balance", 503), timeout_s=WITHIN_S, what="the API asks Redis")
    finally:
        api.stop()
        server.kill()
    assert "Traceback" not in api.log_tail(lines=1000)


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
