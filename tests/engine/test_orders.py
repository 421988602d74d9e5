import asyncio

import orjson
import pytest
from msgspec.structs import replace

from engine.catalog import NewStockItem
from engine.coupons import Discount
from engine.engine import Engine
from engine.errors import (
    CouponNotValid,
    InsufficientBalance,
    LineLimit,
    NotFound,
    OrderInProgress,
    OrderNotCancellable,
    OrderNotPayable,
    OutOfStock,
    PaymentLimit,
    StockIdRequired,
    UnknownReference,
)
from tests.engine.shop import (
    NOW,
    UNTOUCHED,
    all_units,
    campaign,
    events,
    execute,
    lines,
    opened,
    orders_on_record,
    settle,
    stock_shop,
    units,
)
from tests.engine.valkey_process import ValkeyProcess

DAY_MS = 86_400_000
TWO = lines(("shirt", "M", 2), ("hat", None, 1))


@pytest.fixture(autouse=True)
async def shop(engine: Engine) -> None:
    await stock_shop(engine)
    await engine.wallets.charge("kim", 10_000)


@pytest.mark.requirement("R3.1", "R3.2", "R3.6", "R3.10", "R3.11", "R3.18")
async def test_an_order_holds_its_lines_and_answers_what_payment_needs(engine: Engine) -> None:
    order = await engine.orders.place("kim", lines(("hat", None, 1), ("shirt", "M", 2), ("hat", "one", 1)), None)
    assert orjson.loads(order.lines_json) == [
        {"product_id": "hat", "stock_id": "one", "name": "Hat", "option": "", "unit_price": 500, "quantity": 2,
         "amount": 1_000},
        {"product_id": "shirt", "stock_id": "M", "name": "셔츠", "option": "middle", "unit_price": 1_000, "quantity": 2,
         "amount": 2_000},
    ]  # fmt: skip
    assert (order.subtotal, order.discount, order.total) == (3_000, 0, 3_000)
    assert (order.status, order.ordered_at_ms, order.pay_before_ms) == ("awaiting_payment", NOW, NOW + DAY_MS)
    assert await all_units(engine) == {"shirt/S": (10, 0, 0), "shirt/M": (3, 2, 0), "hat/one": (1, 2, 0)}
    assert (await engine.wallets.read("kim")).open_order == order.order_id
    assert await engine.wallets.balance("kim") == 10_000
    read = await engine.orders.read("kim", order.order_id)
    assert (read.lines_json, read.total, read.status) == (order.lines_json, 3_000, "awaiting_payment")


@pytest.mark.requirement("R3.3", "R3.14", "R3.15", "R3.7")
async def test_a_paid_order_is_completed_and_paying_again_answers_the_same(engine: Engine) -> None:
    order = await engine.orders.place("kim", TWO, None)
    paid = await engine.payments.pay("kim", order.order_id)
    assert (paid.status, paid.paid_at_ms, paid.total) == ("completed", NOW, 2_500)
    assert not paid.found_so
    assert await engine.payments.pay("kim", order.order_id) == replace(paid, found_so=True)
    assert await engine.wallets.balance("kim") == 7_500
    assert (await engine.wallets.read("kim")).open_order is None
    await settle(engine, paid)
    assert await all_units(engine) == {"shirt/S": (10, 0, 0), "shirt/M": (3, 0, 2), "hat/one": (2, 0, 1)}


@pytest.mark.requirement("R3.4", "R3.16", "R3.17", "R3.9")
@pytest.mark.parametrize("at_once", [False, True])
async def test_too_little_balance_gives_every_line_and_the_coupon_back(engine: Engine, at_once: bool) -> None:
    await engine.coupons.put_campaign(campaign())
    coupon = (await engine.coupons.issue("lee", "spring")).coupon_id
    await engine.wallets.charge("lee", 2_199)
    if at_once:
        attempt = engine.orders.checkout("lee", TWO, coupon)
    else:
        placed = await engine.orders.place("lee", TWO, coupon)
        attempt = engine.payments.pay("lee", placed.order_id)
    with pytest.raises(InsufficientBalance) as refused:
        await attempt
    assert (refused.value.balance, refused.value.total) == (2_199, 2_200)
    assert await all_units(engine) == UNTOUCHED
    failed = await engine.orders.read("lee", refused.value.order_id)
    assert (failed.status, failed.failure, failed.paid_at_ms) == ("failed", "insufficient_balance", None)
    assert (await engine.coupons.read_coupon("lee", coupon)).state == "free"
    with pytest.raises(OrderNotPayable):
        await engine.payments.pay("lee", failed.order_id)
    await engine.wallets.charge("lee", 1)
    assert (await engine.orders.checkout("lee", TWO, coupon)).total == 2_200
    assert await engine.wallets.balance("lee") == 0


