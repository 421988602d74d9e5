"""The auditor: a sound shop is clean, whatever is planted is found, and traffic is never mistaken for a mismatch."""

import asyncio
from collections.abc import AsyncIterator
from typing import LiteralString

import pytest
import redis.asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.errors import EngineError, InsufficientBalance
from engine.events import Event
from persistence.alarms import AUDIT_MISMATCH
from persistence.audited import Entity, Subject, changed_by, not_recorded
from persistence.auditor import AuditLimits, Auditor, AuditReport
from persistence.conservation import LAWS
from persistence.continuous_audit import ContinuousAudit
from persistence.settings import WorkerSettings
from persistence.worker import Worker
from tests.persistence.shop import fill, line, open_campaign, rows, until, value, write_all

Connection = AsyncConnection[TupleRow]

ORDER = "019ab000-0000-7000-8000-000000000001"
OTHER = "019ab000-0000-7000-8000-000000000002"
AT_ONCE = AuditLimits(page_rows=3, age_s=0, confirm_s=0, pause_s=0)
"""Everything counts, however young; pages so small that there are several."""


@pytest.fixture
async def text_client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the test's Redis whose replies are text."""
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def sold(engine: Engine, connection: Connection, database_url: str) -> dict[str, str]:
    """A shop in which something of every kind has happened, all of it written; ids of some of it."""
    for product in ("tea", "cup", "pot"):
        await fill(engine, product)
    await engine.catalog.adjust("cup", "m", -10, "broken")
    await open_campaign(engine)
    for user in ("ann", "bob", "eve"):
        await engine.wallets.charge(user, 5_000)
    ann = await engine.coupons.issue("ann", "spring")
    bob = await engine.coupons.issue("bob", "spring")
    eve = await engine.coupons.issue("eve", "spring")
    paid = await engine.orders.checkout("ann", [line("tea", "s", 2), line("cup", "m", 1)], ann.coupon_id)
    cancelled = await engine.orders.place("ann", [line("pot", "s", 5)], None)
    await engine.orders.cancel("ann", cancelled.order_id)
    with pytest.raises(InsufficientBalance):
        await engine.orders.checkout("zoe", [line("tea", "s", 4)], None)
    open_order = await engine.orders.place("bob", [line("cup", "s", 7)], bob.coupon_id)
    await engine.orders.void("ann", ORDER)
    await write_all(engine, database_url)
    day = engine.days.text(engine.lanes.now_ms(0))
    for product in ("tea", "cup"):
        await engine.stock.confirm(engine.partitions.of(product), {paid.order_id: _near(engine, product)}, day)
    await write_all(engine, database_url)
    return {
        "paid": paid.order_id,
        "open": open_order.order_id,
        "cancelled": cancelled.order_id,
        "ann": str(ann.coupon_id),
        "bob": str(bob.coupon_id),
        "eve": str(eve.coupon_id),
    }


def _near(engine: Engine, product: str) -> list[str]:
    """The products of the paid order that are in this one's partition."""
    return [each for each in ("tea", "cup") if engine.partitions.of(each) == engine.partitions.of(product)]


async def audit(engine: Engine, connection: Connection, *, full: bool = True) -> AuditReport:
    auditor = Auditor(engine, connection, AT_ONCE)
    async for _ in auditor.everything() if full else auditor.lately():
        pass
    return auditor.report


def found(report: AuditReport) -> set[tuple[str, str]]:
    """Slug and entity of every mismatch."""
    return {(example.check, example.entity.name) for example in report.examples}


@pytest.mark.requirement("R0.3", "R0.4", "R4.9")
@pytest.mark.parametrize("full", [True, False], ids=["full", "lately"])
async def test_a_sound_shop_is_clean_and_everything_in_it_is_compared(
    engine: Engine, connection: Connection, sold: dict[str, str], full: bool
) -> None:
    report = await audit(engine, connection, full=full)

    assert report.examples == []
    assert [slug for slug, tally in report.tallies.items() if tally.moving] == []
    costly = {law.slug for law in LAWS if law.costly}
    assert [slug for slug, tally in report.tallies.items() if not tally.compared] == [
        slug for slug in report.tallies if slug in costly and not full
    ]
    counts = {slug: report.tallies[slug].compared for slug in ("wallet", "product", "coupon", "campaign", "issue")}
    assert counts == {"wallet": 4, "product": 3, "coupon": 3, "campaign": 1, "issue": 3}, "each once"
    assert report.tallies["order"].compared == 5


