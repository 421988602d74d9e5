"""What an entity takes in Redis: the mean of a sample of keys, for an operator who sizes a server."""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import islice

import redis

SAMPLE_MAX = 200
"""Keys of a kind that are measured."""

SCANNED_MAX = 20_000
"""Keys that are looked at for them, however many there are."""

SCAN_COUNT = 1_000

KINDS = {
    "user": "user",
    "coupons": "user's coupons",
    "order": "order",
    "product": "product",
    "reservation": "reservation",
    "key": "idempotency key",
}
"""Kinds of keys, as `engine.keys` makes them after the partition, and what they hold."""

EVENTS = "events"


@dataclass(slots=True)
class Sample:
    """Some of one kind; ``count`` are entities, ``bytes`` what they take together with their keys."""

    count: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.bytes / self.count:,.0f} bytes"


@dataclass(slots=True)
class Samples:
    """What was found of each kind, and of the events in the partitions' streams."""

    by_kind: defaultdict[str, Sample] = field(default_factory=lambda: defaultdict(Sample))

    def add(self, other: "Samples") -> None:
        """Count in what was found on another server."""
        for kind, found in other.by_kind.items():
            self.by_kind[kind].count += found.count
            self.by_kind[kind].bytes += found.bytes

    def __str__(self) -> str:
        names = {**KINDS, EVENTS: "event"}
        found = [f"{name} {self.by_kind[kind]}" for kind, name in names.items() if self.by_kind[kind].count]
        return ", ".join(found) or "nothing stored yet"


def sample(client: redis.Redis) -> Samples:
    """Measure at most some hundred keys of each kind. Raises `redis.RedisError`."""
    samples = Samples()
    for key in islice(client.scan_iter(match="fc:{*}:*", count=SCAN_COUNT), SCANNED_MAX):
        kind = key.partition(b"}:")[2].partition(b":")[0].decode()
        found = samples.by_kind[kind]
        if kind == EVENTS:
            found.count += client.xlen(key)
            found.bytes += client.memory_usage(key) or 0
        elif kind in KINDS and found.count < SAMPLE_MAX:
            size = client.memory_usage(key)
            if size is not None:  # it may have gone since
                found.count += 1
                found.bytes += size
    return samples
