"""Reconciling: after a loss, what one partition still knows and another has forgotten is made to agree.

PostgreSQL is a consistent cut of all partitions then, so it is asked what disagrees; scripts with events of their own
mend it. They decide anew by what is in Redis, so that whatever has changed since the question is left as it is.

First, what failed orders hold is given back, and orders whose stock was given back are failed, so that as much as can
be is there again; then live orders without their stock take it anew, and coupons without their issue are issued anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.claim import Claim
from engine.engine import Engine
from engine.order_ids import lowest_order_id
from engine.packed_lines import pack, products_of, unpack
from engine.policy import INTEGER_MAX
from engine.runner import Reply
from engine.statuses import Status
from engine.together import all_of, parts
from persistence.alarms import STOCK_SHORT, Alarm, raise_alarm
from persistence.database import translated

AT_ONCE_MAX = 64

MARGIN_MS = 300_000
"""An order's id is at most 30 s older than its reservation; the rest is for servers whose clocks differ."""

_SHORT_REMEDY = (
    "An increase of this stock was lost with Redis, or units were given to an order anew that another had taken:"
    " count the stock item and adjust it, or tell the customer"
)

Drained = Callable[[], Awaitable[None]]
"""Waits until PostgreSQL has all that the reconciling scripts have changed so far."""


@dataclass(slots=True)
class Reconciled:
    """What there was to reconcile, counted; ``short`` is in units."""

    released: int = 0
    failed: int = 0
    adopted: int = 0
    short: int = 0
    issues: int = 0

    def __str__(self) -> str:
        short = f" ({number_of(self.short, 'unit')} short)" if self.short else ""
        counted = {
            f"{number_of(self.released, 'reservation')} of failed orders released": self.released,
            f"{number_of(self.failed, 'order')} failed": self.failed,
            f"{number_of(self.adopted, 'reservation')} adopted{short}": self.adopted or self.short,
            f"{number_of(self.issues, 'issue')} adopted": self.issues,
        }
        return ", ".join(text for text, count in counted.items() if count) or "nothing"


def number_of(count: int, thing: str) -> str:
    """So many of a thing, as it is written."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


@dataclass(frozen=True, slots=True)
class _Line:
    product_id: str
    stock_id: str
    name: str
    option: str
    unit_price: int
    quantity: int


@dataclass(slots=True)
class _Lost:
    """An order's lines in one partition that have no reservation there."""

    partition: int
    order_id: str
    user_id: str
    lines: list[_Line] = field(default_factory=list)

    @property
    def packed(self) -> str:
        return pack((line.product_id, line.stock_id, line.quantity) for line in self.lines)


