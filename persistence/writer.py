"""The writer: a partition's events into PostgreSQL, in order, each exactly once.

The rows and the cursor move in one transaction, under the lock of the cursor's row: so any number of writers may run,
and a writer that dies anywhere has either done a batch or not.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.errors import EngineError
from engine.events import decode_event
from engine.together import answers_of
from persistence.alarms import STOPPED, UNKNOWN_EVENT, Alarm, raise_alarm
from persistence.database import RowsRefused, translated
from persistence.event_reader import EventReader, PartitionHead
from persistence.event_rows import (
    CompletedOrder,
    Entry,
    EventError,
    LaterEpoch,
    RowBatch,
    SequenceGap,
    UnknownEvent,
)
from persistence.row_statements import prepare, write_rows
from persistence.settings import WorkerSettings

DUTY = "writer"
SESSION = f"firstcome {DUTY}"
"""What a writer's connection calls itself in PostgreSQL."""

RECOVERY_TAKES_S = 0.2
LEFT_FOR_S = 5.0
"""How long a partition that is stopped, or has an unknown event, is left alone before this worker looks again."""

STRAGGLING_FOR_S = 30.0
"""How long a partition is looked after that its worker has left unwritten: it may be cut off for long."""

STALLED_S = 10.0
"""How long a writer may be in one COPY, which takes well under a second, until its session is ended."""

_STOPPED_REMEDY = (
    "Look at the event (`firstcome events`), then let the writer try again or set the event aside; selling goes on"
    " until the backlog is full"
)
_UNKNOWN_REMEDY = "Upgrade the workers: they must be as new as the newest API process"

_log = logging.getLogger("firstcome.writer")


@dataclass(slots=True)
class Round:
    """What one round wrote. ``full``: there is more, so the next round need not wait."""

    events: int = 0
    full: bool = False
    completed: list[CompletedOrder] = field(default_factory=list)

    def add(self, other: "Round") -> None:
        """Count another round in."""
        self.events += other.events
        self.full = self.full or other.full
        self.completed += other.completed


