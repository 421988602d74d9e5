"""What a worker looks at before it begins: servers that would lose what they were told are refused."""

import re

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.lanes import deadline_in
from persistence.database import translated
from persistence.revisions import require_revision

READ_WITHIN_S = 5.0


class StartRefused(Exception):
    """Starting would damage what is stored, or lose what is to be stored; the message says what to do."""


async def require_safe_servers(connection: AsyncConnection[TupleRow], engine: Engine) -> None:
    """Raises `StartRefused` for servers that lose data, `SchemaMismatch` for another schema than this program's."""
    with translated():
        row = await (
            await connection.execute("SELECT current_setting('fsync'), current_setting('full_page_writes')")
        ).fetchone()
        schema = await (await connection.execute("SELECT version_num FROM alembic_version")).fetchone()
    assert row is not None, "every server has these settings"
    require_safe_postgres(*row)
    require_revision(None if schema is None else str(schema[0]))
    seen = set()
    for partition in range(engine.partitions.count):
        identity = engine.lanes.identity(partition)
        if identity is not None and identity not in seen:
            seen.add(identity)
            require_safe_redis(await eviction_policy(engine, partition))


async def eviction_policy(engine: Engine, partition: int) -> str:
    """`maxmemory-policy` of the partition's server, from INFO as CONFIG is often forbidden; "" where it is not told."""
    deadline = deadline_in(READ_WITHIN_S)
    info: bytes = await engine.lanes.execute(partition, "INFO", "memory", deadline=deadline)
    found = re.search(rb"^maxmemory_policy:([a-z-]+)", info, re.MULTILINE)
    return "" if found is None else found[1].decode()


def require_safe_postgres(fsync: str, full_page_writes: str) -> None:
    """Raises `StartRefused` for a PostgreSQL whose crash loses commits."""
    if (fsync, full_page_writes) != ("on", "on"):
        raise StartRefused(
            f"PostgreSQL has fsync {fsync} and full_page_writes {full_page_writes}: a crash would lose what was"
            " answered as durable. Set both to on"
        )


def require_safe_redis(policy: str) -> None:
    """Raises `StartRefused` for a Redis that throws keys away when its memory is full."""
    if policy not in {"noeviction", ""}:
        raise StartRefused(
            f"Redis has maxmemory-policy {policy}, and would throw money and stock away when its memory is full."
            " Set it to noeviction"
        )
