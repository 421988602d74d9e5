"""What a cluster does while the shop sells: no wrong outcome, no other answer than it should be, and nothing lost."""

import time

import pytest

from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.processes import wait_until
from tests.cluster.moves import SLOTS, everything_of, move_at_once, move_slots, primaries, replica_of, role
from tests.faults.losses import lose_and_heal
from tests.running_shop import RunningShop

pytestmark = pytest.mark.cluster


async def test_a_primary_is_killed_and_its_replica_takes_over(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    victim = primaries(cluster)[0]
    replica = replica_of(cluster, victim)

    def fail_over() -> None:
        cluster.nodes[victim].kill()
        wait_until(lambda: role(cluster, replica) == "master", timeout_s=15, what="the replica is promoted")

    await lose_and_heal(shop, "failover", fail_over)
    cluster.nodes[victim].start()
    cluster.wait_until_whole()
    assert role(cluster, victim) == "slave"


async def test_every_slot_of_a_node_is_moved_to_another_and_back(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    source, target, _ = primaries(cluster)
    slots = everything_of(cluster, source)

    def there_and_back() -> None:
        move_slots(cluster, source, target, sorted(SLOTS & set(slots)))
        move_at_once(cluster, source, target, sorted(set(slots) - SLOTS))
        move_at_once(cluster, target, source, slots)

    began = time.monotonic()
    await lose_and_heal(shop, "moved", there_and_back)
    print(f"{len(slots)} slots there and back, and all whole, within {time.monotonic() - began:.1f} s")  # noqa: T201
