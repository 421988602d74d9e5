"""A thousand clients that never finish a request cost others next to nothing."""

import subprocess
import sys
import time
from statistics import median, quantiles

import httpx
import pytest

from tests.api.slow_clients import CLIENTS
from tests.running_shop import charge, put_product
from tests.servers import Databases
from tests.shop_servers import opened_shop

REQUESTS = 400
ROUNDS = 5


def p99_ms(client: httpx.Client) -> float:
    """Of requests one after the other, half of them writes."""
    took = []
    for number in range(REQUESTS):
        began = time.perf_counter()
        if number % 2:
            charge(client, "quick", 1)
        else:
            assert client.get("/v1/products/tea").status_code == httpx.codes.OK
        took.append(time.perf_counter() - began)
    return quantiles(took, n=100)[98] * 1000


@pytest.mark.soak
def test_a_thousand_slow_connections_leave_the_p99_of_others_under_twice_its_quiet_value(databases: Databases) -> None:
    with opened_shop(databases) as shop, httpx.Client(base_url=shop.url()) as client:
        put_product(client, "tea")
        p99_ms(client)  # warm
        quiet, beside = [], []
        for _ in range(ROUNDS):
            quiet.append(p99_ms(client))
            port = shop.url().rpartition(":")[2]
            command = [sys.executable, "-m", "tests.api.slow_clients", port]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
                assert crowd.stdout is not None
                assert crowd.stdout.readline() == "connected\n"
                beside.append(p99_ms(client))
                told, _ = crowd.communicate("")
            assert crowd.returncode == 0
        assert client.get("/readyz").status_code == httpx.codes.OK
    ratio = median(slow / fast for slow, fast in zip(beside, quiet, strict=True))
    told = f"{median(beside):.2f} ms beside {CLIENTS}, of whom {told.strip()} were cut off"
    print(f"p99 {median(quiet):.2f} ms quiet, {told}; ratio {ratio:.2f}")  # noqa: T201
    assert ratio < 2
