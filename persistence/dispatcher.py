"""The dispatcher: each paid order to the data platform (R3.5), at least once, in order per user.

An event is a CloudEvent 1.0 in structured JSON. It is written by hand: a dictionary of eight members, for which the
`cloudevents` package would add a model layer and nothing else.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL

from engine.positions import position_of, position_text
from persistence.alarms import DELIVERY_DEAD, Alarm, raise_alarm
from persistence.database import translated
from persistence.settings import WorkerSettings

EVENT_TYPE = "order.paid"
EVENT_SOURCE = "/firstcome"
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"

_LOCK = 0x46430003
IDLE_S = 0.1
"""Pause while nothing is due."""
SHARE_EVERY_S = 1.0
BODY_WITHIN_S = 1.0
BODY_BYTES_MAX = 65_536
SILENT_MAX_MS = 15_000
"""A dispatcher asks PostgreSQL something every `IDLE_S`; one that is silent for so long gives its share away."""

_DEAD_REMEDY = "See what the data platform answered, then replay the delivery"

_DUE = """
SELECT x.id, x.tries, x.event_id, x.user_id, x.order_id::text, o.subtotal, o.discount, o.total, o.coupon_id,
       o.ordered_at, o.pay_before, o.paid_at, o.partition, o.place,
       (SELECT json_agg(json_build_object('product_id', l.product_id, 'stock_id', l.stock_id, 'name', l.name,
                                          'option', l.option, 'unit_price', l.unit_price, 'quantity', l.quantity,
                                          'amount', l.amount) ORDER BY l.line_no)
        FROM order_line l WHERE l.order_id = x.order_id)
FROM outbox x JOIN orders o ON o.order_id = x.order_id
WHERE x.state = 'pending' AND x.next_try_at <= now() AND x.partition = ANY(%s) AND x.user_id <> ALL(%s)
  AND NOT EXISTS (SELECT FROM outbox e WHERE e.user_id = x.user_id AND e.state = 'pending' AND e.id < x.id)
ORDER BY x.next_try_at, x.id
LIMIT %s
"""

_log = logging.getLogger("firstcome.dispatcher")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One paid order to be told: the outbox row, how often it was tried, and what is sent."""

    id: int
    tries: int
    event_id: str
    user_id: str
    body: bytes


