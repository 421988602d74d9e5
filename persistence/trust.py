"""Which Redis server is trusted for which partition, and how a server that was restarted becomes trusted again.

One worker at a time does this, under an advisory lock of PostgreSQL. Every step can be repeated, so a worker that dies
anywhere leaves work that the next one finishes.
"""

import logging
from collections.abc import Collection
from uuid import uuid4

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.claim import must_be_rebuilt, rebuild_token, server_of
from engine.engine import Engine
from engine.errors import EngineError
from engine.recovery import FIRST_EPOCH
from engine.together import all_of
from persistence.alarms import POSTGRES_BEHIND, UNTRUSTED, Alarm, clear_alarms, raise_alarm
from persistence.cooler import hot_ms
from persistence.cursors import (
    Cursor,
    ended_at,
    next_generation,
    note_drained,
    read_cursors,
    read_generation,
    set_servers,
)
from persistence.database import AdvisoryLock, translated
from persistence.rebuild import OnProgress
from persistence.reconcile import Reconciled
from persistence.recovery import Attempt, Partition, Plan, RecoveryHeld, each
from persistence.settings import WorkerSettings

IDLE_S = 60.0
"""How long nothing may be written of a partition until it is noted that there was nothing to write."""

_BEHIND_REMEDY = (
    "Bring back what PostgreSQL had (a later backup, its archived log, the standby that was ahead). If that is gone for"
    " good, `firstcome rebuild --accept-loss` makes Redis what PostgreSQL has now: what was answered since is lost"
)

_MOVING_REMEDY = (
    "None needed while it is moved; then it is made anew. Until then no partition is recovered: where nobody moves it,"
    " `firstcome doctor` shows its slot, and CLUSTER SETSLOT <slot> STABLE on every node ends the move"
)

_log = logging.getLogger("firstcome.trust")


