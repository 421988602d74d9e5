"""The cooler: what is settled leaves Redis, and nothing notices: not orders, coupons, recovery, nor the auditor."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.coupons import Discount, Issue
from engine.engine import Engine, open_engine
from engine.errors import MayBeCold, NotFound
from engine.idempotency import request_key
from engine.order_ids import make_order_id
from engine.orders import Order
from engine.settings import EngineSettings
from persistence.auditor import AuditLimits, Auditor
from persistence.cooler import Cooler, hot_ms
from persistence.settings import WorkerSettings
from persistence.settler import Confirm, Release, Settler
from persistence.sweeper import Sweeper
from persistence.trust import Trust
from tests.persistence.recovering import dump, id_in, writing
from tests.persistence.shop import DAY_MS, fill, line, open_campaign, rows, value, write_all
from tests.servers import empty_redis, redis_client

Connection = AsyncConnection[TupleRow]
ALL = range(4)


class Shop:
    """A shop of three products whose cooler lets everything go at once: nothing is hot, no order id too young."""

    def __init__(self, engine: Engine, hurried: Engine, connection: Connection, database_url: str) -> None:
        self.engine = engine
        self.connection = connection
        self.database_url = database_url
        self.settings = WorkerSettings(database_url=database_url, evict_every_ms=0)
        self.settler = Settler(engine, self.settings)
        self._hurried = hurried

    def cooler(self, **settings: Any) -> Cooler:
        """A cooler of its own."""
        return Cooler(self._hurried, WorkerSettings(evict_every_ms=0, **settings), hot_for_ms=0)

    async def write(self) -> None:
        """PostgreSQL has everything."""
        await write_all(self.engine, self.database_url)

    async def settle(self) -> None:
        """Everything is written, and what completed orders hold is sold."""
        await self.write()
        held = await rows(
            self.connection,
            """SELECT r.partition, r.order_id::text, r.lines FROM reservation r JOIN orders o USING (order_id)
               WHERE r.state = 'held' AND o.status = 'completed'""",
        )
        day = self.engine.days.text(self.engine.lanes.now_ms(0))
        products = [tuple(dict.fromkeys(each.split(":")[0] for each in lines.split(","))) for _, _, lines in held]
        steps = [Confirm(row[0], row[1], ids, day) for row, ids in zip(held, products, strict=True)]
        await self.settler.confirm(self.connection, steps)
        await self.write()

    async def cool(self) -> None:
        """Let go of everything that may leave, once all that there is lies in the past."""
        await asyncio.sleep(0.05)
        await self.cooler().step(self.connection, ALL)

    def keys(self, *kinds: str) -> set[str]:
        """The keys of these kinds in Redis, without their partition."""
        found = {key.partition("}:")[2] for key in dump(self.engine.settings.redis_url)}
        return {key for key in found if key.partition(":")[0] in kinds}

    async def audit(self) -> dict[str, int]:
        """How many of each kind were cold; everything must be right."""
        auditor = Auditor(self.engine, self.connection, AuditLimits(age_s=0, confirm_s=0, pause_s=0))
        async for _ in auditor.everything():
            pass
        assert auditor.report.examples == []
        return {slug: tally.cold for slug, tally in auditor.report.tallies.items() if tally.cold}


@pytest.fixture
async def shop(
    engine: Engine, engine_settings: EngineSettings, connection: Connection, database_url: str
) -> AsyncIterator[Shop]:
    """Some of everything that can be finished, and of what is not."""
    hurried = replace(engine_settings, order_age_max_ms=0)
    async with open_engine(hurried) as other:
        shop = Shop(engine, other, connection, database_url)
        for product in ("tea", "cup", "pot"):
            await fill(engine, product)
        await open_campaign(engine)
        yield shop


async def buy(shop: Shop, user: str, *, coupon: bool = False) -> Order:
    """A completed order of two products, with the user's coupon or without."""
    await shop.engine.wallets.charge(user, 10_000)
    coupon_id = (await shop.engine.coupons.issue(user, "spring")).coupon_id if coupon else None
    return await shop.engine.orders.checkout(user, [line("tea"), line("cup", "m", 2)], coupon_id)


