"""What the tests of recovery do over and over: keep a writer at work, restart Redis, and compare all that it holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import redis

from api.commands.embedded_valkey import EmbeddedValkey
from engine.engine import Engine
from persistence.database import connect
from persistence.settings import WorkerSettings
from persistence.writer import Writer
from tests.persistence.shop import until
from tests.servers import redis_client

Dump = dict[str, dict[str, str]]


@asynccontextmanager
async def writing(engine: Engine, database_url: str) -> AsyncIterator[None]:
    """A writer at work, as recovery needs one."""

    async def write() -> None:
        async with await connect(database_url, "test writer") as own:
            writer = Writer(engine, own, WorkerSettings(database_url=database_url))
            await writer.start()
            while True:
                await writer.round(range(engine.partitions.count))
                await asyncio.sleep(0.005)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(outcome, asyncio.CancelledError), outcome


async def restart(valkey: EmbeddedValkey, engine: Engine) -> None:
    """Kill the server and start it again on what it has kept; wait until the engine is connected to it."""
    before = engine.lanes.identity(0)
    valkey.kill()
    await asyncio.to_thread(valkey.start)

    async def is_another() -> bool:
        return engine.lanes.identity(0) not in {None, before}

    await until(is_another)


def dump(url: str) -> Dump:
    """Every key's fields or members, as text; but the events, how far eviction is, and what a recovery raises."""
    with redis_client(url) as client:
        keys = cast("list[bytes]", client.keys("*"))
        found = {key.decode(): _value(client, key) for key in keys if not key.endswith((b":events", b":cold"))}
    for key, fields in found.items():
        if key.endswith(":meta"):
            for raised in ("server", "generation", "epoch"):
                fields.pop(raised, None)
        if ":user:" in key:
            # Who never had money has no balance in Redis until the first charge; rebuilt, it is 0.
            fields.setdefault("balance", "0")
    return found


def _value(client: redis.Redis, key: bytes) -> dict[str, str]:
    if client.type(key) == b"hash":
        value: Any = client.hgetall(key)
        return {name.decode(): text.decode() for name, text in value.items()}
    members: Any = client.zrange(key, 0, -1, withscores=True)
    return {name.decode(): str(score) for name, score in members}


def id_in(engine: Engine, partition: int, name: str) -> str:
    """An id that begins so and belongs to the partition."""
    return next(f"{name}{n}" for n in range(10_000) if engine.partitions.of(f"{name}{n}") == partition)


@dataclass(frozen=True, slots=True)
class Past:
    """One partition as it was in Redis at some moment."""

    url: str
    engine: Engine
    partition: int
    keys: dict[bytes, bytes]

    @classmethod
    def of(cls, engine: Engine, partition: int) -> Self:
        """As it is now."""
        url = engine.settings.redis_url
        with redis_client(url) as client:
            keys = {key: _dumped(client, key) for key in _keys_of(client, engine, partition)}
        return cls(url, engine, partition, keys)

    def bring_back(self, server: str | None = "earlier:server") -> None:
        """Make it so again, as if a server of an earlier time had taken over: all that came since is lost. ``None``:
        as if somebody had restored it while its server lives.
        """
        with redis_client(self.url) as client:
            client.delete(*_keys_of(client, self.engine, self.partition))
            for key, value in self.keys.items():
                client.restore(key, 0, value)
            if server is not None:
                client.hset(self.engine.keys.meta(self.partition), "server", server)


def _keys_of(client: redis.Redis, engine: Engine, partition: int) -> list[bytes]:
    keys = cast("list[bytes]", client.keys("*"))
    return [key for key in keys if key.startswith(engine.keys.prefix(partition).encode())]


def _dumped(client: redis.Redis, key: bytes) -> bytes:
    value = client.dump(key)
    assert isinstance(value, bytes)
    return value


async def write_of(engine: Engine, database_url: str, *partitions: int) -> None:
    """Write all that these partitions have, and nothing of the others."""
    async with await connect(database_url, "test writer") as connection:
        writer = Writer(engine, connection, WorkerSettings(database_url=database_url))
        await writer.start()
        while (await writer.round(partitions)).events:
            pass
