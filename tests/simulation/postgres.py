"""PostgreSQL as the worker sees it: the real one, a statement at a time, whose clock is the simulation's."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from tests.simulation.network import Network, Process
from tests.simulation.virtual_time import VirtualLoop

SESSION = """
SET synchronous_commit = off;
SET lock_timeout = '10ms';
SET timezone = 'UTC'
"""

_NOW = re.compile(r"\bnow\(\)")


class Sessions:
    """Sessions to be used again: those of the dead are rolled back, as the server does when a client is gone."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: dict[str, list[psycopg.Connection[TupleRow]]] = {}
        self._all: list[psycopg.Connection[TupleRow]] = []

    def take(self, kind: str) -> tuple[psycopg.Connection[TupleRow], bool]:
        """A session of a kind, and whether it is a new one."""
        free = self._free.setdefault(kind, [])
        if free:
            return free.pop(), False
        session = psycopg.connect(self._url, autocommit=True)
        session.execute(SESSION)
        self._all.append(session)
        return session, True

    def give_back(self, kind: str, session: psycopg.Connection[TupleRow]) -> None:
        """End whatever it was at."""
        if session.info.transaction_status != TransactionStatus.IDLE:
            session.execute("ROLLBACK")
        session.execute("SELECT pg_advisory_unlock_all()")
        self._free[kind].append(session)

    def close(self) -> None:
        """End them all."""
        for session in self._all:
            session.close()


class VirtualConnection:
    """Stands in for an `AsyncConnection` of one process. Every statement is a step at which the process may die."""

    def __init__(
        self,
        sessions: Sessions,
        kind: str,
        process: Process,
        network: Network,
        loop: VirtualLoop,
        committed: Callable[[], None],
    ) -> None:
        self._sessions = sessions
        self._kind = kind
        self._process = process
        self._network = network
        self._loop = loop
        self._committed = committed
        self._session, self.is_new = sessions.take(kind)
        self._is_open = True
        self._has_steps = True

    def close(self) -> None:
        """The session ends, and with it what was not committed."""
        if self._is_open:
            self._is_open = False
            self._sessions.give_back(self._kind, self._session)

    @property
    def as_async(self) -> AsyncConnection[TupleRow]:
        """Itself, under the name of what it stands in for."""
        return cast("AsyncConnection[TupleRow]", self)

    async def execute(self, query: Any, params: Any = None, *, prepare: bool | None = None) -> "VirtualCursor":
        await self.step()
        return VirtualCursor(self, self._session.execute(self._at_our_time(query), params, prepare=prepare))

    def cursor(self, name: str = "", *, binary: bool = False) -> "VirtualCursor":
        cursor = self._session.cursor(name, binary=binary) if name else self._session.cursor(binary=binary)
        return VirtualCursor(self, cursor)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        await self.step()
        self._session.execute("BEGIN")
        try:
            yield
            await self.step()
        except BaseException:
            if self._is_open:
                self._session.execute("ROLLBACK")
            raise
        if self._is_open:
            self._session.execute("COMMIT")
            self._committed()
            await self.step()

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[None]:
        await self.step()
        with self._session.pipeline(), self.without_steps():
            yield

    @contextmanager
    def without_steps(self) -> Iterator[None]:
        """What is done within happens at once."""
        self._has_steps = False
        try:
            yield
        finally:
            self._has_steps = True

    async def step(self) -> None:
        """Between two statements; there is no such place within a pipeline."""
        if self._has_steps:
            await self._process.step(self._network.weather)

    def _at_our_time(self, query: Any) -> Any:
        """The query with the simulation's time for the server's."""
        if not isinstance(query, str) or "now()" not in query:
            return query
        return _NOW.sub(f"to_timestamp({self._loop.now_ms()} / 1000.0)", query)


class VirtualCursor:
    """Stands in for an `AsyncCursor`."""

    def __init__(self, connection: VirtualConnection, cursor: psycopg.Cursor[TupleRow]) -> None:
        self._connection = connection
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def adapters(self) -> Any:
        return self._cursor.adapters

    async def execute(self, query: Any, params: Any = None) -> None:
        await self._connection.step()
        self._cursor.execute(query, params)

    async def fetchall(self) -> list[TupleRow]:
        return self._cursor.fetchall()

    async def fetchone(self) -> TupleRow | None:
        return self._cursor.fetchone()

    async def fetchmany(self, size: int) -> list[TupleRow]:
        return self._cursor.fetchmany(size)

    @asynccontextmanager
    async def copy(self, statement: Any) -> AsyncIterator["_Copy"]:
        await self._connection.step()
        with self._cursor.copy(statement) as copy:
            yield _Copy(copy)

    async def __aenter__(self) -> "VirtualCursor":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection._is_open:
            self._cursor.close()


class _Copy:
    def __init__(self, copy: psycopg.Copy) -> None:
        self._copy = copy

    async def write(self, data: bytes) -> None:
        self._copy.write(data)
