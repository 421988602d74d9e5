"""What operators look at and set right: the writer's progress, deliveries, alarms."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, Select, false, func, literal_column, select, text, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.order_ids import is_order_id
from persistence.alarms import KINDS
from persistence.history import History, Page
from persistence.presence import SHOWN_FOR_S
from persistence.tables import alarm, installation, orders, outbox, partition_cursor

DeliveryState = Literal["pending", "delivered", "dead"]


@dataclass(frozen=True, slots=True)
class CursorRow:
    """How far PostgreSQL has followed a partition, and why its writer stopped, if it did."""

    partition: int
    epoch: int
    seq: int
    server: str | None
    stopped: str | None


@dataclass(frozen=True, slots=True)
class DeliveryBacklog:
    """What the data platform has not: how many wait, for how long the oldest does, how many were given up."""

    waiting: int
    oldest_ms: int
    dead: int


@dataclass(frozen=True, slots=True)
class InstallationState:
    """The whole installation as PostgreSQL knows it."""

    generation: int | None
    cursors: tuple[CursorRow, ...]
    server_version: str
    schema_revision: str | None
    workers: int
    alarms_open: int
    deliveries: DeliveryBacklog


@dataclass(frozen=True, slots=True)
class RecordedDelivery:
    """A paid order on its way to the data platform."""

    delivery_id: int
    order_id: str
    user_id: str
    state: str
    tries: int
    created_at: datetime
    next_try_at: datetime | None
    delivered_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries: of one state, one user, one order, where given."""

    state: DeliveryState | None = None
    user_id: str | None = None
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedAlarm:
    """An alarm, open or cleared."""

    alarm_id: int
    kind: str
    partition: int | None
    subject: str
    detail: str
    remedy: str
    raised_at: datetime
    cleared_at: datetime | None


_PRESENT = text(
    """SELECT (SELECT count(*) FROM worker_presence WHERE seen_at > now() - :shown_for_s * interval '1 s'),
               (SELECT count(*) FROM alarm WHERE cleared_at IS NULL)"""
)
_BACKLOG = text(
    """SELECT count(*), COALESCE(EXTRACT(epoch FROM now() - min(created_at)) * 1000, 0)::bigint,
               (SELECT count(*) FROM outbox WHERE state = 'dead')
        FROM outbox WHERE state = 'pending'"""
)


