"""The dispatcher: each paid order to the data platform (R3.5), at least once, in order per user."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL

from persistence.alarms import DELIVERY_DEAD, DELIVERY_LATE, Alarm, clear_alarm, raise_alarm
from persistence.database import AdvisoryLock, translated
from persistence.metric_families import Distribution
from persistence.settings import WorkerSettings
from persistence.webhooks import (
    CONTENT_TYPE,
    Delivery,
    Signer,
    batch_body,
    batch_id,
    in_batches,
    order_paid,
    read_secrets,
)

IDLE_S = 0.1
"""Pause while nothing is due."""
SHARE_EVERY_S = 1.0
WATCH_EVERY_S = 3.0
PROBE_PAUSE_MAX_MS = 5_000
"""A platform that does not take what it is sent is asked at least so often, whatever the pauses of single events."""
RETRY_AFTER_MAX_S = 60
BODY_WITHIN_S = 1.0
BODY_BYTES_MAX = 65_536
SILENT_MAX_MS = 15_000
"""A dispatcher asks PostgreSQL something every `IDLE_S`; one that is silent for so long gives its share away."""

SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
"""Bounds of how long a post takes, for the metrics."""

ALARM_SUBJECT = "data platform"
_DEAD_REMEDY = "See what the data platform answered, then replay what is dead: POST /admin/v1/deliveries/{id}/replay"
_LATE_REMEDY = "Bring the data platform back; what waits is sent by itself, in order"

_DUE = """
SELECT x.id, x.tries, COALESCE(x.last_error LIKE 'answered%%', false), x.event_id, x.user_id, x.order_id::text,
       o.subtotal, o.discount, o.total, o.coupon_id, o.ordered_at, o.pay_before, o.paid_at, o.partition, o.place,
       x.request_id,
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

_FAILED = """
UPDATE outbox x SET state = f.state, tries = f.tries, last_error = %s,
                    next_try_at = now() + f.pause_ms * interval '1 ms'
FROM unnest(%s::bigint[], %s::text[], %s::int[], %s::float8[]) AS f (id, state, tries, pause_ms)
WHERE x.id = f.id
"""

_WAITING = """
SELECT count(*), COALESCE(EXTRACT(epoch FROM now() - min(created_at)) * 1000, 0)::bigint
FROM outbox WHERE state = 'pending'
"""

_DEAD = """
SELECT event_id, tries, last_error, (SELECT count(*) FROM outbox WHERE state = 'dead')
FROM outbox WHERE state = 'dead' ORDER BY id DESC LIMIT 1
"""