async def test_an_audit_of_what_changed_lately_holds_each_row_to_each_law_once(
    engine: Engine, connection: Connection, sold: dict[str, str]
) -> None:
    reports = [await audit(engine, connection, full=full) for full in (True, False)]

    laws = [law.slug for law in LAWS if not law.costly]
    of_all, of_lately = ({slug: report.tallies[slug].compared for slug in laws} for report in reports)
    assert of_lately == of_all


IN_REDIS = {
    "balance": (Subject.WALLET, "ann", "balance", "1", ("wallet", "ann")),
    "coupon number": (Subject.WALLET, "ann", "coupon_number", "9", ("wallet", "ann")),
    "open order": (Subject.WALLET, "ann", "open_order", "some", ("wallet", "ann")),
    "place": (Subject.WALLET, "ann", "seq", "1-1", ("wallet", "ann")),
    "no place": (Subject.WALLET, "ann", "seq", "nonsense", ("wallet", "ann")),
    "available": (Subject.PRODUCT, "tea", "a:s", "99", ("product", "tea")),
    "reserved": (Subject.PRODUCT, "cup", "r:s", "6", ("product", "cup")),
    "sold": (Subject.PRODUCT, "tea", "s:s", "3", ("product", "tea")),
    "price": (Subject.PRODUCT, "tea", "price", "1", ("product", "tea")),
    "issued": (Subject.CAMPAIGN, "spring", "issued", "2", ("campaign", "spring")),
}


@pytest.mark.requirement("R0.3")
@pytest.mark.parametrize(("subject", "id", "field", "planted", "expected"), IN_REDIS.values(), ids=list(IN_REDIS))
async def test_a_field_changed_in_redis_is_found(
    engine: Engine, connection: Connection, text_client: redis.asyncio.Redis, sold: dict[str, str],
    subject: Subject, id: str, field: str, planted: str, expected: tuple[str, str],
) -> None:  # fmt: skip
    make_key = {
        Subject.WALLET: engine.keys.wallet,
        Subject.PRODUCT: engine.keys.product,
        Subject.CAMPAIGN: engine.keys.campaign,
    }
    await text_client.hset(make_key[subject](engine.partitions.of(id), id), field, planted)

    assert found(await audit(engine, connection)) == {expected}
    assert expected in found(await audit(engine, connection, full=False))


@pytest.mark.parametrize("name", ["paid", "open", "cancelled"])
@pytest.mark.parametrize("field", ["status", "total", "lines", "coupon"])
async def test_an_order_changed_in_redis_is_found(
    engine: Engine,
    connection: Connection,
    text_client: redis.asyncio.Redis,
    sold: dict[str, str],
    name: str,
    field: str,
) -> None:
    user = "bob" if name == "open" else "ann"
    await text_client.hset(engine.keys.order(engine.partitions.of(user), sold[name]), field, "77")

    assert found(await audit(engine, connection)) == {("order", sold[name])}


async def test_a_coupon_a_reservation_and_an_issue_changed_in_redis_are_found(
    engine: Engine, connection: Connection, text_client: redis.asyncio.Redis, sold: dict[str, str]
) -> None:
    of = engine.partitions.of
    coupons = engine.keys.coupons(of("ann"), "ann")
    packed = str(await text_client.hget(coupons, sold["ann"]))
    await text_client.hset(coupons, sold["ann"], packed.replace("used", "free", 1))
    reservation = engine.keys.reservation(of("cup"), sold["open"])
    await text_client.hset(reservation, "state", "released")
    issues = engine.keys.issues(of("spring"), "spring")
    issue = str(await text_client.hget(issues, "eve"))
    await text_client.hset(issues, "eve", "7" + issue)
    await text_client.zincrby(engine.keys.sales(of("tea"), engine.days.text(engine.lanes.now_ms(0))), 5, "tea")

    assert found(await audit(engine, connection)) == {
        ("coupon", f"ann:{sold['ann']}"),
        ("reservation", f"{of('cup')}:{sold['open']}"),
        ("issue", "spring:eve"),
        ("sales", str(of("tea"))),
    }


