"""An API process dies by SIGKILL in the middle of flows, under load: what it began is finished or undone."""

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
    "before:place_order",
    "after:place_order",
    "before:checkout_order",
    "after:checkout_order",
    "after:reserve_stock",
    "before:release_stock",
    "after:pay_order",
    "after:cancel_order",
    "before:grant_coupon",
    "after:issue_coupons",
]


@pytest.fixture(scope="module")
def shop(databases: Databases) -> Iterator[RunningShop]:
    """Two API processes and a worker; what is left behind is looked for after seconds instead of most of a minute."""
    with opened_shop(
        databases, api_count=2, order_age_max_ms=1500, orphan_age_ms=3000, grant_age_ms=1000, walk_every_ms=200
    ) as shop:
        stock_shop(shop)
        yield shop


async def die_and_heal(shop: RunningShop, point: str, seed: int) -> None:
    """One spree over which the first API process dies at the point; then its successor serves, and all is whole."""
    successor = shop.apis[0]
    successor.stop()
    shop.apis[0] = dying = shop.dying("api-dying", shop.api_arguments(0), point)
    dying.start()
    try:
        await asyncio.to_thread(shop.wait_until_ready)
        spree = Spree(shop, f"s{seed}", CUSTOMERS, seed)
        shopping = asyncio.create_task(spree.run())
        dead = asyncio.create_task(ended(dying, HEALED_WITHIN_S))
        await asyncio.wait({dead, shopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        dying.stop()
        shop.apis[0] = successor
        successor.start()
    await asyncio.gather(dead, shopping)
    assert dying.exit_code == -signal.SIGKILL, f"{point} was never reached (seed {seed}): {dying.log_tail()}"
    spree.check(await asyncio.to_thread(shop.assert_conserved, HEALED_WITHIN_S))
    assert shop.errors_logged() == []


@pytest.mark.requirement("R0.3", "R0.4", "R3.16", "R3.17")
@pytest.mark.parametrize("point", ["before:place_order:7", "after:checkout_order:4", "before:grant_coupon:4"])
async def test_what_a_killed_api_process_began_is_finished_or_undone(shop: RunningShop, point: str) -> None:
    await die_and_heal(shop, point, seed=POINTS.index(point.rpartition(":")[0]))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 200))
async def test_wherever_an_api_process_is_killed_everything_is_finished_or_undone(shop: RunningShop, seed: int) -> None:
    choice = random.Random(seed)
    await die_and_heal(shop, f"{choice.choice(POINTS)}:{choice.randint(1, 4)}", seed)
