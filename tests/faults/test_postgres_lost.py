"""PostgreSQL is killed, or away for a time, under load: selling goes on, and all of it becomes durable afterwards."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from loadtests.generators import generate
from loadtests.python_load import Job
from tests.faults.buyers import PRODUCTS, Buyers
from tests.faults.losses import HEALED_WITHIN_S, generation, opened_with_postgres, whole
from tests.running_shop import HOST, RunningShop, charge, problem

Served = tuple[RunningShop, EmbeddedPostgres]

AWAY_S = 60.0
AFTERWARDS_S = 30.0
ORDERS_PER_S = 510
CUSTOMERS = 400
LINES = '{"lines": [{"product_id": "p<product>", "stock_id": "S", "quantity": 1}]}'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two API processes and two workers; changes wait until they are durable unless they are told otherwise."""
    with (
        EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as valkey,
        opened_with_postgres(valkey.url) as shop_and_postgres,
    ):
        yield shop_and_postgres


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Served]:
    """The same, but nobody waits."""
    with (
        EmbeddedValkey(tmp_path) as valkey,
        opened_with_postgres(valkey.url, FIRSTCOME_DURABLE_BY_DEFAULT="false") as shop_and_postgres,
    ):
        yield shop_and_postgres


async def lose_and_return(served: Served, name: str, lose: Callable[[], None], back: Callable[[], None]) -> Buyers:
    """Buyers before, during and after PostgreSQL was away; then all is whole, and Redis was trusted throughout."""
    shop, _ = served
    before = generation(shop)
    async with Buyers(shop, name, 16, wait_s=1) as buyers:
        await buyers.have_sold(30)
        await asyncio.to_thread(lose)
        lost_at = time.monotonic()
        await buyers.have_sold(30, since=lost_at)
        await asyncio.to_thread(back)
        await buyers.have_sold(30, since=time.monotonic(), within_s=HEALED_WITHIN_S)
    assert buyers.busy_at == [], "nothing that was asked needs PostgreSQL"
    buyers.check(await asyncio.to_thread(whole, shop))
    assert generation(shop) == before
    return buyers


async def test_a_postgres_that_is_killed_loses_nothing_and_nothing_comes_twice(served: Served) -> None:
    _, postgres = served
    await lose_and_return(served, "killed", postgres.kill, postgres.start)


async def test_while_postgres_is_away_only_histories_are(served: Served) -> None:
    shop, postgres = served
    client = shop.client()
    charge(client, "ann", 500)

    def away() -> None:
        postgres.stop()
        for path in ("balance/entries", "orders"):
            problem(client.get(f"/v1/users/ann/{path}"), 503, "history-unavailable")
        assert client.get("/v1/users/ann/balance").json()["balance"] == 500
        for path in ("/v1/products/p1", "/v1/users/ann/coupons", "/v1/campaigns", "/v1/best-sellers", "/readyz"):
            assert client.get(path).status_code == 200
        answer = client.post("/v1/users/ann/balance/charges", json={"amount": 7}, headers={"Prefer": "durable, wait=1"})
        assert (answer.status_code, answer.json()["durable"]) == (201, False)

    await lose_and_return(served, "away", away, postgres.start)
    assert client.get("/v1/users/ann/balance/entries").json()["items"][0]["amount"] == 7


async def test_a_postgres_that_is_silent_holds_nobody_up(served: Served) -> None:
    """It is there and does not answer, as when its disk hangs."""
    shop, postgres = served
    client = shop.client()
    assert client.get("/v1/users/ann/balance/entries").status_code == 200

    def silence() -> None:
        send_all(postgres, signal.SIGSTOP)
        problem(client.get("/v1/users/ann/balance/entries"), 503, "history-unavailable")

    try:
        await lose_and_return(served, "silent", silence, lambda: send_all(postgres, signal.SIGCONT))
    finally:
        send_all(postgres, signal.SIGCONT)
    assert client.get("/v1/users/ann/balance/entries").status_code == 200


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_however_often_postgres_is_killed_nothing_is_lost_and_nothing_comes_twice(served: Served) -> None:
    _, postgres = served
    for number in range(25):
        await lose_and_return(served, f"killed-{number}", postgres.kill, postgres.start)
        print(f"killed, {number + 1} of 25")  # noqa: T201


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_minute_without_postgres_at_five_hundred_orders_a_second(quick: Served) -> None:
    """Each of them is accepted; and when it is back, as many come while the lag goes back under a second."""
    shop, postgres = quick
    client = shop.client()
    for number in range(CUSTOMERS):
        charge(client, f"rush-{number}", 10_000_000)
    async with Buyers(shop, "minute", 8, wait_s=0) as buyers:
        await buyers.have_sold(30)
        await asyncio.to_thread(postgres.stop)
        accepted = await rush(shop, AWAY_S)
        await asyncio.to_thread(postgres.start)
        back_at = time.monotonic()
        rushing = asyncio.create_task(rush(shop, AFTERWARDS_S))
        charge_is_durable = {"Prefer": "durable, wait=1"}
        while not (
            await asyncio.to_thread(
                client.post, "/v1/users/lag/balance/charges", json={"amount": 1}, headers=charge_is_durable
            )
        ).json()["durable"]:
            assert time.monotonic() < back_at + HEALED_WITHIN_S, "the lag stays over a second"
        caught_up = time.monotonic() - back_at
        accepted_afterwards = await rushing
    told = (
        f"{accepted / AWAY_S:.0f} orders/s without PostgreSQL; lag under 1 s again {caught_up:.1f} s after it was back"
    )
    print(told)  # noqa: T201
    assert accepted >= 500 * AWAY_S
    assert accepted_afterwards >= 500 * AFTERWARDS_S
    assert caught_up < AFTERWARDS_S, "it was while the orders came"
    assert buyers.busy_at == []
    buyers.check(await asyncio.to_thread(whole, shop))


async def rush(shop: RunningShop, seconds: float) -> int:
    """Orders at a fixed rate, whatever the shop does; how many were accepted within the time."""
    jobs = [
        Job(
            host=HOST, port=urlsplit(shop.url(number)).port or 0, method="POST", path="/v1/users/rush-<user>/checkout",
            body=LINES, first=0, users=CUSTOMERS, products=len(PRODUCTS), seed=number, connections=32, seconds=seconds,
            rate=ORDERS_PER_S / shop.api_count,
        )
        for number in range(shop.api_count)
    ]  # fmt: skip
    loads = await asyncio.gather(*(asyncio.to_thread(generate, job, "python_load") for job in jobs))
    assert [(load.refused, load.broken) for load in loads] == [(0, 0)] * len(loads)
    longest = max(load.seconds for load in loads)
    return int(sum(load.answered for load in loads) * min(1.0, seconds / longest))


def send_all(postgres: EmbeddedPostgres, number: signal.Signals) -> None:
    """A signal to the server and to each of its sessions."""
    children = subprocess.run(["pgrep", "-P", str(postgres.pid)], capture_output=True, text=True, check=True).stdout
    for pid in (postgres.pid, *map(int, children.split())):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
