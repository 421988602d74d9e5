import inspect
import re

import pytest
from redis.crc import key_slot

from engine.idempotency import request_key
from engine.keys import Keys
from engine.partitions import Partitions

BUILDERS = [name for name, _ in inspect.getmembers(Keys, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("count", [1, 8, 64])
def test_every_key_of_a_partition_is_in_its_slot(count: int) -> None:
    partitions = Partitions(count)
    keys = Keys(partitions)
    for partition in range(count):
        for name in BUILDERS:
            build = getattr(keys, name)
            ids = ["a|b@c.d~e_f-G"] * (len(inspect.signature(build).parameters) - 1)
            key = build(partition, *ids)
            assert re.match(r"fc:\{\d+\}:", key)
            assert key_slot(key.encode()) == partitions.slot(partition)


def test_no_two_kinds_of_things_share_a_key() -> None:
    keys = Keys(Partitions(1))
    built = [
        getattr(keys, name)(0, *["x"] * (len(inspect.signature(getattr(keys, name)).parameters) - 1))
        for name in BUILDERS
    ]
    assert len(set(built)) == len(built) == len(BUILDERS)


def test_a_key_is_another_in_another_scope_and_the_same_for_another_body() -> None:
    mine = request_key("ann", "a-key", "charge", b"5")
    for key, scope in (("b-key", "charge"), ("a-key", "order"), ("a-keycharge", ""), ("", "charge\0a-key")):
        other = request_key("ann", key, scope, b"5")
        assert other.digest != mine.digest, (key, scope)
        assert other.fingerprint == mine.fingerprint
    other = request_key("ann", "a-key", "charge", b"6")
    assert (other.digest, other.fingerprint == mine.fingerprint) == (mine.digest, False)
