"""A worker dies by SIGKILL between writing and settling, under load: another goes on exactly there."""

import asyncio
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.faults.spree import Spree, stock_shop
from tests.running_shop import RunningShop, ended, eventually
from tests.servers import Databases, redis_client
from tests.shop_servers import opened_shop

CUSTOMERS = 50
HEALED_WITHIN_S = 60.0
GOES_ON_WITHIN_S = 25.0
"""PostgreSQL ends a session that is idle in its transaction after 10 s, and with it its locks."""
POINTS = [
    "after:read",
    "before:copy_text",
    "before:copy",
    "after:copy",
    "after:write_rows",
    "after:advance",
    "before:committed",
    "before:mark_durable",
    "after:mark_durable",
    "before:trim",
    "after:trim",
    "before:confirm_stock",
    "after:confirm_stock",
    "before:expire_order",
    "after:expire_order",
    "before:release_stock",
    "after:release_stock",
]
"""After the read; in COPY; before the commit, and after it; before `durable` is set, and before the stream is trimmed,
which are one step of Redis; in settling what was paid, and what was not.
"""

KILLS = 25
"""At each point."""

BETWEEN_SPREES_S = 5.0
"""Longer than orders have to be paid, so that what is not paid expires meanwhile."""


@contextmanager
def opened(databases: Databases) -> Iterator[RunningShop]:
    """Two API processes and two workers; orders expire soon, and streams are trimmed after a few events."""
    with opened_shop(
        databases,
        api_count=2,
        worker_count=2,
        payment_deadline_ms=3000,
        orphan_age_ms=35_000,
        walk_every_ms=200,
        stream_keep_events=5,
    ) as shop:
        with redis_client(shop.redis_url) as client:
            # Only whole nodes of a stream are trimmed.
            client.config_set("stream-node-max-entries", 4)
        stock_shop(shop)
        yield shop


@pytest.fixture(scope="module")
def shop(databases: Databases) -> Iterator[RunningShop]:
    """The shop of all tests but those that kill for long."""
    with opened(databases) as shop:
        yield shop


async def die_and_heal(shop: RunningShop, point: str, seed: int) -> None:
    """Sprees until their only worker dies at the point; then both workers are back, and all is whole."""
    for worker in shop.workers:
        worker.stop()
    dying = shop.dying("worker-dying", ["worker"], point)
    sprees: list[Spree] = []
    dying.start()
    try:
        # A worker that comes late finds all there is in one batch, and meets few of its steps more than once.
        await asyncio.to_thread(eventually, lambda: has_share(shop, dying.pid) or not dying.running, within_s=30)
        dead = asyncio.create_task(ended(dying, HEALED_WITHIN_S))
        while not (sprees and dead.done()):
            sprees.append(Spree(shop, f"s{seed}-{point.replace(':', '-')}-{len(sprees)}", CUSTOMERS, seed))
            await sprees[-1].run()
            await asyncio.wait({dead}, timeout=BETWEEN_SPREES_S)
        await dead
    finally:
        dying.stop()
        for worker in shop.workers:
            worker.start()
    assert dying.exit_code == -signal.SIGKILL, f"{point} was never reached (seed {seed}): {dying.log_tail()}"
    books = await asyncio.to_thread(shop.assert_conserved, HEALED_WITHIN_S)
    for spree in sprees:
        spree.check(books)
    assert shop.errors_logged() == []


@pytest.mark.requirement("R0.3", "R0.4", "R3.13", "R5.2")
@pytest.mark.parametrize("point", ["before:copy_text:9", "after:advance:3", "before:trim:9", "before:confirm_stock:5"])
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
@pytest.mark.parametrize("point", POINTS)
async def test_wherever_a_worker_is_killed_nothing_is_lost_and_nothing_happens_twice(
    databases: Databases, point: str
) -> None:
    """Each time at another call of the step, one of the first half dozen."""
    with opened(databases) as shop:
        for kill in range(KILLS):
            number = random.Random(f"{point} {kill}").randint(1, 6)
            await die_and_heal(shop, f"{point}:{number}", seed=kill)
            print(f"{point}:{number} killed, {kill + 1} of {KILLS}")  # noqa: T201


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
