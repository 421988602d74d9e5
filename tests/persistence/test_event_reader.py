"""What is read ahead while PostgreSQL writes is written if nothing came between, and forgotten otherwise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
import redis.asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from persistence.database import RowsRefused, connect
from persistence.event_reader import EventReader, PartitionHead
from persistence.event_rows import RowBatch
from persistence.row_statements import write_rows
from persistence.settings import WorkerSettings
from persistence.writer import Writer
from tests.persistence.events import Events
from tests.persistence.shop import rows, value, write_all

Connection = AsyncConnection[TupleRow]

BATCH = 5


@pytest.fixture
async def writer(engine: Engine, database_url: str) -> AsyncIterator[Writer]:
    """A writer of small batches."""
    async with await connect(database_url, "test writer") as own:
        with closing(Writer(engine, own, WorkerSettings(database_url=database_url, batch_events_max=BATCH))) as writer:
            await writer.start()
            yield writer


@pytest.fixture
def asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """After which places partition 0 was read."""
    after: list[str] = []
    execute, stream = engine.lanes.execute, engine.keys.events(0)

    def noted(partition: int, *command: bytes | str | int, deadline: float) -> object:
        if command[:2] == ("XRANGE", stream):
            after.append(str(command[2]))
        return execute(partition, *command, deadline=deadline)

    monkeypatch.setattr(engine.lanes, "execute", noted)
    return after


async def charge(events: Events, count: int) -> None:
    for _ in range(count):
        await events.charge("ann", 1, events.seq + 1)


def hangs_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Redis never answers the ``number``-th question for events."""
    read_pass, numbers = EventReader._read_pass, iter(range(1, 1_000))

    async def hangs(self: EventReader, *arguments: Any) -> Any:
        if next(numbers) == number:
            await asyncio.Event().wait()
        return await read_pass(self, *arguments)

    monkeypatch.setattr(EventReader, "_read_pass", hangs)


async def places(connection: Connection, partition: int = 0) -> list[int]:
    found = await rows(connection, "SELECT seq FROM ledger_entry WHERE partition = %s ORDER BY seq", partition)
    return [seq for (seq,) in found]


async def test_each_event_of_a_backlog_is_read_once_and_the_next_batch_while_one_is_written(
    events: Events, connection: Connection, writer: Writer, asked: list[str]
) -> None:
    await charge(events, 12)

    counts = [(await writer.round({0})).events]
    await writer._reader.finish_ahead()
    assert asked == ["(1-0", "(1-5"]
    counts += [(await writer.round({0})).events for _ in range(3)]

    assert counts == [5, 5, 2, 0]
    assert asked == ["(1-0", "(1-5", "(1-10"]
    assert await places(connection) == [*range(1, 13)]


async def test_without_a_backlog_nothing_is_read_ahead(events: Events, writer: Writer, asked: list[str]) -> None:
    await charge(events, BATCH - 1)

    await writer.round({0})
    await writer._reader.finish_ahead()

    assert asked == ["(1-0"]


async def test_what_another_writer_has_written_meanwhile_is_not_written_again(
    engine: Engine, events: Events, connection: Connection, writer: Writer, database_url: str
) -> None:
    await charge(events, 12)
    await writer.round({0})
    await write_all(engine, database_url)
    await charge(events, 3)

    assert (await writer.round({0})).events == 3

    assert await places(connection) == [*range(1, 16)]


async def test_what_a_recovery_has_overtaken_is_not_written(
    events: Events, connection: Connection, writer: Writer
) -> None:
    await charge(events, 12)
    await writer.round({0})
    await writer._reader.finish_ahead()
    await connection.execute("UPDATE partition_cursor SET epoch = 2")

    await writer.round({0})

    assert await places(connection) == [*range(1, BATCH + 1)]


async def test_what_was_read_from_another_server_is_read_anew(
    events: Events, connection: Connection, writer: Writer, asked: list[str]
) -> None:
    """Of the same place in the same epoch: but what it says may be another's."""
    await charge(events, 12)
    await writer.round({0})
    await writer._reader.finish_ahead()
    assert writer._reader._ahead is not None
    writer._reader._ahead.result().heads = {0: PartitionHead("another:server", 12, 0)}

    await writer.round({0})

    assert asked[:3] == ["(1-0", "(1-5", "(1-5"]
    assert await places(connection) == [*range(1, 11)]


async def test_partitions_of_which_nothing_was_read_ahead_are_written_in_the_same_round(
    engine: Engine, events: Events, client: redis.asyncio.Redis, connection: Connection, writer: Writer
) -> None:
    other = Events(engine, client, 1)
    await charge(events, 12)
    await writer.round({0, 1})
    await writer._reader.finish_ahead()
    await other.charge("bob", 7, 7)

    assert (await writer.round({0, 1})).events == BATCH + 1

    assert await places(connection) == [*range(1, 11)]
    assert await places(connection, 1) == [1]


async def test_a_bad_event_that_was_read_ahead_stops_its_partition_just_before_it(
    engine: Engine, events: Events, client: redis.asyncio.Redis, connection: Connection, writer: Writer
) -> None:
    other = Events(engine, client, 1)
    await charge(events, 7)
    await events.add("wallet.charged", user="ann")
    await charge(events, 5)
    for number in range(12):
        await other.charge("bob", 1, number + 1)

    for _ in range(8):
        await writer.round({0, 1})

    assert await places(connection) == [*range(1, 8)]
    assert await places(connection, 1) == [*range(1, 13)]
    assert "1-8" in await value(connection, "SELECT stopped FROM partition_cursor WHERE partition = 0")


async def test_a_batch_that_is_refused_leaves_nothing_of_what_was_read_after_it(
    events: Events, connection: Connection, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await charge(events, 12)
    refused = iter([True])

    async def write(connection: Connection, batch: RowBatch) -> None:
        if next(refused, False):
            raise RowsRefused("for the test")
        await write_rows(connection, batch)

    monkeypatch.setattr("persistence.writer.write_rows", write)

    while (await writer.round({0})).events:
        pass

    assert await places(connection) == [*range(1, 13)]


async def test_a_batch_that_is_refused_does_not_wait_for_what_was_read_after_it(
    events: Events, connection: Connection, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await charge(events, 3)
    await events.charge("ann", 1, -1)
    await charge(events, 5)
    hangs_at(monkeypatch, 2)

    async with asyncio.timeout(60):
        while (await writer.round({0})).events:
            pass

    assert await places(connection) == [1, 2, 3]
    assert "balance" in await value(connection, "SELECT stopped FROM partition_cursor WHERE partition = 0")


async def test_the_round_after_a_short_batch_that_was_read_too_early_does_not_wait(
    events: Events, connection: Connection, writer: Writer
) -> None:
    await charge(events, BATCH + 1)
    await writer.round({0})
    await writer._reader.finish_ahead()
    await charge(events, BATCH)

    rounds = [await writer.round({0}) for _ in range(2)]

    assert [(each.events, each.full) for each in rounds] == [(1, True), (BATCH, True)]


async def test_a_writer_that_is_closed_leaves_nothing_running(
    events: Events, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await charge(events, 12)
    hangs_at(monkeypatch, 2)
    before = asyncio.all_tasks()
    await writer.round({0})
    (ahead,) = asyncio.all_tasks() - before

    writer.close()
    await asyncio.wait({ahead})

    assert ahead.cancelled()
