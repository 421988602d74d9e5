"""A worker dies by SIGKILL between writing and settling, under load: another goes on exactly there."""

import asyncio
import random
import signal
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from tests.faults.spree import Spree, stock_shop
from tests.running_shop import RunningShop, ended, eventually
from tests.servers import Databases
from tests.shop_servers import opened_shop

CUSTOMERS = 50
HEALED_WITHIN_S = 60.0
GOES_ON_WITHIN_S = 25.0
"""PostgreSQL ends a session that is idle in its transaction after 10 s, and with it its locks."""
POINTS = [
    "after:read",
    "before:copy_text",
    "after:write_rows",
    "after:advance",
    "before:mark_durable",
    "after:mark_durable",
    "before:confirm_stock",
    "after:confirm_stock",
    "before:expire_order",
    "after:expire_order",
    "before:release_stock",
]


@pytest.fixture(scope="module")
def shop(databases: Databases) -> Iterator[RunningShop]:
    """Two API processes and two workers; orders expire soon."""
    with opened_shop(
        databases, api_count=2, worker_count=2, payment_deadline_ms=3000, orphan_age_ms=35_000, walk_every_ms=200
    ) as shop:
        stock_shop(shop)
        yield shop


async def die_and_heal(shop: RunningShop, point: str, seed: int) -> None:
    """One spree whose only worker dies at the point; then both workers are back, and all is whole."""
    for worker in shop.workers:
        worker.stop()
    dying = shop.dying("worker-dying", ["worker"], point)
    dying.start()
    try:
        spree = Spree(shop, f"s{seed}", CUSTOMERS, seed)
        await spree.run()
        await ended(dying, HEALED_WITHIN_S)
    finally:
        dying.stop()
        for worker in shop.workers:
            worker.start()
    assert dying.exit_code == -signal.SIGKILL, f"{point} was never reached (seed {seed}): {dying.log_tail()}"
    spree.check(await asyncio.to_thread(shop.assert_conserved, HEALED_WITHIN_S))
    assert shop.errors_logged() == []


@pytest.mark.requirement("R0.3", "R0.4", "R3.13", "R5.2")
@pytest.mark.parametrize(
    "point", ["before:copy_text:9", "after:advance:3", "before:mark_durable:20", "before:confirm_stock:5"]
)
async def test_another_worker_goes_on_where_one_was_killed(shop: RunningShop, point: str) -> None:
    await die_and_heal(shop, point, seed=POINTS.index(point.rpartition(":")[0]))


@pytest.mark.requirement("R0.4", "R3.13")
@pytest.mark.parametrize("point", ["stop:advance:3", pytest.param("stop:copy:5", marks=pytest.mark.soak)])
async def test_a_worker_that_stops_in_its_transaction_holds_the_other_up_for_seconds_and_writes_nothing_twice(
    shop: RunningShop, point: str
) -> None:
    shop.workers[1].stop()
    stalled = shop.dying("worker-stalled", ["worker"], point)
    stalled.start()
    try:
        # Before it has a share of the partitions, the other worker would write all that there is.
        await asyncio.to_thread(eventually, lambda: has_share(shop, stalled.pid), what="it has its share")
        spree = Spree(shop, point.replace(":", "-"), CUSTOMERS, seed=7)
        await spree.run()
        await asyncio.to_thread(eventually, lambda: is_stopped(stalled.pid), what="it has stopped itself")
        await asyncio.to_thread(shop.settle, GOES_ON_WITHIN_S)
        stalled.signal(signal.SIGCONT)
        spree.check(await asyncio.to_thread(shop.assert_conserved, HEALED_WITHIN_S))
        assert stalled.running
    finally:
        stalled.kill()
        shop.workers[1].start()
    assert shop.errors_logged() == []


def has_share(shop: RunningShop, pid: int) -> bool:
    """Whether the worker of this process has said that it is there, and so has a share of the partitions."""
    with psycopg.connect(shop.database_url) as connection:
        found = connection.execute("SELECT FROM worker_presence WHERE worker_id LIKE %s", (f"%:{pid}:%",))
        return found.fetchone() is not None


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.startswith("T")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 200))
async def test_wherever_a_worker_is_killed_nothing_is_lost_and_nothing_happens_twice(
    shop: RunningShop, seed: int
) -> None:
    choice = random.Random(seed)
    await die_and_heal(shop, f"{choice.choice(POINTS)}:{choice.randint(1, 4)}", seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(200, 240))
async def test_workers_that_are_paused_at_any_moment_go_on_afterwards(shop: RunningShop, seed: int) -> None:
    """As a machine does that is suspended, or too busy: for moments, or for longer than its sessions are kept."""
    choice = random.Random(seed)
    spree = Spree(shop, f"p{seed}", CUSTOMERS, seed)
    running = asyncio.ensure_future(spree.run())
    for _ in range(4):
        await asyncio.sleep(choice.uniform(0.05, 1.0))
        paused = choice.sample(shop.workers, choice.randint(1, 2))
        for worker in paused:
            worker.signal(signal.SIGSTOP)
        await asyncio.sleep(choice.choice([0.1, 0.5, 2.0, 12.0]))
        for worker in paused:
            worker.signal(signal.SIGCONT)
    await running
    spree.check(await asyncio.to_thread(shop.assert_conserved, HEALED_WITHIN_S))
    assert all(worker.running for worker in shop.workers)
    assert shop.errors_logged() == []
