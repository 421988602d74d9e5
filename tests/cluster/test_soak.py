"""What a cluster goes through in years, in minutes: nothing durable is lost, and what else is lost is counted."""

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.processes import wait_until
from tests.cluster.charging import Chargers
from tests.cluster.moves import SLOTS, everything_of, move_at_once, move_slots, primaries, replica_of, role, slots_of
from tests.faults.buyers import Buyers
from tests.faults.losses import SETTINGS, generation, lose_under_load, whole
from tests.running_shop import RunningShop
from tests.servers import CLUSTER_SETTINGS, Databases, reachable_folder

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(600)]


def promoted(cluster: EmbeddedCluster, replica: int) -> None:
    wait_until(lambda: role(cluster, replica) == "master", timeout_s=20, what="the replica is promoted")


async def healed(cluster: EmbeddedCluster, shop: RunningShop, name: str, lose: Callable[[], None]) -> None:
    buyers = await lose_under_load(shop, name, lose)
    await asyncio.to_thread(cluster.wait_until_whole)
    buyers.check(await asyncio.to_thread(whole, shop))
    await asyncio.to_thread(shop.audit)


async def test_a_manual_failover_there_and_back(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    """The first primary is demoted, follows the other, and is promoted again."""
    first = primaries(cluster)[0]
    second = replica_of(cluster, first)
    for name, promoted, demoted in (("there", second, first), ("back", first, second)):

        def fail_over(promoted: int = promoted, demoted: int = demoted) -> None:
            cluster.ask(promoted, "CLUSTER", "FAILOVER")
            wait_until(lambda: role(cluster, promoted) == "master", timeout_s=15, what="it is promoted")
            wait_until(
                lambda: cluster.info(demoted, "INFO", "replication").get("master_link_status") == "up",
                timeout_s=15,
                what="the other follows",
            )

        await healed(cluster, shop, f"manual-{name}", fail_over)


async def test_a_forced_failover_demotes_a_primary_that_is_well(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    """The replica takes over without asking: what it has not got yet is lost with the demotion."""
    victim = primaries(cluster)[1]
    replica = replica_of(cluster, victim)

    def take_over() -> None:
        cluster.ask(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(lambda: role(cluster, victim) == "slave", timeout_s=15, what="the primary is demoted")

    await healed(cluster, shop, "takeover", take_over)


async def test_a_primary_that_freezes_is_replaced_and_is_not_served_from_when_it_wakes(
    cluster: EmbeddedCluster, shop: RunningShop
) -> None:
    victim = primaries(cluster)[2]
    replica = replica_of(cluster, victim)
    child = cluster.nodes[victim]

    def freeze() -> None:
        os.kill(child.pid, signal.SIGSTOP)
        wait_until(lambda: role(cluster, replica) == "master", timeout_s=20, what="the replica is promoted")
        os.kill(child.pid, signal.SIGCONT)
        wait_until(lambda: role(cluster, victim) == "slave", timeout_s=20, what="who woke up follows")

    await healed(cluster, shop, "frozen", freeze)


async def test_a_replica_that_pauses_is_not_noticed(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    primary = primaries(cluster)[0]
    replica = replica_of(cluster, primary)
    child, node_id = cluster.nodes[replica], cluster.node_id(replica)
    before = generation(shop)
    async with Buyers(shop, "paused", 16) as buyers:
        await buyers.have_sold(30)
        os.kill(child.pid, signal.SIGSTOP)
        try:
            await buyers.have_sold(100, since=time.monotonic())
            await asyncio.to_thread(
                wait_until,
                lambda: is_taken_for_lost(cluster, node_id, primary),
                timeout_s=20,
                what="the others take it for lost",
            )
        finally:
            os.kill(child.pid, signal.SIGCONT)
        await buyers.have_sold(30, since=time.monotonic())
    await asyncio.to_thread(cluster.wait_until_whole)
    assert (buyers.busy_at, generation(shop)) == ([], before)
    buyers.check(await asyncio.to_thread(whole, shop))
    await asyncio.to_thread(shop.audit)


async def test_every_node_forgets_its_scripts_again_and_again(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    async with Buyers(shop, "flushed", 16) as buyers:
        for _ in range(20):
            for node in range(len(cluster.nodes)):
                await asyncio.to_thread(cluster.ask, node, "SCRIPT", "FLUSH")
            await buyers.have_sold(10, since=time.monotonic())
    assert buyers.busy_at == []
    buyers.check(await asyncio.to_thread(whole, shop))
    await asyncio.to_thread(shop.audit)


async def test_every_slot_of_a_node_is_moved_to_another_and_back_a_key_at_a_time(
    cluster: EmbeddedCluster, shop: RunningShop
) -> None:
    """So customers come while some keys of a script are here and some there; counted by what the nodes answered.

    Slots without a partition have no key, and are moved at once.
    """
    source, target, _ = primaries(cluster)
    slots = everything_of(cluster, source)
    by_key, empty = sorted(SLOTS & set(slots)), sorted(set(slots) - SLOTS)
    before = {said: answered(cluster, said) for said in ("ASK", "TRYAGAIN", "MOVED")}

    def there_and_back() -> None:
        for giver, taker in ((source, target), (target, source)):
            move_at_once(cluster, giver, taker, empty)
            move_slots(cluster, giver, taker, by_key, keys_at_once=1)

    began = time.monotonic()
    await healed(cluster, shop, "key-by-key", there_and_back)
    told = {said: answered(cluster, said) - count for said, count in before.items()}
    print(f"{len(slots)} slots there and back, all whole within {time.monotonic() - began:.0f} s: {told}")  # noqa: T201
    assert all(told.values())
    assert slots_of(cluster, source) == slots


def is_taken_for_lost(cluster: EmbeddedCluster, node_id: str, asked: int) -> bool:
    """Whether a node says that another one has failed."""
    lines = (line.split(" ") for line in cluster.lines(asked))
    return any(fields[0] == node_id and "fail" in fields[2].split(",") for fields in lines)


def answered(cluster: EmbeddedCluster, said: str) -> int:
    """How often nodes have refused a command with this word."""
    found = (cluster.info(node, "INFO", "errorstats").get(f"errorstat_{said}") for node in range(len(cluster.nodes)))
    return sum(int(text.partition("=")[2]) for text in found if text)


async def test_a_node_is_added_and_takes_its_share(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    added = len(cluster.nodes)

    def add() -> None:
        cluster.add_node()
        for source in primaries(cluster):
            slots = sorted(SLOTS & set(slots_of(cluster, source)))
            if source != added:
                move_slots(cluster, source, added, slots[: len(slots) // 4])

    await healed(cluster, shop, "added", add)
    assert len(SLOTS & set(slots_of(cluster, added))) >= 15


@pytest.fixture
def hasty(databases: Databases) -> Iterator[tuple[EmbeddedCluster, RunningShop]]:
    """A shop that answers before it is durable, on a cluster of its own."""
    folder = reachable_folder()
    database_url = databases.make_migrated()
    try:
        with EmbeddedCluster(folder / "cluster", settings=CLUSTER_SETTINGS) as cluster:
            own = {"FIRSTCOME_REDIS_URL": cluster.application_url, "FIRSTCOME_DURABLE_BY_DEFAULT": "false"}
            with RunningShop(folder, cluster.url, database_url, 2, 2, {**SETTINGS, **own}) as shop:
                yield cluster, shop
    finally:
        databases.drop(database_url)
        shutil.rmtree(folder)


async def test_what_was_accepted_and_not_durable_is_lost_within_the_writers_lag(
    hasty: tuple[EmbeddedCluster, RunningShop],
) -> None:
    """Counted, and printed: charges that were accepted when their primary was killed, and are not there afterwards."""
    cluster, shop = hasty
    chargers = Chargers(shop, "hasty", 16)
    for _ in range(3):
        victim = random.choice(primaries(cluster))
        replica = replica_of(cluster, victim)
        stop = asyncio.Event()
        running = asyncio.create_task(chargers.run(stop))
        await asyncio.sleep(1.0)
        await asyncio.to_thread(cluster.nodes[victim].kill)
        await asyncio.to_thread(promoted, cluster, replica)
        await asyncio.to_thread(shop.wait_until_ready)
        stop.set()
        await running
        await asyncio.to_thread(cluster.nodes[victim].start)
        await asyncio.to_thread(cluster.wait_until_whole)
    lost = chargers.lost(await asyncio.to_thread(whole, shop))
    await asyncio.to_thread(shop.audit)
    assert len(lost) < len(chargers.accepted) // 20
