"""The cursors: how far PostgreSQL has followed each partition, in which epoch, and from which server it may read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.errors import ClaimLost
from persistence.database import translated

Connection = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A partition's row of `partition_cursor`, what recovery needs of it."""

    epoch: int
    seq: int
    server: str | None


async def read_cursors(connection: Connection) -> dict[int, Cursor]:
    """Every partition's."""
    with translated():
        cursor = await connection.execute("SELECT partition, epoch, seq, server FROM partition_cursor")
        return {number: Cursor(epoch, seq, server) for number, epoch, seq, server in await cursor.fetchall()}


async def set_servers(connection: Connection, servers: Mapping[int, str], seen: Mapping[int, Cursor]) -> None:
    """Let the writers read from these servers and from no other; a server that is none lets nobody read.

    A writer may still be at work for the server before, so this waits for it. Raises `ClaimLost`, with nothing changed,
    where a cursor is not what it was when it was ``seen``, unless it named this very server already.
    """
    with translated():
        async with connection.transaction():
            cursor = await connection.execute(
                "SELECT partition, epoch, seq, server FROM partition_cursor WHERE partition = ANY(%s)"
                " ORDER BY partition FOR UPDATE",
                (list(servers),),
            )
            for number, epoch, seq, server in await cursor.fetchall():
                if server != servers[number] and Cursor(epoch, seq, server) != seen[number]:
                    raise ClaimLost(f"the cursor of partition {number} has moved")
            await connection.execute(
                """UPDATE partition_cursor t SET server = s.server
                   FROM unnest(%s::smallint[], %s::text[]) AS s (partition, server) WHERE t.partition = s.partition""",
                (list(servers), list(servers.values())),
            )


async def end_epoch(
    connection: Connection, number: int, seen: Cursor, next_epoch: int, rebuilt_on: str | None = None
) -> Cursor:
    """End the epoch of a cursor that stands where it was ``seen``; the cursor as it is then.

    What Redis had after it in that epoch is lost for good. ``rebuilt_on``: the server that the writers may read from
    now, without the events that one of them may have stopped at.

    Raises `ClaimLost` where the cursor is not what it was.
    """
    is_rebuilt = rebuilt_on is not None
    with translated():
        async with connection.transaction():
            cursor = await connection.execute(
                """UPDATE partition_cursor
                   SET epoch = %s, server = coalesce(%s, server),
                       stopped = CASE WHEN %s THEN NULL ELSE stopped END,
                       stopped_at = CASE WHEN %s THEN NULL ELSE stopped_at END
                   WHERE partition = %s AND (epoch, seq) = (%s, %s) AND server IS NOT DISTINCT FROM %s
                   RETURNING epoch, seq, server""",
                (next_epoch, rebuilt_on, is_rebuilt, is_rebuilt, number, seen.epoch, seen.seq, seen.server),
            )
            row = await cursor.fetchone()
            if row is None:
                raise ClaimLost(f"the cursor of partition {number} has moved")
            # An epoch before the last may have had no event of its own; then it ends where the last one began.
            await connection.execute(
                """INSERT INTO epoch_end (partition, epoch, last_seq)
                   SELECT %s, e, %s FROM generate_series(%s::bigint, %s::bigint - 1) e ON CONFLICT DO NOTHING""",
                (number, seen.seq, seen.epoch, next_epoch),
            )
    return Cursor(*row)


async def ended_at(connection: Connection, number: int, epoch: int) -> int | None:
    """The last sequence of an epoch that has ended; ``None`` for another."""
    with translated():
        cursor = await connection.execute(
            "SELECT last_seq FROM epoch_end WHERE partition = %s AND epoch = %s", (number, epoch)
        )
        row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def read_generation(connection: Connection) -> int:
    """The installation's generation."""
    with translated():
        row = await (await connection.execute("SELECT generation FROM installation")).fetchone()
    assert row is not None, "the installation was registered at the start"
    return int(row[0])


async def next_generation(connection: Connection, known: Collection[int]) -> int:
    """A generation above the installation's and all that are ``known``: a database that went back knows less."""
    with translated():
        cursor = await connection.execute(
            "UPDATE installation SET generation = greatest(generation, %s) + 1 RETURNING generation",
            (max(known, default=0),),
        )
        row = await cursor.fetchone()
    assert row is not None, "the installation was registered at the start"
    return int(row[0])


async def note_drained(connection: Connection, partitions: Sequence[int], at_ms: int, idle_s: float) -> None:
    """Note for partitions where nothing happens that PostgreSQL had all of them at a moment before they were looked at.

    ``at_ms``: since 1970. So `updated_at` bounds what a loss of Redis can have taken, however long nothing was written.
    """
    with translated():
        await connection.execute(
            """UPDATE partition_cursor SET updated_at = to_timestamp(%(at_ms)s / 1000.0)
               WHERE partition = ANY(%(partitions)s)
                 AND updated_at < to_timestamp(%(at_ms)s / 1000.0) - %(idle_s)s * interval '1 s'""",
            {"partitions": list(partitions), "at_ms": at_ms, "idle_s": idle_s},
        )
