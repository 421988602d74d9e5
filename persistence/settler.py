"""The settler: what a finished order holds becomes sold or is given back, and what was issued is granted.

The fast path confirms the orders that the writer has just made durable. What it misses (a full queue, a failure, a
worker that died) is found in PostgreSQL by the sweeper's walk. Every call is repeatable, so doing it twice is nothing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.coupons import Discount, Issue
from engine.engine import Engine
from engine.errors import EngineError, MayBeCold
from engine.statuses import Status
from engine.together import answers_of, parts
from persistence.alarms import RESERVATION_LOST, Alarm, raise_alarm
from persistence.database import translated
from persistence.event_rows import CompletedOrder
from persistence.settings import WorkerSettings

CONFIRM_PRODUCTS = 64
"""With so many products of orders, a call confirms no further order: it shall not hold up the customers' calls."""

_LOST_REMEDY = "Compare the order with its reservations (`firstcome audit`); the units sold are counted one order short"

_log = logging.getLogger("firstcome.settler")

Answer = TypeVar("Answer")
Step = TypeVar("Step")


class Confirm(NamedTuple):
    """A completed order's reservation in one partition; ``day`` (yyyymmdd) is that of its payment."""

    partition: int
    order_id: str
    product_ids: tuple[str, ...]
    day: str


class Release(NamedTuple):
    """A reservation in one partition whose order has failed or never was."""

    partition: int
    order_id: str
    product_ids: tuple[str, ...]