async def test_what_is_settled_leaves_and_what_is_not_stays(shop: Shop) -> None:
    engine = shop.engine
    bought = await buy(shop, "ann", coupon=True)
    cancelled = await engine.orders.place("bob", [line("pot")], None)
    await engine.orders.cancel("bob", cancelled.order_id)
    coupon = await engine.coupons.issue("cho", "spring")
    waiting = await engine.orders.place("cho", [line("tea")], coupon.coupon_id)
    await shop.settle()
    before = dump(engine.settings.redis_url)

    await shop.cool()

    gone = {bought.order_id, cancelled.order_id}
    after = dump(engine.settings.redis_url)
    left = {key for key in before if key.rpartition(":")[2] not in gone and not key.endswith("coupons:ann")}
    assert set(after) == left
    assert {f"order:{waiting.order_id}", f"reservation:{waiting.order_id}"} == shop.keys("order", "reservation")
    for user in ("ann", "bob"):
        assert (await engine.wallets.read(user)).last_order is None
    assert (await engine.wallets.read("cho")).last_order == waiting.order_id
    with pytest.raises(NotFound):
        await engine.orders.read("ann", bought.order_id)
    assert await shop.audit() == {"order": 2, "reservation": 3, "coupon": 1}
    assert (await engine.orders.checkout("ann", [line("tea")], None)).status == "completed"


async def test_an_order_stays_until_every_partition_has_settled_it(shop: Shop) -> None:
    engine = shop.engine
    far = id_in(engine, (engine.partitions.of("tea") + 1) % 4, "far")
    await fill(engine, far)
    await engine.wallets.charge("ann", 10_000)
    bought = await engine.orders.checkout("ann", [line("tea"), line(far)], None)
    await shop.write()
    day = engine.days.text(bought.paid_at_ms or 0)
    for product, left in (("tea", f"reservation:{bought.order_id}"), (far, None)):
        await shop.settler.confirm(
            shop.connection, [Confirm(engine.partitions.of(product), bought.order_id, (product,), day)]
        )
        await shop.write()
        await shop.cool()
        assert f"order:{bought.order_id}" in shop.keys("order") or left is None
        assert shop.keys("reservation") == ({left} if left else set())

    assert shop.keys("order", "reservation") == set()


async def test_steps_are_bounded_and_go_on_where_the_last_one_ended(shop: Shop) -> None:
    for user in ("ann", "bob", "cho"):
        await buy(shop, user)
    await shop.settle()
    await asyncio.sleep(0.05)
    cooler = shop.cooler(evict_rows_max=1)

    looked_at = [await cooler.step(shop.connection, ALL) for _ in range(20)]

    assert max(looked_at) == 1
    assert sum(looked_at) == await value(shop.connection, "SELECT count(*) FROM reservation")
    assert shop.keys("order", "reservation") == set()


async def test_between_two_rounds_the_cooler_asks_nothing(shop: Shop) -> None:
    cooler = Cooler(shop.engine, WorkerSettings(evict_every_ms=3_600_000), hot_for_ms=0)
    assert await cooler.step(shop.connection, ALL) == 0
    shop.connection.cursor_factory = None  # type: ignore[assignment]
    assert await cooler.step(shop.connection, ALL) == 0


async def test_a_redis_that_went_back_is_walked_over_anew(shop: Shop) -> None:
    await buy(shop, "ann", coupon=True)
    await shop.settle()
    with redis_client(shop.engine.settings.redis_url) as redis:
        kept = {key: redis.dump(key) for key in redis.keys("*")}
        await shop.cool()
        assert shop.keys("order", "reservation", "coupons") == set()
        redis.flushall()
        for key, content in kept.items():
            redis.restore(key, 0, content)
    assert shop.keys("order") != set()

    await shop.cool()

    assert shop.keys("order", "reservation", "coupons") == set()


