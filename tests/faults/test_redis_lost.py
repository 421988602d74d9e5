"""Redis is emptied, killed, or comes back as it was earlier, under load: what was durable is there, and it sells on."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.commands.api import program
from engine.keys import Keys
from engine.partitions import Partitions
from tests.faults.buyers import Buyers
from tests.faults.losses import Lossy, flush, lose_and_heal, opened, whole
from tests.running_shop import PARTITIONS, charge, problem
from tests.servers import Databases, redis_client


@pytest.fixture(scope="module")
def lossy(databases: Databases) -> Iterator[Lossy]:
    """As it is by default: the append-only file is synced each second."""
    with opened(databases) as shop_and_valkey:
        yield shop_and_valkey


async def test_an_emptied_redis_is_rebuilt_under_load(lossy: Lossy) -> None:
    shop, _ = lossy
    buyers = await lose_and_heal(shop, "flushed", lambda: flush(shop))

    assert buyers.busy_at, "while it was rebuilt, nobody was told so"
    assert buyers.orders
    assert shop.errors_logged() == []


@pytest.mark.core
async def test_a_position_that_is_lost_says_so(lossy: Lossy) -> None:
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


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_a_redis_that_is_killed_loses_nothing_durable(lossy: Lossy, fsync: str) -> None:
    shop, valkey = lossy
    with redis_client(shop.redis_url) as client:
        client.config_set("appendfsync", fsync)

    def crash() -> None:
        valkey.kill()
        valkey.start()

    await lose_and_heal(shop, f"killed-{fsync}", crash)


@pytest.mark.one_redis  # a node that is restored follows the one that took its place
async def test_a_redis_restored_from_an_older_file_is_not_served_from(lossy: Lossy, tmp_path: Path) -> None:
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
    lossy: Lossy, kind: str
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
            # At once, on a cluster too: nobody shall see some keys of then and some of now.
            pipeline = client.pipeline(transaction=True)
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


async def test_a_rebuild_by_hand_under_load_loses_nothing_at_all(lossy: Lossy) -> None:
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
    lossy: Lossy,
) -> None:
    shop, _ = lossy
    for number in range(25):
        await lose_and_heal(shop, f"emptied-{number}", lambda: flush(shop))
