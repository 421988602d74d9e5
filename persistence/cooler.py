"""The cooler: what is settled leaves Redis some days after it was, and is read from PostgreSQL from then on.

It walks the finished reservations of each partition in the order in which they ended, and the order goes with the last
of its reservations: so no order leaves before every partition has settled it. Coupons that were used go with their
order; a second walk lets go of those that expired. How far the walks have come stands in Redis beside what they are
about, so a Redis that went back in time is walked over anew. See docs/decisions/0008-hot-and-cold.md.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.errors import EngineError
from engine.eviction import Mark
from engine.idempotency import KEPT_MS
from engine.settings import EngineSettings
from engine.together import all_of, parts
from persistence.database import translated
from persistence.hot_keys import SALES_KEPT_DAYS
from persistence.settings import WorkerSettings

CALL_MAX = 100
"""Orders, reservations or coupons of one call: Redis does nothing else meanwhile."""

CALLS_AT_ONCE_MAX = 16

SALES_EVERY_S = 3_600.0
SALES_LOOK_BACK_DAYS = 31
"""Days of sales that are asked for before those that stay: an order may be settled long after it was paid."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ENDS = {"completed": "sold", "failed": "released", "void": "released", None: "released"}
"""How the reservation of an order ends, by the order's status; a flow may die before there is an order."""

_log = logging.getLogger("firstcome.cooler")

Item = TypeVar("Item")


def hot_ms(settings: WorkerSettings, engine_settings: EngineSettings) -> int:
    """How long what is settled stays in Redis: at least as long as an idempotency key can ask for it, and so long that
    no late original is let in, however much the clocks differ.
    """
    return max(settings.hot_days * 86_400_000, KEPT_MS) + 2 * engine_settings.order_age_max_ms


