"""Which Redis server is trusted for which partition, and how a server that was restarted becomes trusted again.

One worker at a time does this, under an advisory lock of PostgreSQL. Every step can be repeated, so a worker that dies
anywhere leaves work that the next one finishes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.errors import EngineError
from engine.recovery import FIRST_EPOCH, FORMAT, Meta
from engine.settings import EngineSettings
from persistence.alarms import UNTRUSTED, Alarm, clear_alarms, raise_alarm
from persistence.database import translated

_LOCK = 0x46430002
CUT_WITHIN_S = 10.0
"""How long one attempt waits for the writers; the next second begins another."""
CUT_LOOK_S = 0.02

_REMEDY = (
    "Start the Redis server with the data it had (its append-only file or snapshot), or point FIRSTCOME_REDIS_URL at"
    " the server that has it; without that, the partition must be rebuilt from PostgreSQL"
)

_log = logging.getLogger("firstcome.trust")

Answer = TypeVar("Answer")


class StartRefused(Exception):
    """Starting would damage what is stored; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A partition's row of `partition_cursor`."""

    epoch: int
    seq: int
    server: str | None


@dataclass(frozen=True, slots=True)
class Partition:
    """What is known of a partition at one moment: its server, what Redis holds, what PostgreSQL has."""

    number: int
    server: str | None
    meta: Meta | None
    cursor: Cursor

    @property
    def is_trusted(self) -> bool:
        """Redis and PostgreSQL both name the server that is there."""
        return self.meta is not None and self.server == self.meta.server == self.cursor.server

    def is_settled(self, generation: int) -> bool:
        """Trusted, and of the installation's generation."""
        return self.is_trusted and self.meta is not None and self.meta.generation == generation

    @property
    def is_new(self) -> bool:
        """Neither Redis nor PostgreSQL has ever had anything of it, but perhaps the beginning of a trust."""
        nothing_written = self.cursor == Cursor(FIRST_EPOCH, 0, None)
        return nothing_written and (self.meta is None or self.meta.server == self.server)


async def register_installation(connection: AsyncConnection[TupleRow], settings: EngineSettings) -> None:
    """Record what the installation is, at the first start; later refuse to start as another one.

    Raises `StartRefused`.
    """
    with translated():
        async with connection.transaction():
            await connection.execute(
                """INSERT INTO installation (partitions, time_zone, currency, format) VALUES (%s, %s, %s, %s)
                   ON CONFLICT DO NOTHING""",
                (settings.partitions, settings.time_zone, settings.currency, int(FORMAT)),
            )
            cursor = await connection.execute("SELECT partitions, time_zone, currency, format FROM installation")
            row = await cursor.fetchone()
            assert row is not None, "it was there or has been inserted"
            _compare(row, settings)
            await connection.execute(
                """INSERT INTO partition_cursor (partition, epoch) SELECT p, %s FROM generate_series(0, %s) p
                   ON CONFLICT DO NOTHING""",
                (FIRST_EPOCH, settings.partitions - 1),
            )


def _compare(recorded: TupleRow, settings: EngineSettings) -> None:
    wanted = (settings.partitions, settings.time_zone, settings.currency, int(FORMAT))
    names = ("FIRSTCOME_PARTITIONS", "FIRSTCOME_TIME_ZONE", "FIRSTCOME_CURRENCY", "the format of keys and events")
    for name, have, want in zip(names, recorded, wanted, strict=True):
        if have != want:
            raise StartRefused(
                f"{name} is {want}, but this database was begun with {have}, and that cannot change: set it to {have},"
                " or use an empty database and an empty Redis"
            )


