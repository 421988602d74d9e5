"""A cart with a product that is sold out: refused like any other, and after the first time without a write."""

import asyncio
import gc
from contextlib import suppress

import pytest

from engine.catalog import NewStockItem
from engine.engine import Engine
from engine.errors import OutOfStock, ShortLine, StockIdRequired, UnknownReference
from tests.engine.shop import all_units, events, lines, stock_shop

CART = lines(("shirt", "S", 1), ("hat", None, 1))


@pytest.fixture(autouse=True)
async def sold_out(engine: Engine) -> None:
    """No hat is left, and a cart of a shirt and a hat was refused."""
    await stock_shop(engine)
    assert engine.partitions.of("shirt") != engine.partitions.of("hat")
    await engine.wallets.charge("kim", 10_000)
    await engine.catalog.adjust("hat", "one", -3, "sold elsewhere")
    await refused(engine)


async def refused(engine: Engine) -> tuple[ShortLine, ...]:
    """The short lines that the cart is refused with."""
    with pytest.raises(OutOfStock) as refusal:
        await engine.orders.checkout("kim", CART, None)
    return refusal.value.lines


@pytest.mark.requirement("R0.3", "R0.4")
async def test_a_cart_with_what_is_sold_out_is_refused_without_a_write(engine: Engine) -> None:
    before = await events(engine)
    for _ in range(3):
        assert await refused(engine) == (ShortLine("hat", "one", 1, 0, 0),)
    assert await events(engine) == before


async def test_every_line_that_is_short_is_named_and_a_wrong_one_comes_first(engine: Engine) -> None:
    before = await events(engine)
    with pytest.raises(OutOfStock) as refusal:
        await engine.orders.place("kim", lines(("shirt", "S", 11), ("hat", None, 1)), None)
    assert {line.product_id for line in refusal.value.lines} == {"shirt", "hat"}
    with pytest.raises(UnknownReference):
        await engine.orders.place("kim", lines(("hat", None, 1), ("shirt", "XXL", 1)), None)
    with pytest.raises(StockIdRequired):
        await engine.orders.place("kim", lines(("hat", None, 1), ("shirt", None, 1)), None)
    assert await events(engine) == before


async def test_what_comes_in_again_is_sold_at_once(engine: Engine) -> None:
    await engine.catalog.adjust("hat", "one", 1, "one came back")
    order = await engine.orders.checkout("kim", CART, None)
    assert order.status == "completed"
    assert await all_units(engine) == {"shirt/S": (9, 1, 0), "shirt/M": (5, 0, 0), "hat/one": (0, 1, 0)}


async def test_another_size_of_it_is_sold_as_ever(engine: Engine) -> None:
    await engine.catalog.put("hat", "Hat", 500, [NewStockItem("one", "", 0), NewStockItem("big", "", 5)])
    await refused_with_sizes(engine)
    order = await engine.orders.checkout("kim", lines(("shirt", "S", 1), ("hat", "big", 1)), None)
    assert order.status == "completed"


async def refused_with_sizes(engine: Engine) -> None:
    """The size that is sold out has to be named now."""
    with pytest.raises(OutOfStock):
        await engine.orders.checkout("kim", lines(("shirt", "S", 1), ("hat", "one", 1)), None)


async def test_what_only_an_order_in_progress_holds_is_tried_for_and_not_given_up(engine: Engine) -> None:
    await engine.catalog.adjust("hat", "one", 1, "the last one")
    await engine.wallets.charge("lee", 10_000)
    order = await engine.orders.place("lee", lines(("hat", None, 1)), None)
    trying = asyncio.ensure_future(engine.orders.checkout("kim", CART, None))
    await asyncio.sleep(0)
    await engine.orders.cancel("lee", order.order_id)
    assert (await trying).status == "completed"


async def test_a_refusal_leaves_no_work_to_the_garbage_collector(engine: Engine) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            with suppress(OutOfStock):
                await engine.orders.checkout("kim", CART, None)
        assert gc.collect() < 20
    finally:
        gc.enable()


async def test_what_is_remembered_does_not_grow_for_ever(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stock.SOLD_OUT_MAX", 2)
    for number in range(5):
        await engine.catalog.put(f"rare-{number}", "Rare", 500, [NewStockItem("one", "", 0)])
        with pytest.raises(OutOfStock):
            await engine.orders.checkout("kim", lines(("shirt", "S", 1), (f"rare-{number}", None, 1)), None)
    assert len(engine.stock._sold_out) == 2
