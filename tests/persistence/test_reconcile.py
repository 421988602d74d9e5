"""The tail of one partition is lost, and another still knows of it: every case, and what becomes of it.

U, S and C are the partitions of a user, a product and a campaign. What is written is durable; what is brought back is
a partition as it was, so that all that came since is lost where it was not written.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis.asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.catalog import NewStockItem
from engine.coupons import Coupon
from engine.engine import Engine, open_engine
from engine.errors import CouponAlreadyIssued, CouponsExhausted, OrderNotPayable
from engine.orders import Order
from engine.positions import Position
from engine.runner import Flow, Reply
from engine.statuses import Status
from engine.stock import LineRequest
from persistence.history import History
from persistence.settings import HistorySettings, WorkerSettings
from persistence.settler import Settler
from persistence.stopped_events import set_aside
from persistence.sweeper import Sweeper
from persistence.trust import Trust
from tests.books import broken_laws, broken_ledger, differences, read_postgres, read_redis
from tests.persistence.recovering import Past, id_in, write_of, writing
from tests.persistence.shop import fill, open_campaign, rows, until, value, write_all
from tests.persistence.test_stopped_events import UNAPPLICABLE, put_event

Connection = AsyncConnection[TupleRow]

U, S, C, ELSEWHERE = range(4)


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop with its user, its product and its campaign each in a partition of their own."""

    engine: Engine
    connection: Connection
    database_url: str
    user: str
    product: str
    other_product: str
    campaign: str

    @property
    def lines(self) -> list[LineRequest]:
        return [LineRequest(self.product, "s", 3), LineRequest(self.other_product, "m", 1)]

    async def write(self, *partitions: int) -> None:
        await write_of(self.engine, self.database_url, *partitions)

    async def recover(self) -> None:
        async with writing(self.engine, self.database_url):
            assert await Trust(self.engine).look(self.connection)

    async def settled(self, *, but: tuple[str, ...] = ()) -> None:
        """Let the worker finish everything; then every law holds but those named, and both stores agree."""
        settings = WorkerSettings(database_url=self.database_url, orphan_age_ms=0, grant_age_ms=0)
        sweeper = Sweeper(self.engine, Settler(self.engine, settings), settings)

        async def is_done() -> bool:
            await sweeper.step(self.connection, range(4))
            held = await value(
                self.connection,
                """SELECT count(*) FROM reservation r LEFT JOIN orders o USING (order_id)
                   WHERE r.state = 'held' AND o.status IS DISTINCT FROM 'awaiting_payment'""",
            )
            return bool(held == 0)

        await write_all(self.engine, self.database_url)
        async with writing(self.engine, self.database_url):
            await until(is_done)
        await write_all(self.engine, self.database_url)
        in_redis, in_postgres = read_redis(self.engine.settings.redis_url), read_postgres(self.database_url)
        broken = [*broken_laws(in_redis), *broken_laws(in_postgres), *broken_ledger(self.database_url)]
        assert [law for law in broken if not law.startswith(but)] == []
        assert list(differences(in_redis, in_postgres)) == []

    async def units(self) -> tuple[int, int, int]:
        """Available, reserved and sold of the product's stock item."""
        item = (await self.engine.catalog.read(self.product)).stock[0]
        return item.available, item.reserved, item.sold

    async def status(self, order: Order) -> tuple[str, str | None]:
        found = await self.engine.orders.read(self.user, order.order_id)
        return found.status, found.failure

    async def state(self, partition: int, position: str) -> str:
        history = History(self.database_url, HistorySettings())
        try:
            (state,) = await history.position_states([Position(partition, position)])
            return state
        finally:
            await history.close()


@pytest.fixture
async def shop(engine: Engine, connection: Connection, database_url: str) -> Shop:
    """100 units of each item, a rich user, a campaign of three; all of it durable."""
    shop = Shop(
        engine, connection, database_url, id_in(engine, U, "kim"), id_in(engine, S, "tea"),
        id_in(engine, ELSEWHERE, "cup"), id_in(engine, C, "spring"),
    )  # fmt: skip
    await fill(engine, shop.product)
    await fill(engine, shop.other_product)
    await open_campaign(engine, shop.campaign, quantity=3)
    await engine.wallets.charge(shop.user, 100_000)
    await write_all(engine, database_url)
    return shop


