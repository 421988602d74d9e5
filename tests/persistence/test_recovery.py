"""A recovery that dies at any step is finished by the next; one that was only thought dead changes nothing any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

import persistence.recovery
from engine.catalog import NewStockItem
from engine.claim import Claim
from engine.engine import Engine
from engine.errors import ClaimLost, EngineError, Recovering
from engine.orders import Order
from engine.recovery import Recovery
from engine.stock import LineRequest
from persistence.database import DatabaseError, connect
from persistence.event_reader import EventReader
from persistence.recovery import RecoveryHeld
from persistence.settings import WorkerSettings
from persistence.trust import Trust
from persistence.writer import Writer
from tests.persistence.recovering import Past, dump, id_in, write_of, writing
from tests.persistence.shop import rows, until, value, write_all
from tests.servers import redis_client

Connection = AsyncConnection[TupleRow]

USERS, STOCK, WAITING, TRUSTED = range(4)

STEPS: list[tuple[object, str, int]] = [
    (persistence.recovery, "next_generation", 1),
    (Recovery, "raise_generation", 1),
    (persistence.recovery, "set_servers", 1),
    (Claim, "hold", 1),
    (Claim, "hold", 2),
    (persistence.recovery, "end_epoch", 1),
    (Claim, "begin_epoch", 1),
    (Claim, "begin_epoch", 2),
    (persistence.recovery, "set_servers", 2),
    (Claim, "begin_load", 1),
    (Claim, "clear", 1),
    (Claim, "load", 1),
    (persistence.recovery, "end_epoch", 3),
    (Claim, "finish_load", 1),
    (Claim, "change", 1),
    (Claim, "trust", 1),
    (Claim, "trust", 2),
]
"""Each function that changes something, and at which call of it the recovery ends."""

SOON = {("next_generation", 1), ("hold", 1), ("end_epoch", 1), ("begin_load", 1), ("load", 1), ("end_epoch", 3)} | {
    ("finish_load", 1), ("change", 1), ("trust", 1),
}  # fmt: skip
"""Those that every run of the tests tries; the soak tries all."""


class Death(BaseException):
    """The process ends here: nothing catches it."""


Step = Callable[..., Awaitable[Any]]


def at_step(patch: pytest.MonkeyPatch, target: object, name: str, number: int, then: Callable[[Step], Step]) -> None:
    """The ``number``-th call of a step is another one; all others are as they were."""
    original: Step = getattr(target, name)
    made = 0

    async def step(*arguments: Any, **named: Any) -> Any:
        nonlocal made
        made += 1
        return await (then(original) if made == number else original)(*arguments, **named)

    patch.setattr(target, name, step)


@pytest.fixture
async def order(engine: Engine, connection: Connection, database_url: str) -> Order:
    """A completed order. One partition has lost the user, one the stock it has; a third has something to write."""
    tea, kim = id_in(engine, STOCK, "tea"), id_in(engine, USERS, "kim")
    await engine.catalog.put(tea, "Tea", 100, [NewStockItem("one", "", 10)])
    await engine.wallets.charge(kim, 1_000)
    await write_all(engine, database_url)
    stock = Past.of(engine, STOCK)
    order = await engine.orders.checkout(kim, [LineRequest(tea, "one", 4)], None)
    await write_of(engine, database_url, USERS)
    await engine.wallets.charge(id_in(engine, WAITING, "lee"), 7)
    stock.bring_back()
    Past.of(engine, WAITING).bring_back()
    with redis_client(engine.settings.redis_url) as client:
        client.delete(engine.keys.meta(USERS), engine.keys.wallet(USERS, kim))
        client.hset(engine.keys.wallet(USERS, "ghost"), "balance", "1")
    with pytest.raises(Recovering):
        await engine.wallets.balance(kim)
    return order


async def assert_recovered(engine: Engine, connection: Connection, database_url: str, order: Order) -> None:
    """Everything is served, as it was, and both stores say the same."""
    tea, kim, lee = id_in(engine, STOCK, "tea"), order.user_id, id_in(engine, WAITING, "lee")
    assert await engine.wallets.balance(kim) == 600
    assert await engine.wallets.balance(lee) == 7
    assert await engine.wallets.balance("ghost") == 0
    assert (await engine.orders.read(kim, order.order_id)).status == "completed"
    item = (await engine.catalog.read(tea)).stock[0]
    assert (item.available, item.reserved, item.sold) == (6, 4, 0)
    charged = await engine.wallets.charge(kim, 1)
    await engine.wallets.charge(lee, 1)
    await engine.catalog.adjust(tea, "one", 1, "count")
    await write_all(engine, database_url)
    assert await rows(connection, "SELECT user_id, balance FROM wallet ORDER BY 1") == [(kim, 601), (lee, 8)]
    assert await rows(connection, "SELECT received, available, reserved FROM stock_item") == [(11, 7, 4)]
    assert await value(connection, "SELECT count(*) FROM partition_cursor WHERE stopped IS NOT NULL") == 0
    assert await value(connection, "SELECT count(*) FROM alarm WHERE cleared_at IS NULL") == 0
    metas = [await engine.recovery.inspect(partition) for partition in range(4)]
    cursors = await rows(connection, "SELECT epoch, seq, server FROM partition_cursor ORDER BY partition")
    assert [(meta.epoch, meta.seq, meta.server) for meta in metas if meta] == cursors
    assert len({meta.generation for meta in metas if meta}) == 1
    assert charged.positions[0].epoch == metas[USERS].epoch  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("target", "name", "number"),
    [
        pytest.param(*step, id=f"{step[1]}-{step[2]}", marks=[] if step[1:] in SOON else [pytest.mark.soak])
        for step in STEPS
    ],
)
async def test_a_recovery_that_dies_after_any_step_is_finished_by_the_next(
    engine: Engine,
    connection: Connection,
    database_url: str,
    order: Order,
    monkeypatch: pytest.MonkeyPatch,
    target: object,
    name: str,
    number: int,
) -> None:
    def dies(step: Step) -> Step:
        async def last(*arguments: Any, **named: Any) -> None:
            await step(*arguments, **named)
            raise Death

        return last

    async with writing(engine, database_url):
        with monkeypatch.context() as patch:
            at_step(patch, target, name, number, dies)
            async with await connect(database_url, "dying worker") as dying:
                with pytest.raises(Death):
                    await Trust(engine).look(dying)
        assert await Trust(engine).look(connection)

    await assert_recovered(engine, connection, database_url, order)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("begin_epoch", 1), ("load", 1), ("finish_load", 1), ("trust", 3), *(
            pytest.param(*step, marks=pytest.mark.soak)
            for step in (("hold", 1), ("begin_load", 1), ("clear", 1), ("change", 1), ("trust", 1))
        ),
    ],
)  # fmt: skip
async def test_a_recovery_that_was_only_thought_dead_changes_nothing_any_more(
    engine: Engine,
    connection: Connection,
    database_url: str,
    order: Order,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    number: int,
) -> None:
    """Its session in PostgreSQL is gone, another worker has recovered and sold; then it wakes at this very step."""
    asleep, wake = asyncio.Event(), asyncio.Event()

    def sleeps(step: Step) -> Step:
        async def late(*arguments: Any, **named: Any) -> Any:
            asleep.set()
            await wake.wait()
            return await step(*arguments, **named)

        return late

    async with writing(engine, database_url):
        async with await connect(database_url, "sleeping worker") as sleeping:
            with monkeypatch.context() as patch:
                at_step(patch, Claim, name, number, sleeps)
                attempt = asyncio.create_task(Trust(engine).look(sleeping))
                await asleep.wait()
            await connection.execute("SELECT pg_terminate_backend(%s)", (sleeping.info.backend_pid,))

            async def is_free() -> bool:
                return bool(await Trust(engine).look(connection))

            await until(is_free)
            served = dump(engine.settings.redis_url)
            wake.set()
            outcome = (await asyncio.gather(attempt, return_exceptions=True))[0]
        assert outcome is False or isinstance(outcome, DatabaseError | EngineError)
        assert dump(engine.settings.redis_url) == served
        assert await Trust(engine).look(connection)
    await assert_recovered(engine, connection, database_url, order)


async def test_a_server_that_changes_during_its_recovery_is_not_trusted_by_it(
    engine: Engine, connection: Connection, database_url: str, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark in meta is copied with the data; on another server it is not that of the recovery."""

    def another(step: Step) -> Step:
        async def on_another_server(claim: Claim, partition: int, *arguments: Any) -> Any:
            with redis_client(engine.settings.redis_url) as client:
                meta = engine.keys.meta(partition)
                mark = str(client.hget(meta, "server"), "ascii")
                client.hset(meta, "server", mark.rpartition(":")[0] + ":copied")
            return await step(claim, partition, *arguments)

        return on_another_server

    async with writing(engine, database_url):
        with monkeypatch.context() as patch:
            at_step(patch, Claim, "trust", 1, another)
            assert not await Trust(engine).look(connection)
        assert await Trust(engine).look(connection)

    await assert_recovered(engine, connection, database_url, order)


