"""Partitions: the hash tags that all state lives under, and which id belongs to which."""

from binascii import crc_hqx
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from zlib import crc32

CLUSTER_SLOTS = 16384
PARTITIONS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Partitions:
    """``count`` partitions, each with a hash tag whose cluster slot is near the middle of its equal share of the slots.

    So any contiguous layout of slots over primaries gets an even share of the partitions. Tags and the assignment of
    ids never change for a given count: both are part of the stored format.

    Raises ValueError when ``count`` is not between 1 and 1024.
    """

    count: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.count <= PARTITIONS_MAX:
            raise ValueError(f"the number of partitions must be between 1 and {PARTITIONS_MAX}, not {self.count}")

    def of(self, id: str) -> int:
        """The partition of a user, product or campaign id."""
        return crc32(id.encode()) % self.count

    def group(self, ids: Iterable[str]) -> dict[int, list[str]]:
        """The ids by their partitions, each once, in the order given."""
        groups: dict[int, dict[str, None]] = {}
        for id in ids:
            groups.setdefault(self.of(id), {})[id] = None
        return {partition: list(group) for partition, group in groups.items()}

    def tag(self, partition: int) -> str:
        """The hash tag of a partition, without braces."""
        return _tags(self.count)[partition]

    def slot(self, partition: int) -> int:
        """The Redis Cluster slot (0 to 16383) of a partition's tag."""
        return cluster_slot(self.tag(partition))


def cluster_slot(tag: str) -> int:
    """The Redis Cluster slot of a hash tag: CRC16 (XMODEM) modulo 16384."""
    return crc_hqx(tag.encode(), 0) % CLUSTER_SLOTS


@cache
def _tags(count: int) -> tuple[str, ...]:
    """For each partition the first decimal number whose slot is in the middle eighth of the partition's slot range.

    An eighth is narrow enough that the border between two primaries hardly ever cuts through it, and wide enough that
    the search ends after some thousand numbers. A range of only a few slots takes those next to its middle.
    """
    near = max(CLUSTER_SLOTS // 16, count // 2)
    found: dict[int, str] = {}
    number = 0
    while len(found) < count:
        tag = str(number)
        partition, offset = divmod(
            cluster_slot(tag) * count, CLUSTER_SLOTS
        )  # offset: 16384ths of the partition's range
        if abs(offset - CLUSTER_SLOTS // 2) <= near:
            found.setdefault(partition, tag)
        number += 1
    return tuple(found[partition] for partition in range(count))
