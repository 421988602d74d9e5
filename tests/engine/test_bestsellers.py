import asyncio
from datetime import date

import pytest

from engine import bestsellers
from engine.catalog import NewStockItem
from engine.engine import Engine
from engine.errors import Unavailable
from tests.engine.shop import NOW, lines, settle
from tests.engine.waiting import until

DAY_MS = 86_400_000


async def sell(engine: Engine, product_id: str, quantity: int, at_ms: int) -> None:
    engine.runner.test_now_ms = str(at_ms)
    await engine.wallets.charge("kim", quantity)
    await settle(engine, await engine.orders.checkout("kim", lines((product_id, None, quantity)), None))


def is_read(engine: Engine) -> bool:
    """Whether no reading is under way."""
    return engine.bestsellers._read[3][1].done()


@pytest.fixture(autouse=True)
async def products(engine: Engine) -> None:
    for number in range(1, 8):
        await engine.catalog.put(f"p{number}", f"Product {number}", 1, [NewStockItem("one", "", 1_000)])


@pytest.mark.requirement("R5.1", "R5.2")
async def test_the_products_sold_most_in_three_days_by_the_day_of_their_payment(engine: Engine) -> None:
    for number in range(1, 8):
        await sell(engine, f"p{number}", number, NOW - 2 * DAY_MS + (number % 3) * DAY_MS)
    await sell(engine, "p1", 5, NOW)
    await sell(engine, "p2", 900, NOW - 3 * DAY_MS)
    engine.runner.test_now_ms = str(NOW)
    ranking = await engine.bestsellers.top(3)
    assert (ranking.first, ranking.last) == (date(2027, 1, 13), date(2027, 1, 15))
    assert [(item.rank, item.product_id, item.quantity_sold) for item in ranking.items[:5]] == [
        (1, "p7", 7), (2, "p1", 6), (3, "p6", 6), (4, "p5", 5), (5, "p4", 4),
    ]  # fmt: skip
    assert (ranking.items[0].name, ranking.items[0].price) == ("Product 7", 1)
    assert (await engine.bestsellers.top(4)).items[0].product_id == "p2"


@pytest.mark.requirement("R5.2")
async def test_an_order_counts_when_it_is_paid_and_not_when_it_is_placed(engine: Engine) -> None:
    engine.runner.test_now_ms = str(NOW - 3 * 3_600_000)
    await engine.wallets.charge("kim", 4)
    order = await engine.orders.place("kim", lines(("p1", None, 4)), None)
    assert (await engine.bestsellers.top(1)).items == ()
    next_day = NOW + 7 * 3_600_000
    engine.runner.test_now_ms = str(next_day)
    await settle(engine, await engine.payments.pay("kim", order.order_id))
    assert [item.product_id for item in (await engine.bestsellers.top(2)).items] == ["p1"]
    engine.runner.test_now_ms = str(next_day - 1)
    assert (await engine.bestsellers.top(3)).items == ()


@pytest.mark.requirement("R5.3")
async def test_many_readers_at_once_cost_redis_one_reading(engine: Engine) -> None:
    await sell(engine, "p1", 1, NOW)
    first = await engine.bestsellers.top(3)
    rankings = await asyncio.gather(*(engine.bestsellers.top(3) for _ in range(200)))
    assert all(ranking is first for ranking in rankings)


@pytest.mark.requirement("R5.3")
async def test_while_the_next_ranking_is_read_this_one_is_shown(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bestsellers, "CACHE_S", 1_000.0)
    first = await engine.bestsellers.top(3)
    await sell(engine, "p1", 1, NOW)
    assert await engine.bestsellers.top(3) is first
    monkeypatch.setattr(bestsellers, "RENEWED_S", 0.0)
    # All of them are in one tick: who begins the reading does not wait for it either.
    asking = engine.bestsellers.top(3)
    with pytest.raises(StopIteration) as shown:
        asking.send(None)
    assert shown.value.value is first
    await until(lambda: is_read(engine))
    assert [item.quantity_sold for item in (await engine.bestsellers.top(3)).items] == [1]
    await until(lambda: is_read(engine))


@pytest.mark.requirement("R5.3")
async def test_no_ranking_is_shown_that_is_too_old(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await engine.bestsellers.top(3)
    await sell(engine, "p1", 1, NOW)
    monkeypatch.setattr(bestsellers, "CACHE_S", 0.0)
    monkeypatch.setattr(bestsellers, "RENEWED_S", 0.0)
    renewed = await engine.bestsellers.top(3)
    assert renewed is not first
    assert [item.quantity_sold for item in renewed.items] == [1]


async def test_a_reading_that_fails_is_the_trouble_of_those_alone_who_wait_for_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await engine.bestsellers.top(3)

    async def fail(days: int) -> bestsellers.Ranking:
        raise Unavailable(f"no ranking of {days} days today")

    monkeypatch.setattr(engine.bestsellers, "_rank", fail)
    monkeypatch.setattr(bestsellers, "RENEWED_S", 0.0)
    monkeypatch.setattr(bestsellers, "CACHE_S", 1_000.0)
    assert await engine.bestsellers.top(3) is first
    await until(lambda: is_read(engine))
    monkeypatch.setattr(bestsellers, "CACHE_S", 0.0)
    monkeypatch.setattr(bestsellers, "FAILED_S", 1_000.0)
    failed = engine.bestsellers._read[3]
    outcomes = await asyncio.gather(*(engine.bestsellers.top(3) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert engine.bestsellers._read[3] is failed, "Redis is not asked again for each who asks"
    monkeypatch.setattr(bestsellers, "FAILED_S", 0.0)
    with pytest.raises(Unavailable):
        await engine.bestsellers.top(3)
    assert engine.bestsellers._read[3] is not failed
    monkeypatch.undo()
    monkeypatch.setattr(bestsellers, "FAILED_S", 0.0)
    assert (await engine.bestsellers.top(3)).items == first.items
