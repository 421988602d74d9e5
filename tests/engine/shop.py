"""A small shop on a real Redis for the engine's tests, and what must add up in it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from engine.catalog import NewStockItem
from engine.coupons import Campaign, Discount
from engine.engine import Engine, open_engine
from engine.events import pairs_of
from engine.hashes import hash_of
from engine.orders import Order
from engine.scripts import load_scripts
from engine.settings import EngineSettings
from engine.stock import LineRequest

PARTITIONS = 8
NOW = 1_800_000_000_000
"""The test's time, ms since 1970: 2027-01-15 08:00 UTC, 17:00 in Seoul."""


@asynccontextmanager
async def opened(url: str, *, fresh: bool = True, now_ms: int | None = NOW, **settings: Any) -> AsyncIterator[Engine]:
    """An engine of 8 partitions; ``fresh`` begins them anew. With ``now_ms`` the scripts are told this time."""
    given = {"partitions": PARTITIONS, "reply_timeout_ms": 500, **settings}
    async with open_engine(EngineSettings(redis_url=url, **given)) as engine:
        if fresh:
            await execute(engine, "FLUSHALL")
            for script in load_scripts().values():
                await execute(engine, "SCRIPT", "LOAD", script.source)
            for partition in range(PARTITIONS):
                assert await engine.recovery.init(partition, 1)
        engine.runner.test_now_ms = "" if now_ms is None else str(now_ms)
        yield engine


async def execute(engine: Engine, *command: str | int) -> Any:
    """A plain command on the engine's lane."""
    return await engine.lanes.execute(0, *command, deadline=engine.runner.begin().deadline)


async def stock_shop(engine: Engine) -> None:
    """A shirt of two sizes (10 S and 5 M at 1,000) and a hat (3 at 500), in two partitions."""
    await engine.catalog.put("shirt", "셔츠", 1_000, [NewStockItem("S", "small", 10), NewStockItem("M", "middle", 5)])
    await engine.catalog.put("hat", "Hat", 500, [NewStockItem("one", "", 3)])
    assert engine.partitions.of("shirt") != engine.partitions.of("hat")


def campaign(campaign_id: str = "spring", **changes: Any) -> Campaign:
    """100 coupons of 300 off, open for a while around `NOW`."""
    given: dict[str, Any] = {
        "name": "Spring",
        "discount": Discount("amount", 300, None, None),
        "quantity": 100,
        "issued": 0,
        "opens_at_ms": NOW - 1_000,
        "closes_at_ms": NOW + 100_000_000_000,
        "valid_days": 7,
        **changes,
    }
    return Campaign(campaign_id, **given)


def lines(*requests: tuple[str, str | None, int]) -> list[LineRequest]:
    return [LineRequest(*request) for request in requests]


async def units(engine: Engine, product_id: str, stock_id: str) -> tuple[int, int, int]:
    """Available, reserved and sold units."""
    product = await engine.catalog.read(product_id)
    item = next(item for item in product.stock if item.stock_id == stock_id)
    return item.available, item.reserved, item.sold


async def all_units(engine: Engine) -> dict[str, tuple[int, int, int]]:
    """Of every stock item of the shop."""
    products = await engine.catalog.read_many(["shirt", "hat"])
    return {
        f"{product.product_id}/{item.stock_id}": (item.available, item.reserved, item.sold)
        for product in products
        for item in product.stock
    }


UNTOUCHED = {"shirt/S": (10, 0, 0), "shirt/M": (5, 0, 0), "hat/one": (3, 0, 0)}


async def settle(engine: Engine, order: Order) -> None:
    """What the worker does with a finished order: confirm or release its stock everywhere."""
    by_partition: dict[int, list[str]] = {}
    for line in orjson.loads(order.lines_json):
        ids = by_partition.setdefault(engine.partitions.of(line["product_id"]), [])
        if line["product_id"] not in ids:
            ids.append(line["product_id"])
    for partition, product_ids in by_partition.items():
        if order.status == "completed":
            assert order.paid_at_ms is not None
            day = engine.days.text(order.paid_at_ms)
            outcomes = await engine.stock.confirm(partition, {order.order_id: product_ids}, day)
            assert outcomes[order.order_id][0] == "confirmed"
        else:
            assert (await engine.stock.release(partition, order.order_id, product_ids)).status == "released"


async def orders_on_record(engine: Engine) -> dict[str, dict[str, str]]:
    """Every order in Redis, tombstones too, by id."""
    keys: Sequence[bytes] = await execute(engine, "KEYS", "fc:*:order:*")
    return {key.decode().rpartition(":")[2]: hash_of(await execute(engine, "HGETALL", key.decode())) for key in keys}


async def events(engine: Engine) -> list[dict[str, str]]:
    """Every event of every partition; asserts that each sequence is without a gap."""
    found = []
    for partition in range(PARTITIONS):
        entries = await execute(engine, "XRANGE", engine.keys.events(partition), "-", "+")
        assert [entry[0].partition(b"-")[2] for entry in entries] == [b"%d" % n for n in range(1, len(entries) + 1)]
        found += [{name.decode(): value.decode() for name, value in pairs_of(entry[1])} for entry in entries]
    return found
