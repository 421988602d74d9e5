"""A partition's events, as entries of its stream.

An entry is `type`, `v`, `at` and `request`, and in `data` the names and values that are the type's own, by turns with a
`SEPARATOR` between any two. In version 1 they were fields of the entry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

HEAD: Final = [b"type", b"v", b"at", b"request", b"data"]
"""The names of an entry's fields."""

VERSION: Final = b"2"
SEPARATOR: Final = "\x1f"
"""ASCII's own separator of units. The API takes no control character in a text or an id, and JSON escapes them."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a partition. ``at_ms`` is by the partition's clock; ``fields`` as the script wrote them."""

    partition: int
    epoch: int
    seq: int
    type: str
    version: str
    at_ms: int
    fields: Mapping[str, str]

    @property
    def place(self) -> str:
        """``<epoch>-<seq>``, as entities carry it."""
        return f"{self.epoch}-{self.seq}"


def pairs_of(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Name and value of each of an entry's fields, those in `data` in its place. Raises ``ValueError`` for a name
    without a value.
    """
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if (b"v", VERSION) in pairs and pairs[-1][0] == b"data":
        parts = pairs.pop()[1].split(SEPARATOR.encode())
        pairs += zip(parts[::2], parts[1::2], strict=True)
    return pairs


def decode_event(partition: int, entry: Sequence[Any]) -> Event:
    """From a stream entry: the id and the fields. Raises ``ValueError`` or ``KeyError`` for what is no event."""
    place, flat = entry
    epoch, _, seq = place.partition(b"-")
    fields: dict[str, str] = {}
    for name, value in pairs_of(flat):
        fields.setdefault(name.decode(), value.decode())
    return Event(partition, int(epoch), int(seq), fields["type"], fields["v"], int(fields["at"]), fields)
