"""An engine over the test's Redis and its database."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from api.commands.embedded_valkey import EmbeddedValkey
from engine.engine import Engine, open_engine
from engine.settings import EngineSettings
from persistence.database import connect
from persistence.installation import register_installation
from persistence.trust import Trust
from tests.persistence.events import Events

PARTITIONS = 4


@pytest.fixture
def own_valkey(data_folder: Path) -> Iterator[EmbeddedValkey]:
    """A server of this test's own to kill, which keeps all that it answered."""
    with EmbeddedValkey(data_folder / "valkey", settings={"appendfsync": "always"}) as server:
        yield server


@pytest.fixture
def engine_settings(redis_url: str) -> EngineSettings:
    """Few partitions, so that each has something to do."""
    return EngineSettings(redis_url=redis_url, partitions=PARTITIONS)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A connection to the test's database."""
    async with await connect(database_url, "test") as connection:
        yield connection


@pytest.fixture
async def engine(engine_settings: EngineSettings, connection: AsyncConnection[TupleRow]) -> AsyncIterator[Engine]:
    """An engine whose partitions are registered and trusted."""
    await register_installation(connection, engine_settings)
    async with open_engine(engine_settings) as engine:
        assert await Trust(engine).look(connection)
        yield engine


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A plain client of the test's Redis."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def events(engine: Engine, client: redis.asyncio.Redis) -> Events:
    """The events of partition 0."""
    return Events(engine, client, 0)
