"""What operators and failures do to a cluster: slots that move, nodes that fail over."""

from collections.abc import Collection

import redis

from api.commands.embedded_cluster import HOST, EmbeddedCluster
from api.commands.processes import wait_until
from engine.partitions import CLUSTER_SLOTS, Partitions
from tests.running_shop import PARTITIONS

KEYS_AT_ONCE = 100
SLOTS = frozenset(Partitions(PARTITIONS).slot(number) for number in range(PARTITIONS))
"""Those with keys in them."""


def primaries(cluster: EmbeddedCluster) -> list[int]:
    """The nodes that have slots now."""
    running = [number for number, node in enumerate(cluster.nodes) if node.running]
    return [number for number in running if slots_of(cluster, number)]


def slots_of(cluster: EmbeddedCluster, node: int) -> list[int]:
    """The slots of a node, as it sees them."""
    own = next(line for line in cluster.lines(node) if "myself" in line).split(" ")
    if "master" not in own[2].split(","):
        return []
    found: list[int] = []
    for text in own[8:]:
        if not text.startswith("["):
            first, _, last = text.partition("-")
            found += range(int(first), int(last or first) + 1)
    return found


def replica_of(cluster: EmbeddedCluster, node: int) -> int:
    """A replica of this primary."""
    node_id = cluster.node_id(node)
    ids = {cluster.node_id(number): number for number in range(len(cluster.nodes)) if cluster.nodes[number].running}
    for line in cluster.lines(node):
        fields = line.split(" ")
        if fields[3] == node_id and fields[0] in ids:
            return ids[fields[0]]
    raise AssertionError(f"node {node} has no replica")


def role(cluster: EmbeddedCluster, node: int) -> str:
    """``master`` or ``slave``, as the node says."""
    return cluster.info(node, "INFO", "replication")["role"]


def move_slots(
    cluster: EmbeddedCluster, source: int, target: int, slots: Collection[int], keys_at_once: int = KEYS_AT_ONCE
) -> None:
    """Move slots with their keys while they are served, one after the other, as redis-cli does."""
    source_id, target_id = cluster.node_id(source), cluster.node_id(target)
    with cluster.client(source) as giver, cluster.client(target) as taker:
        for slot in slots:
            _set_slots(taker, [slot], "IMPORTING", source_id)
            _set_slots(giver, [slot], "MIGRATING", target_id)
            while _move_keys(cluster, giver, target, slot, keys_at_once):
                pass
            for client in (taker, giver):
                _set_slots(client, [slot], "NODE", target_id)


def move_at_once(cluster: EmbeddedCluster, source: int, target: int, slots: Collection[int]) -> None:
    """Move slots as Valkey does from version 9 on: a copy follows the original until it takes over."""
    ranges: list[int] = []
    for slot in sorted(slots):
        if ranges and ranges[-1] == slot - 1:
            ranges[-1] = slot
        else:
            ranges += [slot, slot]
    cluster.ask(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", *ranges, "NODE", cluster.node_id(target))
    wait_until(
        lambda: set(slots) <= set(slots_of(cluster, target)) and not set(slots) & set(slots_of(cluster, source)),
        timeout_s=30,
        what="the slots have been moved",
    )


def open_slot(cluster: EmbeddedCluster, source: int, target: int, slot: int) -> None:
    """Begin to move a slot: from now on its keys are on two nodes."""
    with cluster.client(source) as giver, cluster.client(target) as taker:
        _set_slots(taker, [slot], "IMPORTING", cluster.node_id(source))
        _set_slots(giver, [slot], "MIGRATING", cluster.node_id(target))


def move_keys(cluster: EmbeddedCluster, source: int, target: int, slot: int, count: int = KEYS_AT_ONCE) -> int:
    """Move some keys of an open slot; how many there were."""
    with cluster.client(source) as giver:
        return _move_keys(cluster, giver, target, slot, count)


def close_slot(cluster: EmbeddedCluster, slot: int, owner: int, others: Collection[int]) -> None:
    """End the move of a slot: it is the owner's."""
    for number in (owner, *others):
        with cluster.client(number) as client:
            _set_slots(client, [slot], "NODE", cluster.node_id(owner))


def give_up_slot(cluster: EmbeddedCluster, slot: int, nodes: Collection[int]) -> None:
    """Leave an open slot where it was, with the keys that are there."""
    for number in nodes:
        with cluster.client(number) as client:
            _set_slots(client, [slot], "STABLE")


def spread_over(cluster: EmbeddedCluster, count: int) -> None:
    """Give the slots that matter, which must be empty, to the first so many nodes in equal ranges."""
    slots = sorted(SLOTS)
    for number in range(count):
        share = slots[number * len(slots) // count : (number + 1) * len(slots) // count]
        owner = cluster.node_id(number)
        cluster.ask(number, "CLUSTER", "BUMPEPOCH")  # so that what it says is newer than what former owners say
        for node in (number, *(other for other in range(len(cluster.nodes)) if other != number)):
            with cluster.client(node) as client:
                _set_slots(client, share, "NODE", owner)
    wanted = [count] * len(cluster.nodes)
    wait_until(
        lambda: [_owners(cluster, node) for node in range(len(cluster.nodes))] == wanted,
        timeout_s=15,
        what=f"every node knows that {count} have the slots",
    )


def everything_of(cluster: EmbeddedCluster, node: int) -> list[int]:
    """All slots of a primary, which must have a third of them or so."""
    slots = slots_of(cluster, node)
    assert len(slots) > CLUSTER_SLOTS // 4
    return slots


def _move_keys(cluster: EmbeddedCluster, giver: redis.Redis, target: int, slot: int, count: int) -> int:
    keys = giver.execute_command("CLUSTER GETKEYSINSLOT", slot, count)  # type: ignore[no-untyped-call]
    if keys:
        login = ("AUTH2", "default", cluster.administrator_password, "KEYS", *keys)
        giver.execute_command("MIGRATE", HOST, cluster.ports[target], "", 0, 5000, *login)  # type: ignore[no-untyped-call]
    return len(keys)


def _owners(cluster: EmbeddedCluster, node: int) -> int:
    """How many nodes have a slot that matters, as this one says."""
    claims = cluster.ask(node, "CLUSTER", "SLOTS")
    return len({owner[2] for first, last, owner, *_ in claims if any(first <= slot <= last for slot in SLOTS)})


def _set_slots(client: redis.Redis, slots: Collection[int], *state: str) -> None:
    pipeline = client.pipeline(transaction=False)
    for slot in slots:
        pipeline.execute_command("CLUSTER SETSLOT", slot, *state)  # type: ignore[no-untyped-call]
    assert all(pipeline.execute())
