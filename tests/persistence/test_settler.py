"""The settler and the sweeper's walk: what finished orders hold is sold or given back, what is issued is granted."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.coupons import Coupon
from engine.engine import Engine
from engine.errors import OutcomeUnknown, Unavailable
from engine.runner import Flow
from persistence.database import connect
from persistence.event_rows import CompletedOrder
from persistence.settings import WorkerSettings
from persistence.settler import Confirm, Settler
from persistence.writer import Writer
from tests.persistence.shop import fill, line, open_campaign, rows, until, value, write_all

Connection = AsyncConnection[TupleRow]
STOCK = "SELECT stock_id, available, reserved, sold FROM stock_item WHERE product_id = 'tea' ORDER BY added_index"


@pytest.fixture
def settings(database_url: str) -> WorkerSettings:
    """Grants at once."""
    return WorkerSettings(database_url=database_url, grant_age_ms=0)


@pytest.fixture
def settler(engine: Engine, settings: WorkerSettings) -> Settler:
    """A settler over the test's engine."""
    return Settler(engine, settings)


@pytest.fixture
async def writer(engine: Engine, settings: WorkerSettings) -> AsyncIterator[Writer]:
    """A writer that is still open, so that its rounds can be looked at."""
    async with await connect(settings.database_url, "test writer") as own:
        writer = Writer(engine, own, settings)
        await writer.start()
        yield writer


async def test_what_a_paid_order_holds_becomes_sold_and_is_counted_for_its_day(
    engine: Engine, settler: Settler, writer: Writer, connection: Connection, database_url: str
) -> None:
    await fill(engine, "tea")
    await fill(engine, "cup")
    await engine.wallets.charge("ann", 10_000)
    bought = await engine.orders.checkout("ann", [line("tea", "s", 2), line("tea", "m", 1), line("cup", "s", 4)], None)
    completed = (await writer.round(range(4))).completed
    assert [order.order_id for order in completed] == [bought.order_id]

    await settler.confirm_orders(connection, completed)
    await write_all(engine, database_url)

    assert await rows(connection, STOCK) == [("s", 98, 0, 2), ("m", 99, 0, 1)]
    day = engine.days.of(bought.paid_at_ms or 0)
    sold = await rows(connection, "SELECT day, product_id, quantity FROM daily_sale ORDER BY product_id")
    assert sold == [(day, "cup", 4), (day, "tea", 3)]
    assert await value(connection, "SELECT count(*) FROM reservation WHERE state <> 'sold'") == 0