class Cooler:
    """Asks PostgreSQL what is settled; the scripts judge anew by what Redis has. Each step is of bounded size."""

    def __init__(self, engine: Engine, settings: WorkerSettings, hot_for_ms: int) -> None:
        self._engine = engine
        self._settings = settings
        self._hot_ms = hot_for_ms
        self._due_at_s = 0.0
        self._sales_due_at_s: dict[int, float] = {}
        self._turn = 0

    async def step(self, connection: AsyncConnection[TupleRow], share: Sequence[int]) -> int:
        """Let the next things go, when it is time again; how many rows were looked at. Raises `DatabaseError`."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._due_at_s:
            return 0
        looked_at = 0
        for partition in self._in_turn(share):
            rows_max = self._settings.evict_rows_max - looked_at
            if rows_max <= 0:
                return looked_at
            self._turn = partition
            try:
                looked_at += await self._cool(connection, partition, rows_max)
            except EngineError as error:
                _log.debug("Nothing leaves partition %d now: %s", partition, error)
        self._due_at_s = loop.time() + self._settings.evict_every_ms / 1000
        return looked_at

    def _in_turn(self, share: Sequence[int]) -> list[int]:
        """The partitions of the share, beginning with the one that the last step had not finished."""
        return [number for number in share if number >= self._turn] + [
            number for number in share if number < self._turn
        ]

    async def _cool(self, connection: AsyncConnection[TupleRow], partition: int, rows_max: int) -> int:
        marks = await self._engine.eviction.marks(partition)
        hot_from_ms = self._engine.runner.now_ms(partition) - self._hot_ms
        looked_at = await self._evict_orders(connection, partition, marks.reservations, hot_from_ms, rows_max)
        looked_at += await self._evict_coupons(connection, partition, marks.coupons, hot_from_ms, rows_max)
        await self._evict_sales(partition)
        return looked_at

    async def _evict_orders(
        self, connection: AsyncConnection[TupleRow], partition: int, mark: Mark, hot_from_ms: int, rows_max: int
    ) -> int:
        with translated():
            cursor = await connection.execute(
                """SELECT r.finished_at, r.order_id::text, r.state, o.status, o.user_id,
                          NOT EXISTS (SELECT FROM reservation l WHERE l.order_id = r.order_id AND (l.state = 'held'
                                      OR (l.finished_at, l.partition) > (r.finished_at, r.partition)))
                   FROM (SELECT partition, order_id, state, finished_at FROM reservation
                         WHERE partition = %s AND state <> 'held' AND (finished_at, order_id) > (%s, %s)
                           AND finished_at <= least(%s, (SELECT updated_at FROM partition_cursor WHERE partition = %s))
                         ORDER BY finished_at, order_id LIMIT %s) r
                   LEFT JOIN orders o ON o.order_id = r.order_id
                   ORDER BY r.finished_at, r.order_id""",
                (
                    partition,
                    _moment(mark.ended_ms),
                    UUID(mark.id or "0" * 32),
                    _moment(hot_from_ms),
                    partition,
                    rows_max,
                ),
            )
            rows = await cursor.fetchall()
        orders: dict[int, list[tuple[str, str]]] = {}
        finished = []
        for _, order_id, state, status, user_id, is_last in rows:
            # Else an order in progress holds it, or it is a mismatch, which the auditor is to find as it is.
            if _ENDS.get(status) == state:
                finished.append(order_id)
                if status is not None and is_last:
                    orders.setdefault(self._engine.partitions.of(user_id), []).append((order_id, user_id))
        eviction = self._engine.eviction
        await _at_once(
            [(owner, some) for owner, group in orders.items() for some in parts(group, CALL_MAX)],
            lambda each: eviction.orders(each[0], each[1], hot_from_ms),
        )
        # Only when the orders have left: else they would be passed by.
        await _at_once(
            list(parts(finished, CALL_MAX)), lambda some: eviction.reservations(partition, some, hot_from_ms)
        )
        if rows:
            await eviction.reservations(partition, (), hot_from_ms, Mark(_milliseconds(rows[-1][0]), rows[-1][1]))
        return len(rows)

    async def _evict_coupons(
        self, connection: AsyncConnection[TupleRow], partition: int, mark: Mark, hot_from_ms: int, rows_max: int
    ) -> int:
        """Those that expired; one that an order has taken goes with the order."""
        with translated():
            cursor = await connection.execute(
                """SELECT valid_until, coupon_id, user_id, state FROM coupon
                   WHERE partition = %s AND (valid_until, coupon_id) > (%s, %s)
                     AND valid_until <= least(%s, (SELECT updated_at FROM partition_cursor WHERE partition = %s))
                   ORDER BY valid_until, coupon_id LIMIT %s""",
                (partition, _moment(mark.ended_ms), mark.id, _moment(hot_from_ms), partition, rows_max),
            )
            rows = await cursor.fetchall()
        expired = [(coupon_id, user_id) for _, coupon_id, user_id, state in rows if state != "taken"]
        eviction = self._engine.eviction
        await _at_once(list(parts(expired, CALL_MAX)), lambda some: eviction.coupons(partition, some, hot_from_ms))
        if rows:
            await eviction.coupons(partition, (), hot_from_ms, Mark(_milliseconds(rows[-1][0]), rows[-1][1]))
        return len(rows)

    async def _evict_sales(self, partition: int) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._sales_due_at_s.get(partition, 0.0):
            return
        first_kept = self._engine.days.last(SALES_KEPT_DAYS, self._engine.runner.now_ms(partition))[0]
        days = [(first_kept - timedelta(days=back)).strftime("%Y%m%d") for back in range(1, SALES_LOOK_BACK_DAYS + 1)]
        await self._engine.eviction.sales(partition, days, SALES_KEPT_DAYS - 1)
        self._sales_due_at_s[partition] = now_s + SALES_EVERY_S


async def _at_once(calls: Sequence[Item], call: Callable[[Item], Awaitable[int]]) -> None:
    for some in parts(calls, CALLS_AT_ONCE_MAX):
        await all_of(map(call, some))


def _moment(at_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=at_ms)


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