@pytest.mark.requirement("R0.3")
async def test_what_is_in_one_store_only_is_found_but_what_redis_may_let_go_is_not(
    engine: Engine, connection: Connection, text_client: redis.asyncio.Redis, sold: dict[str, str]
) -> None:
    of, keys = engine.partitions.of, engine.keys
    await text_client.delete(keys.wallet(of("eve"), "eve"), keys.product(of("pot"), "pot"))
    await text_client.hdel(keys.issues(of("spring"), "spring"), "bob")
    await text_client.hset(keys.issues(of("spring"), "spring"), "mallory", "4,1,amount,100,,,7")
    await text_client.hset(keys.wallet(of("mallory"), "mallory"), mapping={"balance": "9", "seq": "1-1"})
    await text_client.delete(keys.order(of("ann"), sold["paid"]), keys.order(of("bob"), sold["open"]))
    await text_client.delete(keys.reservation(of("pot"), sold["cancelled"]))
    await text_client.hdel(keys.coupons(of("ann"), "ann"), sold["ann"])

    report = await audit(engine, connection)

    assert found(report) == {
        ("wallet", "eve"),
        ("wallet", "mallory"),
        ("product", "pot"),
        ("issue", "spring:bob"),
        ("issue", "spring:mallory"),
        ("order", sold["open"]),
    }
    assert {slug: tally.cold for slug, tally in report.tallies.items() if tally.cold} == {
        "order": 1,
        "coupon": 1,
        "reservation": 1,
    }