@pytest.mark.requirement("R3.13", "R3.16", "R3.17")
async def test_a_payment_past_the_deadline_is_refused_and_gives_everything_back(engine: Engine) -> None:
    order = await engine.orders.place("kim", TWO, None)
    engine.runner.test_now_ms = str(NOW + DAY_MS)
    with pytest.raises(OrderNotPayable) as refused:
        await engine.payments.pay("kim", order.order_id)
    assert (refused.value.status, refused.value.failure) == ("failed", "expired")
    assert await all_units(engine) == UNTOUCHED
    assert await engine.wallets.balance("kim") == 10_000
    assert await engine.orders.expire("kim", order.order_id) == ("failed", ())


@pytest.mark.requirement("R3.8", "R3.13", "R3.16")
@pytest.mark.parametrize(("way", "end"), [("place", "awaiting_payment"), ("checkout", "completed")])
async def test_an_overdue_order_is_no_longer_in_the_way_of_the_next(engine: Engine, way: str, end: str) -> None:
    """Even where no worker has expired it."""
    overdue = await engine.orders.place("kim", TWO, None)
    engine.runner.test_now_ms = str(NOW + DAY_MS - 1)
    with pytest.raises(OrderInProgress):
        await getattr(engine.orders, way)("kim", TWO, None)
    engine.runner.test_now_ms = str(NOW + DAY_MS)

    ordered = await getattr(engine.orders, way)("kim", TWO, None)

    expired = await engine.orders.read("kim", overdue.order_id)
    assert (expired.status, expired.failure) == ("failed", "expired")
    assert (ordered.status, len(ordered.positions)) == (end, len({each.partition for each in ordered.positions}))
    assert await all_units(engine) == {"shirt/S": (10, 0, 0), "shirt/M": (3, 2, 0), "hat/one": (2, 1, 0)}


async def test_a_refusal_that_has_expired_an_earlier_order_names_where_that_gave_back(engine: Engine) -> None:
    await engine.orders.place("lee", lines(("hat", None, 1)), None)
    engine.runner.test_now_ms = str(NOW + DAY_MS)
    with pytest.raises(InsufficientBalance) as refused:
        await engine.orders.checkout("lee", lines(("shirt", "M", 1)), None)
    partitions = [position.partition for position in refused.value.positions]
    assert sorted(partitions) == sorted({engine.partitions.of(name) for name in ("lee", "hat", "shirt")})
    for position in refused.value.positions:
        (last,) = await execute(engine, "XREVRANGE", engine.keys.events(position.partition), "+", "-", "COUNT", 1)
        assert last[0] == f"{position.epoch}-{position.seq}".encode()


@pytest.mark.requirement("R3.13")
async def test_an_unpaid_order_expires_after_a_day(engine: Engine) -> None:
    order = await engine.orders.place("kim", TWO, None)
    engine.runner.test_now_ms = str(NOW + DAY_MS - 1)
    assert await engine.orders.expire("kim", order.order_id) == ("not_due", ())
    engine.runner.test_now_ms = str(NOW + DAY_MS)
    status, positions = await engine.orders.expire("kim", order.order_id)
    assert (status, len(positions)) == ("expired", 1 + len({each.partition for each in order.positions[1:]}))
    assert await all_units(engine) == UNTOUCHED
    assert (await engine.orders.place("kim", TWO, None)).status == "awaiting_payment"


@pytest.mark.requirement("R3.16")
async def test_a_cancelled_order_gives_everything_back(engine: Engine) -> None:
    order = await engine.orders.place("kim", TWO, None)
    cancelled = await engine.orders.cancel("kim", order.order_id)
    assert (cancelled.status, cancelled.failure, len(cancelled.positions)) == ("failed", "cancelled", 3)
    assert await all_units(engine) == UNTOUCHED
    assert not cancelled.found_so
    assert await engine.orders.cancel("kim", order.order_id) == replace(cancelled, found_so=True)
    completed = await engine.orders.checkout("kim", TWO, None)
    with pytest.raises(OrderNotCancellable):
        await engine.orders.cancel("kim", completed.order_id)


