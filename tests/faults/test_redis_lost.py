"""Redis is emptied, killed, or comes back as it was earlier, under load: what was durable is there, and it sells on."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from api.commands.api import program
from api.commands.embedded_valkey import EmbeddedValkey
from engine.keys import Keys
from engine.partitions import Partitions
from tests.books import Books, broken_laws, broken_ledger, differences
from tests.faults.buyers import Buyers, stock_shop
from tests.running_shop import PARTITIONS, RunningShop, charge, problem
from tests.servers import Databases, reachable_folder, redis_client

HEALED_WITHIN_S = 60.0
GAP = "spring issued"
"""The law that numbers have no gap; one that is lost with issue and coupon is never given again."""


@contextmanager
def opened(databases: Databases, **valkey_settings: str) -> Iterator[tuple[RunningShop, EmbeddedValkey]]:
    """A shop of two API processes and two workers that waits until all is durable, and its Redis."""
    folder = reachable_folder()
    database_url = databases.make_migrated()
    settings = {
        "FIRSTCOME_DURABLE_BY_DEFAULT": "true",
        "FIRSTCOME_TRUST_EVERY_MS": "200",
        "FIRSTCOME_WALK_EVERY_MS": "200",
        # What a flow that was cut off has reserved is given back after some seconds, not after a minute.
        "FIRSTCOME_ORDER_AGE_MAX_MS": "4000",
        "FIRSTCOME_ORPHAN_AGE_MS": "6000",
        "FIRSTCOME_STREAM_KEEP_EVENTS": "100",
    }
    try:
        with (
            EmbeddedValkey(folder / "valkey", settings=valkey_settings) as valkey,
            RunningShop(folder, valkey.url, database_url, 2, 2, settings) as shop,
        ):
            stock_shop(shop)
            yield shop, valkey
    finally:
        databases.drop(database_url)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def lossy(databases: Databases) -> Iterator[tuple[RunningShop, EmbeddedValkey]]:
    """As it is by default: the append-only file is synced each second."""
    with opened(databases) as shop_and_valkey:
        yield shop_and_valkey


def whole(shop: RunningShop) -> Books:
    """Once settled, both stores agree, and every law holds in each."""
    in_redis, in_postgres = shop.settled_books(HEALED_WITHIN_S)
    broken = [*broken_laws(in_redis), *broken_laws(in_postgres), *broken_ledger(shop.database_url)]
    broken += differences(in_redis, in_postgres)
    assert [law for law in broken if not law.startswith(GAP)] == []
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
    assert generation(shop) > before, "the loss was not noticed"
    buyers.check(await asyncio.to_thread(whole, shop))
    return buyers


def flush(shop: RunningShop) -> None:
    """What an administrator should never do."""
    with redis_client(shop.redis_url) as client:
        client.flushall()


async def test_an_emptied_redis_is_rebuilt_under_load(lossy: tuple[RunningShop, EmbeddedValkey]) -> None:
    shop, _ = lossy
    buyers = await lose_and_heal(shop, "flushed", lambda: flush(shop))

    assert buyers.busy_at, "while it was rebuilt, nobody was told so"
    assert buyers.orders
    assert shop.errors_logged() == []


async def test_a_position_that_is_lost_says_so(lossy: tuple[RunningShop, EmbeddedValkey]) -> None:
    shop, _ = lossy
    client = shop.client()
    for worker in shop.workers:
        worker.stop()
    answer = client.post("/v1/users/loser/balance/charges", json={"amount": 5}, headers={"Prefer": "wait=0"})
    position = answer.json()["position"]
    assert client.get(f"/v1/positions/{position}").json()["state"] == "accepted"
    flush(shop)
    problem(client.get("/v1/users/loser/balance"), 503, "recovering")
    assert client.get(f"/v1/positions/{position}").json()["state"] == "accepted"
    for worker in shop.workers:
        worker.start()
    shop.wait_until_ready()

    assert client.get(f"/v1/positions/{position}").json()["state"] == "lost"
    assert client.get("/v1/users/loser/balance").json()["balance"] == 0
    assert charge(client, "loser", 7) == 7
    assert client.get(f"/v1/positions/{position}").json()["state"] == "lost"
    await asyncio.to_thread(whole, shop)


async def test_a_redis_that_is_killed_loses_nothing_durable(lossy: tuple[RunningShop, EmbeddedValkey]) -> None:
    shop, valkey = lossy

    def crash() -> None:
        valkey.kill()
        valkey.start()

    await lose_and_heal(shop, "killed", crash)


async def test_a_redis_restored_from_an_older_file_is_not_served_from(
    lossy: tuple[RunningShop, EmbeddedValkey], tmp_path: Path
) -> None:
    shop, valkey = lossy
    backup = tmp_path / "backup"

    def restore() -> None:
        valkey.kill()
        shutil.rmtree(valkey.folder / "appendonlydir")
        shutil.copytree(backup, valkey.folder / "appendonlydir")
        valkey.start()

    async with Buyers(shop, "before", 8) as buyers:
        await buyers.have_sold(10)
        shutil.copytree(valkey.folder / "appendonlydir", backup)
        await buyers.have_sold(30)
    before = buyers
    await lose_and_heal(shop, "restored", restore)
    before.check(await asyncio.to_thread(whole, shop))


@pytest.mark.parametrize("kind", ["product", "campaign", "user"])
async def test_one_partition_that_goes_back_in_time_alone_is_noticed_before_any_script_runs_there(
    lossy: tuple[RunningShop, EmbeddedValkey], kind: str
) -> None:
    """Its keys are those of some seconds ago, and the server is another run: all others have what they had."""
    shop, valkey = lossy
    partitions = Partitions(PARTITIONS)
    partition = partitions.of({"product": "rare", "campaign": "spring", "user": f"one-{kind}-0"}[kind])
    prefix = Keys(partitions).prefix(partition)
    earlier: dict[bytes, object] = {}
    shop.settle()
    with redis_client(shop.redis_url) as client:
        for key in client.scan_iter(match=prefix + "*"):
            earlier[key] = client.dump(key)

    def go_back() -> None:
        with redis_client(shop.redis_url) as client:
            pipeline = client.pipeline()
            for key in client.scan_iter(match=prefix + "*"):
                pipeline.delete(key)
            for key, value in earlier.items():
                pipeline.restore(key, 0, value)
            # The run of the server is another after the restart; until then nothing may be sold there either.
            pipeline.hset(Keys(partitions).meta(partition), "server", "an:earlier run")
            pipeline.execute()
        valkey.stop()
        valkey.start()

    await lose_and_heal(shop, f"one-{kind}", go_back)


async def test_a_rebuild_by_hand_under_load_loses_nothing_at_all(lossy: tuple[RunningShop, EmbeddedValkey]) -> None:
    """Somebody has touched a balance in Redis: it is what the ledger says again."""
    shop, _ = lossy
    charge(shop.client(), "touched", 70)
    partitions = Partitions(PARTITIONS)
    wallet = Keys(partitions).wallet(partitions.of("touched"), "touched")
    own = {"REDIS_URL": shop.redis_url, "DATABASE_URL": shop.database_url, "PARTITIONS": str(PARTITIONS)}
    environment = {**os.environ, **{f"FIRSTCOME_{name}": value for name, value in own.items()}}
    outcomes: list[subprocess.CompletedProcess[str]] = []

    def rebuild() -> None:
        with redis_client(shop.redis_url) as client:
            client.hset(wallet, "balance", "70000000")
        command = [*program(), "rebuild"]
        outcomes.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=False))

    await lose_and_heal(shop, "rebuilt", rebuild)

    assert outcomes[0].returncode == 0, outcomes[0].stderr
    assert outcomes[0].stdout.startswith(f"{PARTITIONS} partitions rebuilt from ")
    assert shop.client().get("/v1/users/touched/balance").json()["balance"] == 70


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_however_often_redis_is_killed_nothing_durable_is_lost(databases: Databases, fsync: str) -> None:
    with opened(databases, appendfsync=fsync) as (shop, valkey):

        def crash() -> None:
            valkey.kill()
            valkey.start()

        for number in range(25):
            await lose_and_heal(shop, f"{fsync}-{number}", crash)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_however_often_redis_is_emptied_nothing_durable_is_lost(
    lossy: tuple[RunningShop, EmbeddedValkey],
) -> None:
    shop, _ = lossy
    for number in range(25):
        await lose_and_heal(shop, f"emptied-{number}", lambda: flush(shop))
