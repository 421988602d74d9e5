"""Idempotency keys that were spent: Redis forgets them after a day by itself, PostgreSQL here."""

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.idempotency import KEPT_MS
from persistence.database import translated

FORGET_AFTER_S = KEPT_MS // 1000 + 3_600  # a rebuild asks for keys up to KEPT_MS old
FORGET_ROWS_MAX = 5_000
"""How many a call removes at most, so that no transaction is long."""


async def forget_old(connection: AsyncConnection[TupleRow]) -> int:
    """Remove the next keys that are older than a rebuild asks for; how many. Raises `DatabaseError`."""
    with translated():
        cursor = await connection.execute(
            """DELETE FROM idempotency_key WHERE ctid = ANY(ARRAY(
                   SELECT ctid FROM idempotency_key WHERE spent_at < now() - %s * interval '1 s' LIMIT %s))""",
            (FORGET_AFTER_S, FORGET_ROWS_MAX),
        )
    return cursor.rowcount
