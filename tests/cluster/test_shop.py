"""A shop on a cluster: what it sells, what operators see, and what happens when nodes fail and slots are moved."""

import asyncio
import time

import pytest

from api.commands.checks import Check
from api.commands.doctor import examine
from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.processes import wait_until
from engine.partitions import Partitions
from tests.cluster.core import core_tests
from tests.cluster.moves import (
    SLOTS,
    everything_of,
    give_up_slot,
    move_at_once,
    move_slots,
    open_slot,
    primaries,
    replica_of,
    role,
    slots_of,
)
from tests.cluster.retrying import PatientBuyers
from tests.faults.losses import generation, lose_under_load, whole
from tests.faults.spree import Spree
from tests.faults.spree import stock_shop as stock_spree
from tests.running_shop import PARTITIONS, RunningShop, charge, place, problem, put_campaign, take_coupon

pytestmark = pytest.mark.cluster

KEY_BY_KEY = 3

globals().update(core_tests())


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
    cluster.nodes[replica].start()
    cluster.wait_until_whole()
    give_up_slot(cluster, slot, [source, target])

    assert "CLUSTER SETSLOT" in found["slots being moved"].remedy
    assert any("CLUSTER REPLICATE" in check.remedy for name, check in found.items() if name.startswith("primary "))


@pytest.mark.soak
def test_audit_and_rebuild_do_their_work_on_a_cluster(shop: RunningShop) -> None:
    charge(shop.client(), "kept", 70)
    shop.wait_until_ready()
    assert f"{PARTITIONS} partitions rebuilt" in shop.command("rebuild")
    shop.audit()
    assert shop.client().get("/v1/users/kept/balance").json()["balance"] == 70


def test_an_order_of_products_on_three_nodes_is_one_order(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    partitions = Partitions(PARTITIONS)
    owners = {slot: node for node in primaries(cluster) for slot in slots_of(cluster, node)}
    by_node: dict[int, str] = {}
    for number in range(100):
        by_node.setdefault(owners[partitions.slot(partitions.of(f"far-{number}"))], f"far-{number}")
    products = list(by_node.values())
    assert len(products) == 3
    for product in products:
        shop.put_product(product, price=100, one=2)
    client = shop.client()
    charge(client, "traveller", 1_000)
    put_campaign(client, "far", quantity=1, discount={"kind": "amount", "value": 50})
    coupon = take_coupon(client, "traveller", "far")
    problem(client.post("/v1/users/late/coupons", json={"campaign_id": "far"}), 409, "coupons-exhausted")

    lines = [(product, "one", 2) for product in products]
    paid = place(client, "traveller", *lines, coupon=coupon, at="checkout")
    assert (paid.status_code, paid.json()["status"], paid.json()["total"]) == (201, "completed", 550), paid.text
    assert paid.json()["durable"] is True
    charge(client, "late", 1_000)
    refused = problem(place(client, "late", (products[0], "one", 1), ("p1", "S", 1)), 409, "out-of-stock")
    assert [line["product_id"] for line in refused["lines"]] == [products[0]]
    poor = place(client, "poor", ("p1", "S", 1), ("p2", "S", 1), ("p3", "S", 1), at="checkout")
    problem(poor, 402, "insufficient-balance")

    books = shop.assert_conserved()
    assert books.balances["traveller"] == 450
    assert all(books.stock[product, "one"].sold == 2 for product in products)


async def test_customers_of_every_kind_are_told_the_truth(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    """Charges, coupons, orders, payments and cancellations at once, and every node forgets its scripts meanwhile."""
    await asyncio.to_thread(stock_spree, shop)
    spree = Spree(shop, "all-kinds", 20, seed=6)
    running = asyncio.create_task(spree.run())
    for _ in range(3):
        for node in range(len(cluster.nodes)):
            await asyncio.to_thread(cluster.ask, node, "SCRIPT", "FLUSH")
        await asyncio.sleep(0.2)
    await running
    spree.check(await asyncio.to_thread(whole, shop))


async def test_a_primary_is_killed_and_its_replica_takes_over(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    victim = primaries(cluster)[0]
    replica = replica_of(cluster, victim)

    def fail_over() -> None:
        cluster.nodes[victim].kill()
        wait_until(lambda: role(cluster, replica) == "master", timeout_s=15, what="the replica is promoted")

    async with PatientBuyers(shop, "patient-failover", 4) as patient:
        buyers = await lose_under_load(shop, "failover", fail_over)
    assert patient.repeated
    books = await asyncio.to_thread(whole, shop)
    buyers.check(books)
    patient.check(books)
    await asyncio.to_thread(shop.audit)
    cluster.nodes[victim].start()
    cluster.wait_until_whole()
    assert role(cluster, victim) == "slave"


async def test_every_slot_of_a_node_is_moved_to_another_and_back(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    """Some as redis-cli does, and the rest at once, as Valkey does; a key at a time in the soak."""
    source, target, _ = primaries(cluster)
    slots = everything_of(cluster, source)
    by_key = sorted(SLOTS & set(slots))[:KEY_BY_KEY]

    def there_and_back() -> None:
        move_slots(cluster, source, target, by_key)
        move_at_once(cluster, source, target, sorted(set(slots) - set(by_key)))
        move_slots(cluster, target, source, by_key)
        move_at_once(cluster, target, source, sorted(set(slots) - set(by_key)))

    began = time.monotonic()
    async with PatientBuyers(shop, "patient-moved", 4) as patient:
        buyers = await lose_under_load(shop, "moved", there_and_back)
    books = await asyncio.to_thread(whole, shop)
    buyers.check(books)
    patient.check(books)
    await asyncio.to_thread(shop.audit)
    print(f"{len(slots)} slots there and back, and all whole, within {time.monotonic() - began:.1f} s")  # noqa: T201


@pytest.mark.soak
def test_a_partition_that_has_lost_keys_on_its_way_is_made_anew(cluster: EmbeddedCluster, shop: RunningShop) -> None:
    """A move is given up halfway, and the keys that were gone already are lost with the node that had taken them."""
    source, target, _ = primaries(cluster)
    partitions = Partitions(PARTITIONS)
    slots = SLOTS & set(slots_of(cluster, source))
    user = next(f"u{n}" for n in range(1_000) if partitions.slot(partitions.of(f"u{n}")) in slots)
    slot = partitions.slot(partitions.of(user))
    client = shop.client()
    charge(client, user, 700)
    before = generation(shop)

    open_slot(cluster, source, target, slot)
    wait_until(
        lambda: client.get(f"/v1/users/{user}/balance").status_code == 503,
        timeout_s=10,
        what="the partition on its way is not served from",
    )
    keys = cluster.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1_000)
    meta = [key for key in keys if key.endswith(":meta")]
    lost = [key for key in keys if key.endswith(f":user:{user}")]
    assert (len(meta), len(lost)) == (1, 1)
    cluster.ask(source, "DEL", *lost)
    give_up_slot(cluster, slot, [source, target])
    wait_until(lambda: generation(shop) > before, timeout_s=15, what="a recovery")
    shop.wait_until_ready()

    assert client.get(f"/v1/users/{user}/balance").json()["balance"] == 700
    whole(shop)
    shop.audit()
