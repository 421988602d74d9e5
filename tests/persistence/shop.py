"""What the tests of persistence do over and over: fill a shop, write all that happened, and look."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.catalog import NewStockItem
from engine.coupons import Campaign, Discount
from engine.engine import Engine
from engine.stock import LineRequest
from persistence.database import connect
from persistence.settings import WorkerSettings
from persistence.writer import Writer

DAY_MS = 86_400_000


async def fill(engine: Engine, product_id: str = "tea", *, price: int = 300, quantity: int = 100) -> None:
    """Put a product with two stock items, ``s`` and ``m``."""
    items = (NewStockItem("s", "small", quantity), NewStockItem("m", "medium", quantity))
    await engine.catalog.put(product_id, f"The {product_id}", price, items)


async def open_campaign(engine: Engine, campaign_id: str = "spring", *, quantity: int = 10) -> None:
    """Put a campaign that is open now: 100 off."""
    now = engine.lanes.now_ms(0)
    rule = Discount("amount", 100, None, None)
    campaign = Campaign(campaign_id, "Spring", rule, quantity, 0, now - DAY_MS, now + DAY_MS, 7)
    await engine.coupons.put_campaign(campaign)


def line(product_id: str = "tea", stock_id: str = "s", quantity: int = 1) -> LineRequest:
    """A line of an order."""
    return LineRequest(product_id, stock_id, quantity)


async def write_all(engine: Engine, database_url: str, settings: WorkerSettings | None = None) -> Writer:
    """Write everything that there is now, with a writer of its own; the writer, whose connection is closed."""
    async with await connect(database_url, "test writer") as connection:
        with closing(Writer(engine, connection, settings or WorkerSettings(database_url=database_url))) as writer:
            await writer.start()
            while (await writer.round(range(engine.partitions.count))).events:
                pass
            return writer


async def rows(connection: AsyncConnection[TupleRow], query: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    return await (await connection.execute(query, values)).fetchall()


async def value(connection: AsyncConnection[TupleRow], query: LiteralString, *values: Any) -> Any:
    """The one value of a query."""
    ((found,),) = await rows(connection, query, *values)
    return found


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float = 15.0) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - the condition is in another process
            await asyncio.sleep(0.02)
