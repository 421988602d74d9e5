"""The writer over a real Redis and a real PostgreSQL: every event exactly once, in order, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, LiteralString, TypeVar

import psycopg
import pytest
import redis.asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.coupons import Coupon
from engine.engine import Engine
from engine.errors import InsufficientBalance, Unavailable
from engine.idempotency import request_key
from engine.order_ids import make_order_id
from engine.orders import Order
from persistence.auditor import AuditLimits, Auditor
from persistence.database import DatabaseUnavailable, connect
from persistence.event_reader import BATCH_BYTES_MAX, FIRST_PASS_EVENTS
from persistence.row_text import NULL, array_texts, copy_text
from persistence.settings import WorkerSettings
from persistence.writer import SESSION, Writer
from tests.persistence.events import Events
from tests.persistence.shop import fill, line, open_campaign, rows, until, value, write_all

Connection = AsyncConnection[TupleRow]
Answer = TypeVar("Answer")


async def _cursor(connection: Connection, partition: int = 0) -> int:
    seq: int = await value(connection, "SELECT seq FROM partition_cursor WHERE partition = %s", partition)
    return seq


@dataclass(frozen=True)
class Sold:
    """What `sell_in_every_way` has made."""

    coupon: Coupon
    paid: Order
    bought: Order
    cancelled: Order
    waiting: Order


async def sell_in_every_way(engine: Engine, then: Callable[[], Awaitable[object]]) -> Sold:
    """Every flow of the engine, one after the other, and after each of them ``then``."""

    async def done(call: Awaitable[Answer]) -> Answer:
        answer = await call
        await then()
        return answer

    await done(fill(engine, "tea"))
    await done(fill(engine, "cup", price=1_000))
    await done(engine.catalog.adjust("cup", "m", -10, "broken\tin the\nstore"))
    await done(open_campaign(engine))
    await done(engine.wallets.charge("ann", 5_000))
    coupon = await done(engine.coupons.issue("ann", "spring"))
    await done(open_campaign(engine, quantity=20))
    paid = await done(engine.orders.place("ann", [line("tea", "s", 2), line("cup", "m", 1)], coupon.coupon_id))
    await done(engine.payments.pay("ann", paid.order_id))
    bought = await done(engine.orders.checkout("ann", [line("tea", "m", 3)], None))
    cancelled = await done(engine.orders.place("ann", [line("tea", "s", 5)], None))
    await done(engine.orders.cancel("ann", cancelled.order_id))
    with pytest.raises(InsufficientBalance):
        await engine.orders.checkout("bob", [line("tea", "s", 4)], None)
    waiting = await done(engine.orders.place("bob", [line("cup", "s", 7)], None))
    await done(engine.stock.confirm(engine.partitions.of("tea"), {bought.order_id: ["tea"]}, "20261122"))
    await done(engine.wallets.charge("bob", 1))
    return Sold(coupon, paid, bought, cancelled, waiting)


@pytest.mark.parametrize("in_one", [True, False], ids=["in-one-batch", "each-in-one-of-its-own"])
async def test_every_flow_of_the_engine_is_in_the_tables(
    engine: Engine, connection: Connection, database_url: str, in_one: bool
) -> None:
    """Whether the writer makes one row of several changes, or changes a row that is there."""

    async def write() -> None:
        await write_all(engine, database_url)

    async def nothing() -> None:
        """Another time."""

    sold = await sell_in_every_way(engine, nothing if in_one else write)
    await write()

    await assert_all_is_recorded(connection, sold)
    auditor = Auditor(engine, connection, AuditLimits(age_s=0, confirm_s=0, pause_s=0))
    async for _ in auditor.everything():
        pass
    assert auditor.report.examples == []
    assert [slug for slug, tally in auditor.report.tallies.items() if tally.moving] == []


async def assert_all_is_recorded(connection: Connection, sold: Sold) -> None:
    paid, bought, cancelled, waiting = sold.paid, sold.bought, sold.cancelled, sold.waiting
    wallets = "SELECT user_id, balance, coupon_number, last_order::text FROM wallet ORDER BY 1"
    assert await rows(connection, wallets) == [
        ("ann", 5_000 - 1_500 - 900, 1, cancelled.order_id),
        ("bob", 1, 0, waiting.order_id),
    ]
    ledger = "SELECT kind, amount, balance, order_id::text FROM ledger_entry WHERE user_id = 'ann' ORDER BY seq"
    assert await rows(connection, ledger) == [
        ("charge", 5_000, 5_000, None),
        ("payment", -1_500, 3_500, paid.order_id),
        ("payment", -900, 2_600, bought.order_id),
    ]
    stock = "SELECT product_id, stock_id, received, available, reserved, sold FROM stock_item ORDER BY 1, added_index"
    assert await rows(connection, stock) == [
        ("cup", "s", 100, 93, 7, 0),
        ("cup", "m", 90, 89, 1, 0),
        ("tea", "s", 100, 98, 2, 0),
        ("tea", "m", 100, 97, 0, 3),
    ]
    assert await rows(connection, "SELECT delta, available, reason FROM stock_adjustment") == [
        (-10, 90, "broken\tin the\nstore")
    ]
    found = await rows(
        connection,
        """SELECT order_id::text, status, failure, subtotal, discount, total, coupon_id, paid_at IS NOT NULL,
                  finished_at IS NOT NULL
           FROM orders WHERE user_id = 'ann' OR status = 'awaiting_payment' ORDER BY order_id""",
    )
    expected = [
        (paid.order_id, "completed", None, 1_600, 100, 1_500, sold.coupon.coupon_id, True, True),
        (bought.order_id, "completed", None, 900, 0, 900, None, True, True),
        (cancelled.order_id, "failed", "cancelled", 1_500, 0, 1_500, None, False, True),
        (waiting.order_id, "awaiting_payment", None, 7_000, 0, 7_000, None, False, False),
    ]
    assert found == sorted(expected)  # not by their times: two may be of one millisecond
    assert await rows(connection, "SELECT failure, total FROM orders WHERE user_id = 'bob' AND status = 'failed'") == [
        ("insufficient_balance", 1_200)
    ]
    lines = "SELECT line_no, product_id, name, option, quantity, amount FROM order_line WHERE order_id = %s ORDER BY 1"
    assert await rows(connection, lines, paid.order_id) == [
        (1, "tea", "The tea", "small", 2, 600),
        (2, "cup", "The cup", "medium", 1, 1_000),
    ]
    assert await rows(connection, "SELECT coupon_id, issue_number, state, order_id::text FROM coupon") == [
        (sold.coupon.coupon_id, 1, "used", paid.order_id)
    ]
    assert await rows(connection, "SELECT order_id::text, campaign_id, amount, state FROM discount") == [
        (paid.order_id, "spring", 100, "used")
    ]
    assert await rows(connection, "SELECT issued, quantity FROM campaign") == [(1, 20)]
    assert await rows(connection, "SELECT user_id, number FROM coupon_issue") == [("ann", 1)]
    assert await rows(connection, "SELECT day::text, product_id, quantity FROM daily_sale") == [
        ("2026-11-22", "tea", 3)
    ]
    assert await rows(connection, "SELECT order_id::text, state FROM outbox ORDER BY id") == [
        (paid.order_id, "pending"),
        (bought.order_id, "pending"),
    ]
    states = await rows(connection, "SELECT state, count(*) FROM reservation GROUP BY 1 ORDER BY 1")
    assert dict(states)["sold"] == 1


async def test_entities_carry_the_place_of_their_last_change(
    engine: Engine, connection: Connection, database_url: str, client: redis.asyncio.Redis
) -> None:
    await fill(engine)
    await engine.wallets.charge("ann", 1_000)
    order = await engine.orders.checkout("ann", [line()], None)

    await write_all(engine, database_url)

    user, stock = engine.partitions.of("ann"), engine.partitions.of("tea")
    keys = engine.keys
    for key, query in (
        (keys.wallet(user, "ann"), "SELECT place FROM wallet"),
        (keys.order(user, order.order_id), "SELECT place FROM orders"),
        (keys.product(stock, "tea"), "SELECT place FROM product"),
        (keys.reservation(stock, order.order_id), "SELECT place FROM reservation"),
    ):
        place: Any = await client.hget(key, "seq")
        assert place.decode() == await value(connection, query), key


# What is a sign of either format, or of both.
CELLS = [
    "", "\\N", "\\", "\t", "a\nb", "\r\n", "'\"", '"', '","', "{}", "a,b", " a ", "NULL", "null",
    "한국어", "🛒", "\\.", "a\\tb",
    "\x01", NULL,
]  # fmt: skip


async def test_copied_text_is_read_by_postgresql_as_it_was_meant(connection: Connection) -> None:
    cells = CELLS
    await connection.execute("CREATE TEMPORARY TABLE copied (number int, cell text)")

    async with connection.cursor().copy("COPY copied FROM STDIN") as copy:
        await copy.write(copy_text([(str(number), cell) for number, cell in enumerate(cells)]))

    found = [cell for (cell,) in await rows(connection, "SELECT cell FROM copied ORDER BY number")]
    assert found == [None if cell is NULL else cell for cell in cells]


@pytest.mark.parametrize("cells", [CELLS, *[[cell] for cell in CELLS], ["plain", NULL, "", NULL]])
async def test_an_array_is_read_by_postgresql_as_it_was_meant(connection: Connection, cells: list[str]) -> None:
    arrays = array_texts([(str(number), cell) for number, cell in enumerate(cells)])

    cursor = await connection.execute(
        "SELECT cell FROM unnest(%s::int[], %s::text[]) AS s (number, cell) ORDER BY number", arrays
    )

    assert [cell for (cell,) in await cursor.fetchall()] == [None if cell is NULL else cell for cell in cells]


async def test_events_become_durable_in_redis_after_they_are_committed(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    charge = await engine.wallets.charge("ann", 1_000)
    assert not await engine.durability.wait(charge.positions, 0)

    await write_all(engine, database_url)

    assert await engine.durability.wait(charge.positions, 1)


async def test_a_writer_that_starts_later_goes_on_where_the_last_one_stopped(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    balance = 0
    for _ in range(3):
        for _ in range(10):
            balance += 5
            await events.charge("ann", 5, balance)
        await write_all(engine, database_url)

    assert await value(connection, "SELECT balance FROM wallet") == balance
    assert await value(connection, "SELECT sum(amount) FROM ledger_entry") == balance
    assert await _cursor(connection) == 30


async def test_batches_smaller_than_the_backlog_write_all_of_it(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    for number in range(1, 26):
        await events.charge("ann", 1, number)
    settings = WorkerSettings(database_url=database_url, batch_events_max=4)

    await write_all(engine, database_url, settings)

    assert await value(connection, "SELECT count(*) FROM ledger_entry") == 25


@pytest.mark.requirement("R1.6")
async def test_two_writers_at_once_write_each_event_once(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    settings = WorkerSettings(database_url=database_url, batch_events_max=8)

    async def write_until(done: asyncio.Event) -> None:
        async with await connect(database_url, "test writer") as own:
            writer = Writer(engine, own, settings)
            await writer.start()
            while not done.is_set():
                await writer.round(range(engine.partitions.count))
            await write_all(engine, database_url, settings)

    done = asyncio.Event()
    writers = [asyncio.create_task(write_until(done)) for _ in range(2)]
    await asyncio.gather(*(engine.wallets.charge(f"user{number % 20}", 10) for number in range(400)))
    done.set()
    await asyncio.gather(*writers)

    assert await value(connection, "SELECT sum(amount) FROM ledger_entry") == 4_000
    assert await rows(connection, "SELECT DISTINCT balance FROM wallet") == [(200,)]
    assert await value(connection, "SELECT sum(seq) FROM partition_cursor") == 400


async def test_losing_redis_between_commit_and_mark_writes_nothing_twice(
    engine: Engine, events: Events, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await events.charge("ann", 5, 5)

    async def dies(*_: object) -> None:
        raise DatabaseUnavailable("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(engine.recovery, "mark_durable", dies)
        with pytest.raises(DatabaseUnavailable):
            await write_all(engine, database_url)
    assert await _cursor(connection) == 1
    await write_all(engine, database_url)

    assert await value(connection, "SELECT count(*) FROM ledger_entry") == 1
    meta = await engine.recovery.inspect(0)
    assert meta is not None
    assert meta.durable == 1


async def test_losing_postgresql_before_the_commit_leaves_nothing_and_is_written_later(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    await events.charge("ann", 5, 5)
    async with await connect(database_url, "test blocker") as blocker, await connect(database_url, "doomed") as own:
        writer = Writer(engine, own, WorkerSettings(database_url=database_url))
        await writer.start()
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE ledger_entry")
            task = asyncio.create_task(writer.round([0]))
            waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"

            async def is_waiting() -> bool:
                return bool(await value(connection, waiting, own.info.backend_pid))

            await until(is_waiting)
            await connection.execute("SELECT pg_terminate_backend(%s)", (own.info.backend_pid,))
            with pytest.raises(DatabaseUnavailable):
                await task
    assert await _cursor(connection) == 0

    await write_all(engine, database_url)

    assert await value(connection, "SELECT count(*) FROM ledger_entry") == 1
    assert await _cursor(connection) == 1


async def test_a_gap_stops_its_partition_with_an_alarm_and_no_other(
    engine: Engine, events: Events, client: redis.asyncio.Redis, connection: Connection, database_url: str
) -> None:
    other = Events(engine, client, 1)
    await events.charge("ann", 5, 5)
    await events.charge("ann", 5, 10, skip=1)
    await other.charge("bob", 7, 7)

    await write_all(engine, database_url)

    assert await rows(connection, "SELECT user_id, balance FROM wallet ORDER BY 1") == [("ann", 5), ("bob", 7)]
    assert await _cursor(connection) == 1
    assert "1-3" in await value(connection, "SELECT stopped FROM partition_cursor WHERE partition = 0")
    assert await rows(connection, "SELECT kind, partition FROM alarm") == [("partition_stopped", 0)]
    assert await value(connection, "SELECT stopped FROM partition_cursor WHERE partition = 1") is None


async def test_each_event_that_is_durable_is_told_with_its_request_and_one_that_nobody_can_read_is_not(
    engine: Engine,
    events: Events,
    client: redis.asyncio.Redis,
    connection: Connection,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "firstcome.writer")
    await events.charge("ann", 5, 5)
    await events.add("wallet.charged", request="of-ann", user="ann", amount=5, balance=10, key="", fingerprint="")
    await client.xadd(engine.keys.events(0), {"type": "wallet.charged", "at": "no time"}, id="1-3")
    await client.hset(engine.keys.meta(0), "seq", "3")

    await write_all(engine, database_url)

    told = [
        (vars(line)["position"], vars(line).get("request_id")) for line in caplog.records if line.levelname == "DEBUG"
    ]
    assert told == [("0:1-1", None), ("0:1-2", "of-ann")]
    assert await client.hget(engine.keys.meta(0), "durable") == b"2"
    assert await rows(connection, "SELECT kind, partition FROM alarm") == [("partition_stopped", 0)]


async def test_events_that_left_the_stream_before_they_were_written_stop_the_partition(
    engine: Engine, events: Events, client: redis.asyncio.Redis, connection: Connection, database_url: str
) -> None:
    await events.charge("ann", 5, 5)
    await client.delete(engine.keys.events(0))

    await write_all(engine, database_url)

    assert "not in the stream" in await value(connection, "SELECT stopped FROM partition_cursor WHERE partition = 0")


@pytest.mark.parametrize("newer", [{"kind": "wallet.painted"}, {"kind": "wallet.charged", "version": "3"}])
async def test_an_unknown_event_is_left_to_a_newer_worker(
    engine: Engine, events: Events, connection: Connection, database_url: str, newer: dict[str, str]
) -> None:
    await events.charge("ann", 5, 5)
    await events.add(newer["kind"], version=newer.get("version", "1"), user="ann")

    await write_all(engine, database_url)

    assert await _cursor(connection) == 1
    assert await value(connection, "SELECT stopped FROM partition_cursor WHERE partition = 0") is None
    assert await rows(connection, "SELECT kind, partition, subject FROM alarm") == [("unknown_event", 0, "1-2")]


async def test_an_event_that_a_constraint_refuses_stops_its_partition_just_before_it(
    engine: Engine, events: Events, client: redis.asyncio.Redis, connection: Connection, database_url: str
) -> None:
    other = Events(engine, client, 1)
    for number in range(1, 6):
        await events.charge("ann", 1, number)
        await other.charge("bob", 1, number)
    await events.charge("ann", 1, -1)
    await events.charge("ann", 1, 7)

    await write_all(engine, database_url)

    assert await rows(connection, "SELECT user_id, balance FROM wallet ORDER BY 1") == [("ann", 5), ("bob", 5)]
    assert await _cursor(connection) == 5
    assert "ledger_entry_balance_check" in await value(
        connection, "SELECT stopped FROM partition_cursor WHERE partition = 0"
    )
    assert await rows(connection, "SELECT kind, partition FROM alarm") == [("partition_stopped", 0)]


async def test_an_event_about_a_row_that_is_not_there_stops_its_partition(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    order = "019ab000-0000-7000-8000-000000000001"
    await events.add("stock.confirmed", orders=order, day="20261122", lines="tea:s:1")

    await write_all(engine, database_url)

    assert await _cursor(connection) == 0
    assert await value(connection, "SELECT count(*) FROM daily_sale") == 0
    assert "0 found" in await value(connection, "SELECT stopped FROM partition_cursor WHERE partition = 0")


async def test_a_server_that_the_cursor_does_not_name_is_not_read(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    await events.charge("ann", 5, 5)
    await connection.execute("UPDATE partition_cursor SET server = 'another:server'")

    await write_all(engine, database_url)

    assert await value(connection, "SELECT count(*) FROM ledger_entry") == 0


async def test_stragglers_are_partitions_of_others_that_nobody_writes(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    await events.charge("ann", 5, 5)
    async with await connect(database_url, "test writer") as own:
        writer = Writer(engine, own, WorkerSettings(database_url=database_url))
        await writer.start()

        assert await writer.stragglers([1, 2, 3]) == set(), "it may have been written just now"
        assert await writer.stragglers([1, 2, 3]) == {0}
        assert (await writer.round({1, 2, 3, 0})).events == 1
        assert await writer.stragglers([1, 2, 3]) == {0}, "its worker may be cut off for long"
        assert await writer.stragglers([1, 2, 3], for_s=0) == set()
        assert await writer.stragglers([0, 1, 2, 3]) == set()


async def test_a_paused_writer_holds_its_partition_back_and_no_other(
    engine: Engine, events: Events, client: redis.asyncio.Redis, connection: Connection, database_url: str
) -> None:
    other = Events(engine, client, 1)
    await events.charge("ann", 5, 5)
    await other.charge("bob", 7, 7)
    async with await connect(database_url, "paused") as paused, paused.transaction():
        await paused.execute("SELECT FROM partition_cursor WHERE partition = 0 FOR UPDATE")

        await write_all(engine, database_url)

        assert await rows(connection, "SELECT user_id FROM wallet") == [("bob",)]
    await write_all(engine, database_url)

    assert await rows(connection, "SELECT user_id FROM wallet ORDER BY 1") == [("ann",), ("bob",)]


async def test_a_writer_that_is_paused_in_the_midst_of_a_copy_does_not_keep_its_locks(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    """No timeout of PostgreSQL ends a COPY whose data do not come."""
    await events.charge("ann", 5, 5)
    async with (
        await connect(database_url, SESSION, statement_ms=100, idle_in_transaction_ms=100) as paused,
        await connect(database_url, SESSION) as alive,
    ):
        writer = Writer(engine, alive, WorkerSettings(database_url=database_url))
        with pytest.raises(psycopg.OperationalError):  # noqa: PT012 - where it is noticed is not the point
            async with paused.transaction():
                await paused.execute("SELECT FROM partition_cursor WHERE partition = 0 FOR UPDATE")
                async with paused.cursor().copy("COPY idempotency_key FROM STDIN") as copy:
                    await until(lambda: _is_over(connection, ms=300))  # longer than either timeout
                    assert await writer.end_stalled() == 0, "it is not long enough yet"
                    await write_all(engine, database_url)
                    assert await rows(connection, "SELECT FROM wallet") == []

                    assert await writer.end_stalled(stalled_s=0.2) == 1
                    await until(lambda: _is_gone(connection))  # the order to end is heeded in its own time
                    await copy.write(b"\n")
        await write_all(engine, database_url)
    assert await rows(connection, "SELECT user_id FROM wallet") == [("ann",)]


async def _is_over(connection: Connection, ms: int) -> bool:
    """Whether a COPY has been going on for so long."""
    query = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY %%'
               AND state = 'active' AND query_start < now() - %s * interval '1 ms'"""
    return bool(await value(connection, query, ms))