async def test_a_rebuild_loads_what_is_hot_and_the_walk_goes_on(shop: Shop) -> None:
    engine = shop.engine
    await buy(shop, "ann", coupon=True)
    await shop.settle()
    await shop.cool()
    empty_redis(engine.settings.redis_url)

    async with writing(engine, shop.database_url):
        assert await Trust(engine).look(shop.connection)

    assert len(shop.keys("order", "coupons")) == 2, "by its own measure, which is days, all of it is hot"
    assert (await engine.wallets.read("ann")).last_order is not None
    assert await shop.audit() == {}
    await shop.cool()
    assert shop.keys("order", "reservation", "coupons") == set()


async def test_a_rebuild_leaves_out_what_has_been_over_for_days(shop: Shop) -> None:
    engine = shop.engine
    await buy(shop, "ann", coupon=True)
    await engine.coupons.issue("bob", "spring")
    await shop.settle()
    await shop.connection.execute("UPDATE coupon SET used_at = used_at - interval '30 days' WHERE state = 'used'")
    await shop.connection.execute("UPDATE coupon SET valid_until = now() - interval '30 days' WHERE state = 'free'")
    empty_redis(engine.settings.redis_url)

    async with writing(engine, shop.database_url):
        assert await Trust(engine).look(shop.connection)

    assert shop.keys("coupons") == set()
    assert (await engine.coupons.holding("bob")).lacks_below(9) == 1
    long_ago = engine.lanes.now_ms(0) - 30 * DAY_MS
    with pytest.raises(MayBeCold):
        await engine.coupons.grant(Issue("bob", "spring", 2, long_ago, Discount("amount", 100, None, None), 7))
    with pytest.raises(MayBeCold):
        await engine.orders.void("bob", make_order_id(long_ago))


async def test_a_rebuilt_redis_tells_of_everything_up_to_where_it_is_hot_that_it_may_be_cold(shop: Shop) -> None:
    """And what PostgreSQL answered before one rebuild says nothing of what the next has left out."""
    engine = shop.engine
    hot_for_ms = hot_ms(WorkerSettings(), engine.settings) + engine.policy.payment_deadline_ms
    edge = Issue("bob", "spring", 1, engine.lanes.now_ms(0) - hot_for_ms, Discount("amount", 100, None, None), 7)
    asked = ""
    async with writing(engine, shop.database_url):
        for _ in range(2):
            empty_redis(engine.settings.redis_url)
            assert await Trust(engine).look(shop.connection)
            with pytest.raises(MayBeCold) as cold:
                await engine.coupons.grant(edge, asked)
            asked = cold.value.asked

    assert (await engine.coupons.grant(edge, asked))[1]


async def test_after_a_rebuild_the_walks_go_on_a_little_before_what_is_hot(shop: Shop) -> None:
    """What a young order held ended, by another clock, just before all that is hot: it is here, and leaves."""
    engine = shop.engine
    await buy(shop, "ann")
    await shop.settle()
    hot_for_ms = hot_ms(WorkerSettings(), engine.settings) + engine.policy.payment_deadline_ms
    await shop.connection.execute(
        "UPDATE reservation SET finished_at = now() - (%s + 30000) * interval '1 ms'", (hot_for_ms,)
    )
    empty_redis(engine.settings.redis_url)
    async with writing(engine, shop.database_url):
        assert await Trust(engine).look(shop.connection)
    assert shop.keys("reservation") != set()
    marks = [await engine.eviction.marks(partition) for partition in ALL]
    assert {each.coupons for each in marks} == {each.reservations for each in marks}

    await shop.cool()

    assert shop.keys("order", "reservation") == set()


async def test_an_orphan_that_is_older_than_what_has_left_is_still_voided(shop: Shop) -> None:
    engine = shop.engine
    order_id = make_order_id(engine.lanes.now_ms(0))
    await engine.stock.reserve(engine.runner.begin(), lambda: order_id, "ann", [line(quantity=3)])
    await buy(shop, "ann")
    await shop.settle()
    await shop.cool()
    with pytest.raises(MayBeCold):
        await engine.orders.void("ann", order_id)
    await shop.connection.execute("UPDATE reservation SET at = at - interval '1 minute' WHERE state = 'held'")

    await Sweeper(engine, shop.settler, shop.settings).walk(shop.connection, ALL)
    await shop.write()

    assert await value(shop.connection, "SELECT status FROM orders WHERE order_id = %s", order_id) == "void"
    assert shop.keys("reservation") == {f"reservation:{order_id}"}
    await shop.cool()
    assert shop.keys("order", "reservation") == set()
    assert await shop.audit()


