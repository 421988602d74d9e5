"""The sweeper: deadlines, and the walk over what is held, which finds all that a dead process left behind."""

import asyncio

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine, open_engine
from engine.errors import OrderNotPayable
from engine.order_ids import make_order_id
from engine.settings import EngineSettings
from persistence.settings import WorkerSettings
from persistence.settler import Settler
from persistence.sweeper import Sweeper
from tests.persistence.shop import fill, line, open_campaign, rows, value, write_all

Connection = AsyncConnection[TupleRow]
STOCK = "SELECT available, reserved, sold FROM stock_item WHERE stock_id = 's'"
ALL = range(4)


def _sweeper(engine: Engine, database_url: str, *, walk_rows_max: int = 5_000) -> Sweeper:
    settings = WorkerSettings(database_url=database_url, walk_rows_max=walk_rows_max)
    return Sweeper(engine, Settler(engine, settings), settings)


async def _let_time_pass(connection: Connection) -> None:
    """Everything on record happened a minute earlier."""
    await connection.execute("UPDATE reservation SET at = at - interval '1 minute'")
    await connection.execute("UPDATE orders SET finished_at = finished_at - interval '1 minute'")


async def _reserve(engine: Engine, order_id: str, user_id: str = "ann") -> None:
    flow = engine.runner.begin()
    await engine.stock.reserve(flow, lambda: order_id, user_id, [line(quantity=3)])


@pytest.mark.requirement("R3.13")
async def test_an_order_past_its_deadline_fails_and_gives_back_stock_and_coupon(
    engine: Engine, engine_settings: EngineSettings, connection: Connection, database_url: str
) -> None:
    short = EngineSettings(redis_url=engine_settings.redis_url, partitions=4, payment_deadline_ms=1)
    await fill(engine)
    await open_campaign(engine)
    coupon = await engine.coupons.issue("ann", "spring")
    async with open_engine(short) as hurried:
        order = await hurried.orders.place("ann", [line(quantity=3)], coupon.coupon_id)
    await write_all(engine, database_url)
    assert await rows(connection, STOCK) == [(97, 3, 0)]

    assert await _sweeper(engine, database_url).expire(connection, ALL) == 1
    await write_all(engine, database_url)

    assert await rows(connection, "SELECT status, failure FROM orders") == [("failed", "expired")]
    assert await rows(connection, STOCK) == [(100, 0, 0)]
    assert await rows(connection, "SELECT state, order_id FROM coupon") == [("free", None)]
    assert await value(connection, "SELECT state FROM discount") == "returned"
    with pytest.raises(OrderNotPayable):
        await engine.payments.pay("ann", order.order_id)


@pytest.mark.requirement("R3.13")
async def test_orders_that_expired_in_a_stopped_partition_do_not_keep_others_from_expiring(
    engine: Engine, engine_settings: EngineSettings, connection: Connection, database_url: str
) -> None:
    short = EngineSettings(redis_url=engine_settings.redis_url, partitions=4, payment_deadline_ms=1)
    await fill(engine)
    async with open_engine(short) as hurried:
        for user in ("ann", "bob", "cho"):
            await hurried.orders.place(user, [line(quantity=1)], None)
    await write_all(engine, database_url)
    settings = WorkerSettings(database_url=database_url, settle_in_flight_max=1)
    sweeper = Sweeper(engine, Settler(engine, settings), settings)

    expired = [await sweeper.expire(connection, ALL) for _ in range(4)]

    assert sum(expired) == 3, "although PostgreSQL has heard of none of it"


