"""What Redis and PostgreSQL hold of a replay, read from them directly and not through the shop."""

import asyncio
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from api.commands.replay_plan import STOCK_ID
from engine.engine import make_engine
from engine.keys import Keys
from engine.lanes import deadline_in
from engine.partitions import Partitions
from engine.settings import EngineSettings
from persistence import database

CALLS_MAX = 500
READ_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class StockCount:
    """Units of one product."""

    available: int
    held: int
    sold: int


@dataclass(frozen=True, slots=True)
class StoreReading:
    """What a store says of the products and customers of a replay; what it does not know counts 0.

    `sold_on_days` is what its counters of the days asked for add up to. `broken_laws` names each conservation law that
    does not hold anywhere in the store, with an example; None where the store cannot tell.
    """

    stock: Mapping[str, StockCount]
    balances: Mapping[str, int]
    sold_on_days: Mapping[str, int]
    broken_laws: Sequence[str] | None


class Store(Protocol):
    """A place in which the shop keeps its state."""

    name: str

    async def read(
        self, products: Sequence[str], customers: Sequence[str], days: Sequence[datetime.date]
    ) -> StoreReading:
        """Reads it as it is now. Raises the driver's errors."""


class RedisStore:
    """The hashes and sorted sets themselves."""

    name = "Redis"

    def __init__(self, url: str, partition_count: int) -> None:
        settings = EngineSettings(redis_url=url, partitions=partition_count)
        self._engine = make_engine(settings)
        self._partitions = Partitions(partition_count)
        self._keys = Keys(self._partitions)

    async def __aenter__(self) -> Self:
        await self._engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.close()

    async def read(
        self, products: Sequence[str], customers: Sequence[str], days: Sequence[datetime.date]
    ) -> StoreReading:
        of, keys = self._partitions.of, self._keys
        fields = (f"a:{STOCK_ID}", f"r:{STOCK_ID}", f"s:{STOCK_ID}")
        stock = await self._all([(of(each), "HMGET", keys.product(of(each), each), *fields) for each in products])
        balances = await self._all([(of(user), "HGET", keys.wallet(of(user), user), "balance") for user in customers])
        sold = [
            await self._all([(of(each), "ZSCORE", keys.sales(of(each), f"{day:%Y%m%d}"), each) for each in products])
            for day in days
        ]
        return StoreReading(
            stock={
                product: StockCount(*(int(count or 0) for count in counts))
                for product, counts in zip(products, stock, strict=True)
            },
            balances={user: int(balance or 0) for user, balance in zip(customers, balances, strict=True)},
            sold_on_days={
                product: sum(int(float(count or 0)) for count in counts)
                for product, *counts in zip(products, *sold, strict=True)
            },
            broken_laws=None,
        )

    async def _all(self, commands: Sequence[tuple[int, *tuple[str, ...]]]) -> list[Any]:
        """The replies to commands that each begin with their partition."""
        replies: list[Any] = []
        for start in range(0, len(commands), CALLS_MAX):
            deadline = deadline_in(READ_WITHIN_S)
            replies += await asyncio.gather(
                *(
                    self._engine.lanes.execute(partition, *command, deadline=deadline)
                    for partition, *command in commands[start : start + CALLS_MAX]
                )
            )
        return replies


# Each query finds what breaks its law, anywhere in the shop; none may find a row.
_LAWS = {
    "received = available + reserved + sold": """
        SELECT product_id || '/' || stock_id FROM stock_item WHERE received <> available + reserved + sold""",
    "a balance is the sum of its ledger": """
        SELECT user_id FROM wallet
        FULL JOIN (SELECT user_id, sum(amount) AS total FROM ledger_entry GROUP BY user_id) AS ledger USING (user_id)
        WHERE coalesce(balance, 0) <> coalesce(total, 0)""",
    "a completed order is paid by one ledger entry": """
        SELECT order_id::text
        FROM (SELECT order_id, total FROM orders WHERE status = 'completed' AND total > 0) AS completed
        FULL JOIN (
            SELECT order_id, -sum(amount) AS paid, count(*) AS times
            FROM ledger_entry WHERE kind = 'payment' GROUP BY order_id
        ) AS payment USING (order_id)
        WHERE total IS DISTINCT FROM paid OR times <> 1""",
    "an order's subtotal is that of its lines": """
        SELECT order_id::text FROM orders
        JOIN (SELECT order_id, sum(amount) AS amount FROM order_line GROUP BY order_id) AS lines USING (order_id)
        WHERE subtotal <> amount""",
}


class PostgresStore:
    """The tables themselves."""

    name = "PostgreSQL"

    def __init__(self, url: str) -> None:
        self._url = url

    async def partitions(self) -> int:
        """The number of partitions that this installation was started with. Raises DatabaseError."""
        async with await database.connect(self._url, "firstcome replay") as connection:
            with database.translated():
                found = await (await connection.execute("SELECT partitions FROM installation")).fetchone()
        if found is None:
            raise database.SchemaMismatch("no worker has started on this database yet")
        return int(found[0])

    async def read(
        self, products: Sequence[str], customers: Sequence[str], days: Sequence[datetime.date]
    ) -> StoreReading:
        async with await database.connect(self._url, "firstcome replay") as connection:
            # One snapshot for all that is read, so that a law is not judged over two moments.
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            stock = await connection.execute(
                "SELECT product_id, available, reserved, sold FROM stock_item"
                " WHERE product_id = ANY(%s) AND stock_id = %s",
                (list(products), STOCK_ID),
            )
            counts = {product: StockCount(*found) for product, *found in await stock.fetchall()}
            wallets = await connection.execute(
                "SELECT user_id, balance FROM wallet WHERE user_id = ANY(%s)", (list(customers),)
            )
            balances: dict[str, int] = dict(await wallets.fetchall())
            sales = await connection.execute(
                "SELECT product_id, sum(quantity)::bigint FROM daily_sale WHERE product_id = ANY(%s) AND day = ANY(%s)"
                " GROUP BY product_id",
                (list(products), list(days)),
            )
            sold: dict[str, int] = dict(await sales.fetchall())
            broken = []
            for law, query in _LAWS.items():
                found = await (await connection.execute(query.encode())).fetchmany(3)
                if found:
                    broken.append(f"{law}: not so for {', '.join(str(row[0]) for row in found)}")
            await connection.rollback()
        return StoreReading(
            stock={product: counts.get(product, StockCount(0, 0, 0)) for product in products},
            balances={user: balances.get(user, 0) for user in customers},
            sold_on_days={product: sold.get(product, 0) for product in products},
            broken_laws=broken,
        )
