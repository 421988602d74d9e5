"""The products sold most over the last days (R5): per-day sorted sets, ranked per partition, merged here."""

import asyncio
from dataclasses import dataclass
from datetime import date

from engine.business_days import BusinessDays
from engine.catalog import Catalog
from engine.runner import ScriptRunner

CACHE_S = 1.0
"""How long a ranking is kept in process: reading it costs ordering nothing, however often it is read."""

RANKS_MAX = 50


@dataclass(frozen=True, slots=True)
class BestSeller:
    """A product in the ranking; ``price`` in minor units as of now."""

    rank: int
    product_id: str
    name: str
    price: int
    quantity_sold: int


@dataclass(frozen=True, slots=True)
class Ranking:
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
        self._rankings: dict[int, tuple[float, asyncio.Task[Ranking]]] = {}

    async def top(self, days: int) -> Ranking:
        """The ranking of today and the ``days - 1`` days before, of at most `RANKS_MAX` products, up to 1 s old."""
        now_s = asyncio.get_running_loop().time()
        kept = self._rankings.get(days)
        if kept is None or now_s - kept[0] >= CACHE_S:
            kept = (now_s, asyncio.create_task(self._rank(days)))
            self._rankings[days] = kept
        try:
            return await asyncio.shield(kept[1])
        except BaseException:
            if kept[1].done() and self._rankings.get(days) is kept:
                del self._rankings[days]
            raise

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
