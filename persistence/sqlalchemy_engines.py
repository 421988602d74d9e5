"""SQLAlchemy over the way to PostgreSQL, for those who need it: it takes a while to load, and a worker does not."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from persistence.database import libpq_url, session_parameters, translated


def history_engine(database_url: str, *, pool_size: int, wait_s: float, statement_ms: int) -> AsyncEngine:
    """A pooled engine for reads. A statement may take ``statement_ms``, waiting for a connection ``wait_s``."""
    parameters = session_parameters("firstcome history", idle_in_transaction_ms=10_000, statement_ms=statement_ms)

    async def connection() -> AsyncConnection[TupleRow]:
        return await AsyncConnection.connect(libpq_url(database_url), **parameters)

    return create_async_engine(
        make_url("postgresql+psycopg://"),
        async_creator=connection,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=wait_s,
        pool_pre_ping=True,
        pool_recycle=1_800,
    )


@contextmanager
def migration_engine(database_url: str) -> Iterator[Engine]:
    """An engine for one thread and one task, without a pool."""
    parameters = session_parameters("firstcome migrate", idle_in_transaction_ms=0, statement_ms=0)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(libpq_url(database_url), **parameters),
        poolclass=NullPool,
    )
    try:
        with translated():
            yield engine
    finally:
        engine.dispose()