IN_POSTGRES: dict[str, tuple[LiteralString, set[str]]] = {
    "a balance": ("UPDATE wallet SET balance = balance + 1 WHERE user_id = 'ann'", {"wallet", "balance-is-ledger"}),
    "a ledger entry": (
        "UPDATE ledger_entry SET amount = amount + 1 WHERE user_id = 'eve'", {"balance-is-ledger", "ledger-follows"},
    ),
    "a payment": (
        "DELETE FROM ledger_entry WHERE kind = 'payment'", {"balance-is-ledger", "paid-once"},
    ),
    "a message": ("DELETE FROM outbox", {"sale-is-told"}),
    "a wallet": ("DELETE FROM wallet WHERE user_id = 'eve'", {"wallet", "balance-is-ledger"}),
    "a second open order": (
        """UPDATE orders SET status = 'awaiting_payment' WHERE user_id = 'ann' AND status = 'completed';
           UPDATE orders SET status = 'awaiting_payment' WHERE user_id = 'ann' AND status = 'failed'""",
        {"order", "wallet", "one-in-progress", "paid-once", "sale-is-told", "discount-is-recorded",
         "order-has-its-coupon", "coupon-has-its-order", "order-has-its-stock", "reservation-has-its-order"},
    ),
    "units received": (
        """ALTER TABLE stock_item DROP CONSTRAINT stock_item_conserved_check;
           UPDATE stock_item SET received = received + 1 WHERE product_id = 'tea' AND stock_id = 's'""",
        {"stock-conserved"},
    ),
    "units available": (
        """ALTER TABLE stock_item DROP CONSTRAINT IF EXISTS stock_item_conserved_check;
           UPDATE stock_item SET available = available + 1 WHERE product_id = 'tea' AND stock_id = 's'""",
        {"product", "stock-conserved"},
    ),
    "units reserved": (
        """UPDATE stock_item SET reserved = reserved + 1, available = available - 1
           WHERE product_id = 'tea' AND stock_id = 's'""",
        {"product", "reserved-is-held"},
    ),
    "units sold": (
        """UPDATE stock_item SET sold = sold + 1, available = available - 1
           WHERE product_id = 'tea' AND stock_id = 's'""",
        {"product", "sold-is-confirmed", "sold-is-counted"},
    ),
    "a day's sales": ("UPDATE daily_sale SET quantity = quantity + 1", {"sales", "sold-is-counted"}),
    "a reservation": (
        "DELETE FROM reservation WHERE state = 'held'", {"reservation", "reserved-is-held", "order-has-its-stock"},
    ),
    "what a reservation holds": (
        "UPDATE reservation SET lines = 'cup:s:8' WHERE state = 'held'",
        {"reservation", "reserved-is-held", "order-has-its-stock", "reservation-is-ordered"},
    ),
    "what nobody can hold": (
        "UPDATE reservation SET lines = 'cup:s:many' WHERE state = 'held'",
        {"reservation", "reserved-is-held", "order-has-its-stock", "reservation-is-ordered"},
    ),
    "what nobody can have bought": (
        "UPDATE reservation SET lines = 'tea' WHERE state = 'sold' AND lines LIKE 'tea%'",
        {"reservation", "sold-is-confirmed", "order-has-its-stock", "reservation-is-ordered"},
    ),
    "a partition": ("UPDATE wallet SET partition = 99 WHERE user_id = 'eve'", {"wallet"}),
    "an order": (
        "DELETE FROM orders WHERE status = 'awaiting_payment'",
        {"order", "wallet", "discount-is-recorded", "order-adds-up", "coupon-has-its-order",
         "reservation-has-its-order"},
    ),
    "a subtotal": (
        "UPDATE orders SET subtotal = subtotal + 1, total = total + 1 WHERE status = 'awaiting_payment'",
        {"order", "order-adds-up"},
    ),
    "a discount": ("UPDATE discount SET amount = amount + 1 WHERE state = 'used'", {"discount-is-recorded"}),
    "a coupon's state": (
        "UPDATE coupon SET state = 'free', order_id = NULL WHERE state = 'used'", {"coupon", "order-has-its-coupon"},
    ),
    "a coupon": ("DELETE FROM coupon WHERE user_id = 'eve'", {"coupon", "issue-is-granted"}),
    "an issue": ("DELETE FROM coupon_issue WHERE user_id = 'eve'", {"campaign", "issue", "coupon-was-issued"}),
    "a campaign's count": (
        "UPDATE campaign SET issued = issued - 1", {"campaign", "issued-within-quantity"},
    ),
    "what a failed order holds": (
        """UPDATE reservation r SET state = 'held', finished_at = NULL
           FROM orders o WHERE o.order_id = r.order_id AND o.failure = 'cancelled';
           UPDATE orders SET finished_at = finished_at - interval '1 hour' WHERE failure = 'cancelled'""",
        {"reservation", "reserved-is-held", "reservation-has-its-order"},
    ),
    "what a void order holds": (
        """INSERT INTO reservation (partition, order_id, user_id, state, lines, at, place)
           SELECT p.partition, o.order_id, o.user_id, 'held', 'pot:s:1', o.ordered_at, '1-1'
           FROM orders o, product p WHERE o.status = 'void' AND p.product_id = 'pot'""",
        {"reservation", "reserved-is-held", "reservation-has-its-order"},
    ),
    "what an order in progress holds no more": (
        """UPDATE reservation r SET state = 'released', finished_at = at
           FROM orders o WHERE o.order_id = r.order_id AND o.status = 'awaiting_payment'""",
        {"reservation", "reserved-is-held", "order-has-its-stock", "reservation-has-its-order"},
    ),
    "what a completed order has bought no more": (
        "UPDATE reservation SET state = 'released' WHERE state = 'sold'",
        {"reservation", "sold-is-confirmed", "order-has-its-stock", "reservation-has-its-order"},
    ),
    "what was sold to nobody": (
        "UPDATE reservation SET state = 'sold' WHERE state = 'released'",
        {"reservation", "sold-is-confirmed", "reservation-has-its-order"},
    ),
    "a completed order": (
        "DELETE FROM orders WHERE status = 'completed'",
        {"order", "paid-once", "order-adds-up", "sale-is-told", "discount-is-recorded", "coupon-has-its-order",
         "reservation-has-its-order"},
    ),
    "all of the days' sales": ("DELETE FROM daily_sale", {"sales", "sold-is-counted"}),
    "the days' sales of what is not sold": (
        """INSERT INTO daily_sale (day, product_id, partition, quantity)
           SELECT '2026-01-01', 'gone', 0, 1""",
        {"sold-is-counted"},
    ),
    "a used coupon's order": (
        """UPDATE coupon SET order_id = (SELECT order_id FROM orders WHERE failure = 'cancelled')
           WHERE state = 'used'""",
        {"coupon", "order-has-its-coupon", "coupon-has-its-order"},
    ),
    "the numbers of coupons": (
        "UPDATE coupon SET issue_number = issue_number + 100", {"coupon", "issue-is-granted", "coupon-was-issued"},
    ),
    "a payment in two": (
        """INSERT INTO ledger_entry (partition, seq, epoch, user_id, kind, amount, balance, order_id, at)
           SELECT partition, seq + 1, epoch, user_id, kind, -1, balance, order_id, at
           FROM ledger_entry WHERE kind = 'payment';
           UPDATE ledger_entry SET amount = amount + 1, balance = balance + 1 WHERE kind = 'payment' AND amount < -1""",
        {"paid-once"},
    ),
    "a campaign's quantity": (
        """ALTER TABLE campaign DROP CONSTRAINT campaign_issued_check;
           UPDATE campaign SET quantity = issued - 1""",
        {"campaign", "issued-within-quantity"},
    ),
    "the number of an issue": (
        "UPDATE coupon_issue SET number = 9 WHERE user_id = 'eve'",
        {"issue", "issued-within-quantity", "issue-is-granted", "coupon-was-issued"},
    ),
    "fewer units than none": (
        """ALTER TABLE stock_item DROP CONSTRAINT stock_item_reserved_check;
           UPDATE stock_item SET reserved = reserved - 1, available = available + 1
           WHERE product_id = 'tea' AND stock_id = 'm'""",
        {"product", "stock-conserved", "reserved-is-held"},
    ),
}  # fmt: skip


