"""Positions: where in the partitions' events a request's changes stand."""

from collections.abc import Iterable
from typing import NamedTuple


class Position(NamedTuple):
    """One event's place: it is durable once PostgreSQL has this sequence of this epoch of this partition."""

    partition: int
    epoch: int
    seq: int


def position_of(partition: int, place: bytes | str) -> Position:
    """From a script's reply or from a row: ``place`` is ``<epoch>-<seq>``."""
    epoch, seq = place.split(b"-") if isinstance(place, bytes) else place.split("-")
    return Position(partition, int(epoch), int(seq))


def last_of_each(positions: Iterable[Position]) -> tuple[Position, ...]:
    """The last position of each partition: once it is durable, all before it are."""
    last: dict[int, Position] = {}
    for position in positions:
        last[position.partition] = max(position, last.get(position.partition, position))
    return tuple(last.values())


def position_text(positions: tuple[Position, ...]) -> str:
    """As clients get it: opaque to them; ``<partition>:<epoch>-<seq>`` joined by commas."""
    return ",".join([f"{partition}:{epoch}-{seq}" for partition, epoch, seq in positions])


def parse_position(text: str) -> tuple[Position, ...]:
    """The other way round. Raises ``ValueError`` for what no answer of ours ever held."""
    positions = []
    for part in text.split(","):
        partition, _, place = part.partition(":")
        epoch, _, seq = place.partition("-")
        numbers = (partition, epoch, seq)
        if not all(number.isascii() and number.isdecimal() and len(number) <= 16 for number in numbers):
            raise ValueError(f"not a position: {text!r}")
        positions.append(Position(int(partition), int(epoch), int(seq)))
    return tuple(positions)