class Trust:
    """Compares servers with the trusted ones, and recovers what can no longer be trusted."""

    def __init__(self, engine: Engine, settings: WorkerSettings | None = None) -> None:
        self._engine = engine
        # An order is settled some time after it was made: at its payment's deadline at the latest.
        self._hot_ms = hot_ms(settings or WorkerSettings(), engine.settings) + engine.policy.payment_deadline_ms
        # Whether the last look left nothing to do, alarms included.
        self._was_settled = False
        self.recoveries = 0

    async def look(self, connection: AsyncConnection[TupleRow]) -> bool:
        """Begin, recover or alarm what needs it; whether every partition is trusted now. Raises `DatabaseError`."""
        try:
            return await self._look(connection)
        except (EngineError, RecoveryHeld) as error:
            # A partition that cannot be reached holds the others back; the next look begins anew.
            _log.warning("Recovery waits: %s", error)
            return False

    async def _look(self, connection: AsyncConnection[TupleRow]) -> bool:
        generation = await read_generation(connection)
        moving = await self._engine.lanes.moving()
        # This process may be paused at any moment: what happens after the survey is nothing that it has seen.
        looked_at_ms = min(map(self._engine.lanes.now_ms, range(self._engine.partitions.count)))
        partitions = await self._survey(connection)
        if moving:
            self._was_settled = False
            await self._hold(connection, [each for each in partitions if each.number in moving])
            return False
        if self._was_settled and all(partition.is_settled(generation) for partition in partitions):
            await self._note_drained(connection, partitions, looked_at_ms)
            return True
        if not await self._lock(connection):
            return False
        try:
            self._was_settled = await self._recover(connection)
            return self._was_settled
        finally:
            await self._unlock(connection)

    async def rebuild(
        self,
        connection: AsyncConnection[TupleRow],
        numbers: Collection[int],
        progress: OnProgress,
        *,
        accept_loss: bool = False,
    ) -> Reconciled:
        """Make these partitions anew from PostgreSQL, trusted or not, and recover all others that need it.

        What Redis has more is written first, unless PostgreSQL has gone back; then only with ``accept_loss``. Raises
        `EngineError`, `RecoveryHeld` or `DatabaseError`; nothing but time is lost then, and it may be asked for again.
        """
        with translated():
            await connection.execute("SELECT pg_advisory_lock(%s)", (AdvisoryLock.TRUST,))
        try:
            partitions = await self._survey(connection)
            unreachable = [partition.number for partition in partitions if partition.server is None]
            if unreachable:
                raise RecoveryHeld(f"partitions {unreachable} cannot be reached")
            if moving := await self._engine.lanes.moving():
                raise RecoveryHeld(f"partitions {sorted(moving)} are being moved to other nodes")
            plan, behind = await self._plan(connection, partitions, set(numbers))
            if behind and not accept_loss:
                await self._raise_behind(connection, behind)
                raise RecoveryHeld(f"PostgreSQL has lost events of partitions {[each.number for each in behind]}")
            plan = Plan(plan.trusted, plan.continuing, (*plan.lost, *behind), plan.rebuild)
            return await self._attempt(connection, plan, progress)
        finally:
            await self._unlock(connection)

    async def _lock(self, connection: AsyncConnection[TupleRow]) -> bool:
        with translated():
            row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (AdvisoryLock.TRUST,))).fetchone()
        return bool(row and row[0])

    async def _unlock(self, connection: AsyncConnection[TupleRow]) -> None:
        with translated():
            await connection.execute("SELECT pg_advisory_unlock(%s)", (AdvisoryLock.TRUST,))

    async def _survey(self, connection: AsyncConnection[TupleRow]) -> list[Partition]:
        cursors = await read_cursors(connection)
        lanes = self._engine.lanes
        servers = {number: lanes.identity(number) for number in cursors}
        metas = await each(
            [number for number, server in servers.items() if server is not None], self._engine.recovery.inspect
        )
        found = []
        for number, cursor in sorted(cursors.items()):
            server, meta = servers[number], metas.get(number)
            if server is None or server != lanes.identity(number):
                meta = server = None
            found.append(Partition(number, server.decode() if server else None, meta, cursor))
        return found

    async def _hold(self, connection: AsyncConnection[TupleRow], moving: Collection[Partition]) -> None:
        """Let no flow into partitions whose keys go from one server to another one by one.

        A server that fails meanwhile may lose some keys of a partition and keep others, and no sequence shows that. So
        they are made anew when the move is over, or was given up. Until then every recovery waits.
        """
        for partition in moving:
            detail = "The slot of this partition is on its way from one node to another, says one of them"
            alarm = Alarm(UNTRUSTED, partition.number, "server", detail, _MOVING_REMEDY)
            if await raise_alarm(connection, alarm):
                _log.warning("Partition %d: %s. %s", partition.number, detail, _MOVING_REMEDY)
        trusted = [partition for partition in moving if partition.is_trusted]
        if not trusted or not await self._lock(connection):
            return
        try:
            claim = self._engine.recovery.claim(rebuild_token(uuid4().hex))
            for partition in trusted:
                assert partition.server is not None, "it is trusted"
                await claim.hold(partition.number, partition.server)
        finally:
            await self._unlock(connection)

    async def _note_drained(
        self, connection: AsyncConnection[TupleRow], partitions: Collection[Partition], at_ms: int
    ) -> None:
        # The cursors were read before the metas: where these say no more, there was nothing to write.
        drained = [each.number for each in partitions if each.meta is not None and each.meta.seq == each.cursor.seq]
        await note_drained(connection, drained, at_ms, IDLE_S)

    async def _recover(self, connection: AsyncConnection[TupleRow]) -> bool:
        partitions = await self._survey(connection)
        if any(partition.server is None for partition in partitions):
            return False
        begun = [partition for partition in partitions if _is_new(partition)]
        generation = await read_generation(connection)
        await all_of(self._begin(partition, generation) for partition in begun)
        await set_servers(
            connection,
            {partition.number: str(partition.server) for partition in begun},
            {partition.number: partition.cursor for partition in begun},
        )
        if begun:
            partitions = await self._survey(connection)
        plan, behind = await self._plan(connection, partitions, ())
        if behind:
            await self._raise_behind(connection, behind)
            return False
        if plan.continuing or plan.lost:
            await self._attempt(connection, plan, _log_progress)
        else:
            # A recovery that was cut short may have left the partitions at different generations.
            known = [partition.meta.generation for partition in plan.trusted if partition.meta is not None]
            if max(known, default=0) > generation:  # a database that went back knows less
                generation = await next_generation(connection, known)
            numbers = [partition.number for partition in plan.trusted]
            await each(numbers, lambda number: self._engine.recovery.raise_generation(number, generation))
            await self._clear_alarms(connection)
        return True

    async def _attempt(self, connection: AsyncConnection[TupleRow], plan: Plan, progress: OnProgress) -> Reconciled:
        for partition in plan.lost:
            await self._raise_untrusted(connection, partition)
        done = await Attempt(self._engine, connection, plan, self._hot_ms, progress).run()
        self.recoveries += 1
        await self._clear_alarms(connection)
        return done

    async def _clear_alarms(self, connection: AsyncConnection[TupleRow]) -> None:
        for number in range(self._engine.partitions.count):
            await clear_alarms(connection, UNTRUSTED, number)
            await clear_alarms(connection, POSTGRES_BEHIND, number)

    async def _begin(self, partition: Partition, generation: int) -> None:
        if partition.meta is None and not await self._engine.recovery.init(partition.number, generation):
            raise EngineError(f"partition {partition.number} was to be empty, and is not")

    async def _plan(
        self, connection: AsyncConnection[TupleRow], partitions: Collection[Partition], asked_for: Collection[int]
    ) -> tuple[Plan, list[Partition]]:
        """What is to become of each; second, those of which PostgreSQL has lost more than Redis has kept."""
        trusted, continuing, lost, behind = [], [], [], []
        to_rebuild = set(asked_for)
        for partition in partitions:
            if partition.is_trusted and partition.number not in asked_for:
                trusted.append(partition)
            elif await self._continues(connection, partition):
                continuing.append(partition)
                if self._was_moved(partition):
                    to_rebuild.add(partition.number)
            elif partition.meta is not None and partition.meta.durable > partition.cursor.seq:
                behind.append(partition)
            else:
                lost.append(partition)
        return Plan(tuple(trusted), tuple(continuing), tuple(lost), frozenset(to_rebuild)), behind

    def _was_moved(self, partition: Partition) -> bool:
        """Whether its keys may have come here one by one, or were on their way when they were last looked at."""
        assert partition.meta is not None, "what continues is there"
        mark = partition.meta.server
        return must_be_rebuilt(mark) or not self._engine.lanes.goes_on(partition.number, server_of(mark))

    async def _continues(self, connection: AsyncConnection[TupleRow], partition: Partition) -> bool:
        """Whether Redis is where PostgreSQL's cursor is, or goes on from there without a gap."""
        meta, cursor = partition.meta, partition.cursor
        if meta is None or meta.seq < cursor.seq:
            return False
        recovery = self._engine.recovery
        if meta.epoch < cursor.epoch:
            # An earlier epoch is good only where nothing came after it: its end was noted, and Redis not told yet.
            return meta.seq == cursor.seq == await ended_at(connection, partition.number, meta.epoch)
        if meta.seq == cursor.seq:
            return True
        # The first event after the cursor tells: a stream loses its oldest ones alone. It may be of a later epoch,
        # where PostgreSQL has lost the end of one.
        first = await recovery.first_event_after(partition.number, cursor.epoch, cursor.seq)
        return first is not None and first[1] == cursor.seq + 1

    async def _raise_untrusted(self, connection: AsyncConnection[TupleRow], partition: Partition) -> None:
        """Redis is behind PostgreSQL, or empty: nothing there is served until it is rebuilt."""
        detail = f"Redis has {_stand(partition)} where PostgreSQL has {partition.cursor.epoch}-{partition.cursor.seq}"
        remedy = "None needed: it is rebuilt from PostgreSQL as soon as every other partition can be reached"
        if await raise_alarm(connection, Alarm(UNTRUSTED, partition.number, "server", detail, remedy)):
            _log.warning("Partition %d is rebuilt: %s", partition.number, detail)

    async def _raise_behind(self, connection: AsyncConnection[TupleRow], partitions: Collection[Partition]) -> None:
        """PostgreSQL has gone back, and Redis has not kept what is missing there: only an operator may go on."""
        for partition in partitions:
            assert partition.meta is not None, "Redis has more"
            cursor = partition.cursor
            detail = (
                f"PostgreSQL has {cursor.epoch}-{cursor.seq}, but had the events up to {partition.meta.durable} once,"
                f" which Redis ({_stand(partition)}) has not kept"
            )
            alarm = Alarm(POSTGRES_BEHIND, partition.number, "PostgreSQL", detail, _BEHIND_REMEDY)
            if await raise_alarm(connection, alarm):
                _log.error("Partition %d: %s. %s", partition.number, detail, _BEHIND_REMEDY)


def _is_new(partition: Partition) -> bool:
    """Neither Redis nor PostgreSQL has ever had anything of it, but perhaps the beginning of a trust."""
    meta = partition.meta
    return partition.cursor == Cursor(FIRST_EPOCH, 0, None) and (
        meta is None or (meta.server == partition.server and meta.epoch == FIRST_EPOCH and meta.durable == 0)
    )


def _stand(partition: Partition) -> str:
    return f"{partition.meta.epoch}-{partition.meta.seq}" if partition.meta else "nothing"


def _log_progress(section: str, rows: int) -> None:
    _log.debug("Rebuilding: %s %d", section, rows)
