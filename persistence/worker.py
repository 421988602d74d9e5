"""The worker process: writer, settler, sweeper, trust and dispatcher side by side, each on a connection of its own."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from uuid import uuid4

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine import garbage
from engine.engine import Engine, open_engine
from engine.errors import EngineError
from engine.settings import EngineSettings
from persistence.continuous_audit import ContinuousAudit
from persistence.database import DatabaseError, DatabaseUnavailable, connect
from persistence.dispatcher import Dispatcher
from persistence.installation import register_installation
from persistence.presence import announce, leave, share_of
from persistence.settings import WorkerSettings
from persistence.settler import Settler
from persistence.start_checks import StartRefused, require_safe_servers
from persistence.sweeper import Sweeper
from persistence.trust import Trust
from persistence.watch import Watch
from persistence.worker_metrics import Duties, DutyCounts, WorkerCollector, WriterCounts, metrics_port
from persistence.writer import DUTY, Writer

__all__ = ["StartRefused", "Worker", "run"]

BACKOFF_S = 0.2
BACKOFF_MAX_S = 5.0
STRAGGLERS_EVERY_S = 1.0
AFTERMATH_S = 30.0
"""How long after PostgreSQL's return nothing more is told of its absence."""

_log = logging.getLogger("firstcome.worker")

_Duty = Callable[[AsyncConnection[TupleRow]], Awaitable[None]]


async def run(settings: WorkerSettings, engine_settings: EngineSettings) -> None:
    """Work until SIGTERM or SIGINT, then stop cleanly: the batch under way is committed, this worker's share is freed.

    The schema must be there (`persistence.migrations.upgrade`). Raises `StartRefused`, `DatabaseError` or
    `engine.errors.Unavailable` when it cannot begin.
    """
    stop = asyncio.Event()
    with _stop_signals(stop):
        async with open_engine(engine_settings) as engine:
            worker = Worker(engine, settings)
            garbage.settle()
            with metrics_port(settings, worker.collector):
                await worker.run(stop)