async def test_an_order_of_another_user_is_not_found_in_the_same_partition_either(engine: Engine) -> None:
    home = engine.partitions.of("kim")
    other = next(f"u{n}" for n in range(10_000) if engine.partitions.of(f"u{n}") == home)
    order = await engine.orders.place("kim", TWO, None)
    for ask in (engine.orders.read, engine.orders.cancel, engine.payments.pay):
        with pytest.raises(NotFound):
            await ask(other, order.order_id)
    assert (await engine.orders.read("kim", order.order_id)).status == "awaiting_payment"


@pytest.mark.requirement("R3.8", "R0.8")
async def test_a_refused_order_holds_nothing_and_leaves_no_record(redis_process: ValkeyProcess) -> None:
    async with opened(redis_process.url, payment_max=5_000, line_quantity_max=9, lines_max=3) as engine:
        await stock_shop(engine)
        await engine.coupons.put_campaign(campaign(discount=Discount("amount", 1, 2_501, None)))
        coupon = (await engine.coupons.issue("kim", "spring")).coupon_id
        for refusal, request, coupon_id in [
            (UnknownReference, lines(("hat", None, 1), ("sock", None, 1)), None),
            (UnknownReference, lines(("hat", None, 1), ("shirt", "XL", 1)), None),
            (StockIdRequired, lines(("hat", None, 1), ("shirt", None, 1)), None),
            (LineLimit, lines(("hat", None, 1), ("shirt", "S", 10)), None),
            (LineLimit, lines(*[("shirt", "S", 1)] * 4), None),
            (OutOfStock, lines(("hat", None, 4), ("shirt", "S", 1)), None),
            (PaymentLimit, lines(("hat", None, 1), ("shirt", "S", 5)), None),
            (CouponNotValid, TWO, coupon),
            (CouponNotValid, TWO, "kim-20270115-9"),
        ]:
            for action in (engine.orders.place, engine.orders.checkout):
                with pytest.raises(refusal):
                    await action("kim", request, coupon_id)
        assert await all_units(engine) == UNTOUCHED
        assert await orders_on_record(engine) == {}
        first = await engine.orders.place("kim", lines(("hat", None, 1)), None)
        with pytest.raises(OrderInProgress) as refused:
            await engine.orders.place("kim", TWO, None)
        assert refused.value.order_id == first.order_id
        assert await all_units(engine) == UNTOUCHED | {"hat/one": (2, 1, 0)}


async def test_out_of_stock_names_every_line_that_fails(engine: Engine) -> None:
    with pytest.raises(OutOfStock) as refused:
        await engine.orders.place("kim", lines(("shirt", "S", 11), ("hat", None, 4), ("shirt", "M", 1)), None)
    assert {(line.product_id, line.stock_id, line.requested, line.available) for line in refused.value.lines} == {
        ("shirt", "S", 11, 10), ("hat", "one", 4, 3),
    }  # fmt: skip


@pytest.mark.parametrize("way", ["place", "checkout"])
async def test_who_holds_the_last_units_in_an_order_of_their_own_is_told_of_that(engine: Engine, way: str) -> None:
    """Out of stock and to be tried again is what others are told: for this user nothing would ever change."""
    own = await engine.orders.place("kim", lines(("hat", None, 2)), None)
    with pytest.raises(OrderInProgress) as refused:
        await getattr(engine.orders, way)("kim", lines(("hat", None, 2)), None)
    assert (refused.value.order_id, refused.value.pay_before_ms) == (own.order_id, own.pay_before_ms)
    with pytest.raises(OutOfStock) as short:
        await getattr(engine.orders, way)("lee", lines(("hat", None, 2)), None)
    assert short.value.only_held_by_others
    with pytest.raises(OutOfStock) as never:
        await getattr(engine.orders, way)("kim", lines(("hat", None, 4)), None)
    assert not never.value.only_held_by_others
    assert await units(engine, "hat", "one") == (1, 2, 0)


async def test_orders_of_another_user_are_not_found(engine: Engine) -> None:
    order = await engine.orders.place("kim", TWO, None)
    for attempt in (engine.orders.read, engine.orders.cancel, engine.payments.pay):
        with pytest.raises(NotFound):
            await attempt("lee", order.order_id)
    assert (await engine.orders.read("kim", order.order_id)).status == "awaiting_payment"


