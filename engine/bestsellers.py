"""The products sold most over the last days (R5): per-day sorted sets, ranked per partition, merged here."""

import asyncio
from datetime import date
from math import inf

from msgspec import Struct

from engine.business_days import BusinessDays
from engine.catalog import Catalog
from engine.runner import ScriptRunner
from engine.unawaited import look_at

CACHE_S = 1.0
"""How long a ranking is kept in process: reading it costs ordering nothing, however often it is read."""

RENEWED_S = 0.75
"""From this age on the next one is read while this one is still shown: where many ask, nobody waits for it."""

FAILED_S = 0.1
"""How long a reading that has failed stands for all who ask: a Redis in trouble is not asked for each of them."""

RANKS_MAX = 50


class BestSeller(Struct, frozen=True):
    """A product in the ranking; ``price`` in minor units as of now."""

    rank: int
    product_id: str
    name: str
    price: int
    quantity_sold: int


class Ranking(Struct, frozen=True):
    """The best sellers of the business days ``first`` to ``last``, both included; most sold first."""

    first: date
    last: date
    items: tuple[BestSeller, ...]


class BestSellers:
    """A product lives in one partition, so merging the partitions' tops is exact."""

    def __init__(self, runner: ScriptRunner, catalog: Catalog, days: BusinessDays) -> None:
        self._runner = runner
        self._catalog = catalog
        self._days = days
        # By number of days, and each with the time when it was begun to be read.
        self._known: dict[int, tuple[float, Ranking]] = {}
        self._read: dict[int, tuple[float, asyncio.Task[Ranking]]] = {}

    async def top(self, days: int) -> Ranking:
        """The ranking of today and the ``days - 1`` days before, of at most `RANKS_MAX` products, up to 1 s old."""
        now_s = asyncio.get_running_loop().time()
        known_at, ranking = self._known.get(days, (-inf, None))
        read = self._read.get(days)
        if now_s - known_at >= RENEWED_S and not (read is not None and _stands(*read, now_s)):
            read = (now_s, asyncio.create_task(self._renew(days, now_s)))
            read[1].add_done_callback(look_at)
            self._read[days] = read
        if ranking is not None and now_s - known_at < CACHE_S:
            return ranking
        assert read is not None, "what is not known is being read"
        return await asyncio.shield(read[1])

    async def _renew(self, days: int, began_s: float) -> Ranking:
        ranking = await self._rank(days)
        if began_s > self._known.get(days, (-inf, None))[0]:
            self._known[days] = (began_s, ranking)
        return ranking

    async def _rank(self, days: int) -> Ranking:
        keys = self._runner.keys
        dates = self._days.last(days, self._runner.now_ms(0))

        async def rank_partition(partition: int) -> list[tuple[int, str]]:
            names = (
                keys.meta(partition),
                *(keys.sales(partition, day.strftime("%Y%m%d")) for day in dates),
            )
            flat = await self._runner.alone(
                lambda flow: self._runner.read(flow, partition, "rank_sales", names, (RANKS_MAX,))
            )
            return [(int(sold), product.decode()) for product, sold in zip(flat[::2], flat[1::2], strict=True)]

        partitions = range(self._runner.partitions.count)
        tops = await asyncio.gather(*(rank_partition(partition) for partition in partitions))
        merged = sorted((item for top in tops for item in top), key=lambda item: (-item[0], item[1]))[:RANKS_MAX]
        products = {product.product_id: product for product in await self._catalog.read_many(p for _, p in merged)}
        return Ranking(
            dates[0],
            dates[-1],
            tuple(
                BestSeller(rank, product_id, products[product_id].name, products[product_id].price, sold)
                for rank, (sold, product_id) in enumerate(merged, 1)
            ),
        )


def _stands(began_s: float, read: "asyncio.Task[Ranking]", now_s: float) -> bool:
    """Whether who asks now is told what this reading finds, or found: it is under way, or has failed just now."""
    if not read.done():
        return now_s - began_s < CACHE_S
    return (read.cancelled() or read.exception() is not None) and now_s - began_s < FAILED_S