async def test_a_writer_of_the_server_before_cannot_slip_in_between(
    engine: Engine, connection: Connection, database_url: str, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It commits one more event of the old server after the recovery has looked: the recovery looks again."""

    def one_more(step: Step) -> Step:
        async def after_a_commit(*arguments: Any, **named: Any) -> Any:
            await connection.execute("UPDATE partition_cursor SET server = 'the:old one' WHERE partition = 2")
            return await step(*arguments, **named)

        return after_a_commit

    async with writing(engine, database_url):
        with monkeypatch.context() as patch:
            at_step(patch, persistence.recovery, "set_servers", 1, one_more)
            assert not await Trust(engine).look(connection)
        assert await Trust(engine).look(connection)

    await assert_recovered(engine, connection, database_url, order)


async def test_a_partition_whose_writer_has_stopped_holds_the_recovery_back(
    engine: Engine, connection: Connection, database_url: str, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persistence.recovery.NO_PROGRESS_S", 0.2)
    await engine.wallets.charge(id_in(engine, TRUSTED, "bob"), 1)
    await connection.execute("UPDATE partition_cursor SET stopped = 'for the test' WHERE partition = %s", (TRUSTED,))

    async with writing(engine, database_url):
        assert not await Trust(engine).look(connection)
        with pytest.raises(Recovering):
            await engine.wallets.balance(order.user_id)
        await connection.execute("UPDATE partition_cursor SET stopped = NULL")

        async def is_trusted() -> bool:
            return bool(await Trust(engine).look(connection))

        await until(is_trusted)


@pytest.fixture
async def emptied(engine: Engine, connection: Connection, database_url: str) -> None:
    """One partition has lost all that it had; and another, which is trusted, has something that cannot be written."""
    await engine.wallets.charge(id_in(engine, USERS, "kim"), 5)
    await write_all(engine, database_url)
    await engine.wallets.charge(id_in(engine, TRUSTED, "bob"), 1)
    await connection.execute("UPDATE partition_cursor SET stopped = 'for the test' WHERE partition = %s", (TRUSTED,))
    with redis_client(engine.settings.redis_url) as client:
        client.delete(engine.keys.meta(USERS))


async def assert_nothing_is_made_anew(engine: Engine, connection: Connection) -> None:
    assert await engine.recovery.inspect(USERS) is None
    assert await engine.recovery.mark(USERS) == ""
    assert await rows(connection, "SELECT DISTINCT epoch FROM partition_cursor") == [(1,)]


@pytest.mark.usefixtures("emptied")
async def test_nothing_is_made_anew_before_what_was_answered_elsewhere_is_written(
    engine: Engine, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flow may have ended in a partition that is trusted, and what it did in the lost one hangs on it."""
    monkeypatch.setattr("persistence.recovery.NO_PROGRESS_S", 0.2)
    async with writing(engine, database_url):
        with pytest.raises(RecoveryHeld, match="get on with nothing"):
            await Trust(engine).rebuild(connection, [USERS], lambda *_: None)

    await assert_nothing_is_made_anew(engine, connection)


@pytest.mark.usefixtures("emptied")
async def test_a_partition_that_is_no_longer_trusted_at_the_cut_ends_the_recovery(
    engine: Engine, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_generation = engine.recovery.raise_generation

    async def of_all_but_one(number: int, generation: int) -> int | None:
        return None if number == TRUSTED else await raise_generation(number, generation)

    monkeypatch.setattr(engine.recovery, "raise_generation", of_all_but_one)
    async with writing(engine, database_url):
        with pytest.raises(ClaimLost, match="is not any more"):
            await Trust(engine).rebuild(connection, [USERS], lambda *_: None)

    await assert_nothing_is_made_anew(engine, connection)


async def test_a_redis_emptied_while_events_are_read_does_not_stop_the_writer(
    engine: Engine, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question how far it is and the one for its events."""
    await engine.wallets.charge("ann", 5)
    writer = Writer(engine, connection, WorkerSettings(database_url=database_url))
    await writer.start()

    def emptied(step: Step) -> Step:
        async def read(*arguments: Any) -> Any:
            with redis_client(engine.settings.redis_url) as client:
                client.flushall()
            return await step(*arguments)

        return read

    at_step(monkeypatch, EventReader, "read", 1, emptied)
    assert (await writer.round(range(4))).events == 0

    assert await value(connection, "SELECT count(*) FROM partition_cursor WHERE stopped IS NOT NULL") == 0
    async with writing(engine, database_url):
        assert await Trust(engine).look(connection)