@pytest.mark.requirement("R0.3", "R4.9")
@pytest.mark.parametrize(("plant", "expected"), IN_POSTGRES.values(), ids=list(IN_POSTGRES))
async def test_what_is_changed_in_postgresql_is_found_by_comparison_and_by_law(
    engine: Engine, connection: Connection, sold: dict[str, str], plant: LiteralString, expected: set[str]
) -> None:
    for statement in plant.split(";"):
        await connection.execute(statement.encode())

    report = await audit(engine, connection)

    assert {slug for slug, tally in report.tallies.items() if tally.mismatches} == expected


@pytest.mark.parametrize("plant", ["UPDATE wallet SET place = '1-1'", "DELETE FROM wallet"])
async def test_the_last_event_of_a_partition_is_not_taken_for_one_that_is_not_written_yet(
    engine: Engine, connection: Connection, sold: dict[str, str], database_url: str, plant: LiteralString
) -> None:
    await engine.wallets.charge("new", 1)
    await write_all(engine, database_url)

    await connection.execute(plant + " WHERE user_id = 'new'")

    report = await audit(engine, connection)
    assert ("wallet", "new") in found(report)
    assert report.tallies["wallet"].moving == 0


@pytest.mark.parametrize("product", ["tea", "cup", "pot"])
async def test_the_days_sales_of_a_product_that_one_store_has_alone_are_found(
    engine: Engine, connection: Connection, text_client: redis.asyncio.Redis, sold: dict[str, str], product: str
) -> None:
    """Two were sold; of the third Redis alone has some."""
    partition = engine.partitions.of(product)
    key = engine.keys.sales(partition, engine.days.text(engine.lanes.now_ms(0)))
    assert await text_client.zscore(key, product) == {"tea": 2, "cup": 1}.get(product)
    if product == "pot":
        await text_client.zadd(key, {product: 3})
    else:
        await text_client.zrem(key, product)

    assert found(await audit(engine, connection)) == {("sales", str(partition))}


async def test_what_is_on_record_in_another_partition_is_not_on_record_here(
    engine: Engine, connection: Connection, sold: dict[str, str]
) -> None:
    home = engine.partitions.of("eve")
    here, elsewhere = (Entity(Subject.WALLET, partition, "eve") for partition in (home, (home + 1) % 4))

    assert await not_recorded(connection, [here, elsewhere]) == [elsewhere]


