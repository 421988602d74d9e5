import time
from itertools import pairwise

import pytest

from engine import partitions as partitions_module
from engine.partitions import CLUSTER_SLOTS, Partitions, cluster_slot


def slot_ranges(primaries: int) -> list[range]:
    """The layout that `redis-cli --cluster create` makes."""
    share = CLUSTER_SLOTS / primaries
    starts = [round(i * share) for i in range(primaries)] + [CLUSTER_SLOTS]
    return [range(start, end) for start, end in pairwise(starts)]


@pytest.mark.parametrize("primaries", [1, 2, 3, 4, 5, 6, 8, 9, 12, 16])
@pytest.mark.parametrize("count", [16, 32, 64, 128, 256])
def test_primaries_share_the_partitions_evenly(count: int, primaries: int) -> None:
    partitions = Partitions(count)
    shares = [sum(partitions.slot(i) in slots for i in range(count)) for slots in slot_ranges(primaries)]
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("count", [1, 3, 64, 100, 1000, 1024])
def test_every_partition_has_its_own_tag_within_its_own_slot_range(count: int) -> None:
    partitions = Partitions(count)
    assert [partitions.slot(i) * count // CLUSTER_SLOTS for i in range(count)] == list(range(count))
    assert len({partitions.tag(i) for i in range(count)}) == count


def test_slots_are_those_of_the_cluster_specification() -> None:
    assert cluster_slot("123456789") == 0x31C3  # CRC16 XMODEM's own check value
    assert cluster_slot("foo") == 12182  # CLUSTER KEYSLOT foo


def test_tags_and_assignment_are_part_of_the_stored_format_and_never_change() -> None:
    partitions = Partitions(64)
    assert [partitions.tag(i) for i in (0, 1, 2, 31, 63)] == ["14", "281", "117", "742", "44"]
    assert [partitions.of(id) for id in ("u1", "alice", "상품-1", "")] == [54, 7, 57, 0]


def test_an_id_always_belongs_to_one_of_the_partitions() -> None:
    partitions = Partitions(5)
    assert {partitions.of(f"user-{n}") for n in range(200)} == set(range(5))


@pytest.mark.parametrize("count", [-1, 0, 1025])
def test_a_senseless_number_of_partitions_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1024"):
        Partitions(count)


def test_tags_are_found_quickly_and_once() -> None:
    partitions_module._tags.cache_clear()
    started = time.process_time()
    first = Partitions(64).tag(0)
    assert time.process_time() - started < 1
    misses = partitions_module._tags.cache_info().misses
    assert Partitions(64).tag(0) is first
    assert partitions_module._tags.cache_info().misses == misses


def test_ids_are_grouped_by_their_partitions_each_once_and_in_order() -> None:
    partitions = Partitions(4)
    ids = ["tea", "cup", "pot", "tea", "jar", "cup"]

    groups = partitions.group(ids)

    assert sorted(id for group in groups.values() for id in group) == ["cup", "jar", "pot", "tea"]
    assert all(partitions.of(id) == partition for partition, group in groups.items() for id in group)
    assert all(group == sorted(group, key=ids.index) for group in groups.values())