async def _is_gone(connection: Connection) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY %%'"
    return bool(await value(connection, query) == 0)


async def test_a_batch_of_large_orders_is_bounded_by_its_bytes(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    lines = b"[%b]" % b",".join(
        b'{"product_id":"p%d","stock_id":"s","name":"%b","option":"o","unit_price":1,"quantity":1,"amount":1}'
        % (number, b"n" * 200)
        for number in range(200)
    )
    count = 1 + BATCH_BYTES_MAX // len(lines) + FIRST_PASS_EVENTS
    for number in range(count):
        order_id = make_order_id(1_700_000_000_000 + number)
        await events.add(
            "order.placed", order=order_id, user=f"u{number}", lines=lines.decode(), subtotal=200, discount=0,
            total=200, coupon="", rule="", pay_before=1_800_000_000_000, key="", fingerprint="",
        )  # fmt: skip
    async with await connect(database_url, "test writer") as own:
        writer = Writer(engine, own, WorkerSettings(database_url=database_url))
        await writer.start()

        first = await writer.round({0})
        second = await writer.round({0})

    assert first.full
    assert first.events < count
    assert (second.full, first.events + second.events) == (False, count)
    assert await value(connection, "SELECT count(*) FROM orders") == count


async def test_a_writer_that_died_before_it_told_redis_is_made_good_by_one_that_looked_before(
    engine: Engine, events: Events, client: redis.asyncio.Redis, connection: Connection, database_url: str
) -> None:
    await events.charge("ann", 5, 5)
    async with await connect(database_url, "test writer") as own:
        writer = Writer(engine, own, WorkerSettings(database_url=database_url))
        await writer.start()
        heads = await writer._reader.heads([0])
        await events.charge("ann", 7, 12)
        await connection.execute("UPDATE partition_cursor SET seq = 2 WHERE partition = 0")

        await writer._write_apart(heads, 100)

    assert await client.hget(engine.keys.meta(0), "durable") == b"2"


async def test_the_stream_keeps_so_many_of_the_events_that_are_durable_and_not_all(
    engine: Engine, events: Events, client: redis.asyncio.Redis, connection: Connection, database_url: str
) -> None:
    """More may stay: a stream is cut by whole nodes, of a hundred entries."""
    for number in range(1, 401):
        await events.charge("ann", 1, number)

    await write_all(engine, database_url, WorkerSettings(database_url=database_url, stream_keep_events=150))

    assert await _cursor(connection) == 400
    assert 150 <= await client.xlen(engine.keys.events(0)) <= 250


async def test_what_redis_was_not_told_to_be_durable_it_is_told_by_the_next_round(
    engine: Engine, events: Events, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_away(*_: object) -> None:
        raise Unavailable("no connection")

    await events.charge("ann", 5, 5)
    writer = Writer(engine, connection, WorkerSettings(database_url=database_url))
    await writer.start()
    with monkeypatch.context() as patch:
        patch.setattr(engine.recovery, "mark_durable", is_away)
        assert (await writer.round([0])).events == 1
    assert await _cursor(connection) == 1

    await writer.round([0])

    meta = await engine.recovery.inspect(0)
    assert meta is not None
    assert meta.durable == 1


async def test_a_key_that_is_used_again_after_its_day_belongs_to_the_later_request(
    engine: Engine, client: redis.asyncio.Redis, connection: Connection, database_url: str
) -> None:
    earlier, later = (request_key("ann", "a-key", "charge", body) for body in (b"5", b"7"))
    await engine.wallets.charge("ann", 5, earlier)
    await write_all(engine, database_url)
    await connection.execute("UPDATE idempotency_key SET spent_at = spent_at - interval '25 hours'")
    await client.delete(engine.keys.request_key(engine.partitions.of("ann"), "ann", later.digest))

    charged = await engine.wallets.charge("ann", 7, later)
    await write_all(engine, database_url)

    record = engine.keys.request_key(engine.partitions.of("ann"), "ann", later.digest)
    found: Any = await client.hmget(record, ["fingerprint", "result", "place"])
    fingerprint, result, place = (text.decode() for text in found)
    assert (fingerprint, place) == (later.fingerprint, f"1-{charged.positions[0].seq}")
    query = "SELECT fingerprint, result, place, (extract(epoch FROM spent_at) * 1000)::bigint FROM idempotency_key"
    assert await rows(connection, query) == [(fingerprint, result, place, charged.charged_at_ms)]


ORDER = "019ab000-0000-7000-8000-000000000001"
MADE: list[tuple[str, dict[str, Any]]] = [
    ("product.put", {"product": "tea", "name": "Tea", "price": 100, "added": "s",
                     "stock": '[{"stock_id":"s","option":"","initial_quantity":9}]'}),
    ("coupon.granted", {"user": "ann", "coupon": "ann-1", "campaign": "spring", "number": 1, "kind": "amount",
                        "value": 50, "minimum_order": "", "maximum_discount": "", "issued_at": 1, "valid_from": 1,
                        "valid_until": 2, "coupon_number": 1}),
    ("stock.reserved", {"order": ORDER, "user": "ann", "lines": "tea:s:2"}),
    ("order.placed", {"order": ORDER, "user": "ann", "lines": "[]", "subtotal": 200, "discount": 50, "total": 150,
                      "coupon": "ann-1", "rule": "spring,1,amount,50,,", "pay_before": 1, "key": "",
                      "fingerprint": ""}),
]  # fmt: skip
"""An order that awaits payment, with a coupon."""
PAID: dict[str, Any] = {"order": ORDER, "user": "ann", "total": 150, "balance": 0, "coupon": "ann-1"}
ADOPTED: dict[str, Any] = {"order": ORDER, "user": "ann", "lines": "tea:s:3", "short": ""}


@pytest.mark.parametrize(
    ("name", "change", "kind", "fields"),
    [
        ("reservation", "UPDATE reservation SET state = 'released', finished_at = at", "stock.released",
         {"order": ORDER, "lines": "tea:s:2"}),
        ("reservation", "UPDATE reservation SET state = 'released', finished_at = at", "stock.confirmed",
         {"orders": ORDER, "day": "20260101", "lines": "tea:s:2"}),
        ("adopted reservation", "UPDATE reservation SET at = at", "stock.adopted", ADOPTED),
        ("adopted reservation", "UPDATE reservation SET state = 'sold', finished_at = at", "stock.adopted", ADOPTED),
        ("orders", "UPDATE orders SET status = 'failed', failure = 'expired', finished_at = ordered_at", "order.paid",
         PAID),
        ("orders", "UPDATE orders SET status = 'completed', paid_at = ordered_at, finished_at = ordered_at",
         "order.failed", {"order": ORDER, "user": "ann", "failure": "expired", "coupon": "ann-1"}),
        ("discount", "UPDATE discount SET state = 'returned'", "order.paid", PAID),
    ],
)  # fmt: skip
async def test_what_is_not_as_it_must_be_before_a_change_stops_the_partition(
    engine: Engine, events: Events, connection: Connection, database_url: str,
    name: str, change: LiteralString, kind: str, fields: dict[str, Any],
) -> None:  # fmt: skip
    for earlier, its_fields in MADE:
        await events.add(earlier, **its_fields)
    await write_all(engine, database_url)
    assert await _cursor(connection) == len(MADE)
    await connection.execute(change)
    await events.add(kind, **fields)

    await write_all(engine, database_url)

    assert await _cursor(connection) == len(MADE)
    stopped = await value(connection, "SELECT stopped FROM partition_cursor WHERE partition = 0")
    assert f": {name}: 1 rows to change, 0 found" in stopped


async def test_a_reservation_that_was_released_is_adopted_in_a_later_batch(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    for kind, fields in (*MADE, ("stock.released", {"order": ORDER, "lines": "tea:s:2"})):
        await events.add(kind, **fields)
    await write_all(engine, database_url)
    await events.add("stock.adopted", **ADOPTED)

    await write_all(engine, database_url)

    at_ms = "SELECT state, lines, finished_at, place, (extract(epoch FROM at) * 1000)::bigint FROM reservation"
    adopted = f"1-{events.seq}"
    assert await rows(connection, at_ms) == [("held", "tea:s:3", None, adopted, 1_700_000_000_000 + events.seq)]
    assert await rows(connection, "SELECT available, reserved FROM stock_item") == [(6, 3)]


async def test_an_issue_that_is_adopted_beyond_the_quantity_in_a_later_batch_raises_it(
    engine: Engine, events: Events, connection: Connection, database_url: str
) -> None:
    rule: dict[str, Any] = {"kind": "amount", "value": 50, "minimum_order": "", "maximum_discount": "", "valid_days": 7}
    await events.add("campaign.put", campaign="spring", name="Spring", quantity=1, opens_at=1, closes_at=2, **rule)
    await write_all(engine, database_url)
    await events.add(
        "coupon.adopted", campaign="spring", user="ann", number=2, issued_at=1, issued=2, quantity=2, **rule
    )

    await write_all(engine, database_url)

    assert await rows(connection, "SELECT issued, quantity FROM campaign") == [(2, 2)]
