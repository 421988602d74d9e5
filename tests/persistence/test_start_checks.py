"""A worker does not begin on servers that would lose what they are told, and says what to do."""

import asyncio

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.settings import EngineSettings
from persistence.database import SchemaMismatch
from persistence.settings import WorkerSettings
from persistence.start_checks import StartRefused, require_safe_postgres
from persistence.worker import run
from tests.servers import redis_client

BEGINS_WITHIN_S = 20


async def begin(database_url: str, engine_settings: EngineSettings) -> None:
    async with asyncio.timeout(BEGINS_WITHIN_S):
        await run(WorkerSettings(database_url=database_url), engine_settings)


async def test_a_redis_that_evicts_is_refused(
    redis_url: str, database_url: str, engine_settings: EngineSettings
) -> None:
    with redis_client(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(StartRefused, match=r"allkeys-lru.*Set it to noeviction"):
                await begin(database_url, engine_settings)
        finally:
            client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(("fsync", "pages"), [("off", "on"), ("on", "off")])
def test_a_postgresql_that_forgets_in_a_crash_is_refused(fsync: str, pages: str) -> None:
    require_safe_postgres("on", "on")
    with pytest.raises(StartRefused, match="Set both to on"):
        require_safe_postgres(fsync, pages)


@pytest.mark.parametrize(("revision", "remedy"), [("9999", "upgrade this program"), ("0001", "firstcome migrate")])
async def test_another_schema_is_refused(
    revision: str,
    remedy: str,
    connection: AsyncConnection[TupleRow],
    database_url: str,
    engine_settings: EngineSettings,
) -> None:
    await connection.execute("UPDATE alembic_version SET version_num = %s", (revision,))
    with pytest.raises(SchemaMismatch, match=remedy):
        await begin(database_url, engine_settings)