async def test_an_order_paid_in_a_later_batch_is_confirmed_by_its_lines_on_record(
    engine: Engine, settler: Settler, writer: Writer, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    await engine.wallets.charge("ann", 10_000)
    order = await engine.orders.place("ann", [line(quantity=3)], None)
    await writer.round(range(4))
    await engine.payments.pay("ann", order.order_id)
    completed = (await writer.round(range(4))).completed
    assert [order.lines for order in completed] == [None]

    await settler.confirm_orders(connection, completed)
    await write_all(engine, database_url)

    assert await rows(connection, STOCK) == [("s", 97, 0, 3), ("m", 100, 0, 0)]


async def test_confirming_twice_counts_once(
    engine: Engine, settler: Settler, writer: Writer, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    await engine.wallets.charge("ann", 10_000)
    await engine.orders.checkout("ann", [line()], None)
    completed = (await writer.round(range(4))).completed

    await asyncio.gather(settler.confirm_orders(connection, completed), settler.confirm_orders(connection, completed))
    await write_all(engine, database_url)

    assert await value(connection, "SELECT quantity FROM daily_sale") == 1
    assert await value(connection, "SELECT count(*) FROM alarm") == 0


async def test_orders_of_two_days_that_are_confirmed_at_once_count_each_for_its_own(
    engine: Engine, settler: Settler, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    await engine.wallets.charge("ann", 10_000)
    bought = [await engine.orders.checkout("ann", [line(quantity=units)], None) for units in (2, 3)]
    await write_all(engine, database_url)
    partition, days = engine.partitions.of("tea"), ("20260101", "20260102")

    steps = [Confirm(partition, order.order_id, ("tea",), day) for order, day in zip(bought, days, strict=True)]
    await settler.confirm(connection, steps)
    await write_all(engine, database_url)

    assert await rows(connection, "SELECT day::text, quantity FROM daily_sale ORDER BY day") == [
        ("2026-01-01", 2),
        ("2026-01-02", 3),
    ]


async def test_offered_orders_are_confirmed_in_the_background(
    engine: Engine, settler: Settler, writer: Writer, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    await engine.wallets.charge("ann", 10_000)
    for _ in range(5):
        await engine.orders.checkout("ann", [line()], None)
    async with await connect(database_url, "test settler") as own:
        task = asyncio.create_task(settler.run(own))
        settler.offer((await writer.round(range(4))).completed)

        async def is_sold() -> bool:
            await writer.round(range(4))
            return await rows(connection, STOCK) == [("s", 95, 0, 5), ("m", 100, 0, 0)]

        await until(is_sold)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_queue_is_bounded_and_leaves_the_rest_to_the_walk(engine: Engine, database_url: str) -> None:
    settler = Settler(engine, WorkerSettings(database_url=database_url, settle_queue_max=3))

    settler.offer([CompletedOrder(str(number), "ann", 0, ()) for number in range(5)])
    settler.offer([CompletedOrder("more", "ann", 0, ())])

    assert settler.waiting == 3


async def test_a_completed_order_without_its_reservation_is_an_alarm(
    engine: Engine, settler: Settler, connection: Connection
) -> None:
    lost = CompletedOrder("019ab000-0000-7000-8000-000000000001", "ann", 0, (("tea", "s", 1),))

    await settler.confirm_orders(connection, [lost, lost])

    assert await rows(connection, "SELECT kind, subject FROM alarm") == [("reservation_lost", lost.order_id)]


async def test_what_redis_does_not_do_now_is_left_without_an_error(
    engine: Engine, settler: Settler, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_away(*_: object) -> None:
        raise Unavailable("no connection")

    monkeypatch.setattr(engine.stock, "confirm", is_away)

    await settler.confirm_orders(connection, [CompletedOrder("o", "ann", 0, (("tea", "s", 1),))])

    assert await value(connection, "SELECT count(*) FROM alarm") == 0


async def test_an_issue_whose_grant_was_lost_is_granted_with_the_rule_of_its_issue(
    engine: Engine, settler: Settler, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object, **__: object) -> None:
        raise Unavailable("the process ends here")

    await open_campaign(engine)
    await engine.coupons.issue("ann", "spring")
    with monkeypatch.context() as patch:
        patch.setattr(engine.coupons, "_grant", dies)
        with pytest.raises(OutcomeUnknown):
            await engine.coupons.issue("bob", "spring")
    await engine.coupons.issue("cho", "spring")
    await write_all(engine, database_url)

    assert await settler.grant(connection, range(4)) == 1
    await write_all(engine, database_url)

    (coupon,) = await engine.coupons.list_coupons("bob")
    assert (coupon.issue_number, coupon.discount.value) == (2, 100)
    assert await value(connection, "SELECT granted_through FROM campaign_settlement") == 1
    assert await settler.grant(connection, range(4)) == 0
    assert await value(connection, "SELECT granted_through FROM campaign_settlement") == 3
    assert await rows(connection, "SELECT user_id, issue_number FROM coupon ORDER BY 2") == [
        ("ann", 1),
        ("bob", 2),
        ("cho", 3),
    ]


async def test_an_issue_that_cannot_be_granted_keeps_none_behind_it_from_their_grants(
    engine: Engine, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two issues at a time, and the first two users' partitions are away."""
    settings = WorkerSettings(database_url=database_url, grant_age_ms=0, walk_rows_max=2)
    settler, users = Settler(engine, settings), ["ann", "bob", "cho", "dan", "eve"]
    grant = engine.coupons._grant

    async def is_away(flow: Flow, user_id: str, *rest: Any, **named: Any) -> tuple[Coupon, bool]:
        if user_id in away:
            raise Unavailable("no connection")
        return await grant(flow, user_id, *rest, **named)

    monkeypatch.setattr(engine.coupons, "_grant", is_away)
    await open_campaign(engine)
    away = set(users)
    for user in users:
        with pytest.raises(OutcomeUnknown):
            await engine.coupons.issue(user, "spring")
    await write_all(engine, database_url)
    away = {"ann", "bob"}

    for _ in range(3):
        await settler.grant(connection, range(4))
    await write_all(engine, database_url)
    assert await rows(connection, "SELECT user_id FROM coupon ORDER BY 1") == [("cho",), ("dan",), ("eve",)]
    for _ in range(3):
        await settler.grant(connection, range(4))
    assert await rows(connection, "SELECT granted_through FROM campaign_settlement") == []

    away = set()
    for _ in range(3):
        await settler.grant(connection, range(4))
    await write_all(engine, database_url)
    for _ in range(4):
        await settler.grant(connection, range(4))
    assert await value(connection, "SELECT count(*) FROM coupon") == len(users)
    assert await value(connection, "SELECT granted_through FROM campaign_settlement") == len(users)