class Writer:
    """One connection's writer, for one task. After a `DatabaseError` it is thrown away with its connection."""

    def __init__(self, engine: Engine, connection: AsyncConnection[TupleRow], settings: WorkerSettings) -> None:
        self._engine = engine
        self._connection = connection
        self._settings = settings
        self._reader = EventReader(engine)
        # Where the cursors are as far as is known here; the row under lock is the truth.
        self._written: dict[int, int] = {}
        self._left_until: dict[int, float] = {}
        self._durable_before: dict[int, int] = {}
        self._straggled_at: dict[int, float] = {}

    async def start(self) -> None:
        """Ready the connection."""
        with translated():
            await prepare(self._connection)

    def close(self) -> None:
        """Leave nothing running. The connection is its owner's."""
        self._reader.close()

    async def round(self, partitions: Collection[int]) -> Round:
        """Write what these partitions have, at most one batch of it. Raises `DatabaseError`, except for bad events:
        they stop their own partition, with an alarm.
        """
        await self._reader.finish_ahead()
        heads = await self._reader.heads(partitions)
        now = asyncio.get_running_loop().time()
        behind = {
            partition: head
            for partition, head in heads.items()
            if head.seq > self._written.get(partition, -1) and self._left_until.get(partition, 0) <= now
        }
        if not behind:
            return Round()
        return await self._write_apart(behind, self._settings.batch_events_max)

    async def stragglers(self, share: Collection[int], for_s: float = STRAGGLING_FOR_S) -> set[int]:
        """Partitions outside of ``share`` that had events, within the last ``for_s``, which nobody wrote between two
        calls of this.
        """
        outside = [partition for partition in range(self._engine.partitions.count) if partition not in share]
        heads = await self._reader.heads(outside)
        now = asyncio.get_running_loop().time()
        for partition, head in heads.items():
            if head.seq > head.durable == self._durable_before.get(partition):
                self._straggled_at[partition] = now
            self._durable_before[partition] = head.durable
        return {partition for partition in outside if now - self._straggled_at.get(partition, -inf) < for_s}

    async def end_stalled(self, stalled_s: float = STALLED_S) -> int:
        """End the sessions of writers that were paused in the midst of a COPY, and with them their locks; how many.

        PostgreSQL itself would wait for ever: while it reads a COPY from its client, neither of its timeouts is heeded.
        """
        with translated():
            cursor = await self._connection.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND usename = current_user AND application_name = %s
                         AND state = 'active' AND wait_event = 'ClientRead' AND query LIKE 'COPY %%'
                         AND query_start < now() - %s * interval '1 s'""",
                (SESSION, stalled_s),
            )
            return len(await cursor.fetchall())

    async def _write_apart(self, behind: dict[int, PartitionHead], events_max: int) -> Round:
        """Write; where the rows are refused, take the partitions apart until the bad event is alone in its batch."""
        try:
            return await self._write(behind, events_max)
        except RowsRefused as error:
            self._reader.close()  # what was read after it follows no longer
            if len(behind) == 1 and events_max == 1:
                (partition,) = behind
                await self._stop(partition, f"its next event cannot be applied: {error.reason}")
                return Round()
        result = Round()
        if len(behind) > 1:
            names = list(behind)
            for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                result.add(await self._write_apart({partition: behind[partition] for partition in half}, events_max))
            return result
        return await self._write_apart(behind, events_max // 2)

    async def _write(self, behind: dict[int, PartitionHead], events_max: int) -> Round:
        with translated():
            async with self._connection.transaction():
                cursors, unmarked = await self._lock(behind)
                reading = await self._reader.read(cursors, behind, events_max)
                batch = reading.batch
                self._reader.begin_ahead(reading, events_max)
                if batch.events:
                    await write_rows(self._connection, batch)
                    await self._advance(batch)
        for partition, (_, seq) in batch.cursors.items():
            self._written[partition] = seq
        await self._mark_durable(unmarked | batch.cursors)
        for trouble in reading.troubles:
            await self._leave_or_stop(trouble)
        if _log.isEnabledFor(logging.DEBUG):
            for partition, (_, seq) in batch.cursors.items():
                _tell_durable(partition, reading.entries[partition][: seq - reading.began[partition][1]])
        return Round(batch.events, reading.full, batch.completed)

    async def _lock(
        self, behind: dict[int, PartitionHead]
    ) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
        """Lock the cursors that no other writer holds and whose server is the one that is read; (epoch, seq) of each.

        Returns the cursors to write from, then those with nothing to write whose `durable` in Redis is behind.
        """
        cursor = await self._connection.execute(
            """SELECT partition, epoch, seq, server, stopped IS NOT NULL FROM partition_cursor
               WHERE partition = ANY(%s) ORDER BY partition FOR UPDATE SKIP LOCKED""",
            (list(behind),),
            prepare=True,
        )
        locked, unmarked = {}, {}
        for partition, epoch, seq, server, stopped in await cursor.fetchall():
            head = behind[partition]
            self._written[partition] = seq
            if stopped:
                self._leave(partition)
            elif server == head.server and head.seq > seq:
                locked[partition] = (epoch, seq)
            elif server == head.server and head.durable < seq:
                unmarked[partition] = (epoch, seq)
        return locked, unmarked

    def _leave(self, partition: int, for_s: float = LEFT_FOR_S) -> None:
        self._left_until[partition] = asyncio.get_running_loop().time() + for_s

    async def _is_kept(self, partition: int) -> bool:
        """Whether Redis still says that it has events to write: it may have been emptied between two questions."""
        head = (await self._reader.heads([partition])).get(partition)
        return head is not None and head.seq > self._written.get(partition, -1)

    async def _advance(self, batch: RowBatch) -> None:
        partitions = list(batch.cursors)
        cursor = await self._connection.execute(
            """UPDATE partition_cursor t SET seq = s.seq, updated_at = to_timestamp(s.at_ms / 1000.0)
               FROM unnest(%s::smallint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS s (partition, epoch, seq, at_ms)
               WHERE t.partition = s.partition AND t.epoch = s.epoch AND t.seq < s.seq""",
            (
                partitions,
                [batch.cursors[each][0] for each in partitions],
                [batch.cursors[each][1] for each in partitions],
                [batch.times[each] for each in partitions],
            ),
            prepare=True,
        )
        assert cursor.rowcount == len(partitions), "the cursors are locked, and their epoch was read under the lock"

    async def _mark_durable(self, cursors: dict[int, tuple[int, int]]) -> None:
        """Tell Redis. What fails here is done by a later round: until then the backlog only looks longer."""
        keep = self._settings.stream_keep_events
        answers = await answers_of(
            self._engine.recovery.mark_durable(partition, epoch, seq, seq - keep)
            for partition, (epoch, seq) in cursors.items()
        )
        for partition, answer in zip(cursors, answers, strict=True):
            if isinstance(answer, EngineError):
                self._written[partition] = -1

    async def _leave_or_stop(self, trouble: EventError) -> None:
        if isinstance(trouble, LaterEpoch) or (
            isinstance(trouble, SequenceGap) and not await self._is_kept(trouble.partition)
        ):
            # Redis has lost its events, or PostgreSQL an epoch: recovery sees it, and no operator need help.
            self._leave(trouble.partition, RECOVERY_TAKES_S)
            return
        if not isinstance(trouble, UnknownEvent):
            await self._stop(trouble.partition, f"{type(trouble).__name__} at {trouble.place}: {trouble.reason}")
            return
        self._leave(trouble.partition)
        alarm = Alarm(UNKNOWN_EVENT, trouble.partition, trouble.place, trouble.reason, _UNKNOWN_REMEDY)
        if await raise_alarm(self._connection, alarm):
            _log.error("%s %s", trouble, _UNKNOWN_REMEDY)

    async def _stop(self, partition: int, why: str) -> None:
        with translated():
            await self._connection.execute(
                """UPDATE partition_cursor SET stopped = %s, stopped_at = now()
                   WHERE partition = %s AND stopped IS NULL""",
                (why, partition),
            )
        await raise_alarm(self._connection, Alarm(STOPPED, partition, "writer", why, _STOPPED_REMEDY))
        _log.error("The writer of partition %d has stopped: %s. %s", partition, why, _STOPPED_REMEDY)


def _tell_durable(partition: int, entries: Sequence[Entry]) -> None:
    """A line for each of these events of a partition, with the request that it is for, if any."""
    for entry in entries:
        event = decode_event(partition, entry)
        more = {"position": f"{partition}:{event.place}"}
        if request_id := event.fields.get("request"):
            more["request_id"] = request_id
        _log.debug("Durable: %s", event.type, extra=more)