class Dispatcher:
    """Several may run: each partition's deliveries belong to the one that holds the partition's advisory lock."""

    def __init__(self, settings: WorkerSettings, currency: str) -> None:
        self._settings = settings
        self._currency = currency
        self._held: set[int] = set()
        # Posts under way, by user: a user's next order waits for the one before.
        self._under_way: dict[str, asyncio.Task[tuple[Delivery, str | None]]] = {}
        self._answers = True

    async def run(self, connection: AsyncConnection[TupleRow], share: Callable[[], Collection[int]]) -> None:
        """Deliver until cancelled. The locks live as long as the connection. Raises `DatabaseError`."""
        self._held.clear()
        timeout = self._settings.delivery_timeout_ms / 1000
        limits = httpx.Limits(max_connections=self._settings.delivery_in_flight_max)
        shared_at = float("-inf")
        async with httpx.AsyncClient(timeout=timeout, limits=limits) as client:
            # A worker that was stopped, and asks nothing, loses its locks with its session.
            with translated():
                await connection.execute(SQL("SET idle_session_timeout = {}").format(SILENT_MAX_MS))
            try:
                while True:
                    now = asyncio.get_running_loop().time()
                    if now - shared_at >= SHARE_EVERY_S:
                        await self._take_share(connection, set(share()))
                        shared_at = now
                    begun = await self._begin_due(connection, client)
                    await self._finish(connection, idle=not begun)
            finally:
                await self._abandon()

    async def _take_share(self, connection: AsyncConnection[TupleRow], share: set[int]) -> None:
        with translated():
            gone = sorted(self._held - share)
            if gone and not self._under_way:
                await connection.execute("SELECT pg_advisory_unlock(%s, p) FROM unnest(%s::int[]) p", (_LOCK, gone))
                self._held -= set(gone)
            wanted = sorted(share - self._held)
            if wanted:
                cursor = await connection.execute(
                    "SELECT p FROM unnest(%s::int[]) p WHERE pg_try_advisory_lock(%s, p)", (wanted, _LOCK)
                )
                self._held |= {partition for (partition,) in await cursor.fetchall()}

    async def _begin_due(self, connection: AsyncConnection[TupleRow], client: httpx.AsyncClient) -> bool:
        # While the platform does not answer, one post at a time finds out when it does again.
        limit = self._settings.delivery_in_flight_max if self._answers else 1
        free = limit - len(self._under_way)
        if free <= 0 or not self._held:
            return False
        with translated():
            cursor = await connection.execute(_DUE, (list(self._held), list(self._under_way), free), prepare=True)
            rows = await cursor.fetchall()
        for row in rows:
            delivery = self._delivery(row)
            self._under_way[delivery.user_id] = asyncio.create_task(self._post(client, delivery))
        return bool(rows)

    def _delivery(self, row: Sequence[Any]) -> Delivery:
        (outbox_id, tries, event_id, user_id, order_id, subtotal, discount, total, coupon_id, ordered_at, pay_before,
         paid_at, partition, place, lines) = row  # fmt: skip
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": EVENT_SOURCE,
            "type": EVENT_TYPE,
            "subject": order_id,
            "time": _rfc3339(paid_at),
            "datacontenttype": "application/json",
            # The order as the HTTP surface shows it.
            "data": {
                "order_id": order_id,
                "user_id": user_id,
                "status": "completed",
                "payment": {"status": "paid", "amount": total, "paid_at": _rfc3339(paid_at), "failure": None},
                "lines": lines or [],
                "subtotal": subtotal,
                "discount": discount,
                "total": total,
                "currency": self._currency,
                "coupon_id": coupon_id,
                "ordered_at": _rfc3339(ordered_at),
                "pay_before": None if pay_before is None else _rfc3339(pay_before),
                "position": position_text((position_of(partition, place),)),
                "durable": True,
            },
        }
        return Delivery(outbox_id, tries, event_id, user_id, orjson.dumps(event))

    async def _post(self, client: httpx.AsyncClient, delivery: Delivery) -> tuple[Delivery, str | None]:
        """Post once; None when it was taken, else what went wrong. The status alone is the answer."""
        headers = {"content-type": CONTENT_TYPE}
        url = self._settings.data_platform_url
        try:
            async with (
                asyncio.timeout(self._settings.delivery_timeout_ms / 1000),
                client.stream("POST", url, content=delivery.body, headers=headers) as answer,
            ):
                await _read_to_end(answer)
                return delivery, None if answer.is_success else f"answered {answer.status_code}"
        except httpx.HTTPError as error:
            return delivery, f"{type(error).__name__}: {error}"
        except TimeoutError:
            return delivery, f"no answer within {self._settings.delivery_timeout_ms} ms"

    async def _finish(self, connection: AsyncConnection[TupleRow], *, idle: bool) -> None:
        """Wait a little for posts under way and note what became of those that are answered."""
        if not self._under_way:
            if idle:
                await asyncio.sleep(IDLE_S)
            return
        done, _ = await asyncio.wait(self._under_way.values(), timeout=IDLE_S, return_when=asyncio.FIRST_COMPLETED)
        delivered = []
        for delivery, failure in [task.result() for task in done]:
            if failure is None:
                delivered.append(delivery.id)
            else:
                await self._failed(connection, delivery, failure)
            self._answers = failure is None
        with translated():
            await connection.execute(
                """UPDATE outbox SET state = 'delivered', tries = tries + 1, delivered_at = now(), last_error = NULL
                   WHERE id = ANY(%s)""",
                (delivered,),
            )
        # Only now: until it is on record a user's delivery is under way, and the next one waits.
        self._under_way = {user: task for user, task in self._under_way.items() if task not in done}

    async def _failed(self, connection: AsyncConnection[TupleRow], delivery: Delivery, failure: str) -> None:
        tries = delivery.tries + 1
        is_dead = tries >= self._settings.delivery_tries_max
        with translated():
            await connection.execute(
                """UPDATE outbox SET state = %s, tries = %s, last_error = %s,
                                     next_try_at = now() + %s * interval '1 ms'
                   WHERE id = %s""",
                ("dead" if is_dead else "pending", tries, failure, self._pause_ms(tries), delivery.id),
            )
        if is_dead:
            detail = f"given up after {tries} tries: {failure}"
            await raise_alarm(connection, Alarm(DELIVERY_DEAD, None, delivery.event_id, detail, _DEAD_REMEDY))
            _log.error("Delivery %s is %s. %s", delivery.event_id, detail, _DEAD_REMEDY)

    def _pause_ms(self, tries: int) -> float:
        longest = self._settings.delivery_backoff_max_ms
        # The exponent is bounded: past it the longest pause holds in any case.
        pause: int = min(longest, self._settings.delivery_backoff_ms << min(tries - 1, 30))
        return pause * random.uniform(0.5, 1.0)

    async def _abandon(self) -> None:
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        self._under_way.clear()


async def _read_to_end(answer: httpx.Response) -> None:
    """Read a body that ends soon, so that its connection serves again; leave one that is slow or long."""
    size = 0
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    return


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
