"""The worker as a whole: all duties together, several workers, and a clean stop."""

import asyncio
import os
import signal
from typing import Any, cast

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from api.commands.embedded_valkey import EmbeddedValkey
from engine.engine import Engine, open_engine
from engine.errors import EngineError
from engine.settings import EngineSettings
from persistence.database import DatabaseUnavailable, connect
from persistence.presence import announce, share_of
from persistence.settings import WorkerSettings
from persistence.worker import AFTERMATH_S, StartRefused, Worker, _Outage, run
from tests.persistence.shop import fill, line, rows, until, value

Connection = AsyncConnection[TupleRow]


async def _serves(engine: Engine) -> bool:
    try:
        await engine.wallets.balance("ann")
    except EngineError:
        return False
    return True


async def test_a_worker_trusts_writes_and_settles_until_it_is_told_to_stop(
    engine_settings: EngineSettings, connection: Connection, database_url: str
) -> None:
    task = asyncio.create_task(run(WorkerSettings(database_url=database_url), engine_settings))
    async with open_engine(engine_settings) as engine:
        await until(lambda: _serves(engine))
        await fill(engine)
        charge = await engine.wallets.charge("ann", 1_000)
        await engine.orders.checkout("ann", [line(quantity=2)], None)
        assert await engine.durability.wait(charge.positions, 5)

        async def is_sold() -> bool:
            return await rows(connection, "SELECT sold FROM stock_item WHERE stock_id = 's'") == [(2,)]

        await until(is_sold)
        assert await value(connection, "SELECT count(*) FROM worker_presence") == 1

        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 10)

    assert await value(connection, "SELECT count(*) FROM worker_presence") == 0
    left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    async def all_are_gone() -> bool:
        return bool(await value(connection, left) == 0)

    await until(all_are_gone)


async def test_two_workers_share_the_partitions_and_one_takes_over_when_the_other_stops(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    settings = WorkerSettings(database_url=database_url, trust_every_ms=50)
    stops = [asyncio.Event(), asyncio.Event()]
    tasks = [asyncio.create_task(Worker(engine, settings).run(stop)) for stop in stops]
    for number in range(100):
        await engine.wallets.charge(f"user{number % 10}", 1)

    async def all_are_written() -> bool:
        return bool(await value(connection, "SELECT coalesce(sum(amount), 0) FROM ledger_entry") == 100)

    await until(all_are_written)
    stops[0].set()
    await tasks[0]
    charges = [await engine.wallets.charge(f"user{number}", 1) for number in range(10)]
    assert await engine.durability.wait([charge.positions[0] for charge in charges], 10)

    stops[1].set()
    await tasks[1]
    assert await value(connection, "SELECT sum(amount) FROM ledger_entry") == 110


async def test_a_worker_goes_on_after_its_sessions_were_ended(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(Worker(engine, WorkerSettings(database_url=database_url)).run(stop))
    first = await engine.wallets.charge("ann", 1)
    assert await engine.durability.wait(first.positions, 10)

    await connection.execute(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND application_name LIKE 'firstcome %'"""
    )

    second = await engine.wallets.charge("ann", 1)
    assert await engine.durability.wait(second.positions, 15)
    assert await value(connection, "SELECT balance FROM wallet") == 2
    stop.set()
    await asyncio.wait_for(task, 10)


@pytest.mark.one_redis
async def test_a_worker_goes_on_after_redis_was_silent(
    engine: Engine,
    database_url: str,
    valkey_server: EmbeddedValkey,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(Worker(engine, WorkerSettings(database_url=database_url)).run(stop))
    first = await engine.wallets.charge("ann", 1)
    assert await engine.durability.wait(first.positions, 10)

    async def is_noticed() -> bool:
        return "Recovery waits" in caplog.text or task.done()

    os.kill(valkey_server.pid, signal.SIGSTOP)
    try:
        await until(is_noticed)
    finally:
        os.kill(valkey_server.pid, signal.SIGCONT)

    assert not task.done()
    await until(lambda: _serves(engine))
    second = await engine.wallets.charge("ann", 1)
    assert await engine.durability.wait(second.positions, 15)
    stop.set()
    await asyncio.wait_for(task, 10)


async def test_a_worker_for_another_number_of_partitions_refuses_to_start(
    engine: Engine, engine_settings: EngineSettings, database_url: str
) -> None:
    other = EngineSettings(redis_url=engine_settings.redis_url, partitions=8)

    with pytest.raises(StartRefused, match="set FIRSTCOME_PARTITIONS=4"):
        await run(WorkerSettings(database_url=database_url), other)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_partition_has_exactly_one_worker(count: int) -> None:
    workers = [f"w{number}" for number in range(count)]

    shares = [share_of(worker, workers, 64) for worker in workers]

    assert sorted(partition for share in shares for partition in share) == list(range(64))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


async def test_a_worker_that_was_paused_for_long_finds_itself_among_those_that_are_there(
    connection: Connection, database_url: str
) -> None:
    """Paused while PostgreSQL answers: everything that it knows is old when it goes on."""

    class Paused:
        async def execute(self, *arguments: Any) -> Any:
            cursor = await connection.execute(*arguments)
            async with await connect(database_url, "time") as other:
                await other.execute("UPDATE worker_presence SET seen_at = seen_at - interval '1 hour'")
            return cursor

    for _ in range(2):
        assert await announce(cast("Connection", Paused()), "me", dead_ms=1_000) == ["me"]
    assert await announce(connection, "another", dead_ms=1_000) == ["another"]
    assert await announce(connection, "me", dead_ms=1_000) == ["another", "me"]
    assert await value(connection, "SELECT count(*) FROM worker_presence") == 2


def test_an_outage_soon_after_another_is_told_of_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1_000.0
    monkeypatch.setattr("persistence.worker.time.monotonic", lambda: now)
    outage, gone = _Outage(), DatabaseUnavailable("gone")
    outage.failed("writer", gone)
    outage.failed("settler", gone)
    outage.answered("writer")
    outage.answered("settler")
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "The writer waits for PostgreSQL",
        "PostgreSQL answers again",
    ]
    caplog.clear()
    now += AFTERMATH_S / 2
    outage.failed("writer", gone)  # its session was lost then, or there is another outage: nobody knows yet
    assert caplog.records == []
    now += AFTERMATH_S
    outage.failed("writer", gone)
    outage.answered("writer")
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "The writer waits for PostgreSQL",
        "PostgreSQL answers again",
    ]
