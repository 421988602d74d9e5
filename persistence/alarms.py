"""Alarms: what an operator must see. One row while it lasts, however often it is raised."""

from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from persistence.database import translated

STOPPED = "partition_stopped"
UNKNOWN_EVENT = "unknown_event"
UNTRUSTED = "partition_untrusted"
RESERVATION_LOST = "reservation_lost"
STOCK_SHORT = "stock_short"
POSTGRES_BEHIND = "postgres_behind"
DELIVERY_DEAD = "delivery_dead"
DELIVERY_LATE = "delivery_late"
AUDIT_MISMATCH = "audit_mismatch"

KINDS = (
    POSTGRES_BEHIND,
    STOPPED,
    UNTRUSTED,
    UNKNOWN_EVENT,
    AUDIT_MISMATCH,
    STOCK_SHORT,
    RESERVATION_LOST,
    DELIVERY_DEAD,
    DELIVERY_LATE,
)
"""Every kind there is, the gravest first. Each has a rule in deploy/prometheus/alerts.yml, an entry in
docs/operations.md, and a test that brings it about (tests/faults/test_alarms.py)."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that is open: ``kind``, where, what it is about, what is wrong, and what to do."""

    kind: str
    partition: int | None
    subject: str
    detail: str
    remedy: str


async def raise_alarm(connection: AsyncConnection[TupleRow], alarm: Alarm) -> bool:
    """Open the alarm; false when it is open already (its detail is then renewed)."""
    with translated():
        cursor = await connection.execute(
            """INSERT INTO alarm (kind, partition, subject, detail, remedy) VALUES (%s, %s, %s, %s, %s)
               ON CONFLICT (kind, (COALESCE(partition, '-1'::integer)), subject) WHERE cleared_at IS NULL
               DO UPDATE SET detail = excluded.detail, remedy = excluded.remedy
               RETURNING (xmax = 0)""",
            (alarm.kind, alarm.partition, alarm.subject, alarm.detail, alarm.remedy),
        )
        row = await cursor.fetchone()
    return bool(row and row[0])


async def clear_alarms(connection: AsyncConnection[TupleRow], kind: str, partition: int) -> None:
    """Close the open alarms of a kind in a partition."""
    with translated():
        await connection.execute(
            "UPDATE alarm SET cleared_at = now() WHERE kind = %s AND partition = %s AND cleared_at IS NULL",
            (kind, partition),
        )


async def clear_alarm(connection: AsyncConnection[TupleRow], kind: str, subject: str) -> None:
    """Close the open alarm of a kind about one thing that is of no partition."""
    with translated():
        await connection.execute(
            """UPDATE alarm SET cleared_at = now()
               WHERE kind = %s AND partition IS NULL AND subject = %s AND cleared_at IS NULL""",
            (kind, subject),
        )


async def clear_passed(connection: AsyncConnection[TupleRow]) -> None:
    """Close the alarms about unknown events that a newer worker has taken in since."""
    with translated():
        await connection.execute(
            """UPDATE alarm SET cleared_at = now() FROM partition_cursor c
               WHERE kind = %s AND cleared_at IS NULL AND alarm.partition = c.partition
                 AND split_part(subject, '-', 2)::bigint <= c.seq""",
            (UNKNOWN_EVENT,),
        )
