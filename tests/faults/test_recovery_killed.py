"""A worker dies by SIGKILL in a recovery, after Redis was lost under load: the next one finishes it."""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.buyers import Buyers
from tests.faults.losses import HEALED_WITHIN_S, Lossy, flush, generation, opened, whole
from tests.running_shop import ended
from tests.servers import Databases

REBUILT = [
    "before:next_generation", "after:next_generation", "after:cut", "before:begin_load", "after:begin_load",
    "before:clear", "before:clear_keys", "after:clear", "before:load_keys", "after:load_keys", "after:load",
    "before:finish_load", "after:finish_load", "before:reconcile", "after:reconcile", "before:trust_partition",
    "after:trust_partition",
]  # fmt: skip
"""Where one that makes partitions anew may die."""

CONTINUED = [
    "after:next_generation", "after:cut", "before:hold_partition", "after:hold_partition", "after:drain",
    "before:end_epoch", "after:end_epoch", "before:begin_epoch", "after:begin_epoch", "before:reconcile",
    "after:reconcile", "before:trust_partition", "after:trust_partition",
]  # fmt: skip
"""Where one may die that goes on with what a restarted server has."""

ONCE = {"next_generation", "cut", "drain", "clear", "load", "reconcile"}
"""Steps that a recovery takes once, for all partitions; others are for each of some."""

KILLS = 25
"""At each point."""


@pytest.fixture(scope="module")
def lossy(databases: Databases) -> Iterator[Lossy]:
    """Two API processes and two workers that make each answer wait until it is durable."""
    with opened(databases) as shop_and_valkey:
        yield shop_and_valkey


async def die_in_recovery(lossy: Lossy, name: str, lose: Callable[[], None], point: str) -> None:
    """Buyers throughout; the only worker that sees the loss dies at the point, and the shop's own come back then."""
    shop, _ = lossy
    before = generation(shop)
    async with Buyers(shop, name, 12, wait_s=1) as buyers:
        await buyers.have_sold(20)
        for worker in shop.workers:
            await asyncio.to_thread(worker.stop)
        dying = shop.dying("worker-dying", ["worker"], point)
        await asyncio.to_thread(lose)
        dying.start()
        try:
            await ended(dying, HEALED_WITHIN_S)
        finally:
            await asyncio.to_thread(dying.stop)
            for worker in shop.workers:
                worker.start()
        assert dying.exit_code == -signal.SIGKILL, f"{point} was never reached: {dying.log_tail()}"
        await buyers.have_sold(20, since=time.monotonic(), within_s=HEALED_WITHIN_S)
    assert generation(shop) > before
    buyers.check(await asyncio.to_thread(whole, shop))


def losses(lossy: Lossy) -> dict[str, Callable[[], None]]:
    """Redis emptied, and Redis started anew with what it has."""
    shop, valkey = lossy

    def restart() -> None:
        valkey.kill()
        valkey.start()

    return {"emptied": lambda: flush(shop), "restarted": restart}


@pytest.mark.parametrize(
    ("loss", "point"),
    [
        ("emptied", "after:begin_load:3"),
        ("emptied", "before:finish_load:2"),
        # The node of a cluster that was restarted is always made anew, and begins its epoch with that.
        pytest.param("restarted", "after:begin_epoch:2", marks=pytest.mark.one_redis),
    ],
)
async def test_the_next_worker_finishes_a_recovery(lossy: Lossy, loss: str, point: str) -> None:
    await die_in_recovery(lossy, point.replace(":", "-"), losses(lossy)[loss], point)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "point", [*(f"emptied {each}" for each in REBUILT), *(f"restarted {each}" for each in CONTINUED)]
)
async def test_in_whichever_step_a_recovery_dies_the_next_worker_finishes_it(databases: Databases, point: str) -> None:
    """Each time at another call of the step, where it takes several."""
    loss, _, where = point.partition(" ")
    with opened(databases, worker_count=1) as lossy:
        for kill in range(KILLS):
            number = 1 if where.partition(":")[2] in ONCE else random.Random(f"{point} {kill}").randint(1, 20)
            await die_in_recovery(lossy, f"{where.replace(':', '-')}-{kill}", losses(lossy)[loss], f"{where}:{number}")
            print(f"{point}:{number} killed, {kill + 1} of {KILLS}")  # noqa: T201
