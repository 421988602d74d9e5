"""The include that writes events, by itself."""

from importlib.resources import files
from typing import Any

import pytest
import redis

from engine.events import pairs_of
from engine.scripts import resolve_includes
from tests.scripts.partition import Partition

INCLUDES = {name: files("lua").joinpath("include", f"{name}.lua").read_text() for name in ("events", "integers")}
SCRIPT = resolve_includes(
    """--- @include events
    return append(KEYS[1], KEYS[2], 1, 0, '', 'order.voided', 17, 'order', ARGV[1], 'user', ARGV[2])""",
    INCLUDES,
)


def test_names_and_values_are_one_field_by_turns(partition: Partition) -> None:
    assert partition.client.eval(SCRIPT, 2, "{a}events", "{a}meta", "o1", "") == b"1-1"

    entries: Any = partition.client.xrange("{a}events")
    ((_, fields),) = entries
    assert pairs_of(list(sum(fields.items(), ())))[4:] == [(b"order", b"o1"), (b"user", b"")]


def test_an_event_without_a_value_is_not_written(partition: Partition) -> None:
    with partition.unchanged(), pytest.raises(redis.exceptions.ResponseError, match=r"a field of order\.voided has no"):
        partition.client.eval(SCRIPT, 2, "{a}events", "{a}meta", "o1")