class Trust:
    """Compares servers with the trusted ones and, where it is safe, trusts them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Whether the last look left nothing to do, alarms included.
        self._was_settled = False

    async def look(self, connection: AsyncConnection[TupleRow]) -> bool:
        """Begin, recover or alarm what needs it; whether every partition is trusted now. Raises `DatabaseError`."""
        generation = await self._generation(connection)
        partitions = await self._survey(connection)
        if self._was_settled and all(partition.is_settled(generation) for partition in partitions):
            return True
        if not await self._lock(connection):
            return False
        try:
            self._was_settled = await self._recover(connection)
            return self._was_settled
        except EngineError as error:
            # A partition that cannot be reached holds the others back; the next look begins anew.
            _log.warning("Recovery waits: %s", error)
            return False
        finally:
            with translated():
                await connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))

    async def _lock(self, connection: AsyncConnection[TupleRow]) -> bool:
        with translated():
            row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))).fetchone()
        return bool(row and row[0])

    async def _survey(self, connection: AsyncConnection[TupleRow]) -> list[Partition]:
        with translated():
            cursor = await connection.execute("SELECT partition, epoch, seq, server FROM partition_cursor")
            cursors = {number: Cursor(epoch, seq, server) for number, epoch, seq, server in await cursor.fetchall()}
        lanes = self._engine.lanes
        servers = {number: lanes.identity(number) for number in cursors}
        metas = await _each(cursors, self._engine.recovery.inspect)
        found = []
        for number, cursor_row in sorted(cursors.items()):
            server, meta = servers[number], metas[number]
            if server is None or server != lanes.identity(number):
                meta = server = None
            found.append(Partition(number, server.decode() if server else None, meta, cursor_row))
        return found

    async def _recover(self, connection: AsyncConnection[TupleRow]) -> bool:
        partitions = await self._survey(connection)
        if any(partition.server is None for partition in partitions):
            return False
        untrusted = [partition for partition in partitions if not partition.is_trusted]
        begun = [partition for partition in untrusted if partition.is_new]
        generation = await self._generation(connection)
        await asyncio.gather(*[self._begin(partition, generation) for partition in begun])
        await self._record_servers(connection, begun)

        trusted = [partition.number for partition in partitions if partition.is_trusted or partition in begun]
        restarted = [partition for partition in untrusted if not partition.is_new]
        continuing = [partition for partition in restarted if await self._continues(partition)]
        lost = [partition for partition in restarted if partition not in continuing]
        for partition in lost:
            await self._alarm(connection, partition)
        if continuing:
            if not await self._recover_continuing(connection, trusted, continuing):
                return False
            trusted += [partition.number for partition in continuing]
        else:
            # A recovery that was cut short may have left the partitions at different generations.
            await _each(trusted, lambda number: self._engine.recovery.raise_generation(number, generation))
        for number in trusted:
            await clear_alarms(connection, UNTRUSTED, number)
        return not lost

    async def _begin(self, partition: Partition, generation: int) -> None:
        if partition.meta is None and not await self._engine.recovery.init(partition.number, generation):
            raise EngineError(f"partition {partition.number} was to be empty, and is not")

    async def _continues(self, partition: Partition) -> bool:
        """Whether Redis has every event after PostgreSQL's cursor, of the cursor's epoch, or of the one just ended."""
        meta, cursor = partition.meta, partition.cursor
        if meta is None or meta.seq < cursor.seq:
            return False
        if meta.epoch != cursor.epoch:
            # The epoch was raised in PostgreSQL, when all was drained; Redis had not been told yet.
            return meta.epoch + 1 == cursor.epoch and meta.seq == cursor.seq
        if meta.seq == cursor.seq:
            return True
        entries = await self._engine.lanes.execute(
            partition.number, "XRANGE", self._engine.keys.events(partition.number), f"({cursor.epoch}-{cursor.seq}",
            "+", "COUNT", 1, deadline=asyncio.get_running_loop().time() + CUT_WITHIN_S,
        )  # fmt: skip
        return bool(entries) and entries[0][0] == b"%d-%d" % (cursor.epoch, cursor.seq + 1)

    async def _recover_continuing(
        self, connection: AsyncConnection[TupleRow], trusted: list[int], continuing: list[Partition]
    ) -> bool:
        """The barrier: no flow that began before it goes on after it; then drain, end the epoch, trust."""
        generation = await self._raise_generation(connection)
        cut = await _each(trusted, lambda number: self._engine.recovery.raise_generation(number, generation))
        if None in cut.values() or not await self._written(
            connection, {n: seq for n, seq in cut.items() if seq is not None}
        ):
            return False
        # From here on the writers may read these servers; nothing new comes from them before they are trusted.
        await self._record_servers(connection, continuing)
        last = {partition.number: partition.meta.seq for partition in continuing if partition.meta is not None}
        if not await self._written(connection, last):
            return False
        for partition in continuing:
            assert partition.meta is not None
            epoch, seq, next_epoch = partition.meta.epoch, partition.meta.seq, partition.meta.epoch + 1
            await self._end_epoch(connection, partition.number, epoch, seq)
            if not await self._engine.recovery.trust(partition.number, generation, epoch, next_epoch, seq):
                return False
        _log.warning("%d partitions are trusted again, at generation %d", len(continuing), generation)
        return True

    async def _written(self, connection: AsyncConnection[TupleRow], seqs: dict[int, int]) -> bool:
        """Wait until PostgreSQL has each partition up to its sequence; false when that takes too long."""
        deadline = asyncio.get_running_loop().time() + CUT_WITHIN_S
        while asyncio.get_running_loop().time() < deadline:
            with translated():
                cursor = await connection.execute("SELECT partition, seq FROM partition_cursor")
                written: dict[int, int] = dict(await cursor.fetchall())
            behind = [number for number, seq in seqs.items() if written[number] < seq]
            if not behind:
                return True
            await asyncio.sleep(CUT_LOOK_S)
        _log.warning("Recovery waits for the writers of partitions %s", behind)
        return False

    async def _generation(self, connection: AsyncConnection[TupleRow]) -> int:
        with translated():
            row = await (await connection.execute("SELECT generation FROM installation")).fetchone()
        assert row is not None, "the installation was registered at the start"
        return int(row[0])

    async def _raise_generation(self, connection: AsyncConnection[TupleRow]) -> int:
        with translated():
            cursor = await connection.execute(
                "UPDATE installation SET generation = generation + 1 RETURNING generation"
            )
            row = await cursor.fetchone()
        assert row is not None, "the installation was registered at the start"
        return int(row[0])

    async def _record_servers(self, connection: AsyncConnection[TupleRow], partitions: list[Partition]) -> None:
        with translated():
            await connection.execute(
                """UPDATE partition_cursor t SET server = s.server
                   FROM unnest(%s::smallint[], %s::text[]) AS s (partition, server) WHERE t.partition = s.partition""",
                ([each.number for each in partitions], [each.server for each in partitions]),
            )

    async def _end_epoch(self, connection: AsyncConnection[TupleRow], number: int, epoch: int, seq: int) -> None:
        with translated():
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO epoch_end (partition, epoch, last_seq) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    (number, epoch, seq),
                )
                await connection.execute(
                    "UPDATE partition_cursor SET epoch = %s WHERE partition = %s AND epoch = %s AND seq = %s",
                    (epoch + 1, number, epoch, seq),
                )

    async def _alarm(self, connection: AsyncConnection[TupleRow], partition: Partition) -> None:
        """Redis is behind PostgreSQL, or empty: nothing there may be served. A rebuild would begin here."""
        cursor, meta = partition.cursor, partition.meta
        has = f"{meta.epoch}-{meta.seq}" if meta else "nothing"
        detail = f"Redis has {has} where PostgreSQL has {cursor.epoch}-{cursor.seq}"
        if await raise_alarm(connection, Alarm(UNTRUSTED, partition.number, "server", detail, _REMEDY)):
            _log.error("Partition %d is not trusted: %s. %s", partition.number, detail, _REMEDY)


async def _each(numbers: Iterable[int], call: Callable[[int], Awaitable[Answer]]) -> dict[int, Answer]:
    wanted = list(numbers)
    return dict(zip(wanted, await asyncio.gather(*map(call, wanted)), strict=True))