@pytest.mark.parametrize(
    ("kind", "fields", "changed"),
    [
        ("wallet.charged", {"user": "ann"}, {(Subject.WALLET, "ann", "")}),
        ("order.paid", {"user": "ann", "order": ORDER, "coupon": "ann-1"},
         {(Subject.WALLET, "ann", ""), (Subject.ORDER, ORDER, ""), (Subject.COUPON, "ann-1", "ann")}),
        ("order.placed", {"user": "ann", "order": ORDER, "coupon": ""},
         {(Subject.WALLET, "ann", ""), (Subject.ORDER, ORDER, "")}),
        ("order.voided", {"user": "ann", "order": ORDER}, {(Subject.ORDER, ORDER, "")}),
        ("coupon.granted", {"user": "ann", "coupon": "ann-1", "campaign": "spring"},
         {(Subject.WALLET, "ann", ""), (Subject.COUPON, "ann-1", "ann")}),
        ("coupon.issued", {"user": "ann", "campaign": "spring"},
         {(Subject.CAMPAIGN, "spring", ""), (Subject.ISSUE, "ann", "spring")}),
        ("campaign.put", {"campaign": "spring"}, {(Subject.CAMPAIGN, "spring", "")}),
        ("product.put", {"product": "tea"}, {(Subject.PRODUCT, "tea", "")}),
        ("stock.adjusted", {"product": "tea", "stock": "s"}, {(Subject.PRODUCT, "tea", "")}),
        ("stock.reserved", {"order": ORDER, "user": "ann", "lines": "tea:s:1,cup:m:2"},
         {(Subject.RESERVATION, ORDER, "3"), (Subject.PRODUCT, "tea", ""), (Subject.PRODUCT, "cup", "")}),
        ("stock.confirmed", {"orders": f"{ORDER},{OTHER}", "lines": "tea:s:1"},
         {(Subject.RESERVATION, ORDER, "3"), (Subject.RESERVATION, OTHER, "3"), (Subject.PRODUCT, "tea", "")}),
    ],
)  # fmt: skip
def test_an_event_names_everything_that_it_changes(
    kind: str, fields: dict[str, str], changed: set[tuple[Subject, str, str]]
) -> None:
    found = changed_by([Event(3, 1, 1, kind, "2", 17, fields)] * 2)

    entities = [entity for entities in found.values() for entity in entities]
    assert len(entities) == len(changed), "each once"
    assert set(entities) == {Entity(subject, 3, id, owner) for subject, id, owner in changed}
    assert all(entity.subject is subject for subject, entities in found.items() for entity in entities)


async def test_every_law_is_broken_by_some_plant() -> None:
    assert {law.slug for law in LAWS} <= set().union(*(expected for _, expected in IN_POSTGRES.values()))


async def test_what_is_not_written_yet_is_in_motion(
    engine: Engine, connection: Connection, sold: dict[str, str], database_url: str
) -> None:
    await engine.wallets.charge("ann", 1)
    await engine.wallets.charge("new", 1)
    await engine.orders.checkout("ann", [line("tea", "s", 1)], None)

    report = await audit(engine, connection)
    assert report.examples == []
    assert report.tallies["wallet"].moving == 2
    assert report.tallies["product"].moving == 1

    await write_all(engine, database_url)
    report = await audit(engine, connection)
    assert report.examples == []
    assert report.tallies["wallet"].moving == 0


async def test_an_untrusted_partition_is_left_out_and_named(
    engine: Engine, connection: Connection, text_client: redis.asyncio.Redis, sold: dict[str, str]
) -> None:
    partition = engine.partitions.of("ann")
    await text_client.hset(engine.keys.meta(partition), "server", "another")

    auditor = Auditor(engine, connection, AT_ONCE)
    async for _ in auditor.everything():
        pass

    assert auditor.report.examples == []
    assert auditor.unread == {partition}
    assert auditor.report.tallies["wallet"].moving >= 1


async def test_what_is_right_at_the_second_look_is_no_mismatch(
    engine: Engine, connection: Connection, text_client: redis.asyncio.Redis, sold: dict[str, str]
) -> None:
    wallet = engine.keys.wallet(engine.partitions.of("eve"), "eve")
    await text_client.hset(wallet, "balance", "1")
    auditor = Auditor(engine, connection, AuditLimits(confirm_s=0.5))
    entity = Entity(Subject.WALLET, engine.partitions.of("eve"), "eve")

    look = asyncio.create_task(auditor.examine([entity]))
    await asyncio.sleep(0.2)
    await text_client.hset(wallet, "balance", "5000")

    assert await look == []
    assert auditor.report.mismatches == 0