class Worker:
    """One worker over an open engine; a process has one, a test may have several."""

    def __init__(self, engine: Engine, settings: WorkerSettings) -> None:
        self.id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._engine = engine
        self._settings = settings
        self._trust = Trust(engine, settings)
        self._settler = Settler(engine, settings)
        self._sweeper = Sweeper(engine, self._settler, settings)
        self._dispatcher = Dispatcher(settings, engine.settings.currency)
        self._audit = ContinuousAudit(engine, settings)
        self._share: tuple[int, ...] = ()
        self._watch = Watch(engine)
        self._postgres = _Outage()
        self._written = WriterCounts()
        self._duties: dict[str, DutyCounts] = {}
        duties = Duties(
            self._written, self._settler, self._sweeper, self._dispatcher, self._audit, self._trust, self._duties
        )
        self.collector = WorkerCollector(engine, duties, self._watch)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set. Duties that lose PostgreSQL or Redis begin again when it is back."""
        async with await self._connect("start") as connection:
            await require_safe_servers(connection, self._engine)
            await register_installation(connection, self._engine.settings)
        duties: dict[str, _Duty] = {"trust": self._keep_trust, "settler": self._settler.run, "sweeper": self._sweep}
        duties["auditor"] = lambda connection: self._audit.run(connection, lambda: self._share)
        if self._settings.data_platform_url:
            duties["dispatcher"] = lambda connection: self._dispatcher.run(connection, lambda: self._share)
        if self._settings.worker_metrics_port:
            duties["watch"] = self._watch.run
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(self._keep(name, duty)) for name, duty in duties.items()]
            # The writer is never cancelled in a transaction: it sees the stop between two rounds.
            await self._keep(DUTY, lambda connection: self._write(connection, stop), stop)
            for task in others:
                task.cancel()
        with contextlib.suppress(DatabaseError):
            async with await self._connect("stop") as connection:
                await leave(connection, self.id)

    async def _connect(self, duty: str) -> AsyncConnection[TupleRow]:
        return await connect(self._settings.database_url, f"firstcome {duty}")

    async def _keep(self, name: str, duty: _Duty, stop: asyncio.Event | None = None) -> None:
        """Keep a duty going over losses of its servers, with a backoff, until it ends by itself or ``stop`` is set."""
        loop = asyncio.get_running_loop()
        pause = BACKOFF_S
        counts = self._duties[name] = DutyCounts()
        while stop is None or not stop.is_set():
            began = loop.time()
            try:
                async with await self._connect(name) as connection:
                    self._postgres.answered(name)
                    counts.is_running = True
                    await duty(connection)
                    return
            except DatabaseUnavailable as error:
                self._postgres.failed(name, error)
            except DatabaseError as error:
                _log.warning("The %s is refused by PostgreSQL: %s", name, error)
            except EngineError as error:
                _log.warning("The %s waits for Redis: %s", name, error)
            except Exception:
                # A duty that nobody foresaw to fail must not end the others: the writer above all.
                _log.exception("The %s failed, and begins anew", name)
            finally:
                counts.is_running = False
            counts.failures += 1
            pause = BACKOFF_S if loop.time() - began > BACKOFF_MAX_S else min(pause * 2, BACKOFF_MAX_S)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _keep_trust(self, connection: AsyncConnection[TupleRow]) -> None:
        while True:
            workers = await announce(connection, self.id, self._settings.worker_dead_ms)
            self._share = share_of(self.id, workers, self._engine.partitions.count)
            await self._trust.look(connection)
            await asyncio.sleep(self._settings.trust_every_ms / 1000)

    async def _write(self, connection: AsyncConnection[TupleRow], stop: asyncio.Event) -> None:
        with contextlib.closing(Writer(self._engine, connection, self._settings)) as writer:
            await writer.start()
            await self._write_rounds(writer, stop)

    async def _write_rounds(self, writer: Writer, stop: asyncio.Event) -> None:
        poll_s, idle_s = self._settings.poll_ms / 1000, self._settings.poll_idle_ms / 1000
        stragglers: set[int] = set()
        looked_at = asyncio.get_running_loop().time()
        while True:
            began_s = asyncio.get_running_loop().time()
            result = await writer.round({*self._share, *stragglers})
            self._settler.offer(result.completed)
            now = asyncio.get_running_loop().time()
            if result.events:
                self._written.add(result.events, now - began_s)
            if now - looked_at >= STRAGGLERS_EVERY_S:
                stragglers = await writer.stragglers(self._share)
                if ended := await writer.end_stalled():
                    _log.warning("%d writers were paused in the midst of a COPY; their sessions are ended", ended)
                looked_at = now
            if stop.is_set():
                return
            if not result.full:
                await _pause(stop, poll_s if result.events else idle_s)

    async def _sweep(self, connection: AsyncConnection[TupleRow]) -> None:
        while True:
            await self._sweeper.step(connection, self._share)
            await asyncio.sleep(self._settings.walk_every_ms / 1000)


class _Outage:
    """Tells once that PostgreSQL is away, and once that it answers again, however many duties wait for it.

    Some find only later that the session that they had is gone.
    """

    def __init__(self) -> None:
        self._waiting: set[str] = set()
        self._is_told = False
        self._over_at = -AFTERMATH_S

    def failed(self, duty: str, error: DatabaseError) -> None:
        """A duty could not go on, or could not begin again."""
        is_known = self._is_told or time.monotonic() - self._over_at < AFTERMATH_S
        level = logging.DEBUG if is_known else logging.WARNING
        self._is_told |= not is_known
        self._waiting.add(duty)
        _log.log(level, "The %s waits for PostgreSQL: %s", duty, error)

    def answered(self, duty: str) -> None:
        """A duty has a connection."""
        self._waiting.discard(duty)
        if self._is_told and not self._waiting:
            self._is_told = False
            self._over_at = time.monotonic()
            _log.warning("PostgreSQL answers again")


async def _pause(stop: asyncio.Event, for_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            await stop.wait()


@contextlib.contextmanager
def _stop_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