async def test_an_order_before_its_deadline_is_left_alone(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    await engine.orders.place("ann", [line(quantity=3)], None)
    await write_all(engine, database_url)
    sweeper = _sweeper(engine, database_url)

    assert await sweeper.expire(connection, ALL) == 0
    await _let_time_pass(connection)
    await sweeper.walk(connection, ALL)
    await write_all(engine, database_url)

    assert await rows(connection, STOCK) == [(97, 3, 0)]


async def test_the_walk_confirms_what_the_fast_path_missed(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    await engine.wallets.charge("ann", 10_000)
    for _ in range(5):
        await engine.orders.checkout("ann", [line()], None)
    await write_all(engine, database_url)
    await _let_time_pass(connection)
    sweeper = _sweeper(engine, database_url, walk_rows_max=2)

    assert [await sweeper.walk(connection, ALL) for _ in range(3)] == [2, 2, 1]
    await write_all(engine, database_url)

    assert await rows(connection, STOCK) == [(95, 0, 5)]
    assert await sweeper.walk(connection, ALL) == 0


async def test_the_walk_gives_back_what_a_failed_order_still_holds(
    engine: Engine, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object) -> tuple[()]:
        return ()

    await fill(engine)
    order = await engine.orders.place("ann", [line(quantity=3)], None)
    monkeypatch.setattr(engine.stock, "give_back", dies)
    await engine.orders.cancel("ann", order.order_id)
    await write_all(engine, database_url)
    await _let_time_pass(connection)
    assert await rows(connection, STOCK) == [(97, 3, 0)]

    await _sweeper(engine, database_url).walk(connection, ALL)
    await write_all(engine, database_url)

    assert await rows(connection, STOCK) == [(100, 0, 0)]


async def test_a_reservation_whose_order_never_came_is_voided_and_given_back(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    order_id = make_order_id(engine.lanes.now_ms(0))
    await _reserve(engine, order_id)
    await write_all(engine, database_url)
    sweeper = _sweeper(engine, database_url)

    await sweeper.walk(connection, ALL)
    await write_all(engine, database_url)
    assert await rows(connection, STOCK) == [(97, 3, 0)], "its flow may still be under way"

    await _let_time_pass(connection)
    await sweeper.walk(connection, ALL)
    await write_all(engine, database_url)

    assert await rows(connection, STOCK) == [(100, 0, 0)]
    assert await rows(connection, "SELECT order_id::text, status FROM orders") == [(order_id, "void")]
    assert await engine.orders.void("ann", order_id) == "void"


async def test_an_order_that_postgresql_does_not_know_yet_keeps_its_stock(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    order = await engine.orders.place("ann", [line(quantity=3)], None)
    user, stock = engine.partitions.of("ann"), engine.partitions.of("tea")
    assert user != stock
    await connection.execute("UPDATE partition_cursor SET stopped = 'test' WHERE partition = %s", (user,))
    await write_all(engine, database_url)
    await _let_time_pass(connection)

    await _sweeper(engine, database_url).walk(connection, ALL)

    assert (await engine.orders.read("ann", order.order_id)).status == "awaiting_payment"
    assert (await engine.catalog.read("tea")).stock[0].reserved == 3


async def test_an_order_that_has_failed_in_redis_alone_keeps_its_stock(
    engine: Engine, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failure may yet be lost, and then it is to be paid."""

    async def dies(*_: object) -> tuple[()]:
        return ()

    await fill(engine)
    order = await engine.orders.place("ann", [line(quantity=3)], None)
    monkeypatch.setattr(engine.stock, "give_back", dies)
    await engine.orders.cancel("ann", order.order_id)
    await connection.execute(
        "UPDATE partition_cursor SET stopped = 'test' WHERE partition = %s", (engine.partitions.of("ann"),)
    )
    await write_all(engine, database_url)
    await _let_time_pass(connection)
    sweeper = _sweeper(engine, database_url)

    assert await sweeper.walk(connection, ALL) == 1

    assert (await engine.orders.read("ann", order.order_id)).status == "failed"
    assert (await engine.catalog.read("tea")).stock[0].reserved == 3
    assert sweeper.voided == 0


async def test_two_sweepers_at_once_give_back_once(engine: Engine, connection: Connection, database_url: str) -> None:
    await fill(engine)
    await _reserve(engine, make_order_id(engine.lanes.now_ms(0)))
    await write_all(engine, database_url)
    await _let_time_pass(connection)
    sweepers = [_sweeper(engine, database_url) for _ in range(2)]

    await asyncio.gather(*(sweeper.walk(connection, ALL) for sweeper in sweepers))
    await write_all(engine, database_url)

    assert await rows(connection, STOCK) == [(100, 0, 0)]


async def test_only_partitions_of_the_share_are_swept(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    await fill(engine)
    await _reserve(engine, make_order_id(engine.lanes.now_ms(0)))
    await write_all(engine, database_url)
    await _let_time_pass(connection)
    others = [partition for partition in ALL if partition != engine.partitions.of("tea")]

    assert await _sweeper(engine, database_url).walk(connection, others) == 0


async def test_the_alarm_about_an_unknown_event_ends_when_a_newer_worker_has_passed_it(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    await connection.execute(
        "INSERT INTO alarm (kind, partition, subject, detail, remedy) VALUES ('unknown_event', 0, '1-7', '', '')"
    )
    sweeper = _sweeper(engine, database_url)
    await sweeper.step(connection, ALL)
    assert await value(connection, "SELECT cleared_at FROM alarm") is None

    await connection.execute("UPDATE partition_cursor SET seq = 7 WHERE partition = 0")
    await sweeper.step(connection, ALL)

    assert await value(connection, "SELECT cleared_at IS NOT NULL FROM alarm")
