"""Idempotency keys that were spent: Redis forgets them after a day by itself, PostgreSQL here."""

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from persistence.database import translated

FORGET_ROWS_MAX = 5_000
"""How many a call removes at most, so that no transaction is long."""


async def forget_old(connection: AsyncConnection[TupleRow]) -> int:
    """Remove the next keys that are older than a rebuild asks for; how many. Raises `DatabaseError`."""
    with translated():
        cursor = await connection.execute(
            """DELETE FROM idempotency_key WHERE ctid = ANY(ARRAY(
                   SELECT ctid FROM idempotency_key WHERE spent_at < now() - interval '25 hours' LIMIT %s))""",
            (FORGET_ROWS_MAX,),
        )
    return cursor.rowcount