async def place(shop: Shop) -> Order:
    return await shop.engine.orders.place(shop.user, shop.lines, None)


async def checkout(shop: Shop) -> Order:
    return await shop.engine.orders.checkout(shop.user, shop.lines, None)


@pytest.mark.parametrize(("order_by", "units"), [(place, (97, 3, 0)), (checkout, (97, 0, 3))])
async def test_a_live_order_whose_reservation_is_lost_is_given_its_stock_anew(
    shop: Shop, order_by: Callable[[Shop], Awaitable[Order]], units: tuple[int, int, int]
) -> None:
    before = Past.of(shop.engine, S)
    order = await order_by(shop)
    await shop.write(U, ELSEWHERE)
    before.bring_back()

    await shop.recover()
    await shop.settled()

    assert await shop.units() == units
    assert (await shop.status(order))[0] == order.status
    adopted = await rows(shop.connection, "SELECT place FROM reservation WHERE partition = %s", S)
    assert adopted[0][0].startswith("2-")
    lost = next(position for position in order.positions if position.partition == S)
    assert await shop.state(S, f"{lost.epoch}-{lost.seq}") == "lost"


async def test_an_adopted_order_can_be_paid_and_another_cancelled(shop: Shop) -> None:
    before = Past.of(shop.engine, S)
    order = await place(shop)
    await shop.write(U, ELSEWHERE)
    before.bring_back()
    await shop.recover()

    await shop.engine.payments.pay(shop.user, order.order_id)
    await shop.settled()
    assert await shop.units() == (97, 0, 3)
    second = await place(shop)
    await shop.engine.orders.cancel(shop.user, second.order_id)
    await shop.settled()
    assert await shop.units() == (97, 0, 3)


async def test_an_order_that_is_lost_with_its_user_leaves_nothing_held(shop: Shop) -> None:
    before = Past.of(shop.engine, U)
    order = await checkout(shop)
    await shop.write(S, ELSEWHERE)
    before.bring_back()

    await shop.recover()
    await shop.settled()

    assert await shop.units() == (100, 0, 0)
    assert (await shop.engine.wallets.read(shop.user)).balance == 100_000
    assert await shop.state(U, f"{order.positions[0].epoch}-{order.positions[0].seq}") == "lost"


async def test_an_order_whose_cancellation_is_lost_fails_because_its_stock_is_gone(shop: Shop) -> None:
    coupon = await shop.engine.coupons.issue(shop.user, shop.campaign)
    order = await shop.engine.orders.place(shop.user, shop.lines, coupon.coupon_id)
    await write_all(shop.engine, shop.database_url)
    before = Past.of(shop.engine, U)
    await shop.engine.orders.cancel(shop.user, order.order_id)
    await shop.write(S, ELSEWHERE)
    before.bring_back()

    await shop.recover()

    assert await shop.status(order) == ("failed", "stock_lost")
    with pytest.raises(OrderNotPayable):
        await shop.engine.payments.pay(shop.user, order.order_id)
    wallet = await shop.engine.wallets.read(shop.user)
    assert (wallet.balance, wallet.open_order) == (100_000, None)
    assert (await shop.engine.coupons.read_coupon(shop.user, coupon.coupon_id)).state == "free"
    await shop.settled()
    assert await shop.units() == (100, 0, 0)


