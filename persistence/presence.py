"""Which workers are there, so that they share the polling. Only that: the row locks are what keeps them apart."""

from collections.abc import Sequence

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from persistence.database import translated

SHOWN_FOR_S = 5
"""Operators are shown a worker until it is unseen for so long; it says every second that it is there. When its share
goes to others is a setting of the workers, which the API does not read."""


async def announce(connection: AsyncConnection[TupleRow], worker_id: str, dead_ms: int) -> list[str]:
    """Say that this worker is there; the ids of all that are, in order, itself among them."""
    # One statement: a process that is paused between two would not find itself any more.
    with translated():
        cursor = await connection.execute(
            """WITH me AS (
                   INSERT INTO worker_presence (worker_id, seen_at) VALUES (%(me)s, now())
                   ON CONFLICT (worker_id) DO UPDATE SET seen_at = excluded.seen_at RETURNING worker_id
               ), gone AS (
                   DELETE FROM worker_presence
                   WHERE worker_id <> %(me)s AND seen_at < now() - 20 * %(dead_ms)s * interval '1 ms'
               )
               SELECT worker_id FROM me
               UNION
               SELECT worker_id FROM worker_presence WHERE seen_at > now() - %(dead_ms)s * interval '1 ms'
               ORDER BY worker_id""",
            {"me": worker_id, "dead_ms": dead_ms},
        )
        return [worker for (worker,) in await cursor.fetchall()]


async def leave(connection: AsyncConnection[TupleRow], worker_id: str) -> None:
    """Say that this worker goes, so that the others take over at once."""
    with translated():
        await connection.execute("DELETE FROM worker_presence WHERE worker_id = %s", (worker_id,))


def share_of(worker_id: str, workers: Sequence[str], partitions: int) -> tuple[int, ...]:
    """The partitions that this worker polls: every n-th, of n workers."""
    index = workers.index(worker_id)
    return tuple(range(index, partitions, len(workers)))
