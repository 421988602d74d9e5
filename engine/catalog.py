"""Products and their stock items: making, changing, adjusting, reading (R2)."""

import asyncio
import heapq
from collections.abc import Iterable, Sequence

import orjson
from msgspec import Struct

from engine.errors import NotFound, StockLimit, TooManyStockItems
from engine.hashes import hash_of
from engine.idempotency import KeyClaims, Replayed, RequestKey, check_key, key_arguments
from engine.policy import Policy
from engine.positions import Position, position_of
from engine.runner import Flow, ScriptRunner
from engine.statuses import Status


class NewStockItem(Struct, frozen=True):
    """A stock item as an operator asks for it; ``initial_quantity`` (units) counts only when it is new."""

    stock_id: str
    option: str
    initial_quantity: int


class StockItem(Struct, frozen=True):
    """A stock item: units available, held by orders in progress, and sold."""

    product_id: str
    stock_id: str
    option: str
    available: int
    reserved: int
    sold: int


class Product(Struct, frozen=True):
    """A product with its stock items, all read at one moment. ``price`` in minor units."""

    product_id: str
    name: str
    price: int
    stock: tuple[StockItem, ...]

    @property
    def available(self) -> int:
        """Units available over all stock items."""
        return sum(item.available for item in self.stock)


class Adjustment(Struct, frozen=True):
    """A stock item after an adjustment of its available units."""

    product_id: str
    stock_id: str
    option: str
    available: int
    positions: tuple[Position, ...]
    replayed: bool = False
    """Whether this is the answer of an earlier request of the same idempotency key."""


class Catalog:
    """The products of all partitions."""

    def __init__(self, runner: ScriptRunner, key_claims: KeyClaims, policy: Policy) -> None:
        self._runner = runner
        self._key_claims = key_claims
        self._policy = policy

    async def put(
        self, product_id: str, name: str, price: int, stock: Sequence[NewStockItem]
    ) -> tuple[bool, tuple[Position, ...]]:
        """Make a product or change it; returns whether it is new, and where. A stock item left out stays.

        Raises `UnitPriceLimit`, `TooManyStockItems`.
        """
        self._policy.check_unit_price(price)
        partition = self._runner.partitions.of(product_id)
        keys = self._runner.keys
        stock_json = orjson.dumps(
            [
                {"stock_id": item.stock_id, "option": item.option, "initial_quantity": item.initial_quantity}
                for item in stock
            ]
        ).decode()
        items = [part for item in stock for part in (item.stock_id, item.option, item.initial_quantity)]

        async def step(flow: Flow) -> tuple[bool, tuple[Position, ...]]:
            reply = await self._runner.change(
                flow,
                partition,
                "put_product",
                (
                    keys.meta(partition),
                    keys.events(partition),
                    keys.products(partition),
                    keys.product(partition, product_id),
                ),
                (product_id, name, price, stock_json, self._policy.stock_items_max, *items),
            )
            if reply.status is Status.TOO_MANY_ITEMS:
                raise TooManyStockItems(reply.integer(0), self._policy.stock_items_max)
            return reply.status is Status.CREATED, (position_of(partition, reply.values[0]),)

        return await self._runner.alone(step)

    async def adjust(
        self, product_id: str, stock_id: str, delta: int, reason: str, key: RequestKey | None = None
    ) -> Adjustment:
        """Raise or lower the available units of a stock item by ``delta``. Without a key it is sent once, as a charge.

        Raises `NotFound`, `StockLimit`, `IdempotencyKeyReused`. The key's home is the product's partition.
        """
        partition = self._runner.partitions.of(product_id)
        keys = self._runner.keys
        records = self._key_claims.record(partition, key)

        async def step(flow: Flow) -> Adjustment:
            reply = await self._runner.change(
                flow,
                partition,
                "adjust_stock",
                (keys.meta(partition), keys.events(partition), keys.product(partition, product_id), *records),
                (product_id, stock_id, delta, reason, self._policy.available_max, *key_arguments(key)),
                repeatable=key is not None,
            )
            try:
                check_key(reply, partition)
            except Replayed as earlier:
                available, *option = earlier.values
                positions, replayed = (earlier.position,), not flow.sent_again
                return Adjustment(product_id, stock_id, " ".join(option), int(available), positions, replayed)
            if reply.status is Status.UNKNOWN:
                raise NotFound(f"there is no product {product_id} with a stock item {stock_id}")
            if reply.status is Status.STOCK_LIMIT:
                raise StockLimit(reply.integer(0))
            return Adjustment(
                product_id,
                stock_id,
                reply.text(2),
                reply.integer(1),
                (position_of(partition, reply.values[0]),),
            )

        return await self._runner.alone(step)

    async def read(self, product_id: str) -> Product:
        """One product with its stock items. Raises `NotFound`."""
        products = await self.read_many([product_id])
        if not products:
            raise NotFound(f"there is no product {product_id}")
        return products[0]

    async def read_many(self, product_ids: Iterable[str]) -> list[Product]:
        """The products that there are of these, in the order asked for; each consistent in itself."""
        wanted = list(product_ids)
        by_partition = self._runner.partitions.group(wanted)

        async def read_partition(partition: int, ids: list[str]) -> list[Product]:
            keys = self._runner.keys
            names = (keys.meta(partition), *(keys.product(partition, product_id) for product_id in ids))
            hashes = await self._runner.alone(lambda flow: self._runner.read(flow, partition, "read_hashes", names))
            return [_product(product_id, hash_of(flat)) for product_id, flat in zip(ids, hashes, strict=True) if flat]

        reads = [read_partition(*group) for group in by_partition.items()]
        groups = [await reads[0]] if len(reads) == 1 else await asyncio.gather(*reads)
        found = {product.product_id: product for group in groups for product in group}
        return [found[product_id] for product_id in wanted if product_id in found]

    async def page(self, after: str, count: int) -> tuple[list[Product], bool]:
        """``count`` products in the order of their ids, after the id ``after``; and whether there are more."""
        ids = await list_ids(self._runner, [self._runner.keys.products(p) for p in self._all()], after, count + 1)
        return await self.read_many(ids[:count]), len(ids) > count

    def _all(self) -> range:
        return range(self._runner.partitions.count)


async def list_ids(runner: ScriptRunner, sets: Sequence[str], after: str, count: int) -> list[str]:
    """The first ``count`` ids after ``after`` over every partition's sorted set; ``sets`` in partition order."""

    async def list_partition(partition: int, key: str) -> list[str]:
        keys = (runner.keys.meta(partition), key)
        found = await runner.alone(lambda flow: runner.read(flow, partition, "list_ids", keys, (after, count)))
        return [product_id.decode() for product_id in found]

    groups = await asyncio.gather(*(list_partition(partition, key) for partition, key in enumerate(sets)))
    return list(heapq.nsmallest(count, (product_id for group in groups for product_id in group)))


def _product(product_id: str, fields: dict[str, str]) -> Product:
    stock = tuple(
        StockItem(
            product_id,
            stock_id,
            fields[f"o:{stock_id}"],
            int(fields[f"a:{stock_id}"]),
            int(fields[f"r:{stock_id}"]),
            int(fields[f"s:{stock_id}"]),
        )
        for stock_id in fields["stocks"].split(",")
        if stock_id
    )
    return Product(product_id, fields["name"], int(fields["price"]), stock)