async def test_what_an_expiry_gives_back_is_given_back_only_while_it_holds(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expiry is lost before the stock is given back: the order is awaiting payment again, and holds it still."""
    engine = shop.engine
    async with open_engine(replace(engine.settings, payment_deadline_ms=1)) as hurried:
        order = await hurried.orders.place(shop.user, shop.lines, None)
    await write_all(engine, shop.database_url)
    before = Past.of(engine, U)
    finish = engine.orders.finish

    async def finish_and_lose(flow: Flow, script: str, *order_of_user: Any) -> Reply:
        reply = await finish(flow, script, *order_of_user)
        if script == "expire_order" and lost == []:
            lost.append(reply.status)
            before.bring_back()
            await shop.recover()
        return reply

    lost: list[Status] = []
    monkeypatch.setattr(engine.orders, "finish", finish_and_lose)
    settings = WorkerSettings(database_url=shop.database_url)
    await Sweeper(engine, Settler(engine, settings), settings).expire(shop.connection, range(4))

    assert lost == [Status.EXPIRED]
    await write_all(engine, shop.database_url)
    assert (await shop.status(order), await shop.units()) in [
        (("awaiting_payment", None), (97, 3, 0)),
        (("failed", "expired"), (100, 0, 0)),
    ]
    await shop.settled()


async def test_what_one_partition_still_holds_for_an_order_that_loses_its_stock_is_given_back(shop: Shop) -> None:
    """The cancellation and the release of one of its two partitions are lost; the other's release is durable."""
    order = await place(shop)
    await write_all(shop.engine, shop.database_url)
    user, stock = Past.of(shop.engine, U), Past.of(shop.engine, S)
    await shop.engine.orders.cancel(shop.user, order.order_id)
    await shop.write(ELSEWHERE)
    user.bring_back()
    stock.bring_back()

    await shop.recover()

    assert await shop.status(order) == ("failed", "stock_lost")
    assert await shop.units() == (100, 0, 0)
    await shop.settled()


async def test_what_waited_behind_an_event_that_was_set_aside_is_adopted_however_long_it_waited(shop: Shop) -> None:
    """The partition of the stock was stopped for an hour, and is lost when nothing behind the event is written yet."""
    engine, hour_ms = shop.engine, 3_600_000
    await shop.connection.execute("UPDATE partition_cursor SET updated_at = now() - interval '2 hours'")
    before = Past.of(engine, S)
    async with redis.asyncio.Redis.from_url(engine.settings.redis_url) as client:
        await put_event(engine, client, S, UNAPPLICABLE)
    await shop.write(S)
    engine.runner.test_now_ms = str(engine.lanes.now_ms(0) - hour_ms)
    order = await place(shop)
    engine.runner.test_now_ms = ""
    await shop.write(U, ELSEWHERE)
    await set_aside(shop.connection, engine, S, reason="a test", set_aside_by="me")
    before.bring_back()

    await shop.recover()

    assert await shop.units() == (97, 3, 0)
    assert (await shop.status(order))[0] == "awaiting_payment"
    await shop.settled()


async def test_a_failed_order_whose_release_is_lost_is_released_first_so_that_others_have_it(shop: Shop) -> None:
    """All 100 units: the failed order's must be back before the live one's are taken, or there would be a shortage."""
    engine = shop.engine
    poor = id_in(engine, U, "poor")
    await engine.wallets.charge(poor, 1)
    everything = [LineRequest(shop.product, "s", 100)]
    failed = await engine.orders.place(poor, everything, None)
    await write_all(engine, shop.database_url)
    before = Past.of(engine, S)
    await engine.orders.cancel(poor, failed.order_id)
    live = await engine.orders.checkout(shop.user, everything, None)
    await shop.write(U)
    before.bring_back()

    await shop.recover()

    assert await shop.units() == (0, 100, 0)
    assert await value(shop.connection, "SELECT count(*) FROM alarm WHERE kind = 'stock_short'") == 0
    await shop.settled()
    assert (await shop.status(live))[0] == "completed"


async def test_units_that_came_with_a_lost_increase_are_recorded_as_short_and_alarmed(shop: Shop) -> None:
    engine = shop.engine
    before = Past.of(engine, S)
    await engine.catalog.adjust(shop.product, "s", 5, "a parcel")
    order = await engine.orders.checkout(shop.user, [LineRequest(shop.product, "s", 102)], None)
    await shop.write(U)
    before.bring_back()

    await shop.recover()

    assert await shop.units() == (0, 102, 0)
    ((detail, partition),) = await rows(
        shop.connection, "SELECT detail, partition FROM alarm WHERE kind = 'stock_short' AND cleared_at IS NULL"
    )
    assert detail.startswith(f"2 units of {shop.product} s")
    assert partition == S
    await shop.settled(but=("an alarm is open",))
    assert await shop.units() == (0, 0, 102)
    assert (await shop.status(order))[0] == "completed"


async def test_who_ordered_first_has_the_first_claim_on_what_is_left_whatever_was_written_first(shop: Shop) -> None:
    engine = shop.engine
    lee = id_in(engine, ELSEWHERE, "lee")
    await engine.wallets.charge(lee, 100_000)
    await write_all(engine, shop.database_url)
    before = Past.of(engine, S)
    await engine.catalog.adjust(shop.product, "s", 5, "a parcel")
    lines = {shop.user: [LineRequest(shop.product, "s", 60)], lee: [LineRequest(shop.product, "s", 45)]}
    ordered = [await engine.orders.place(user, lines[user], None) for user in (shop.user, lee)]
    earlier, later = sorted(ordered, key=lambda order: order.order_id)
    for order in (later, earlier):
        await shop.write(engine.partitions.of(order.user_id))
    before.bring_back()

    await shop.recover()

    subjects = await rows(shop.connection, "SELECT subject FROM alarm WHERE kind = 'stock_short'")
    assert subjects == [(f"{later.order_id} s",)]
    assert await shop.units() == (0, 105, 0)
    await shop.settled(but=("an alarm is open",))


async def test_a_product_that_is_lost_with_its_sales_is_put_again_without_any_unit(shop: Shop) -> None:
    engine = shop.engine
    new, sized = id_in(engine, S, "new"), shop.product
    before = Past.of(engine, S)
    await engine.catalog.put(new, "New", 50, [NewStockItem("s", "small", 10), NewStockItem("m", "medium", 10)])
    await engine.catalog.put(sized, "Renamed", 999, [NewStockItem("xl", "very large", 10)])
    lines = [
        LineRequest(new, "s", 2),
        LineRequest(new, "m", 1),
        LineRequest(sized, "xl", 4),
        LineRequest(sized, "s", 1),
    ]
    await engine.orders.checkout(shop.user, lines, None)
    await shop.write(U)
    before.bring_back()

    await shop.recover()
    await shop.settled(but=("an alarm is open",))

    product = await engine.catalog.read(new)
    assert (product.name, product.price) == ("New", 50)
    assert [(item.stock_id, item.available, item.sold) for item in product.stock] == [("s", 0, 2), ("m", 0, 1)]
    product = await engine.catalog.read(sized)
    assert (product.name, product.price) == (f"The {sized}", 300)
    assert [(item.stock_id, item.option, item.available, item.sold) for item in product.stock] == [
        ("s", "small", 99, 1), ("m", "medium", 100, 0), ("xl", "very large", 0, 4),
    ]  # fmt: skip
    assert await value(shop.connection, "SELECT count(*) FROM alarm WHERE kind = 'stock_short'") == 3


async def test_a_completed_order_whose_stock_was_given_back_takes_it_again(shop: Shop) -> None:
    """No flow does that; but whatever did, the order has its units by right."""
    order = await checkout(shop)
    await shop.engine.stock.release(S, order.order_id, [shop.product])
    await write_all(shop.engine, shop.database_url)
    Past.of(shop.engine, S).bring_back()

    await shop.recover()
    await shop.settled()

    assert await shop.units() == (97, 0, 3)


async def test_a_coupon_whose_issue_is_lost_keeps_its_number(shop: Shop) -> None:
    engine = shop.engine
    before = Past.of(engine, C)
    coupon = await engine.coupons.issue(shop.user, shop.campaign)
    await shop.write(U)
    before.bring_back()

    await shop.recover()

    with pytest.raises(CouponAlreadyIssued) as again:
        await engine.coupons.issue(shop.user, shop.campaign)
    assert again.value.coupon_id == coupon.coupon_id
    assert (await engine.coupons.issue("lee", shop.campaign)).issue_number == 2
    await shop.settled()


async def test_a_number_that_is_lost_with_issue_and_coupon_is_not_given_to_two(shop: Shop) -> None:
    """Numbers 1 and 2 are lost, 3 is durable with its user: the campaign has three, and is exhausted."""
    engine = shop.engine
    campaign_before = Past.of(engine, C)
    users = [id_in(engine, ELSEWHERE, name) for name in ("ann", "bob")]
    users_before = Past.of(engine, ELSEWHERE)
    for user in users:
        await engine.coupons.issue(user, shop.campaign)
    await engine.coupons.issue(shop.user, shop.campaign)
    await shop.write(U)
    campaign_before.bring_back()
    users_before.bring_back()

    await shop.recover()

    campaign = await engine.coupons.read_campaign(shop.campaign)
    assert (campaign.quantity, campaign.issued, campaign.remaining) == (3, 3, 0)
    with pytest.raises(CouponsExhausted):
        await engine.coupons.issue(users[0], shop.campaign)
    assert await rows(shop.connection, "SELECT user_id, number FROM coupon_issue") == [(shop.user, 3)]


async def test_a_campaign_that_is_lost_with_its_issues_is_there_again_and_closed(shop: Shop) -> None:
    engine = shop.engine
    campaign_id = id_in(engine, C, "flash")
    before = Past.of(engine, C)
    await open_campaign(engine, campaign_id, quantity=2)
    coupons: list[Coupon] = []
    for user in (shop.user, id_in(engine, U, "lee")):
        coupons.append(await engine.coupons.issue(user, campaign_id))
    await shop.write(U)
    before.bring_back()

    await shop.recover()

    campaign = await engine.coupons.read_campaign(campaign_id)
    assert (campaign.quantity, campaign.issued) == (2, 2)
    assert campaign.closes_at_ms <= engine.lanes.now_ms(C)
    await shop.settled()
    order = await engine.orders.checkout(shop.user, shop.lines, coupons[0].coupon_id)
    assert order.discount == 100


async def test_a_grant_that_is_lost_with_its_user_is_made_again(shop: Shop) -> None:
    engine = shop.engine
    before = Past.of(engine, U)
    coupon = await engine.coupons.issue(shop.user, shop.campaign)
    await shop.write(C)
    before.bring_back()

    await shop.recover()
    await shop.settled()

    again = await engine.coupons.list_coupons(shop.user)
    assert [(each.coupon_id, each.issue_number) for each in again] == [(coupon.coupon_id, 1)]


async def test_a_redis_that_is_behind_what_is_durable_is_rebuilt(shop: Shop) -> None:
    """Its own events are in PostgreSQL, so nothing is lost and nothing is adopted."""
    before = Past.of(shop.engine, S)
    await checkout(shop)
    await write_all(shop.engine, shop.database_url)
    before.bring_back()

    await shop.recover()
    await shop.settled()

    assert await shop.units() == (97, 0, 3)
    assert await rows(shop.connection, "SELECT count(*) FROM reservation WHERE split_part(place, '-', 1) = '2'") == [
        (1,)
    ]


async def test_an_older_epochs_redis_is_rebuilt_though_its_sequence_looks_right(shop: Shop) -> None:
    """It stands at the sequence of the cursor, but by an event that was lost with its epoch."""
    engine = shop.engine
    lee = id_in(engine, U, "lee")
    before = Past.of(engine, U)
    await engine.wallets.charge(lee, 1)
    lost_branch = Past.of(engine, U)
    before.bring_back()
    await shop.recover()
    await engine.wallets.charge(lee, 2)
    await write_all(engine, shop.database_url)
    lost_branch.bring_back()

    await shop.recover()

    assert await engine.wallets.balance(lee) == 2
    await shop.settled()


async def test_reconciling_twice_changes_nothing_more(shop: Shop) -> None:
    before = Past.of(shop.engine, S)
    await checkout(shop)
    await shop.write(U, ELSEWHERE)
    before.bring_back()
    await shop.recover()
    Past.of(shop.engine, S).bring_back()

    await shop.recover()
    await shop.settled()

    assert await shop.units() == (97, 0, 3)
    assert await rows(shop.connection, "SELECT count(*) FROM reservation WHERE partition = %s", S) == [(1,)]
