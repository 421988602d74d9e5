"""A shop whose servers are lost under load, and what must hold when they are back."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from persistence.migrations import upgrade
from tests.books import Books, broken_laws, broken_ledger, differences
from tests.faults.buyers import Buyers, stock_shop
from tests.running_shop import RunningShop, eventually
from tests.servers import Databases, opened_redis, reachable_folder, redis_client

Lossy = tuple[RunningShop, EmbeddedValkey | EmbeddedCluster]
"""A shop, and its Redis to lose."""

HEALED_WITHIN_S = 60.0
GAP = "spring issued"
"""The law that numbers have no gap; one that is lost with issue and coupon is never given again."""


SETTINGS = {
    "FIRSTCOME_DURABLE_BY_DEFAULT": "true",
    "FIRSTCOME_TRUST_EVERY_MS": "200",
    "FIRSTCOME_WALK_EVERY_MS": "200",
    # What a flow that was cut off has reserved is given back after some seconds, not after a minute.
    "FIRSTCOME_ORDER_AGE_MAX_MS": "4000",
    "FIRSTCOME_ORPHAN_AGE_MS": "6000",
    "FIRSTCOME_STREAM_KEEP_EVENTS": "100",
}
"""Everything waits until it is durable, and what was cut off is looked after within seconds."""


@contextmanager
def opened(databases: Databases, worker_count: int = 2, **redis_settings: str) -> Iterator[Lossy]:
    """A shop of two API processes and some workers that waits until all is durable, and its Redis."""
    folder = reachable_folder()
    database_url = databases.make_migrated()
    try:
        with (
            opened_redis(databases.redis_kind, **redis_settings) as redis,
            RunningShop(folder, redis.url, database_url, 2, worker_count, SETTINGS) as shop,
        ):
            stock_shop(shop)
            yield shop, redis
    finally:
        databases.drop(database_url)
        shutil.rmtree(folder)


@contextmanager
def opened_with_postgres(
    redis_url: str, api_count: int = 2, worker_count: int = 2, **settings: str
) -> Iterator[tuple[RunningShop, EmbeddedPostgres]]:
    """The same on a PostgreSQL of its own, and that; the Redis must be empty. Other `settings` come before those."""
    folder = reachable_folder()
    try:
        with EmbeddedPostgres(folder / "postgres") as postgres:
            upgrade(postgres.url)
            with RunningShop(folder, redis_url, postgres.url, api_count, worker_count, SETTINGS | settings) as shop:
                stock_shop(shop)
                yield shop, postgres
    finally:
        shutil.rmtree(folder)


def whole(shop: RunningShop) -> Books:
    """Once settled, both stores agree, and every law holds in each."""
    in_redis, in_postgres = shop.settled_books(HEALED_WITHIN_S)
    broken = [*broken_laws(in_redis), *broken_laws(in_postgres), *broken_ledger(shop.database_url)]
    broken += differences(in_redis, in_postgres)
    broken = [law for law in broken if not law.startswith(GAP)]
    assert not broken, "\n".join(broken[:20])
    for campaign in in_postgres.campaigns.values():
        numbers = list(campaign.issues.values())
        assert len(numbers) == len(set(numbers))
        assert max(numbers, default=0) <= campaign.issued <= campaign.quantity
    return in_redis


def generation(shop: RunningShop) -> int:
    """How many recoveries there were, and one more."""
    with psycopg.connect(shop.database_url) as connection:
        ((number,),) = connection.execute("SELECT generation FROM installation").fetchall()
    return int(number)


async def lose_and_heal(shop: RunningShop, name: str, lose: Callable[[], None]) -> Buyers:
    """Buyers before, during and after the loss; then all is whole, and whatever was durable is there."""
    buyers = await lose_under_load(shop, name, lose)
    buyers.check(await asyncio.to_thread(whole, shop))
    return buyers


async def lose_under_load(shop: RunningShop, name: str, lose: Callable[[], None]) -> Buyers:
    """Buyers before, during and after the loss, which a recovery has noticed."""
    before = generation(shop)
    async with Buyers(shop, name, 16) as buyers:
        await buyers.have_sold(30)
        lost_at = time.monotonic()
        await asyncio.to_thread(lose)
        back_at = time.monotonic()
        await buyers.have_sold(30, since=back_at, within_s=HEALED_WITHIN_S)
        first = min(at for at in buyers.sold_at if at > back_at) - back_at
        refused = [at - lost_at for at in buyers.busy_at if at > lost_at]
        told = f"first refusal after {min(refused, default=0):.2f} s, sold again {first:.2f} s after it was back"
        print(f"{name}: {told}")  # noqa: T201
        # What has lost nothing sells on, and may do so before anybody has looked at the rest.
        await asyncio.to_thread(
            eventually, lambda: generation(shop) > before, within_s=HEALED_WITHIN_S, what="the loss was noticed"
        )
    return buyers


def flush(shop: RunningShop) -> None:
    """What an administrator should never do."""
    with redis_client(shop.redis_url) as client:
        client.flushall()