_log = logging.getLogger("firstcome.dispatcher")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a post: `failure` is None when its batch was taken; `refused`: the platform has answered."""

    batch: Sequence[Delivery]
    failure: str | None = None
    refused: bool = False
    retry_after_s: float = 0.0


class Dispatcher:
    """Several may run: each partition's deliveries belong to the one that holds the partition's advisory lock."""

    def __init__(self, settings: WorkerSettings, currency: str) -> None:
        self._settings = settings
        self._currency = currency
        self._signer = Signer(read_secrets(settings.data_platform_secrets))
        self._held: set[int] = set()
        # Posts under way, and the users whose next order waits for one of them.
        self._under_way: set[asyncio.Task[_Outcome]] = set()
        self._users: set[str] = set()
        self._failures_in_a_row = 0
        self._resume_at = 0.0
        self._watched_at = 0.0
        self.delivered = self.failed = self.dead = 0
        self.seconds = Distribution(SECONDS)

    async def run(self, connection: AsyncConnection[TupleRow], share: Callable[[], Collection[int]]) -> None:
        """Deliver until cancelled. The locks live as long as the connection. Raises `DatabaseError`."""
        self._held.clear()
        timeout = self._settings.delivery_timeout_ms / 1000
        limits = httpx.Limits(max_connections=self._settings.delivery_in_flight_max)
        shared_at = self._watched_at = float("-inf")
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
                    if now - self._watched_at >= WATCH_EVERY_S:
                        await self._watch(connection)
                        self._watched_at = now
                    begun = await self._begin_due(connection, client)
                    await self._finish(connection, idle=not begun)
            finally:
                await self._abandon()

    async def _take_share(self, connection: AsyncConnection[TupleRow], share: set[int]) -> None:
        with translated():
            gone = sorted(self._held - share)
            if gone and not self._under_way:
                await connection.execute(
                    "SELECT pg_advisory_unlock(%s, p) FROM unnest(%s::int[]) p", (AdvisoryLock.DELIVERY, gone)
                )
                self._held -= set(gone)
            wanted = sorted(share - self._held)
            if wanted:
                cursor = await connection.execute(
                    "SELECT p FROM unnest(%s::int[]) p WHERE pg_try_advisory_lock(%s, p)",
                    (wanted, AdvisoryLock.DELIVERY),
                )
                self._held |= {partition for (partition,) in await cursor.fetchall()}

    async def _watch(self, connection: AsyncConnection[TupleRow]) -> None:
        """Raise and clear the alarms of deliveries, over all partitions: whichever dispatcher looks sees the same."""
        with translated():
            dead = await (await connection.execute(_DEAD)).fetchone()
            waiting = await (await connection.execute(_WAITING)).fetchone()
        detail = ""
        if dead is not None:
            detail = f"{dead[3]} given up; the last one, event {dead[0]}, after {dead[1]} tries: {dead[2]}"
        await _show(connection, DELIVERY_DEAD, detail, _DEAD_REMEDY)
        detail = ""
        if waiting is not None and waiting[1] > self._settings.delivery_late_ms:
            detail = f"{waiting[0]} wait for the data platform, the oldest for {waiting[1] // 1000} s"
        await _show(connection, DELIVERY_LATE, detail, _LATE_REMEDY)

    async def _begin_due(self, connection: AsyncConnection[TupleRow], client: httpx.AsyncClient) -> bool:
        settings = self._settings
        # While the platform takes nothing, one event at a time finds out when it does again.
        if self._failures_in_a_row:
            paused = asyncio.get_running_loop().time() < self._resume_at
            free, events = (0 if self._under_way or paused else 1), 1
        else:
            free, events = settings.delivery_in_flight_max - len(self._under_way), settings.delivery_batch_max
        if free <= 0 or not self._held:
            return False
        with translated():
            cursor = await connection.execute(_DUE, (list(self._held), list(self._users), free * events), prepare=True)
            rows = await cursor.fetchall()
        batches = in_batches([order_paid(row, self._currency) for row in rows], events)
        for batch in batches[:free]:
            self._users.update(delivery.user_id for delivery in batch)
            self._under_way.add(asyncio.create_task(self._timed(self._post(client, batch))))
        return bool(rows)

    async def _post(self, client: httpx.AsyncClient, batch: Sequence[Delivery]) -> _Outcome:
        """Post once. The status alone is the answer."""
        body = batch_body(batch)
        headers = {"content-type": CONTENT_TYPE, **self._signer.headers(batch_id(batch), body, datetime.now(UTC))}
        url = self._settings.data_platform_url
        try:
            async with (
                asyncio.timeout(self._settings.delivery_timeout_ms / 1000),
                client.stream("POST", url, content=body, headers=headers) as answer,
            ):
                await _read_to_end(answer)
                if answer.is_success:
                    return _Outcome(batch)
                return _Outcome(batch, f"answered {answer.status_code}", True, _retry_after_s(answer))
        except httpx.HTTPError as error:
            return _Outcome(batch, f"{type(error).__name__}: {error}")
        except TimeoutError:
            return _Outcome(batch, f"no answer within {self._settings.delivery_timeout_ms} ms")

    async def _timed(self, post: Coroutine[None, None, _Outcome]) -> _Outcome:
        began_s = asyncio.get_running_loop().time()
        outcome = await post
        self.seconds.add(asyncio.get_running_loop().time() - began_s)
        return outcome

    async def _finish(self, connection: AsyncConnection[TupleRow], *, idle: bool) -> None:
        """Wait a little for posts under way and note what became of those that are answered."""
        if not self._under_way:
            if idle:
                await asyncio.sleep(IDLE_S)
            return
        done, _ = await asyncio.wait(self._under_way, timeout=IDLE_S, return_when=asyncio.FIRST_COMPLETED)
        delivered: list[int] = []
        for outcome in [task.result() for task in done]:
            if outcome.failure is None:
                delivered += [delivery.id for delivery in outcome.batch]
                if _log.isEnabledFor(logging.DEBUG):
                    for delivery in outcome.batch:
                        more = {"position": delivery.event_id}
                        if delivery.request_id is not None:
                            more["request_id"] = delivery.request_id
                        _log.debug("Delivered", extra=more)
                self._failures_in_a_row = 0
            else:
                await self._failed(connection, outcome, outcome.failure)
        with translated():
            await connection.execute(
                """UPDATE outbox SET state = 'delivered', tries = tries + 1, delivered_at = now(), last_error = NULL
                   WHERE id = ANY(%s)""",
                (delivered,),
            )
        self.delivered += len(delivered)
        # Only now: until it is on record a user's delivery is under way, and the next one waits.
        self._under_way -= done
        self._users -= {delivery.user_id for task in done for delivery in task.result().batch}

    async def _failed(self, connection: AsyncConnection[TupleRow], outcome: _Outcome, failure: str) -> None:
        batch = outcome.batch
        self._failures_in_a_row += 1
        pause_ms = min(self._pause_ms(self._failures_in_a_row), PROBE_PAUSE_MAX_MS)
        self._resume_at = asyncio.get_running_loop().time() + max(pause_ms / 1000, outcome.retry_after_s)
        tries = [delivery.tries + 1 for delivery in batch]
        # Of a batch that was refused none is given up: it may be another of it that the platform took ill.
        may_be_others = outcome.refused and len(batch) > 1
        dead = [number >= self._settings.delivery_tries_max and not may_be_others for number in tries]
        self.failed += len(batch)
        self.dead += sum(dead)
        states = ["dead" if is_dead else "pending" for is_dead in dead]
        pauses = [self._pause_ms(number) for number in tries]
        with translated():
            await connection.execute(_FAILED, (failure, [delivery.id for delivery in batch], states, tries, pauses))
        _log.warning("%d events were not delivered, the first %s: %s", len(batch), batch[0].event_id, failure)
        if any(dead):
            self._watched_at = float("-inf")

    def _pause_ms(self, tries: int) -> float:
        longest = self._settings.delivery_backoff_max_ms
        # The exponent is bounded: past it the longest pause holds in any case.
        pause: int = min(longest, self._settings.delivery_backoff_ms << min(tries - 1, 30))
        return pause * random.uniform(0.5, 1.0)

    async def _abandon(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._under_way.clear()
        self._users.clear()


async def _show(connection: AsyncConnection[TupleRow], kind: str, detail: str, remedy: str) -> None:
    """Raise the alarm of this kind with its detail, or clear it where there is none."""
    if not detail:
        await clear_alarm(connection, kind, ALARM_SUBJECT)
    elif await raise_alarm(connection, Alarm(kind, None, ALARM_SUBJECT, detail, remedy)):
        _log.error("Deliveries: %s. %s", detail, remedy)


def _retry_after_s(answer: httpx.Response) -> float:
    """How long the platform asks to be left alone, bounded."""
    text = answer.headers.get("retry-after", "")
    return float(min(int(text), RETRY_AFTER_MAX_S)) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0


async def _read_to_end(answer: httpx.Response) -> None:
    """Read a body that ends soon, so that its connection serves again; leave one that is slow or long."""
    size = 0
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    return
