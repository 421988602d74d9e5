"""What an operator does about an event that has stopped its partition's writer."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
import redis.asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.events import SEPARATOR
from persistence.database import connect
from persistence.settings import WorkerSettings
from persistence.stopped_events import CannotSetAside, next_event, retry, set_aside, stopped_partitions
from persistence.writer import Writer
from tests.persistence.shop import rows, until, value, write_all

Connection = AsyncConnection[TupleRow]
OPEN_ALARMS = "SELECT kind, partition FROM alarm WHERE cleared_at IS NULL"


async def put_event(
    engine: Engine,
    client: redis.asyncio.Redis,
    partition: int,
    fields: Mapping[Any, Any],
    *,
    skip: int = 0,
) -> str:
    """Append an event such as no script would; its place."""
    meta = engine.keys.meta(partition)
    seq = int(await client.hget(meta, "seq") or 0) + 1 + skip
    place = f"1-{seq}"
    await client.xadd(engine.keys.events(partition), dict(fields), id=place)
    await client.hset(meta, "seq", str(seq))
    return place


def adjusted(reason: bytes) -> dict[str, Any]:
    """Of a product that there is not."""
    fields = b"product|nothing|stock|s|delta|1|available|1|key||fingerprint||reason|"
    data = fields.replace(b"|", SEPARATOR.encode()) + reason
    return {"type": "stock.adjusted", "v": "2", "at": "1700000000000", "request": "", "data": data}


BAD = adjusted(b"\xff")
UNAPPLICABLE = adjusted(b"found")


@pytest.fixture
async def stopped(engine: Engine, connection: Connection, client: redis.asyncio.Redis, database_url: str) -> int:
    """Ann's partition, stopped at its second of three events."""
    partition = engine.partitions.of("ann")
    await engine.wallets.charge("ann", 1)
    assert await put_event(engine, client, partition, UNAPPLICABLE) == "1-2"
    await engine.wallets.charge("ann", 10)
    await write_all(engine, database_url)
    return partition


async def test_a_stopped_partition_is_listed_with_the_event_that_stopped_it(
    engine: Engine, connection: Connection, stopped: int
) -> None:
    (found,) = await stopped_partitions(connection)

    assert (found.partition, found.epoch, found.seq, found.waits_for_upgrade) == (stopped, 1, 1, False)
    assert "cannot be applied" in found.why
    event = await next_event(engine, stopped, found.epoch, found.seq)
    assert event is not None
    assert (event.place, event.type) == ("1-2", "stock.adjusted")
    assert dict(event.fields)["product"] == "nothing"


async def test_retried_while_nothing_was_mended_it_stops_again(
    engine: Engine, connection: Connection, stopped: int, database_url: str
) -> None:
    assert await retry(connection, stopped)
    assert await stopped_partitions(connection) == []
    assert await rows(connection, OPEN_ALARMS) == []

    await write_all(engine, database_url)

    assert [each.partition for each in await stopped_partitions(connection)] == [stopped]
    assert await rows(connection, OPEN_ALARMS) == [("partition_stopped", stopped)]
    assert await value(connection, "SELECT balance FROM wallet WHERE user_id = 'ann'") == 1


async def test_retried_once_the_cause_is_mended_the_writer_goes_on(
    engine: Engine, connection: Connection, stopped: int, database_url: str
) -> None:
    await connection.execute("INSERT INTO product VALUES ('nothing', %s, 'Nothing', 1, '1-1')", (stopped,))
    await connection.execute("INSERT INTO stock_item VALUES ('nothing', 's', %s, 1, 0, '', 0, 0, 0, 0)", (stopped,))

    assert await retry(connection, stopped)
    await write_all(engine, database_url)

    assert await stopped_partitions(connection) == []
    assert await value(connection, "SELECT balance FROM wallet WHERE user_id = 'ann'") == 11
    assert await value(connection, "SELECT count(*) FROM set_aside_event") == 0


async def test_a_partition_that_is_not_stopped_is_not_retried(engine: Engine, connection: Connection) -> None:
    assert not await retry(connection, 0)


