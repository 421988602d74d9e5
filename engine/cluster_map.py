"""Which node of a Redis Cluster has which slots: read from what nodes say, the newest word on each slot counting.

Nodes may disagree for a while, above all after a failover or across a split network. Every claim to slots carries the
configuration epoch of who makes it, and the higher one is the later one: so does the cluster itself decide.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# What to ask, in this order; the replies go to `read_view`. Only NODES has the epochs, and the slots on their way; only
# SLOTS has the names under which clients shall reach the nodes.
VIEW_COMMANDS: tuple[tuple[str, ...], ...] = (("CLUSTER", "NODES"), ("CLUSTER", "SLOTS"))

_ABSENT = frozenset({"handshake", "noaddr"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where clients reach a node."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node as another one (or itself) sees it. ``slots`` are ranges, both ends in."""

    node_id: str
    endpoint: Endpoint
    is_primary: bool
    primary_id: str
    has_failed: bool
    epoch: int
    slots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What one node says. ``moving`` are slots that it gives away or takes in right now."""

    nodes: tuple[ClusterNode, ...]
    moving: frozenset[int]


@dataclass(slots=True)
class ClusterMap:
    """What several views say together. ``moving`` are the slots that any of them gives away or takes in."""

    nodes: dict[str, ClusterNode] = field(default_factory=dict)
    moving: set[int] = field(default_factory=set)

    @property
    def endpoints(self) -> set[Endpoint]:
        """Of every node."""
        return {node.endpoint for node in self.nodes.values()}

    @property
    def primaries(self) -> dict[str, ClusterNode]:
        """The primaries. One that has failed keeps its slots until a replica has them."""
        return {
            node_id: node
            for node_id, node in self.nodes.items()
            if node.is_primary and (node.slots or not node.has_failed)
        }

    def owner(self, slot: int) -> ClusterNode | None:
        """The node that has a slot, by the latest claim; ``None`` where there is none."""
        claims = (node for node in self.primaries.values() if any(first <= slot <= last for first, last in node.slots))
        return max(claims, key=lambda node: node.epoch, default=None)


def merge(views: Iterable[ClusterView]) -> ClusterMap:
    """The map of all views; of what they say about a node, the one of its highest epoch."""
    merged = ClusterMap()
    for view in views:
        merged.moving |= view.moving
        for node in view.nodes:
            known = merged.nodes.get(node.node_id)
            if known is None or node.epoch > known.epoch:
                merged.nodes[node.node_id] = node
    return merged


def read_view(nodes: bytes, slots: list[Any], asked: Endpoint) -> ClusterView:
    """Read the replies to `VIEW_COMMANDS`. A node without a name of its own is reached as the one that was asked is."""
    names = _names(slots, asked)
    found = []
    moving: frozenset[int] = frozenset()
    for line in nodes.decode().splitlines():
        node_id, address, flag_text, primary_id, _, _, epoch, _, *ranges = line.split(" ")
        flags = frozenset(flag_text.split(","))
        if flags & _ABSENT:
            continue
        if "myself" in flags:
            moving = moving_slots(nodes)
        found.append(
            ClusterNode(
                node_id,
                names.get(node_id) or _endpoint(address, asked),
                "master" in flags,
                "" if primary_id == "-" else primary_id,
                "fail" in flags,
                int(epoch),
                tuple(_range(text) for text in ranges if not text.startswith("[")),
            )
        )
    return ClusterView(tuple(found), moving)


def moving_slots(nodes: bytes) -> frozenset[int]:
    """The slots that the node which says this gives away (``[7->-id]``) or takes in (``[7-<-id]``)."""
    words = nodes.decode().split()
    return frozenset(int(word[1 : word.index("-")]) for word in words if word.startswith("["))


def read_endpoint(text: str, asked: Endpoint) -> Endpoint:
    """The ``host:port`` of a MOVED or ASK; without a host it is that of the node which says it."""
    host, _, port = text.rpartition(":")
    name = host.strip("[]")
    return Endpoint(asked.host if name in {"", "?"} else name, int(port))


def _names(slots: list[Any], asked: Endpoint) -> dict[str, Endpoint]:
    names = {}
    for _, _, *nodes in slots:
        for host, port, node_id, *_ in nodes:
            name = host.decode() if host else ""
            names[node_id.decode()] = Endpoint(asked.host if name in {"", "?"} else name, port)
    return names


def _endpoint(address: str, asked: Endpoint) -> Endpoint:
    """Of ``ip:port@bus-port[,hostname[,...]]``."""
    return read_endpoint(address.partition("@")[0], asked)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)
