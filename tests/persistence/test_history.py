"""History reads: pages that neither skip nor repeat, and what became of a position."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy import Row, Select

from engine.engine import Engine
from engine.errors import InsufficientBalance
from engine.order_ids import make_order_id
from engine.positions import Position, position_text
from persistence.alarms import Alarm, raise_alarm
from persistence.history import History, HistoryUnavailable, InvalidCursor, RecordedOrder
from persistence.oversight import Oversight
from persistence.settings import HistorySettings
from tests.persistence.shop import fill, line, write_all

Connection = AsyncConnection[TupleRow]


@pytest.fixture
async def history(database_url: str) -> AsyncIterator[History]:
    """History reads over the test's database."""
    history = History(database_url, HistorySettings())
    yield history
    await history.close()


async def test_balance_entries_come_newest_first_page_by_page(
    engine: Engine, history: History, database_url: str
) -> None:
    await fill(engine)
    for amount in (1_000, 2_000, 3_000):
        await engine.wallets.charge("ann", amount)
    order = await engine.orders.checkout("ann", [line()], None)
    await engine.wallets.charge("bob", 5)
    await write_all(engine, database_url)

    first = await history.balance_entries("ann", 3)
    second = await history.balance_entries("ann", 3, first.next_cursor)

    entries = first.items + second.items
    assert [(entry.kind, entry.amount, entry.balance) for entry in entries] == [
        ("payment", -300, 5_700),
        ("charge", 3_000, 6_000),
        ("charge", 2_000, 3_000),
        ("charge", 1_000, 1_000),
    ]
    assert [entry.order_id for entry in entries] == [order.order_id, None, None, None]
    assert len({entry.entry_id for entry in entries}) == 4
    assert second.next_cursor is None


async def test_orders_come_newest_first_page_by_page_and_never_a_tombstone(
    engine: Engine, history: History, database_url: str
) -> None:
    await fill(engine)
    await engine.wallets.charge("ann", 1_000)
    # Orders of one millisecond come by their ids.
    now = engine.lanes.now_ms(0)
    bought = []
    for number in range(3):
        engine.runner.test_now_ms = str(now + number)
        bought.append(await engine.orders.checkout("ann", [line()], None))
    engine.runner.test_now_ms = str(now + 3)
    with pytest.raises(InsufficientBalance) as refused:
        await engine.orders.checkout("ann", [line(quantity=9)], None)
    await engine.orders.void("ann", make_order_id(engine.lanes.now_ms(0)))
    await write_all(engine, database_url)

    found: list[RecordedOrder] = []
    cursor = None
    while True:
        page = await history.orders("ann", 2, cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break

    assert [order.order_id for order in found] == [
        refused.value.order_id,
        *(order.order_id for order in reversed(bought)),
    ]
    assert (found[0].status, found[0].failure, found[0].paid_at) == ("failed", "insufficient_balance", None)


async def test_an_order_on_record_is_the_order_that_was_answered(
    engine: Engine, history: History, database_url: str
) -> None:
    await fill(engine)
    await engine.wallets.charge("ann", 1_000)
    order = await engine.orders.checkout("ann", [line("tea", "s", 1), line("tea", "m", 2)], None)
    await write_all(engine, database_url)

    found = await history.order("ann", order.order_id)

    assert found is not None
    assert [(each.stock_id, each.option, each.quantity, each.amount) for each in found.lines] == [
        ("s", "small", 1, 300),
        ("m", "medium", 2, 600),
    ]
    assert found.ordered_at.timestamp() * 1000 == order.ordered_at_ms
    assert found.position == position_text(order.positions[:1])
    assert await history.order("bob", order.order_id) is None
    assert await history.order("ann", "no-such-order") is None


async def test_positions_are_accepted_then_durable_and_lost_past_the_end_of_their_epoch(
    engine: Engine, history: History, database_url: str, connection: Connection
) -> None:
    position = (await engine.wallets.charge("ann", 5)).positions[0]
    assert await history.position_states([position]) == ["accepted"]

    await write_all(engine, database_url)
    assert await history.position_states([position]) == ["durable"]

    await connection.execute("INSERT INTO epoch_end VALUES (%s, 1, 1)", (position.partition,))
    await connection.execute("UPDATE partition_cursor SET epoch = 2 WHERE partition = %s", (position.partition,))
    lost, later = Position(position.partition, "1-2"), Position(position.partition, "2-2")
    assert await history.position_states([later, position, lost, position]) == [
        "accepted",
        "durable",
        "lost",
        "durable",
    ]


async def test_however_many_positions_cost_one_look(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    rows = history.rows

    async def counted(query: Select[Any]) -> Sequence[Row[Any]]:
        looks.append(query)
        return await rows(query)

    monkeypatch.setattr(history, "rows", counted)
    positions = [Position(number % 64, f"{number}-1") for number in range(1, 300)]
    assert await history.position_states(positions) == ["accepted"] * len(positions)
    assert len(looks) == 1


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "!!", "W10", "WyJhIl0", "WzEsMl0", "bnVsbA", "a" * 999, "WzkyMjMzNzIwMzY4NTQ3NzU4MDhd", "Wy0xXQ"],
)
async def test_a_cursor_that_no_answer_held_is_refused(history: History, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await history.balance_entries("ann", 5, cursor)
    with pytest.raises(InvalidCursor):
        await history.orders("ann", 5, cursor)


async def test_open_alarms_are_listed_once_however_often_they_are_raised(
    history: History, connection: Connection
) -> None:
    for detail in ("first", "again"):
        await raise_alarm(connection, Alarm("partition_stopped", 3, "writer", detail, "do this"))

    (alarm,) = (await Oversight(history).alarms("open", 10, None)).items

    assert (alarm.kind, alarm.partition, alarm.detail) == ("partition_stopped", 3, "again")
    assert alarm.raised_at is not None


async def test_deliveries_are_counted_and_listed_as_of_one_moment(
    engine: Engine, history: History, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    await engine.wallets.charge("ann", 1_000)
    await engine.orders.checkout("ann", [line()], None)
    await write_all(engine, database_url)
    done = asyncio.Event()

    async def deliver_and_replay() -> None:
        while not done.is_set():
            for state in ("delivered", "dead", "pending"):
                await connection.execute("UPDATE outbox SET state = %s", [state])

    changing = asyncio.create_task(deliver_and_replay())
    seen = set[str]()
    try:
        for _ in range(300):
            backlog, (delivery,) = await Oversight(history).deliveries_now(5)
            counts = {"pending": (1, 0), "dead": (0, 1), "delivered": (0, 0)}
            assert (backlog.waiting, backlog.dead) == counts[delivery.state]
            seen.add(delivery.state)
    finally:
        done.set()
        await changing
    assert len(seen) > 1


async def test_without_postgresql_history_is_unavailable() -> None:
    history = History("postgresql://nobody@127.0.0.1:1/none", HistorySettings())

    with pytest.raises(HistoryUnavailable):
        await history.balance_entries("ann", 5)
    await history.close()


async def test_a_read_that_takes_too_long_is_ended(database_url: str, connection: Connection) -> None:
    history = History(database_url, HistorySettings(history_statement_ms=50))
    async with connection.transaction():
        await connection.execute("LOCK TABLE ledger_entry")
        with pytest.raises(HistoryUnavailable):
            await history.balance_entries("ann", 5)
    assert (await history.balance_entries("ann", 5)).items == ()
    await history.close()