@pytest.mark.requirement("R0.4")
async def test_traffic_in_motion_gives_no_false_alarm(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    for product in ("tea", "cup", "pot"):
        await fill(engine, product, price=10, quantity=10_000)
    await open_campaign(engine, quantity=1_000)
    stop, over = asyncio.Event(), asyncio.Event()
    settings = WorkerSettings(database_url=database_url, trust_every_ms=50, walk_every_ms=200)
    worker = asyncio.create_task(Worker(engine, settings).run(stop))
    buyers = [asyncio.create_task(_buy(engine, f"user{number}", over)) for number in range(16)]
    reports = []
    # A confirmation at once is the strictest: whatever is found would count.
    auditor_limits = AuditLimits(age_s=5, confirm_s=0, pause_s=0)

    async def some_orders_are_written() -> bool:
        return bool(await value(connection, "SELECT count(*) FROM orders") > 20)

    try:
        await until(some_orders_are_written, within_s=30)
        async with asyncio.timeout(60):
            for full in (True, False, True):
                auditor = Auditor(engine, connection, auditor_limits)
                async for _ in auditor.everything() if full else auditor.lately():
                    pass
                reports.append(auditor.report)
    finally:
        over.set()
        await asyncio.gather(*buyers)
        stop.set()
        await worker

    assert [report.examples for report in reports] == [[]] * len(reports)
    # Whose orders follow each other so fast may never stand still; an order that is over does.
    assert sum(report.tallies["order"].compared for report in reports) > 20
    assert sum(tally.moving for report in reports for tally in report.tallies.values()) > 0


async def _buy(engine: Engine, user: str, over: asyncio.Event) -> None:
    """Charge, take a coupon, and order in every way until it is over."""
    coupon = (await engine.coupons.issue(user, "spring")).coupon_id
    turn = 0
    while not over.is_set():
        turn += 1
        lines = [line("tea", "s", 1 + turn % 3), line(("cup", "pot")[turn % 2], "m", 1)]
        try:
            await engine.wallets.charge(user, 30)
            if turn % 3:
                await engine.orders.checkout(user, lines, coupon if turn == 1 else None)
            else:
                order = await engine.orders.place(user, lines, None)
                await (engine.orders.cancel if turn % 2 else engine.payments.pay)(user, order.order_id)
        except EngineError:
            continue
        await asyncio.sleep(0.05)


async def _step_through(audit: ContinuousAudit, connection: Connection, engine: Engine) -> None:
    for _ in range(engine.partitions.count):
        await audit.step(connection, range(engine.partitions.count))


async def test_the_worker_raises_an_alarm_for_a_mismatch_and_closes_it_when_it_is_right_again(
    engine: Engine, connection: Connection, text_client: redis.asyncio.Redis, sold: dict[str, str], database_url: str
) -> None:
    settings = WorkerSettings(database_url=database_url, audit_age_ms=0, audit_confirm_ms=0, audit_page_rows=2)
    continuous = ContinuousAudit(engine, settings)
    await _step_through(continuous, connection, engine)
    assert await rows(connection, "SELECT kind, subject FROM alarm") == []

    partition = engine.partitions.of("eve")
    await text_client.hset(engine.keys.wallet(partition, "eve"), "balance", "1")
    await connection.execute("UPDATE coupon SET state = 'free', order_id = NULL WHERE state = 'used'")
    await _step_through(continuous, connection, engine)

    alarms = await rows(connection, "SELECT kind, partition, subject FROM alarm WHERE cleared_at IS NULL")
    assert (AUDIT_MISMATCH, partition, "wallet:eve") in alarms
    assert {subject.partition(":")[0] for _, _, subject in alarms} == {"wallet", "coupon", "order-has-its-coupon"}

    await text_client.hset(engine.keys.wallet(partition, "eve"), "balance", "5000")
    await connection.execute(
        "UPDATE coupon SET state = 'used', order_id = %s WHERE coupon_id = %s", (sold["paid"], sold["ann"])
    )
    await _step_through(continuous, connection, engine)
    assert await value(connection, "SELECT count(*) FROM alarm WHERE cleared_at IS NULL") == 0


async def test_campaigns_whose_issues_are_counted_are_looked_at_once_for_each_walk_through_issues(
    engine: Engine, connection: Connection, text_client: redis.asyncio.Redis, sold: dict[str, str], database_url: str
) -> None:
    settings = WorkerSettings(database_url=database_url, audit_age_ms=0, audit_confirm_ms=0, audit_page_rows=2)
    continuous, everywhere = ContinuousAudit(engine, settings), range(engine.partitions.count)
    await text_client.xtrim(engine.keys.events(engine.partitions.of("spring")), maxlen=0, approximate=False)

    alarms = []
    await continuous.step(connection, everywhere)  # two of the three issues
    await connection.execute("UPDATE campaign SET issued = issued - 1")
    for _ in ("the third issue", "from the first one on"):
        await continuous.step(connection, everywhere)
        alarms.append([subject for (subject,) in await rows(connection, "SELECT subject FROM alarm ORDER BY subject")])

    assert alarms == [[], ["campaign:spring", "issued-within-quantity:spring"]]
