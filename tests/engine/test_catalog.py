import pytest

from engine.catalog import NewStockItem
from engine.engine import Engine
from engine.errors import NotFound, StockLimit, TooManyStockItems, UnitPriceLimit
from tests.engine.shop import lines, opened, stock_shop
from tests.engine.valkey_process import ValkeyProcess


@pytest.mark.requirement("R2.1", "R2.2", "R2.5", "R2.6")
async def test_a_product_is_read_with_its_stock_items(engine: Engine) -> None:
    await stock_shop(engine)
    product = await engine.catalog.read("shirt")
    assert (product.product_id, product.name, product.price, product.available) == ("shirt", "셔츠", 1_000, 15)
    assert [(item.product_id, item.stock_id, item.option, item.available) for item in product.stock] == [
        ("shirt", "S", "small", 10), ("shirt", "M", "middle", 5),
    ]  # fmt: skip
    with pytest.raises(NotFound):
        await engine.catalog.read("sock")


@pytest.mark.requirement("R2.3", "R2.4")
async def test_the_remaining_units_are_exact_after_each_order(engine: Engine) -> None:
    await stock_shop(engine)
    order = await engine.orders.place("kim", lines(("shirt", "S", 4)), None)
    assert (await engine.catalog.read("shirt")).available == 11
    await engine.orders.cancel("kim", order.order_id)
    assert (await engine.catalog.read("shirt")).available == 15


@pytest.mark.requirement("R2.5")
async def test_products_of_all_partitions_are_listed_in_pages(engine: Engine) -> None:
    ids = [f"p{number:02}" for number in range(25)]
    for product_id in reversed(ids):
        await engine.catalog.put(product_id, product_id.upper(), 1, [NewStockItem("one", "", 1)])
    seen: list[str] = []
    more = True
    while more:
        page, more = await engine.catalog.page(seen[-1] if seen else "", 10)
        seen += [product.product_id for product in page]
    assert seen == ids


@pytest.mark.requirement("R0.8")
async def test_what_the_policy_forbids_changes_nothing(redis_process: ValkeyProcess) -> None:
    async with opened(redis_process.url, unit_price_max=1_000) as engine:
        await stock_shop(engine)
        before = await engine.catalog.read("shirt")
        for price in (-1, 1_001):
            with pytest.raises(UnitPriceLimit):
                await engine.catalog.put("shirt", "", price, [])
        with pytest.raises(TooManyStockItems):
            await engine.catalog.put("shirt", "", 1, [NewStockItem(f"s{number}", "", 1) for number in range(200)])
        for delta in (-11, engine.policy.available_max):
            with pytest.raises(StockLimit):
                await engine.catalog.adjust("shirt", "S", delta, "count")
        with pytest.raises(NotFound):
            await engine.catalog.adjust("shirt", "XL", 1, "count")
        assert await engine.catalog.read("shirt") == before


async def test_an_adjustment_answers_the_stock_item(engine: Engine) -> None:
    await stock_shop(engine)
    adjustment = await engine.catalog.adjust("shirt", "S", -3, "count")
    assert (adjustment.stock_id, adjustment.option, adjustment.available) == ("S", "small", 7)
