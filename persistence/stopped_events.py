"""Events that a writer has stopped at: see them, let the writer try again, or set one aside.

An operator decides; nothing here happens by itself. While a partition is stopped, its shop goes on selling until the
backlog is full, and nothing there becomes durable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.events import pairs_of
from engine.lanes import deadline_in
from persistence.alarms import STOPPED, UNKNOWN_EVENT, clear_alarms
from persistence.database import translated

Connection = AsyncConnection[TupleRow]

READ_WITHIN_S = 2.0


class CannotSetAside(Exception):
    """There is no event here that may be passed over; the message says why."""


@dataclass(frozen=True, slots=True)
class StoppedPartition:
    """A partition that PostgreSQL has followed up to (``epoch``, ``seq``) and no further. ``why`` is the writer's.

    ``waits_for_upgrade``: the next event is unknown to this version's worker; a newer one takes it in by itself.
    """

    partition: int
    epoch: int
    seq: int
    why: str
    since: datetime
    waits_for_upgrade: bool = False


@dataclass(frozen=True, slots=True)
class StoppingEvent:
    """The first event that is not in PostgreSQL, as it stands in the stream; bytes that are no text are escaped."""

    place: str
    fields: tuple[tuple[str, str], ...]

    @property
    def type(self) -> str:
        """Its type, or nothing."""
        return next((value for name, value in self.fields if name == "type"), "")


async def stopped_partitions(connection: Connection) -> list[StoppedPartition]:
    """Every partition that an event has stopped, in order. Raises `DatabaseError`."""
    with translated():
        cursor = await connection.execute(
            """SELECT c.partition, c.epoch, c.seq, coalesce(c.stopped, a.detail), coalesce(c.stopped_at, a.raised_at),
                      c.stopped IS NULL
               FROM partition_cursor c
               LEFT JOIN alarm a ON a.kind = %s AND a.partition = c.partition AND a.cleared_at IS NULL
                                AND c.seq < split_part(a.subject, '-', 2)::bigint
               WHERE c.stopped IS NOT NULL OR a.id IS NOT NULL ORDER BY c.partition, a.id""",
            (UNKNOWN_EVENT,),
        )
        found = [StoppedPartition(*row) for row in await cursor.fetchall()]
    return list({each.partition: each for each in found}.values())


async def next_event(engine: Engine, partition: int, epoch: int, seq: int) -> StoppingEvent | None:
    """The first event after (``epoch``, ``seq``) in the stream, or ``None``. Raises `EngineError`."""
    deadline = deadline_in(READ_WITHIN_S)
    entries = await engine.lanes.execute(
        partition, "XRANGE", engine.keys.events(partition), f"({epoch}-{seq}", "+", "COUNT", 1, deadline=deadline
    )
    if not entries:
        return None
    place, flat = entries[0]
    return StoppingEvent(place.decode(), _pairs(flat))


def _pairs(flat: Sequence[bytes]) -> tuple[tuple[str, str], ...]:
    try:
        pairs = pairs_of(flat)
    except ValueError:  # what it holds is not by turns: shown as it came
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
    return tuple(
        (name.decode(errors="backslashreplace"), value.decode(errors="backslashreplace")) for name, value in pairs
    )


async def retry(connection: Connection, partition: int) -> bool:
    """Let the writer try the event again; false when it is not stopped. Raises `DatabaseError`."""
    with translated():
        async with connection.transaction():
            cursor = await connection.execute(
                """UPDATE partition_cursor SET stopped = NULL, stopped_at = NULL
                   WHERE partition = %s AND stopped IS NOT NULL""",
                (partition,),
            )
            await clear_alarms(connection, STOPPED, partition)
    return cursor.rowcount == 1


async def set_aside(
    connection: Connection, engine: Engine, partition: int, *, reason: str, set_aside_by: str
) -> StoppingEvent:
    """Pass over the one event that has stopped the partition; it is kept on record, and the writer goes on behind it.

    What the event changed in Redis is then not in PostgreSQL: the audit will say so until somebody corrects it.
    Raises `CannotSetAside`, with nothing changed, and `EngineError` or `DatabaseError`.
    """
    with translated():
        async with connection.transaction():
            cursor = await connection.execute(
                "SELECT epoch, seq, server, stopped FROM partition_cursor WHERE partition = %s FOR UPDATE", (partition,)
            )
            row = await cursor.fetchone()
            if row is None:
                raise CannotSetAside(f"there is no partition {partition}")
            epoch, seq, server, stopped = row
            if stopped is None:
                raise CannotSetAside(f"partition {partition} is not stopped")
            event = await _event_to_pass(engine, partition, epoch, seq, server)
            await connection.execute(
                """INSERT INTO set_aside_event (partition, epoch, seq, fields, stopped, reason, set_aside_by)
                   VALUES (%s, %s, %s, %s, %s, %s, %s)""",
                (partition, epoch, seq + 1, orjson.dumps(event.fields).decode(), stopped, reason, set_aside_by),
            )
            # `updated_at` stays: what waited behind the event is as old as the stop, and may be lost as a whole.
            await connection.execute(
                "UPDATE partition_cursor SET seq = seq + 1, stopped = NULL, stopped_at = NULL WHERE partition = %s",
                (partition,),
            )
            await clear_alarms(connection, STOPPED, partition)
    return event


async def _event_to_pass(engine: Engine, partition: int, epoch: int, seq: int, server: str | None) -> StoppingEvent:
    """The event that directly follows the cursor, on the server that the cursor names."""
    identity = engine.lanes.identity(partition)
    if identity is None or identity.decode() != server:
        raise CannotSetAside(f"the Redis that is there is not the one that partition {partition} is read from")
    event = await next_event(engine, partition, epoch, seq)
    if event is None:
        raise CannotSetAside(f"the stream of partition {partition} has nothing after {epoch}-{seq}")
    if event.place != f"{epoch}-{seq + 1}":
        raise CannotSetAside(
            f"event {epoch}-{seq + 1} of partition {partition} is missing, the next one there is {event.place}: events"
            " were lost, and passing over one would hide it"
        )
    if engine.lanes.identity(partition) != identity:
        raise CannotSetAside(f"the Redis of partition {partition} has changed meanwhile")
    return event