async def test_a_sweeper_that_slept_over_it_does_not_void_what_has_left(shop: Shop) -> None:
    bought = await buy(shop, "ann")
    await shop.settle()
    await shop.cool()
    sweeper = Sweeper(shop.engine, shop.settler, shop.settings)

    assert await sweeper._void(shop.connection, [("ann", Release(0, bought.order_id, ("tea",)))]) == []

    await shop.write()
    assert await value(shop.connection, "SELECT status FROM orders") == "completed"


async def test_confirming_what_was_sold_and_has_left_is_no_alarm(shop: Shop) -> None:
    bought = await buy(shop, "ann")
    await shop.settle()
    await shop.cool()
    partition, day = shop.engine.partitions.of("tea"), shop.engine.days.text(bought.paid_at_ms or 0)

    await shop.settler.confirm(shop.connection, [Confirm(partition, bought.order_id, ("tea",), day)])
    assert await value(shop.connection, "SELECT count(*) FROM alarm") == 0

    unknown = make_order_id(bought.ordered_at_ms)
    await shop.settler.confirm(shop.connection, [Confirm(partition, unknown, ("tea",), day)])
    assert await value(shop.connection, "SELECT subject FROM alarm") == unknown


async def test_a_coupon_that_has_left_is_not_granted_again_and_one_that_was_lost_is(shop: Shop) -> None:
    engine = shop.engine
    long_ago = engine.lanes.now_ms(0) - 30 * DAY_MS
    rule = Discount("amount", 100, None, None)
    expired = Issue("ann", "spring", 1, long_ago, rule, 7)
    coupon, _ = await engine.coupons.grant(expired)
    await shop.write()
    await shop.cool()
    assert shop.keys("coupons") == set()
    with pytest.raises(MayBeCold):
        await engine.coupons.grant(expired)

    assert await shop.settler._grant_issue(shop.connection, expired) is False
    assert await shop.settler._grant_issue(shop.connection, Issue("ann", "autumn", 1, long_ago, rule, 7)) is True

    await shop.write()
    found = await rows(shop.connection, "SELECT coupon_id, campaign_id FROM coupon ORDER BY issue_number, campaign_id")
    assert [campaign for _, campaign in found] == ["autumn", "spring"]
    assert found[1][0] == coupon.coupon_id


async def test_days_that_no_list_looks_back_at_leave(shop: Shop) -> None:
    engine = shop.engine
    await buy(shop, "ann")
    await shop.settle()
    days = [each.strftime("%Y%m%d") for each in engine.days.last(20, engine.lanes.now_ms(0))]
    partition = engine.partitions.of("tea")
    with redis_client(engine.settings.redis_url) as redis:
        for day in days[:-1]:
            redis.zadd(engine.keys.sales(partition, day), {"tea": 1})

    await shop.cool()

    assert {key.partition(":")[2] for key in shop.keys("sales")} >= set(days[-8:-1])
    assert shop.keys("sales").isdisjoint(f"sales:{day}" for day in days[:-9])


@pytest.mark.requirement("R0.4")
@pytest.mark.parametrize("hot_days", [0, 1, 30])
async def test_an_order_stays_longer_than_a_key_that_may_ask_for_it(
    shop: Shop, engine: Engine, database_url: str, hot_days: int
) -> None:
    key = request_key("ann", "a-key", "charge", b"")
    await engine.wallets.charge("ann", 1_000, key)
    with redis_client(engine.settings.redis_url) as redis:
        partition = engine.partitions.of("ann")
        lives_ms = redis.pttl(engine.keys.request_key(partition, "ann", key.digest))
    assert isinstance(lives_ms, int)
    assert 0 < lives_ms < hot_ms(WorkerSettings(database_url=database_url, hot_days=hot_days), engine.settings)
