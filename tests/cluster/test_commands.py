"""The commands of an operator, on a cluster."""

import os
import subprocess

import pytest

from api.commands.api import program
from api.commands.checks import Check
from api.commands.doctor import examine
from api.commands.embedded_cluster import EmbeddedCluster
from tests.cluster.moves import SLOTS, give_up_slot, open_slot, primaries, replica_of, slots_of
from tests.running_shop import PARTITIONS, RunningShop, charge

pytestmark = pytest.mark.cluster


def settings(cluster: EmbeddedCluster, shop: RunningShop) -> dict[str, str]:
    return {
        "FIRSTCOME_REDIS_URL": cluster.application_url,
        "FIRSTCOME_DATABASE_URL": shop.database_url,
        "FIRSTCOME_PARTITIONS": str(PARTITIONS),
    }


def examined(cluster: EmbeddedCluster, shop: RunningShop) -> dict[str, Check]:
    return {check.name: check for check in examine(settings(cluster, shop))}


def test_doctor_shows_the_nodes_of_a_cluster_and_what_is_wrong_with_them(
    cluster: EmbeddedCluster, shop: RunningShop
) -> None:
    found = examined(cluster, shop)
    assert [check for check in found.values() if check.failed] == []
    assert "3 primaries, 3 other nodes" in found["Redis Cluster"].found
    assert found["partitions per node"].found == "21, 22, 21"
    assert found["partitions served"].found == "all 64"
    assert found["maxmemory-policy"].found == "noeviction"
    assert "min-replicas-to-write 1" in found["min-replicas-to-write"].advice
    shares = [check.found for name, check in found.items() if name.startswith("primary ")]
    assert len(shares) == 3
    assert all("bytes behind" in share for share in shares)

    source, target, _ = primaries(cluster)
    slot = min(SLOTS & set(slots_of(cluster, source)))
    open_slot(cluster, source, target, slot)
    replica = replica_of(cluster, source)
    cluster.nodes[replica].stop()
    found = examined(cluster, shop)
    give_up_slot(cluster, slot, [source, target])
    cluster.nodes[replica].start()
    cluster.wait_until_whole()

    assert "CLUSTER SETSLOT" in found["slots being moved"].remedy
    assert any("CLUSTER REPLICATE" in check.remedy for name, check in found.items() if name.startswith("primary "))


def test_audit_and_rebuild_do_their_work_on_a_cluster(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    charge(shop.client(), "kept", 70)
    shop.wait_until_ready()
    environment = {**os.environ, **settings(cluster, shop)}
    for command, says in (
        ("audit", "Nothing is wrong."),
        ("rebuild", f"{PARTITIONS} partitions rebuilt"),
        ("audit", ""),
    ):
        done = subprocess.run([*program(), command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert says in done.stdout
    assert shop.client().get("/v1/users/kept/balance").json()["balance"] == 70
