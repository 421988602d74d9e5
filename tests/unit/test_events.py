"""A stream entry's fields, as this release writes them and as those before did."""

import pytest

from engine.events import Event, decode_event, pairs_of

FIELDS = {"type": "wallet.charged", "v": "2", "at": "17", "request": "of-ann", "user": "ann", "key": ""}
DATA = b"user\x1fann\x1fkey\x1f"
WRITTEN = [b"type", b"wallet.charged", b"v", b"2", b"at", b"17", b"request", b"of-ann", b"data", DATA]
BEFORE = [b"type", b"wallet.charged", b"v", b"1", b"at", b"17", b"user", b"ann", b"data", b"a\0b"]


def test_what_is_a_types_own_stands_in_its_data() -> None:
    assert decode_event(3, (b"1-9", WRITTEN)) == Event(3, 1, 9, "wallet.charged", "2", 17, FIELDS)


def test_in_the_release_before_each_was_a_field() -> None:
    assert pairs_of(BEFORE) == [(BEFORE[index], BEFORE[index + 1]) for index in range(0, 10, 2)]


@pytest.mark.parametrize("flat", [WRITTEN[:-1], [*WRITTEN[:-1], b"user"], [*WRITTEN[:-1], b"user\x1fa\x1fb"]])
def test_a_name_without_a_value_is_no_field(flat: list[bytes]) -> None:
    with pytest.raises(ValueError, match="zip"):
        pairs_of(flat)
