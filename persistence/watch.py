"""What the metrics show of both stores: read every few seconds, however often they are scraped."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.errors import EngineError
from engine.recovery import Meta
from persistence.alarms import KINDS, STOCK_SHORT
from persistence.database import translated
from persistence.presence import SHOWN_FOR_S

WATCH_EVERY_S = 2.0

DELIVERIES_COUNTED_MAX = 10_000
"""Deliveries that wait are counted up to here: a platform that was away for a day must not make a look expensive."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition as both stores show it. What Redis does not tell is None; ``lag_s`` is the age of the oldest event
    that PostgreSQL has not."""

    durable: int
    is_stopped: bool
    is_trusted: bool
    sequence: int | None
    lag_s: float | None

    @property
    def backlog(self) -> int | None:
        """Events that PostgreSQL has not."""
        return None if self.sequence is None else max(0, self.sequence - self.durable)


@dataclass(frozen=True, slots=True)
class StoresSnapshot:
    """One look; ``at_s`` is on the monotonic clock."""

    at_s: float
    partitions: Mapping[int, PartitionState]
    alarms_open: Mapping[str, int]
    shortages: int
    deliveries_waiting: int
    delivery_oldest_s: float
    workers: int


class Watch:
    """Looks for ever, and keeps the last look."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.sight: StoresSnapshot | None = None

    async def run(self, connection: AsyncConnection[TupleRow]) -> None:
        """Look until cancelled. Raises `DatabaseError`."""
        while True:
            self.sight = await self.look(connection)
            await asyncio.sleep(WATCH_EVERY_S)

    async def look(self, connection: AsyncConnection[TupleRow]) -> StoresSnapshot:
        """One look. Raises `DatabaseError`; a Redis that does not answer is part of what is seen."""
        with translated():
            cursors = await (
                await connection.execute(
                    "SELECT partition, epoch, seq, server, stopped IS NOT NULL FROM partition_cursor"
                )
            ).fetchall()
            alarms = await (
                await connection.execute("SELECT kind, count(*) FROM alarm WHERE cleared_at IS NULL GROUP BY kind")
            ).fetchall()
            others = await (
                await connection.execute(
                    """SELECT (SELECT count(*) FROM alarm WHERE kind = %s),
                              (SELECT count(*) FROM worker_presence WHERE seen_at > now() - %s * interval '1 s'),
                              count(*), coalesce(extract(epoch FROM now() - min(d.created_at)), 0)::float
                       FROM (SELECT created_at FROM outbox WHERE state = 'pending'
                             ORDER BY next_try_at, id LIMIT %s) d""",
                    (STOCK_SHORT, SHOWN_FOR_S, DELIVERIES_COUNTED_MAX),
                )
            ).fetchone()
        assert others is not None, "an aggregate has a row"
        shortages, workers, waiting, oldest_s = others
        states = await asyncio.gather(*(self._state(*cursor) for cursor in cursors))
        return StoresSnapshot(
            time.monotonic(),
            {cursor[0]: state for cursor, state in zip(cursors, states, strict=True)},
            dict.fromkeys(KINDS, 0) | dict(alarms),
            shortages,
            waiting,
            oldest_s,
            workers,
        )

    async def _state(self, partition: int, epoch: int, seq: int, server: str | None, stopped: bool) -> PartitionState:
        meta: Meta | None = None
        lag_s: float | None = None
        identity = self._engine.lanes.identity(partition)
        try:
            meta = await self._engine.recovery.inspect(partition)
            if meta is not None:
                lag_s = await lag_after_ms(self._engine, partition, epoch, seq) / 1000 if meta.seq > seq else 0.0
        except EngineError:
            meta = None
        is_trusted = meta is not None and identity is not None and meta.server == identity.decode() == server
        return PartitionState(seq, stopped, is_trusted, None if meta is None else meta.seq, lag_s)


async def lag_after_ms(engine: Engine, partition: int, epoch: int, seq: int) -> int:
    """Age of the oldest event after this cursor, 0 where there is none. Raises `EngineError`."""
    at_ms = await engine.recovery.oldest_event_after_ms(partition, epoch, seq)
    return 0 if at_ms is None else max(0, engine.runner.now_ms(partition) - at_ms)
