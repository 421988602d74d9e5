"""What partitions have after their cursors, read from the servers that have it and made into rows.

Writing takes PostgreSQL about as long as reading takes the writer, so of a backlog the next batch is read meanwhile.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any

from engine.engine import Engine
from engine.errors import EngineError
from engine.lanes import Argument
from engine.together import answers_of
from engine.unawaited import look_at
from persistence.event_rows import Entry, EventError, RowBatch, SequenceGap, read_events

READ_WITHIN_S = 2.0
FIRST_PASS_EVENTS = 128
"""How many events a batch reads before it is known how large they are."""

BATCH_BYTES_MAX = 8 * 1024 * 1024
"""Most bytes of events in one batch, but for its last pass: parsed within seconds, however long the orders."""

SLICE_EVENTS = 100
"""How many events are made into rows, in under a millisecond, until others of the process have their turn."""

Command = tuple[Argument, ...]

Cursors = Mapping[int, tuple[int, int]]
"""(epoch, seq) of partitions."""

_FIELDS = itemgetter(1)


@dataclass(frozen=True, slots=True)
class PartitionHead:
    """How far a partition has come, as its meta says; ``server`` is the identity of the server that said so."""

    server: str
    seq: int
    durable: int


@dataclass(slots=True)
class Reading:
    """Rows of what some partitions have after ``began``, as the servers of ``heads`` had it."""

    heads: Mapping[int, PartitionHead]
    events_max: int
    """Most events that it is to hold. Past this, or `BATCH_BYTES_MAX`, it takes at most one more of each partition."""
    began: dict[int, tuple[int, int]] = field(default_factory=dict)
    entries: dict[int, list[Entry]] = field(default_factory=dict)
    batch: RowBatch = field(default_factory=RowBatch)
    troubles: list[EventError] = field(default_factory=list)
    """At most one of each partition, of which nothing further is read."""
    size: int = 0
    """Bytes of its events."""
    full: bool = False
    """Whether there is more after it, so that the next round is not to wait."""

    def goes_on_from(self, cursors: Cursors, heads: Mapping[int, PartitionHead]) -> bool:
        """Whether it is of the same history as these cursors and heads, and follows them."""
        return all(
            cursors.get(partition) == place and heads[partition].server == self.heads[partition].server
            for partition, place in self.began.items()
        )

    @property
    def ends(self) -> dict[int, tuple[int, int]]:
        """Where its partitions stand after it, but for those with trouble."""
        troubled = {trouble.partition for trouble in self.troubles}
        cursors = self.began | self.batch.cursors
        return {partition: place for partition, place in cursors.items() if partition not in troubled}


class EventReader:
    """Reads for one writer. `close` leaves nothing running."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ahead: asyncio.Task[Reading] | None = None

    def close(self) -> None:
        """Forget what is read ahead."""
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None

    def begin_ahead(self, reading: Reading, events_max: int) -> None:
        """Begin to read what follows, if there is more: the next `read` takes it when that is what it is asked for."""
        if reading.full:
            following = self._read(Reading(reading.heads, events_max), reading.ends)
            self._ahead = asyncio.get_running_loop().create_task(following)
            self._ahead.add_done_callback(look_at)

    async def finish_ahead(self) -> None:
        """Wait for what is read ahead: heads that are asked for from now on know of all of it."""
        if self._ahead is not None:
            await asyncio.wait({self._ahead})

    async def heads(self, partitions: Collection[int]) -> dict[int, PartitionHead]:
        """How far these partitions have come, but for those whose server is away or holds nothing of them."""
        lanes, keys = self._engine.lanes, self._engine.keys
        servers = {partition: server for partition in partitions if (server := lanes.identity(partition)) is not None}
        metas = await self._ask(servers, lambda partition: ("HMGET", keys.meta(partition), "seq", "durable"))
        return {
            partition: PartitionHead(servers[partition].decode(), int(seq), int(durable))
            for partition, (seq, durable) in metas.items()
            if seq is not None
        }

    async def read(self, cursors: Cursors, heads: Mapping[int, PartitionHead], events_max: int) -> Reading:
        """The events after the cursors, from the servers of ``heads`` and from no other."""
        reading = Reading(heads, events_max)
        task, self._ahead = self._ahead, None
        if task is not None:
            ahead = await task
            if ahead.events_max <= events_max and ahead.goes_on_from(cursors, heads):
                reading, reading.heads, reading.events_max = ahead, heads, events_max
                # What came after it was read waits for the next round, which is not to wait.
                ends = ahead.ends
                reading.full = ahead.full or any(heads[partition].seq > seq for partition, (_, seq) in ends.items())
        rest = {partition: place for partition, place in cursors.items() if partition not in reading.began}
        return await self._read(reading, rest)

    async def _read(self, reading: Reading, cursors: Cursors) -> Reading:
        entries_of = await self._read_entries(reading, cursors)
        in_turn = 0
        for partition, entries in entries_of.items():
            epoch, seq = cursors[partition]
            if not entries and reading.heads[partition].seq <= seq:
                continue
            reading.began[partition] = (epoch, seq)
            reading.entries[partition] = entries
            try:
                if not entries:
                    raise SequenceGap(partition, f"{epoch}-{seq + 1}", "it is not in the stream")
                for first in range(0, len(entries), SLICE_EVENTS):
                    some = entries[first : first + SLICE_EVENTS]
                    read_events(reading.batch, partition, epoch, seq + first, some)
                    in_turn += len(some)
                    if in_turn >= SLICE_EVENTS:
                        in_turn = 0
                        await asyncio.sleep(0)
            except EventError as error:
                reading.troubles.append(error)
        return reading

    async def _read_entries(self, reading: Reading, cursors: Cursors) -> dict[int, list[Entry]]:
        """The entries after the cursors, as many as there is room for, and one of each partition where there is none.

        An event may be an order of some hundred lines, so a batch, which is written under row locks, is bounded by its
        bytes too: the first pass takes few events, each next one twice as many for as long as they are small.
        """
        streams: dict[int, list[Entry]] = {}
        after = dict(cursors)
        events, size = reading.batch.events, reading.size
        pass_max = FIRST_PASS_EVENTS if size < BATCH_BYTES_MAX else 0
        while after:
            count = max(1, min(pass_max, reading.events_max - events) // len(after))
            entries_of = await self._read_pass(after, reading.heads, count)
            after = {}
            for partition, entries in entries_of.items():
                streams.setdefault(partition, []).extend(entries)
                events += len(entries)
                size += sum(map(len, chain.from_iterable(map(_FIELDS, entries))))
                if len(entries) == count:
                    epoch, _, seq = entries[-1][0].partition(b"-")
                    after[partition] = (int(epoch), int(seq))
            if events >= reading.events_max or size >= BATCH_BYTES_MAX:
                break
            pass_max = min(pass_max * 2, max(1, (BATCH_BYTES_MAX - size) * events // size)) if size else pass_max
        reading.size = size
        reading.full = reading.full or bool(after)
        return streams

    async def _read_pass(
        self, after: Cursors, heads: Mapping[int, PartitionHead], count: int
    ) -> dict[int, Sequence[Entry]]:
        # A server that has changed since the heads were read has other events, which are the recovery's to judge.
        servers = {partition: heads[partition].server.encode() for partition in after}

        def entries_after(partition: int) -> Command:
            epoch, seq = after[partition]
            return "XRANGE", self._engine.keys.events(partition), f"({epoch}-{seq}", "+", "COUNT", count

        return await self._ask(servers, entries_after)

    async def _ask(self, servers: Mapping[int, bytes], command: Callable[[int], Command]) -> dict[int, Any]:
        """What these servers answer for their partitions. A partition whose server cannot be reached, or is another one
        before or after the answer, is left out: of a cluster some may be, and the others do not wait for them.
        """
        execute, identity = self._engine.lanes.execute, self._engine.lanes.identity
        deadline = asyncio.get_running_loop().time() + READ_WITHIN_S
        asked = [partition for partition, server in servers.items() if identity(partition) == server]
        answers = await answers_of(execute(partition, *command(partition), deadline=deadline) for partition in asked)
        return {
            partition: answer
            for partition, answer in zip(asked, answers, strict=True)
            if not isinstance(answer, EngineError) and identity(partition) == servers[partition]
        }