class Settler:
    """Confirms, releases and grants through the engine; it never changes a row of a partition itself."""

    def __init__(self, engine: Engine, settings: WorkerSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._queue: deque[CompletedOrder] = deque()
        self._queued = asyncio.Event()
        self.confirmed = self.released = self.granted = self.left = 0
        # How far the present round over a campaign's issues has come, where it is under way.
        self._looked_to: dict[str, int] = {}

    def offer(self, completed: Sequence[CompletedOrder]) -> None:
        """Take in orders that are durable now. Past the queue's limit they are left to the walk."""
        room = self._settings.settle_queue_max - len(self._queue)
        self._queue.extend(completed[:room] if room < len(completed) else completed)
        if self._queue:
            self._queued.set()

    @property
    def waiting(self) -> int:
        """Orders in the queue."""
        return len(self._queue)

    async def run(self, connection: AsyncConnection[TupleRow]) -> None:
        """Confirm what is offered, until cancelled; what comes meanwhile gathers. Raises `DatabaseError`."""
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                count = min(len(self._queue), self._settings.settle_in_flight_max)
                await self.confirm_orders(connection, [self._queue.popleft() for _ in range(count)])
            await asyncio.sleep(self._settings.settle_every_ms / 1000)

    async def confirm_orders(self, connection: AsyncConnection[TupleRow], completed: Sequence[CompletedOrder]) -> None:
        """Confirm all reservations of these orders."""
        without = [order.order_id for order in completed if order.lines is None]
        loaded = await product_ids_of(connection, without) if without else {}
        steps = []
        for order in completed:
            products = [line[0] for line in order.lines] if order.lines is not None else loaded.get(order.order_id, ())
            day = self.day_of(order.paid_at_ms)
            for partition, product_ids in self._engine.partitions.group(products).items():
                steps.append(Confirm(partition, order.order_id, tuple(product_ids), day))
        await self.confirm(connection, steps)

    def day_of(self, paid_at_ms: int) -> str:
        """The business day, yyyymmdd, that an order paid then counts for."""
        return self._engine.days.text(paid_at_ms)

    async def confirm(self, connection: AsyncConnection[TupleRow], steps: Sequence[Confirm]) -> None:
        """Run confirms, many at once. One that finds no reservation to confirm is an alarm, unless that was sold."""
        for calls, outcomes in await self._at_once(
            _together(steps),
            lambda calls: self._engine.stock.confirm(
                calls[0].partition, {step.order_id: step.product_ids for step in calls}, calls[0].day
            ),
        ):
            for step in calls:
                outcome, _ = outcomes[step.order_id]
                self.confirmed += outcome == Status.CONFIRMED
                if outcome == Status.MISSING and await _is_sold(connection, step):
                    continue  # somebody else confirmed it, and it has left Redis since
                if outcome != Status.CONFIRMED:
                    detail = f"completed, but its reservation in partition {step.partition} is {outcome}"
                    alarm = Alarm(RESERVATION_LOST, step.partition, step.order_id, detail, _LOST_REMEDY)
                    if await raise_alarm(connection, alarm):
                        _log.error("Order %s is %s. %s", step.order_id, detail, _LOST_REMEDY)

    async def release(self, connection: AsyncConnection[TupleRow], steps: Sequence[Release]) -> None:
        """Run releases, many at once. One of what is sold is an alarm; nothing to release is not."""
        for step, reply in await self._at_once(
            steps, lambda step: self._engine.stock.release(step.partition, step.order_id, step.product_ids)
        ):
            self.released += reply.status is Status.RELEASED
            if reply.status is Status.SOLD:
                detail = f"failed, but its reservation in partition {step.partition} is sold"
                alarm = Alarm(RESERVATION_LOST, step.partition, step.order_id, detail, _LOST_REMEDY)
                if await raise_alarm(connection, alarm):
                    _log.error("Order %s %s. %s", step.order_id, detail, _LOST_REMEDY)

    async def grant(self, connection: AsyncConnection[TupleRow], share: Sequence[int]) -> int:
        """Grant the issues of these partitions' campaigns that have no coupon; how many there were.

        `campaign_settlement` keeps how far all is granted, so that the past is not looked at again. From there on a
        call looks at the next stretch, round and round: an issue that cannot be granted holds up no other.
        """
        with translated():
            cursor = await connection.execute(
                """SELECT c.campaign_id, coalesce(s.granted_through, 0)
                   FROM campaign c LEFT JOIN campaign_settlement s ON s.campaign_id = c.campaign_id
                   WHERE c.partition = ANY(%s) AND c.issued > coalesce(s.granted_through, 0)""",
                (list(share),),
            )
            campaigns = await cursor.fetchall()
        return sum([await self._grant_campaign(connection, *campaign) for campaign in campaigns])

    async def _grant_campaign(
        self, connection: AsyncConnection[TupleRow], campaign_id: str, granted_through: int
    ) -> int:
        looked_to = max(self._looked_to.pop(campaign_id, 0), granted_through)
        with translated():
            cursor = await connection.execute(
                """SELECT i.number, i.user_id, i.kind, i.value, i.minimum_order, i.maximum_discount, i.valid_days,
                          (extract(epoch FROM i.issued_at) * 1000)::bigint, k.coupon_id IS NOT NULL,
                          i.issued_at < now() - %s * interval '1 ms'
                   FROM (SELECT * FROM coupon_issue WHERE campaign_id = %s AND number > %s
                         ORDER BY number LIMIT %s) i
                   LEFT JOIN coupon k ON k.user_id = i.user_id AND k.campaign_id = i.campaign_id
                   ORDER BY i.number""",
                (self._settings.grant_age_ms, campaign_id, looked_to, self._settings.walk_rows_max),
            )
            issues = await cursor.fetchall()
        if len(issues) == self._settings.walk_rows_max:
            self._looked_to[campaign_id] = issues[-1][0]
        # One partition's issues are written in order, so a number that is not there was lost and never comes.
        through, missing, all_granted = granted_through, [], looked_to == granted_through
        for number, user, kind, value, minimum, maximum, valid_days, issued_at_ms, granted, is_due in issues:
            all_granted = all_granted and granted
            if all_granted:
                through = number
            if not granted and is_due:
                rule = Discount(kind, value, minimum, maximum)
                missing.append(Issue(user, campaign_id, number, issued_at_ms, rule, valid_days))
        if through > granted_through:
            with translated():
                await connection.execute(
                    """INSERT INTO campaign_settlement (campaign_id, granted_through) VALUES (%s, %s)
                       ON CONFLICT (campaign_id) DO UPDATE SET granted_through =
                           greatest(campaign_settlement.granted_through, excluded.granted_through)""",
                    (campaign_id, through),
                )
        outcomes = await self._at_once(missing, lambda issue: self._grant_issue(connection, issue))
        self.granted += sum(was_missing for _, was_missing in outcomes)
        return len(outcomes)

    async def _grant_issue(self, connection: AsyncConnection[TupleRow], issue: Issue) -> bool:
        """Whether its coupon was not there. One that may have left Redis is PostgreSQL's to answer."""
        try:
            return (await self._engine.coupons.grant(issue))[1]
        except MayBeCold as error:
            with translated():
                cursor = await connection.execute(
                    "SELECT FROM coupon WHERE (user_id, campaign_id) = (%s, %s)", (issue.user_id, issue.campaign_id)
                )
                is_granted = await cursor.fetchone() is not None
            return not is_granted and (await self._engine.coupons.grant(issue, error.asked))[1]

    async def _at_once(
        self, steps: Sequence[Step], call: Callable[[Step], Awaitable[Answer]]
    ) -> list[tuple[Step, Answer]]:
        """The steps that were answered, with their answers. What Redis would not do now is left to the next walk."""
        done = []
        for some in parts(steps, self._settings.settle_in_flight_max):
            for step, answer in zip(some, await answers_of(map(call, some)), strict=True):
                if isinstance(answer, EngineError):
                    self.left += 1
                    _log.debug("Left for later: %s: %s", step, answer)
                else:
                    done.append((step, answer))
        return done


def _together(steps: Sequence[Confirm]) -> list[list[Confirm]]:
    """The steps by partition and day, an order once in each, a call's worth at a time."""
    groups: dict[tuple[int, str], list[list[Confirm]]] = {}
    for step in dict.fromkeys(steps):
        calls = groups.setdefault((step.partition, step.day), [[]])
        if sum(len(each.product_ids) for each in calls[-1]) >= CONFIRM_PRODUCTS:
            calls.append([])
        calls[-1].append(step)
    return [call for calls in groups.values() for call in calls]


async def product_ids_of(connection: AsyncConnection[TupleRow], order_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The product ids of each order's lines."""
    with translated():
        cursor = await connection.execute(
            "SELECT order_id::text, array_agg(product_id) FROM order_line WHERE order_id = ANY(%s::uuid[]) GROUP BY 1",
            (list(order_ids),),
        )
        return {order_id: tuple(product_ids) for order_id, product_ids in await cursor.fetchall()}


async def _is_sold(connection: AsyncConnection[TupleRow], step: Confirm) -> bool:
    with translated():
        cursor = await connection.execute(
            "SELECT FROM reservation WHERE (partition, order_id) = (%s, %s::uuid) AND state = 'sold'",
            (step.partition, step.order_id),
        )
        return await cursor.fetchone() is not None