class Oversight:
    """Over the history's pool; each call raises `HistoryUnavailable` when PostgreSQL does not answer.

    All of them read, but `replay_delivery`, which puts a delivery back in line.
    """

    def __init__(self, history: History) -> None:
        self._history = history

    async def progress(self) -> InstallationState:
        """The generation, and every partition's cursor."""

        async def read(connection: AsyncConnection) -> InstallationState:
            generation = (await connection.execute(select(installation.c.generation))).scalar_one_or_none()
            rows = (await connection.execute(select(partition_cursor).order_by(partition_cursor.c.partition))).all()
            version = (await connection.execute(select(func.current_setting("server_version")))).scalar_one()
            revision = (
                await connection.exec_driver_sql("SELECT version_num FROM alembic_version")
            ).scalar_one_or_none()
            cursors = tuple(CursorRow(row.partition, row.epoch, row.seq, row.server, row.stopped) for row in rows)
            workers, alarms = (await connection.execute(_PRESENT, {"shown_for_s": SHOWN_FOR_S})).one()
            return InstallationState(
                generation, cursors, version, revision, workers, alarms, await _backlog(connection)
            )

        return await self._history.read(read)

    async def deliveries(self, wanted: DeliveryFilter, limit: int, before_id: int | None) -> Page[RecordedDelivery]:
        """Deliveries, newest first; the cursor is the last id of the page."""
        query = _newest(wanted.state, limit + 1)
        if wanted.user_id is not None:
            # The outbox knows users of what waits only; the history of orders knows them all.
            query = query.where(
                outbox.c.order_id.in_(select(orders.c.order_id).where(orders.c.user_id == wanted.user_id))
            )
        if wanted.order_id is not None:
            is_one = is_order_id(wanted.order_id)
            query = query.where(outbox.c.order_id == wanted.order_id if is_one else false())
        if before_id is not None:
            query = query.where(outbox.c.id < before_id)
        rows = await self._history.rows(query)
        items = tuple(_delivery(row) for row in rows[:limit])
        return Page(items, str(items[-1].delivery_id) if len(rows) > limit else None)

    async def deliveries_now(self, limit: int) -> tuple[DeliveryBacklog, tuple[RecordedDelivery, ...]]:
        """The backlog and the newest deliveries, the newest given up where there are such, both as of one moment."""

        async def read(connection: AsyncConnection) -> tuple[DeliveryBacklog, tuple[RecordedDelivery, ...]]:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            backlog = await _backlog(connection)
            rows = await connection.execute(_newest("dead" if backlog.dead else None, limit))
            return backlog, tuple(map(_delivery, rows))

        return await self._history.read(read)

    async def replay_delivery(self, delivery_id: int, key: str | None = None) -> tuple[RecordedDelivery, bool] | None:
        """Put a delivery back in line, whatever became of it; ``None`` when there is none of this id.

        Not a second time for the same idempotency key (its digest), whose home is the delivery: the flag says so.
        """
        this = outbox.c.id == delivery_id
        query = (
            update(outbox)
            .where(this, true() if key is None else outbox.c.replay_key.is_distinct_from(key))
            .values(state="pending", tries=0, next_try_at=func.now(), delivered_at=None, last_error=None)
            .returning(outbox)
        )
        if key is not None:
            query = query.values(replay_key=key)

        async def replay(connection: AsyncConnection) -> tuple[RecordedDelivery, bool] | None:
            row = (await connection.execute(query)).one_or_none()
            await connection.commit()
            if row is not None:
                return _delivery(row), False
            row = (await connection.execute(select(outbox).where(this))).one_or_none()
            return None if row is None else (_delivery(row), True)

        return await self._history.read(replay)

    async def alarms(self, state: str | None, limit: int, before_id: int | None) -> Page[RecordedAlarm]:
        """Alarms, newest first; ``state`` is ``open``, ``cleared`` or ``None`` for all."""
        query = select(alarm).order_by(alarm.c.id.desc()).limit(limit + 1)
        if state == "open":
            query = query.where(alarm.c.cleared_at.is_(None))
        if state == "cleared":
            query = query.where(alarm.c.cleared_at.is_not(None))
        if before_id is not None:
            query = query.where(alarm.c.id < before_id)
        rows = await self._history.rows(query)
        items = tuple(_alarm(row) for row in rows[:limit])
        return Page(items, str(items[-1].alarm_id) if len(rows) > limit else None)

    async def open_kinds(self) -> list[tuple[RecordedAlarm, int]]:
        """The newest open alarm of each kind, the gravest kind first, and how many of it are open."""
        query = (
            select(alarm, func.count().over(partition_by=alarm.c.kind).label("alike"))
            .where(alarm.c.cleared_at.is_(None))
            .distinct(alarm.c.kind)
            .order_by(alarm.c.kind, alarm.c.id.desc())
        )
        found = [(_alarm(row), row.alike) for row in await self._history.rows(query)]
        return sorted(found, key=lambda item: KINDS.index(item[0].kind) if item[0].kind in KINDS else len(KINDS))


async def _backlog(connection: AsyncConnection) -> DeliveryBacklog:
    waiting, oldest_ms, dead = (await connection.execute(_BACKLOG)).one()
    return DeliveryBacklog(waiting, max(0, oldest_ms), dead)


def _newest(state: DeliveryState | None, limit: int) -> Select[Any]:
    query = select(outbox).order_by(outbox.c.id.desc()).limit(limit)
    # Written out, so that an index over one state serves.
    return query if state is None else query.where(outbox.c.state == literal_column(f"'{state}'"))


def _alarm(row: Row[Any]) -> RecordedAlarm:
    return RecordedAlarm(
        row.id, row.kind, row.partition, row.subject, row.detail, row.remedy, row.raised_at, row.cleared_at
    )


def _delivery(row: Row[Any]) -> RecordedDelivery:
    waiting = row.state == "pending"
    return RecordedDelivery(
        row.id,
        row.order_id,
        row.user_id,
        row.state,
        row.tries,
        row.created_at,
        row.next_try_at if waiting else None,
        row.delivered_at,
        row.last_error,
    )