@pytest.mark.requirement("R0.3")
async def test_exactly_one_event_is_passed_over_and_kept_on_record(
    engine: Engine, connection: Connection, stopped: int, database_url: str
) -> None:
    why = (await stopped_partitions(connection))[0].why

    event = await set_aside(connection, engine, stopped, reason="a test", set_aside_by="operator@desk")

    assert event.place == "1-2"
    ((place, fields, *record),) = await rows(
        connection,
        """SELECT epoch || '-' || seq, fields, stopped, reason, set_aside_by, partition FROM set_aside_event
           WHERE set_aside_at > now() - interval '1 minute'""",
    )
    assert (place, record) == ("1-2", [why, "a test", "operator@desk", stopped])
    assert dict(orjson.loads(fields)) == {
        "type": "stock.adjusted", "v": "2", "at": "1700000000000", "request": "", "product": "nothing", "stock": "s",
        "delta": "1", "available": "1", "key": "", "fingerprint": "", "reason": "found",
    }  # fmt: skip
    assert await value(connection, "SELECT seq FROM partition_cursor WHERE partition = %s", stopped) == 2
    assert await rows(connection, OPEN_ALARMS) == []

    await write_all(engine, database_url)
    assert await value(connection, "SELECT balance FROM wallet WHERE user_id = 'ann'") == 11
    meta = await engine.recovery.inspect(stopped)
    assert meta is not None
    assert meta.durable == meta.seq == 3


async def test_a_field_that_is_no_text_is_kept_escaped(
    engine: Engine, connection: Connection, client: redis.asyncio.Redis, database_url: str
) -> None:
    await put_event(engine, client, 0, BAD)
    await write_all(engine, database_url)

    await set_aside(connection, engine, 0, reason="", set_aside_by="me")

    fields = orjson.loads(await value(connection, "SELECT fields FROM set_aside_event"))
    assert dict(fields)["reason"] == "\\xff"


async def test_what_is_not_stopped_cannot_be_set_aside(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    await engine.wallets.charge("ann", 1)

    with pytest.raises(CannotSetAside, match="not stopped"):
        await set_aside(connection, engine, engine.partitions.of("ann"), reason="", set_aside_by="me")
    with pytest.raises(CannotSetAside, match="no partition 99"):
        await set_aside(connection, engine, 99, reason="", set_aside_by="me")

    await write_all(engine, database_url)
    assert await value(connection, "SELECT balance FROM wallet") == 1


async def test_events_that_are_missing_are_never_passed_over(
    engine: Engine, connection: Connection, client: redis.asyncio.Redis, database_url: str
) -> None:
    await put_event(engine, client, 0, UNAPPLICABLE, skip=2)
    await write_all(engine, database_url)
    assert [each.partition for each in await stopped_partitions(connection)] == [0]

    with pytest.raises(CannotSetAside, match="1-1 of partition 0 is missing, the next one there is 1-3"):
        await set_aside(connection, engine, 0, reason="", set_aside_by="me")
    await client.xtrim(engine.keys.events(0), maxlen=0)
    with pytest.raises(CannotSetAside, match="nothing after 1-0"):
        await set_aside(connection, engine, 0, reason="", set_aside_by="me")

    assert await value(connection, "SELECT seq FROM partition_cursor WHERE partition = 0") == 0
    assert await value(connection, "SELECT stopped FROM partition_cursor WHERE partition = 0")
    assert await value(connection, "SELECT count(*) FROM set_aside_event") == 0


async def test_another_redis_than_the_trusted_one_is_not_believed(
    engine: Engine, connection: Connection, stopped: int
) -> None:
    await connection.execute("UPDATE partition_cursor SET server = 'another' WHERE partition = %s", (stopped,))

    with pytest.raises(CannotSetAside, match="not the one"):
        await set_aside(connection, engine, stopped, reason="", set_aside_by="me")


async def test_an_unknown_event_is_listed_as_one_for_a_newer_worker_until_it_is_taken_in(
    engine: Engine, connection: Connection, client: redis.asyncio.Redis, database_url: str
) -> None:
    await put_event(engine, client, 0, {"type": "moon.rises", "v": "1", "at": "1700000000000"})
    await write_all(engine, database_url)

    (found,) = await stopped_partitions(connection)
    assert (found.partition, found.waits_for_upgrade) == (0, True)
    assert "moon.rises" in found.why
    with pytest.raises(CannotSetAside, match="not stopped"):
        await set_aside(connection, engine, 0, reason="", set_aside_by="me")

    await connection.execute("UPDATE partition_cursor SET seq = 1 WHERE partition = 0")
    assert await stopped_partitions(connection) == []


async def test_a_writer_at_work_goes_on_by_itself_some_seconds_later(
    engine: Engine, connection: Connection, stopped: int, database_url: str
) -> None:
    async with await connect(database_url, "test writer") as own:
        writer = Writer(engine, own, WorkerSettings(database_url=database_url))
        await writer.start()
        await writer.round([stopped])
        assert await value(connection, "SELECT balance FROM wallet") == 1

        await set_aside(connection, engine, stopped, reason="", set_aside_by="me")

        async def is_written() -> bool:
            return (await writer.round([stopped])).events == 1

        await until(is_written)
    assert await value(connection, "SELECT balance FROM wallet") == 11