@pytest.mark.requirement("R0.4", "R3.13")
async def test_pay_cancel_and_expiry_at_once_have_one_winner(engine: Engine) -> None:
    winners = set()
    for turn in range(60):
        order = await engine.orders.place("kim", TWO, None)
        flows = [
            engine.payments.pay("kim", order.order_id),
            engine.orders.cancel("kim", order.order_id),
            engine.orders.expire("kim", order.order_id),
        ]
        first = [flows[(turn + number) % 3] for number in range(3)]
        due = turn % 4 == 3
        engine.runner.test_now_ms = str(NOW + DAY_MS if due else NOW)
        await asyncio.gather(*first, return_exceptions=True)
        engine.runner.test_now_ms = str(NOW)
        finished = await engine.orders.read("kim", order.order_id)
        winners.add(finished.failure or finished.status)
        await settle(engine, finished)
        if finished.status == "completed":
            await engine.wallets.charge("kim", 2_500)
            await engine.catalog.adjust("shirt", "M", 2, "again")
            await engine.catalog.adjust("hat", "one", 1, "again")
        assert await engine.wallets.balance("kim") == 10_000
        available = {name: (units[0], units[1]) for name, units in (await all_units(engine)).items()}
        assert available == {name: (units[0], 0) for name, units in UNTOUCHED.items()}
    assert winners >= {"completed", "cancelled"}
    outcomes = [event for event in await events(engine) if event["type"] in {"order.paid", "order.failed"}]
    assert len(outcomes) == 60


@pytest.mark.requirement("R0.3", "R0.4")
async def test_two_carts_that_hold_each_others_last_unit_do_not_both_lose(engine: Engine) -> None:
    await engine.catalog.adjust("shirt", "S", -9, "one left")
    await engine.catalog.adjust("hat", "one", -2, "one left")
    carts = [lines(("shirt", "S", 1), ("hat", None, 1)), lines(("hat", None, 1), ("shirt", "S", 1))]
    for _ in range(30):
        outcomes = await asyncio.gather(
            engine.orders.place("kim", carts[0], None),
            engine.orders.place("lee", carts[1], None),
            return_exceptions=True,
        )
        won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(won) == 1
        assert [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)] == [OutOfStock]
        await engine.orders.cancel(won[0].user_id, won[0].order_id)
        assert (await all_units(engine))["shirt/S"] == (1, 0, 0)
        assert (await all_units(engine))["hat/one"] == (1, 0, 0)


async def test_a_cart_whose_rest_is_held_by_another_order_holds_nothing(engine: Engine) -> None:
    await engine.orders.place("lee", lines(("hat", None, 3)), None)
    with pytest.raises(OutOfStock) as refused:
        await engine.orders.place("kim", TWO, None)
    assert refused.value.only_held_by_others
    assert await all_units(engine) == UNTOUCHED | {"hat/one": (0, 3, 0)}


async def test_the_order_of_the_lines_is_the_clients(engine: Engine) -> None:
    order = await engine.orders.place("kim", lines(("shirt", "M", 1), ("hat", None, 1), ("shirt", "S", 1)), None)
    names = [(line["product_id"], line["stock_id"]) for line in orjson.loads(order.lines_json)]
    assert names == [("shirt", "M"), ("hat", "one"), ("shirt", "S")]


@pytest.mark.requirement("R3.16", "R0.3")
async def test_every_product_of_a_partition_is_given_back(engine: Engine) -> None:
    """A cart of three products, two of them in one partition, fails in the other partition, by the user, by balance."""
    home = engine.partitions.of("shirt")
    sock = next(name for name in (f"sock{n}" for n in range(1_000)) if engine.partitions.of(name) == home)
    await engine.catalog.put(sock, "Sock", 100, [NewStockItem("one", "", 8)])
    cart = lines(("shirt", "S", 1), (sock, None, 2), ("hat", None, 1))

    async def sock_units() -> tuple[int, int, int]:
        return await units(engine, sock, "one")

    with pytest.raises(OutOfStock):
        await engine.orders.place("kim", [*cart, *lines(("hat", None, 9))], None)
    with pytest.raises(CouponNotValid):
        await engine.orders.checkout("kim", cart, "none")
    with pytest.raises(InsufficientBalance):
        await engine.orders.checkout("lee", cart, None)
    assert (await all_units(engine), await sock_units()) == (UNTOUCHED, (8, 0, 0))
    order = await engine.orders.place("kim", cart, None)
    assert await sock_units() == (6, 2, 0)
    await engine.orders.cancel("kim", order.order_id)
    assert (await all_units(engine), await sock_units()) == (UNTOUCHED, (8, 0, 0))