class Reconciliation:
    """Of the partitions that one recovery holds, with each other and with all that were trusted throughout."""

    def __init__(
        self,
        engine: Engine,
        connection: AsyncConnection[TupleRow],
        claim: Claim,
        partitions: Collection[int],
        generation: int,
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._claim = claim
        self._partitions = list(partitions)
        self._generation = generation
        self._done = Reconciled()
        self._asking = asyncio.Lock()

    async def run(self, drained: Drained) -> Reconciled:
        """All of it, twice the same. Raises `EngineError` (`ClaimLost` above all) and `DatabaseError`."""
        await self._release()
        if await self._fail():
            await drained()
            await self._release()
        await self._adopt(await self._lost_before())
        await self._adopt_issues(await self._lost_before())
        await drained()
        return self._done

    async def _lost_before(self) -> int:
        """Nothing that happened earlier (ms since 1970) can be lost in these partitions.

        A cursor's `updated_at` is when its last event happened, or a later moment at which there was none to write:
        what Redis has lost came after that. So the scans below are as long as the writers were late, and no longer.
        """
        rows = await self._rows(
            "SELECT (date_part('epoch', min(updated_at)) * 1000)::bigint FROM partition_cursor"
            " WHERE partition = ANY(%(partitions)s)"
        )
        return int(rows[0][0]) - MARGIN_MS

    # ---- stock of orders that have failed ----------------------------------------------------------------------------

    async def _release(self) -> None:
        rows = await self._rows(
            """SELECT r.partition, r.order_id::text, r.lines
               FROM reservation r JOIN orders o ON o.order_id = r.order_id
               WHERE r.state = 'held' AND r.partition = ANY(%(partitions)s) AND o.status IN ('failed', 'void')"""
        )

        async def release(row: TupleRow) -> None:
            partition, order_id, lines = row
            product_ids = products_of(lines)
            reply = await self._stock_script(partition, "release_stock", order_id, product_ids, (order_id,))
            self._done.released += reply.status is Status.RELEASED

        await _at_once(rows, release)

    async def _fail(self) -> int:
        """Fail orders that await payment without their stock; how many."""
        rows = await self._rows(
            """SELECT DISTINCT o.order_id::text, o.user_id
               FROM orders o JOIN order_line l ON l.order_id = o.order_id
               JOIN product p ON p.product_id = l.product_id
               JOIN reservation r ON r.partition = p.partition AND r.order_id = o.order_id
               WHERE o.status = 'awaiting_payment' AND r.state = 'released'
                 AND (o.partition = ANY(%(partitions)s) OR r.partition = ANY(%(partitions)s))"""
        )

        async def fail(row: TupleRow) -> None:
            order_id, user_id = row
            partition = self._engine.partitions.of(user_id)
            keys = self._engine.keys
            names = (
                keys.wallet(partition, user_id),
                keys.coupons(partition, user_id),
                keys.order(partition, order_id),
            )
            reply = await self._change(partition, "fail_order", names, (order_id, user_id))
            self._done.failed += reply.status is Status.FAILED

        await _at_once(rows, fail)
        return self._done.failed

    # ---- live orders without their stock -----------------------------------------------------------------------------

    async def _adopt(self, lost_from_ms: int) -> None:
        rows = await self._rows(
            """SELECT o.order_id::text, o.user_id, l.product_id, l.stock_id, l.name, l.option, l.unit_price, l.quantity
               FROM orders o JOIN order_line l ON l.order_id = o.order_id
               LEFT JOIN product p ON p.product_id = l.product_id
               LEFT JOIN reservation r ON r.partition = p.partition AND r.order_id = o.order_id
               WHERE o.order_id >= %(lost_from)s AND o.status IN ('awaiting_payment', 'completed')
                 AND (p.partition = ANY(%(partitions)s) OR p.partition IS NULL)
                 AND (r.state IS NULL OR r.state = 'released')
               ORDER BY o.order_id, l.line_no""",
            lost_from=lowest_order_id(lost_from_ms),
        )
        held = set(self._partitions)
        lost: dict[tuple[int, str], _Lost] = {}
        for order_id, user_id, *values in rows:
            line = _Line(*values)
            partition = self._engine.partitions.of(line.product_id)
            if partition in held:
                lost.setdefault((partition, order_id), _Lost(partition, order_id, user_id)).lines.append(line)
        # One after the other in a partition: who ordered first has the first claim on what is left.
        by_partition: dict[int, list[_Lost]] = {}
        for each in lost.values():
            by_partition.setdefault(each.partition, []).append(each)
        await all_of(self._adopt_all(group) for group in by_partition.values())

    async def _adopt_all(self, group: Sequence[_Lost]) -> None:
        for lost in group:
            reply = await self._adopt_stock(lost)
            # A product or stock item that was lost with its orders is put again, each at most once.
            for _ in lost.lines:
                if reply.status is not Status.UNKNOWN_REFERENCE:
                    break
                await self._put_again(lost, reply.text(0), reply.text(1))
                reply = await self._adopt_stock(lost)
            if reply.status is Status.ADOPTED:
                self._done.adopted += 1
                await self._note_shortage(lost, reply.text(1))

    async def _adopt_stock(self, lost: _Lost) -> Reply:
        product_ids = products_of(lost.packed)
        arguments = (lost.order_id, lost.user_id, lost.packed)
        return await self._stock_script(lost.partition, "adopt_stock", lost.order_id, product_ids, arguments)

    async def _put_again(self, lost: _Lost, product_id: str, stock_id: str) -> None:
        """A stock item as the order knows it, with no unit available; the product as PostgreSQL does, if it does."""
        (line,) = [each for each in lost.lines if (each.product_id, each.stock_id) == (product_id, stock_id)]
        known = await self._rows(
            "SELECT name, price FROM product WHERE product_id = %(product_id)s", product_id=product_id
        )
        name, price = known[0] if known else (line.name, line.unit_price)
        keys = self._engine.keys
        stock = orjson.dumps([{"stock_id": stock_id, "option": line.option, "initial_quantity": 0}]).decode()
        any_number = INTEGER_MAX  # a limit that was lowered since is not for what was sold before
        await self._change(
            lost.partition,
            "put_product",
            (keys.products(lost.partition), keys.product(lost.partition, product_id)),
            (product_id, name, price, stock, any_number, stock_id, line.option, 0),
        )

    async def _note_shortage(self, lost: _Lost, short: str) -> None:
        for product_id, stock_id, units in unpack(short) if short else ():
            self._done.short += units
            detail = f"{units} units of {product_id} {stock_id} of this order were not there when it was adopted"
            alarm = Alarm(STOCK_SHORT, lost.partition, f"{lost.order_id} {stock_id}", detail, _SHORT_REMEDY)
            async with self._asking:
                await raise_alarm(self._connection, alarm)

    async def _stock_script(
        self, partition: int, name: str, order_id: str, product_ids: Sequence[str], arguments: Sequence[str]
    ) -> Reply:
        keys = self._engine.keys
        names = (
            keys.reservation(partition, order_id),
            *(keys.product(partition, product_id) for product_id in product_ids),
        )
        return await self._change(partition, name, names, (*arguments, *product_ids))

    # ---- coupons without their issue ---------------------------------------------------------------------------------

    async def _adopt_issues(self, lost_from_ms: int) -> None:
        rows = await self._rows(
            """SELECT k.campaign_id, k.user_id, k.issue_number, (date_part('epoch', k.issued_at) * 1000)::bigint,
                      k.kind, k.value, k.minimum_order, k.maximum_discount,
                      extract(day FROM k.valid_until - k.valid_from)::integer
               FROM coupon k
               LEFT JOIN coupon_issue i ON i.campaign_id = k.campaign_id AND i.user_id = k.user_id
               WHERE k.issued_at >= to_timestamp(%(lost_from_ms)s / 1000.0) AND i.number IS NULL
               ORDER BY k.campaign_id, k.issue_number""",
            lost_from_ms=lost_from_ms,
        )
        held = set(self._partitions)
        groups: dict[str, list[TupleRow]] = {}
        for row in rows:
            if self._engine.partitions.of(row[0]) in held:
                groups.setdefault(row[0], []).append(row)
        # In the order of the numbers, so that whatever a recovery leaves undone lies above what is issued.
        await all_of(self._adopt_campaign(group) for group in groups.values())

    async def _adopt_campaign(self, rows: Sequence[TupleRow]) -> None:
        for row in rows:
            reply = await self._adopt_issue(row)
            if reply.status is Status.UNKNOWN:
                await self._put_campaign_again(rows)
                reply = await self._adopt_issue(row)
            self._done.issues += reply.status is Status.ADOPTED

    async def _adopt_issue(self, row: TupleRow) -> Reply:
        campaign_id, user_id, *rest = row
        partition = self._engine.partitions.of(campaign_id)
        keys = self._engine.keys
        names = (keys.campaign(partition, campaign_id), keys.issues(partition, campaign_id))
        arguments = (campaign_id, user_id, *("" if value is None else value for value in rest))
        return await self._change(partition, "adopt_issue", names, arguments)

    async def _put_campaign_again(self, rows: Sequence[TupleRow]) -> None:
        """A campaign that was lost with its issues: closed, and as large as the coupons that there are."""
        campaign_id, _, _, issued_at, kind, value, minimum, maximum, valid_days = rows[0]
        partition = self._engine.partitions.of(campaign_id)
        keys = self._engine.keys
        rule = (kind, value, "" if minimum is None else minimum, "" if maximum is None else maximum)
        quantity = max(row[2] for row in rows)
        await self._change(
            partition,
            "put_campaign",
            (keys.campaigns(partition), keys.campaign(partition, campaign_id)),
            (campaign_id, campaign_id, *rule, quantity, issued_at, issued_at, max(1, valid_days)),
        )

    # ---- the ways there ----------------------------------------------------------------------------------------------

    async def _change(self, partition: int, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Reply:
        return await self._claim.change(partition, name, keys, self._generation, arguments)

    async def _rows(self, query: Any, **parameters: Any) -> list[TupleRow]:
        with translated():
            async with self._asking, self._connection.transaction():
                # A scan as long as the writers were late, of which nobody knows how late that was.
                await self._connection.execute("SET LOCAL statement_timeout = 0")
                cursor = await self._connection.execute(query, {"partitions": self._partitions, **parameters})
                return await cursor.fetchall()


async def _at_once(rows: Sequence[TupleRow], call: Callable[[TupleRow], Awaitable[None]]) -> None:
    for some in parts(rows, AT_ONCE_MAX):
        await all_of(map(call, some))
