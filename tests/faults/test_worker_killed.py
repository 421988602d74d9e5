"""A worker dies by SIGKILL between writing and settling, under load: another goes on exactly there."""

import asyncio
import random
import signal
from collections.abc import Iterator

import pytest

from tests.faults.spree import Spree, stock_shop
from tests.running_shop import RunningShop, ended
from tests.servers import Databases
from tests.shop_servers import opened_shop

CUSTOMERS = 50
HEALED_WITHIN_S = 60.0
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


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 200))
async def test_wherever_a_worker_is_killed_nothing_is_lost_and_nothing_happens_twice(
    shop: RunningShop, seed: int
) -> None:
    choice = random.Random(seed)
    await die_and_heal(shop, f"{choice.choice(POINTS)}:{choice.randint(1, 4)}", seed)
