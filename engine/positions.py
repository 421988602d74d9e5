"""Positions: where in the partitions' events a request's changes stand."""

from collections.abc import Iterable

from msgspec import Struct


class Position(Struct, frozen=True):
    """One event's place: it is durable once PostgreSQL has this sequence of this epoch of this partition.

    Most are only told on, so ``place`` stays the text ``<epoch>-<seq>`` that it was.
    """

    partition: int
    place: str

    @property
    def epoch(self) -> int:
        """Counts the partition's histories."""
        return int(self.place.partition("-")[0])

    @property
    def seq(self) -> int:
        """Counts the epoch's events."""
        return int(self.place.partition("-")[2])


def position_of(partition: int, place: bytes | str) -> Position:
    """From a script's reply or from a row: ``place`` is ``<epoch>-<seq>``. Raises ``ValueError`` for any other."""
    text = place.decode() if isinstance(place, bytes) else place
    if "-" not in text:
        raise ValueError(f"{text!r} is no place")
    return Position(partition, text)


def _order(position: Position) -> tuple[int, int]:
    return position.epoch, position.seq


def last_of_each(positions: Iterable[Position]) -> tuple[Position, ...]:
    """The last position of each partition: once it is durable, all before it are."""
    last: dict[int, Position] = {}
    for position in positions:
        last[position.partition] = max(last.get(position.partition, position), position, key=_order)
    return tuple(last.values())


def position_text(positions: tuple[Position, ...]) -> str:
    """As clients get it: opaque to them; ``<partition>:<epoch>-<seq>`` joined by commas."""
    return ",".join([f"{position.partition}:{position.place}" for position in positions])


def parse_position(text: str) -> tuple[Position, ...]:
    """The other way round. Raises ``ValueError`` for what no answer of ours ever held."""
    positions = []
    for part in text.split(","):
        partition, _, place = part.partition(":")
        epoch, _, seq = place.partition("-")
        numbers = (partition, epoch, seq)
        if not all(number.isascii() and number.isdecimal() and len(number) <= 16 for number in numbers):
            raise ValueError(f"not a position: {text!r}")
        positions.append(Position(int(partition), f"{int(epoch)}-{int(seq)}"))
    return tuple(positions)
