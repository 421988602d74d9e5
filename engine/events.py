"""A partition's events, as entries of its stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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


def decode_event(partition: int, entry: Sequence[Any]) -> Event:
    """From a stream entry: the id and the flat fields. Raises ``ValueError`` or ``KeyError`` for what is no event."""
    place, flat = entry
    epoch, _, seq = place.partition(b"-")
    texts = [item.decode() for item in flat]
    fields = dict(zip(texts[::2], texts[1::2], strict=True))
    return Event(partition, int(epoch), int(seq), fields["type"], fields["v"], int(fields["at"]), fields)
