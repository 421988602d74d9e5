"""One attempt at a recovery: from the barrier that no flow spans to the trust in the servers (docs/architecture.md).

Every step may be the last of an attempt. What it leaves is not served from, and the next attempt judges it anew:

- the generation is raised in PostgreSQL first, so a later one is higher;
- a partition is held, or being loaded, under the attempt's own token, so a late command of this attempt does nothing;
- an epoch ends in PostgreSQL first, so an epoch's events never come from two attempts: each begins one of its own;
- the cursor names the one server that writers may read from, and is compared before it is changed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import uuid4

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.claim import rebuild_token
from engine.engine import Engine
from engine.errors import ClaimLost
from engine.recovery import FORMAT, Meta
from engine.together import all_of
from persistence.alarms import STOPPED, clear_alarms
from persistence.cursors import Cursor, end_epoch, next_generation, read_cursors, set_servers
from persistence.rebuild import OnProgress, Rebuild
from persistence.reconcile import Reconciled, Reconciliation

NO_PROGRESS_S = 10.0
"""How long an attempt waits for writers that write nothing; the next look begins another."""

LOOK_S = 0.02

_log = logging.getLogger("firstcome.recovery")

Answer = TypeVar("Answer")


class RecoveryHeld(Exception):
    """Something that recovery needs does not come; it begins anew."""


@dataclass(frozen=True, slots=True)
class Partition:
    """What is known of a partition at one moment: its server, what Redis holds, what PostgreSQL has."""

    number: int
    server: str | None
    meta: Meta | None
    cursor: Cursor

    @property
    def is_trusted(self) -> bool:
        """Redis and PostgreSQL both name the server that is there, and agree on the epoch; and Redis is not behind.

        The cursor was read first, so a partition that is behind it has gone back, though its server is the same.
        """
        return (
            self.meta is not None
            and self.server == self.meta.server == self.cursor.server
            and self.meta.epoch == self.cursor.epoch
            and self.meta.seq >= self.cursor.seq
        )

    def is_settled(self, generation: int) -> bool:
        """Trusted, and of the installation's generation."""
        return self.is_trusted and self.meta is not None and self.meta.generation == generation


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of each partition.

    ``trusted``: untouched. ``continuing``: Redis has all that PostgreSQL has; it is drained and goes on. ``lost``:
    loaded from PostgreSQL. ``rebuild``: numbers of the continuing ones that are loaded too, once drained.
    """

    trusted: tuple[Partition, ...]
    continuing: tuple[Partition, ...]
    lost: tuple[Partition, ...]
    rebuild: frozenset[int] = frozenset()


class Attempt:
    """Recovers the partitions of a plan, all of them or none is trusted.

    The caller holds the lock that lets one worker at a time recover. Raises `EngineError`, `RecoveryHeld` or
    `DatabaseError` when it cannot go on.
    """

    def __init__(
        self, engine: Engine, connection: AsyncConnection[TupleRow], plan: Plan, hot_ms: int, progress: OnProgress
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._plan = plan
        # Where this attempt ends early, what it held says whether it was to be made anew.
        self._claim = engine.recovery.claim(rebuild_token(uuid4().hex) if plan.rebuild else uuid4().hex)
        self._servers = {each.number: each.server for each in (*plan.trusted, *plan.continuing, *plan.lost)}
        self._rebuild = Rebuild(engine, self._claim, hot_ms, progress)

    async def run(self) -> Reconciled:
        """All steps; how much there was to reconcile."""
        plan = self._plan
        metas = [partition.meta for partition in (*plan.trusted, *plan.continuing) if partition.meta is not None]
        for partition in plan.lost:
            # Redis trusts itself, but it or PostgreSQL has gone back: nothing more may happen there.
            if partition.meta is not None and partition.meta.server == partition.server:
                await self._claim.hold(partition.number, partition.meta.server)
        generation = await next_generation(self._connection, [meta.generation for meta in metas])
        await self._cut(generation)
        drained = await self._drain()
        kept = [partition for partition in drained if partition.number not in plan.rebuild]
        for partition in kept:
            await self._begin_epoch(partition, generation)
        anew = [*plan.lost, *(partition for partition in drained if partition.number in plan.rebuild)]
        if anew:
            await self._load(anew, generation)

        held = [partition.number for partition in (*kept, *anew)]
        reconciliation = Reconciliation(self._engine, self._connection, self._claim, held, generation)
        done = await reconciliation.run(self._all_written)
        await each(held, self._trust)
        _log.warning(
            "%d partitions are trusted again, %d of them rebuilt, at generation %d; reconciled: %s",
            len(held), len(anew), generation, done,
        )  # fmt: skip
        return done

    # ---- the barrier ------------------------------------------------------------------------------------------------

    async def _cut(self, generation: int) -> None:
        """From here on no flow that began earlier goes on anywhere; and PostgreSQL has all that they did."""
        recovery = self._engine.recovery
        numbers = [partition.number for partition in self._plan.trusted]
        seqs = await each(numbers, lambda number: recovery.raise_generation(number, generation))
        cut = {number: seq for number, seq in seqs.items() if seq is not None}
        if len(cut) < len(seqs):
            raise ClaimLost("a partition that was trusted is not any more")
        await self._written(cut)

    # ---- partitions that have all that PostgreSQL has, and perhaps more ----------------------------------------------

    async def _drain(self) -> list[Partition]:
        """Let the writers write what these have more; as they are then."""
        continuing = self._plan.continuing
        await set_servers(
            self._connection,
            {partition.number: partition.server for partition in continuing if partition.server is not None},
            {partition.number: partition.cursor for partition in continuing},
        )
        held = []
        for partition in continuing:
            assert partition.meta is not None, "what continues is there"
            epoch, seq = await self._claim.hold(partition.number, partition.meta.server)
            meta = replace(partition.meta, epoch=epoch, seq=seq)
            held.append(replace(partition, meta=meta))
        for partition in held:
            await self._feed_epochs(partition)
        await self._written({partition.number: partition.meta.seq for partition in held if partition.meta is not None})
        cursors = await read_cursors(self._connection)
        return [replace(partition, cursor=cursors[partition.number]) for partition in held]

    async def _feed_epochs(self, partition: Partition) -> None:
        """Where PostgreSQL has lost the end of epochs, end them anew, each where its events end."""
        number, meta = partition.number, partition.meta
        assert meta is not None, "what continues is there"
        cursor = (await read_cursors(self._connection))[number]
        while cursor.epoch < meta.epoch:
            later = await self._engine.recovery.first_event_after(number, cursor.epoch + 1, 0)
            next_epoch, seq = (later[0], later[1] - 1) if later is not None else (meta.epoch, meta.seq)
            await self._written({number: seq})
            cursor = await end_epoch(
                self._connection, number, replace(cursor, seq=seq, server=partition.server), next_epoch
            )

    async def _begin_epoch(self, partition: Partition, generation: int) -> None:
        meta, cursor = partition.meta, partition.cursor
        assert meta is not None, "what continues is there"
        ended = await end_epoch(self._connection, partition.number, cursor, cursor.epoch + 1)
        await self._claim.begin_epoch(partition.number, generation, meta.epoch, ended.epoch, meta.seq)

    # ---- partitions that are made anew ------------------------------------------------------------------------------

    async def _load(self, partitions: Collection[Partition], generation: int) -> None:
        servers = {partition.number: str(partition.server) for partition in partitions}
        # No writer reads for these while they are loaded: their rows stand still, and are one snapshot.
        fences = {number: self._claim.mark(server) for number, server in servers.items()}
        await set_servers(self._connection, fences, {partition.number: partition.cursor for partition in partitions})
        for number, server in servers.items():
            mark = await self._engine.recovery.mark(number)
            await self._claim.begin_load(number, mark if mark != server else self._claim.mark(server))
        await self._rebuild.clear(servers)
        now_ms = max(self._engine.lanes.now_ms(number) for number in servers)
        await self._rebuild.load(self._connection, servers, now_ms)
        cursors = await read_cursors(self._connection)
        # A database that went back may know less of epochs than Redis does; no position is ever given twice.
        epochs = {partition.number: partition.meta.epoch for partition in partitions if partition.meta is not None}
        for number, server in servers.items():
            cursor = cursors[number]
            next_epoch = max(cursor.epoch, epochs.get(number, 0)) + 1
            begun = await end_epoch(self._connection, number, cursor, next_epoch, rebuilt_on=server)
            await self._claim.finish_load(number, generation, begun.epoch, begun.seq, FORMAT)
            await clear_alarms(self._connection, STOPPED, number)

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def _trust(self, number: int) -> None:
        meta = await self._engine.recovery.inspect(number)
        if meta is None:
            raise ClaimLost(f"partition {number} is empty")
        await self._claim.trust(number, meta.epoch, meta.seq)

    async def _all_written(self) -> None:
        """Wait until PostgreSQL has what each partition has now."""
        metas = await each(range(self._engine.partitions.count), self._engine.recovery.inspect)
        await self._written({number: meta.seq for number, meta in metas.items() if meta is not None})

    async def _written(self, seqs: Mapping[int, int]) -> None:
        """Wait until PostgreSQL has each partition up to its sequence, as long as the writers get on."""
        loop = asyncio.get_running_loop()
        give_up_at, last = loop.time() + NO_PROGRESS_S, -1
        while True:
            cursors = await read_cursors(self._connection)
            behind = [number for number, seq in seqs.items() if cursors[number].seq < seq]
            if not behind:
                return
            # A slot that was moved meanwhile has a server that no writer reads from, until the next attempt.
            if any(self._is_elsewhere(number) for number in behind):
                raise RecoveryHeld(f"some of the partitions {behind} have another server now")
            # What the others write does not help these.
            written = sum(cursors[number].seq for number in behind)
            if written != last:
                give_up_at, last = loop.time() + NO_PROGRESS_S, written
            if loop.time() >= give_up_at:
                raise RecoveryHeld(f"the writers of partitions {behind} get on with nothing")
            await asyncio.sleep(LOOK_S)

    def _is_elsewhere(self, number: int) -> bool:
        server = self._engine.lanes.identity(number)
        return server is None or server.decode() != self._servers[number]


async def each(numbers: Iterable[int], call: Callable[[int], Awaitable[Answer]]) -> dict[int, Answer]:
    """Call for all at once; the answers by number."""
    wanted = list(numbers)
    return dict(zip(wanted, await all_of(map(call, wanted)), strict=True))
