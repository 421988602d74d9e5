"""A primary is cut off from the other nodes, with clients and a worker: what both sides say is true afterwards."""

import asyncio
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.processes import wait_until
from api.commands.redis_users import APPLICATION_RULE
from tests.cluster.charging import Chargers
from tests.cluster.divided import DividedNetwork
from tests.cluster.moves import primaries, replica_of, role
from tests.faults.buyers import Buyers, stock_shop
from tests.faults.losses import HEALED_WITHIN_S, SETTINGS, whole
from tests.running_shop import RunningShop
from tests.servers import CLUSTER_SETTINGS, Databases, reachable_folder

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(600)]

LONELY = "lonely"
DIVIDED_S = 6.0
"""How long it stays so once the others have a new primary."""

WAIT_S = 2
"""How long a buyer waits for an order to be durable: on the lonely side too, where it may be for a moment."""

NODE_TIMEOUT_S = 2.0
"""Longer than elsewhere: a busy machine that holds all nodes up for a second shall not be taken for another failure."""


@dataclass(frozen=True, slots=True)
class Sides:
    """One cluster and one database, with a shop on each side."""

    cluster: EmbeddedCluster
    network: DividedNetwork
    lonely: RunningShop
    others: RunningShop


@pytest.fixture
def sides(databases: Databases) -> Iterator[Sides]:
    """Two shops, each of an API and a worker, that answer before it is durable; all is one as long as it is whole."""
    folder = reachable_folder()
    database_url = databases.make_migrated()
    settings = {**SETTINGS, "FIRSTCOME_DURABLE_BY_DEFAULT": "false"}
    nodes = {**CLUSTER_SETTINGS, "cluster-node-timeout": f"{NODE_TIMEOUT_S * 1000:.0f}"}
    password = secrets.token_hex(16)
    try:
        with (
            EmbeddedCluster(folder / "cluster", settings=nodes) as cluster,
            DividedNetwork(cluster, LONELY) as network,
        ):
            for node in range(len(cluster.nodes)):
                cluster.ask(node, "ACL", "SETUSER", LONELY, "on", f">{password}", *APPLICATION_RULE.split())
            urls = {
                "lonely": network.url(LONELY, password),
                "others": network.url("default", cluster.administrator_password),
            }
            for name in urls:
                (folder / name).mkdir()
            shops = {
                name: RunningShop(
                    folder / name, cluster.url, database_url, 1, 1, {**settings, "FIRSTCOME_REDIS_URL": url}
                )
                for name, url in urls.items()
            }
            with shops["others"], shops["lonely"]:
                stock_shop(shops["others"])
                yield Sides(cluster, network, shops["lonely"], shops["others"])
    finally:
        databases.drop(database_url)
        shutil.rmtree(folder)


def rebuilt(shop: RunningShop) -> int:
    """How many partitions had less in Redis than in PostgreSQL."""
    with psycopg.connect(shop.database_url) as connection:
        ((count,),) = connection.execute(
            "SELECT count(*) FROM alarm WHERE kind = 'partition_untrusted' AND detail LIKE 'Redis has %'"
        ).fetchall()
    return int(count)


@pytest.mark.parametrize("is_behind", [False, True], ids=["replica abreast", "replica behind PostgreSQL"])
async def test_what_a_lonely_primary_accepts_is_lost_and_nothing_durable_is(sides: Sides, is_behind: bool) -> None:
    """It goes on for up to the node timeout; who is with it is refused then, and the others go on without it.

    A replica that is behind has less than the worker beside the primary has written.
    """
    alone = primaries(sides.cluster)[0]
    replica = replica_of(sides.cluster, alone)
    chargers = [Chargers(sides.lonely, "lonely"), Chargers(sides.others, "other")]
    stop = asyncio.Event()
    running = [asyncio.create_task(each.run(stop)) for each in chargers]
    async with (
        Buyers(sides.lonely, "lonely-buyer", 6, wait_s=WAIT_S) as lonely_buyers,
        Buyers(sides.others, "other-buyer", 6, wait_s=WAIT_S) as other_buyers,
    ):
        await lonely_buyers.have_sold(20, within_s=HEALED_WITHIN_S)
        if is_behind:
            sides.network.hold_back(replica)
            for buyers in (lonely_buyers, other_buyers):
                await buyers.have_sold(10, since=time.monotonic(), within_s=HEALED_WITHIN_S)
        divided_at = time.monotonic()
        sides.network.divide(alone)
        await asyncio.to_thread(
            wait_until, lambda: role(sides.cluster, replica) == "master", timeout_s=20, what="the replica is promoted"
        )
        promoted_s = time.monotonic() - divided_at
        await asyncio.to_thread(sides.others.wait_until_ready)
        served_s = time.monotonic() - divided_at
        await asyncio.sleep(DIVIDED_S)
        sides.network.join()
        joined_at = time.monotonic()
        await asyncio.to_thread(
            wait_until, lambda: role(sides.cluster, alone) == "slave", timeout_s=30, what="the lonely one follows"
        )
        await asyncio.to_thread(sides.cluster.wait_until_whole)
        await asyncio.to_thread(sides.lonely.wait_until_ready)
        whole_s = time.monotonic() - joined_at
        for buyers in (lonely_buyers, other_buyers):
            await buyers.have_sold(20, since=time.monotonic(), within_s=HEALED_WITHIN_S)
        stop.set()
    await asyncio.gather(*running)
    books = await asyncio.to_thread(whole, sides.others)
    await asyncio.to_thread(sides.others.audit)

    cut = f"promoted {promoted_s:.1f} s, served again {served_s:.1f} s after the cut"
    print(f"{cut}, whole {whole_s:.1f} s after its end")  # noqa: T201
    assert not is_behind or rebuilt(sides.others), "no partition was behind PostgreSQL"
    for buyers in (lonely_buyers, other_buyers):
        durable = f"{len(buyers.orders)} of them durable, {len(buyers.busy_at)} requests refused"
        print(f"{buyers.name}: {len(buyers.sold_at)} orders, {durable}")  # noqa: T201
        buyers.check(books)
    for each in chargers:
        latest = max((each.at[user] - divided_at for user in each.lost(books)), default=0.0)
        print(f"the latest of them {latest:.2f} s after the cut")  # noqa: T201
        assert latest <= NODE_TIMEOUT_S + 1.0
        assert any(at > joined_at for at in each.at.values())
