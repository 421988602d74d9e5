"""Partitions of Redis made anew from their rows in PostgreSQL, field by field as the scripts write them.

Only for partitions whose cursors are fenced, so that no writer changes their rows meanwhile; then the rows are a whole
snapshot of each partition at its cursor's sequence. What is cold in PostgreSQL alone stays there.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.rows import TupleRow

from engine.claim import Claim
from engine.engine import Engine
from engine.eviction import Mark
from engine.idempotency import KEPT_MS
from engine.lanes import Argument
from engine.order_ids import lowest_order_id
from engine.together import parts
from persistence.database import translated
from persistence.hot_keys import FIELDS, MEMBERS, SALES_KEPT_DAYS, SECTIONS, Section, Shape, Write

FETCH_ROWS = 2_000
SCAN_COUNT = 1_000
CALL_KEYS_MAX = 250
CALL_ARGUMENTS_MAX = 4_000
"""A call of this size takes Redis well under a millisecond."""

CALLS_IN_FLIGHT_MAX = 16

MARK_MARGIN_MS = 60_000
"""An order's id is made by one clock, and its end is noted by another."""

OnProgress = Callable[[str, int], None]
"""Told now and then what is being loaded, and how many rows of it there were so far."""

_EPOCH_US = 946_684_800_000_000  # 2000-01-01, where PostgreSQL's timestamps begin


class _Milliseconds(Loader):
    """A ``timestamptz`` as ms since 1970, as the scripts write it."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        return (int.from_bytes(data, "big", signed=True) + _EPOCH_US) // 1000


class Rebuild:
    """Loads partitions under a claim that has begun to load them; the caller begins and finishes."""

    def __init__(self, engine: Engine, claim: Claim, hot_ms: int, progress: OnProgress) -> None:
        self._engine = engine
        self._claim = claim
        self._hot_ms = hot_ms
        self._progress = progress

    async def clear(self, partitions: Collection[int]) -> None:
        """Remove all that the partitions still hold but their meta: one scan of each server."""
        keys = self._engine.keys
        partition_of = {keys.prefix(partition).encode(): partition for partition in partitions}
        servers = {self._engine.lanes.identity(partition): partition for partition in partitions}
        removed = 0
        for partition in servers.values():
            async for found in self._engine.recovery.scan_keys(partition, SCAN_COUNT):
                groups: dict[int, list[bytes]] = {}
                for key in found:
                    # fc:{<tag>}:<rest>
                    owner = partition_of.get(key[: key.find(b"}") + 2])
                    if owner is not None:
                        groups.setdefault(owner, []).append(key)
                for owner, group in groups.items():
                    for some in parts(group, CALL_KEYS_MAX):
                        await self._claim.clear(owner, some)
                    removed += len(group)
                self._progress("keys removed", removed)

    async def load(self, connection: AsyncConnection[TupleRow], partitions: Collection[int], now_ms: int) -> None:
        """Load all that is hot, the time being ``now_ms``. Raises `DatabaseError` and `EngineError`."""
        hot_from_ms = now_ms - self._hot_ms
        parameters = {
            "partitions": list(partitions),
            "hot_from": lowest_order_id(hot_from_ms),
            "hot_from_at": datetime.fromtimestamp(hot_from_ms / 1000, UTC),
            "keys_from": now_ms - KEPT_MS,
            "sales_from": self._engine.days.last(SALES_KEPT_DAYS, now_ms)[0],
        }
        await self._note_cold(partitions, hot_from_ms, now_ms)
        with translated():
            async with connection.transaction():
                # These read whole tables; nobody waits for the rows.
                await connection.execute("SET LOCAL statement_timeout = 0")
                for section in SECTIONS:
                    await self._load_section(connection, section, parameters)

    async def _note_cold(self, partitions: Collection[int], hot_from_ms: int, now_ms: int) -> None:
        """What is left out has left, as if by eviction: the walks go on from there, a little before to be sure."""
        mark = str(Mark(hot_from_ms - MARK_MARGIN_MS, ""))
        # The count of evictions goes on from the time, so that none is ever told twice.
        fields: dict[str, Argument] = {"before": hot_from_ms, "times": now_ms, "reservations": mark, "coupons": mark}
        calls = _Calls(self._claim)
        try:
            for partition in partitions:
                calls.add((partition, self._engine.keys.cold(partition), tuple(fields), tuple(fields.values())))
            await calls.finish()
        finally:
            await calls.abandon()

    async def _load_section(
        self, connection: AsyncConnection[TupleRow], section: Section, parameters: dict[str, Any]
    ) -> None:
        calls = _Calls(self._claim)
        loaded = 0
        try:
            async with aclosing(_stream(connection, section, parameters)) as stream:
                async for rows in stream:
                    for write in section.writes(self._engine.keys, rows):
                        if calls.add(write):
                            await calls.make_room()
                    loaded += len(rows)
                    self._progress(section.name, loaded)
            await calls.finish()
        finally:
            await calls.abandon()


async def _stream(
    connection: AsyncConnection[TupleRow], section: Section, parameters: dict[str, Any]
) -> AsyncGenerator[list[TupleRow]]:
    """The rows as they come: the server keeps the rest, and fetches while what is here is sent."""
    async with connection.cursor(name=f"load_{section.name}", binary=True) as cursor:
        cursor.adapters.register_loader("timestamptz", _Milliseconds)
        await cursor.execute(section.query, parameters)
        fetching = asyncio.ensure_future(cursor.fetchmany(FETCH_ROWS))
        try:
            while rows := await fetching:
                fetching = asyncio.ensure_future(cursor.fetchmany(FETCH_ROWS))
                yield rows
        finally:
            await asyncio.wait({fetching})


class _Calls:
    """Gathers the keys of each partition into calls of one shape, and keeps some calls under way."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._gathered: dict[tuple[int, Shape], tuple[list[str], list[Argument]]] = {}
        self._under_way: deque[asyncio.Future[None]] = deque()

    def add(self, write: Write) -> bool:
        """Take a key in; whether there are so many calls under way now that one should be waited for."""
        partition, key, shape, values = write
        gathered = self._gathered.get((partition, shape))
        if gathered is None:
            head: list[Argument] = [shape[0], 0] if shape in (FIELDS, MEMBERS) else ["HSET", len(shape), *shape]
            gathered = self._gathered[partition, shape] = ([], head)
        keys, content = gathered
        keys.append(key)
        if content[1] == 0:
            content.append(len(values))
        content += values
        if len(keys) >= CALL_KEYS_MAX or len(content) >= CALL_ARGUMENTS_MAX:
            self._send(partition, shape)
            return len(self._under_way) >= CALLS_IN_FLIGHT_MAX
        return False

    async def make_room(self) -> None:
        """Wait for the oldest call. Raises what it raised."""
        await self._under_way.popleft()

    async def finish(self) -> None:
        """Send what is left and wait for all."""
        for partition, shape in list(self._gathered):
            self._send(partition, shape)
        while self._under_way:
            await self.make_room()

    async def abandon(self) -> None:
        """Wait for what is under way, whatever becomes of it."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _send(self, partition: int, shape: Shape) -> None:
        keys, content = self._gathered.pop((partition, shape))
        self._under_way.append(asyncio.ensure_future(self._claim.load(partition, keys, content)))
