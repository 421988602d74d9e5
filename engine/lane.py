"""A lane: all calls to one Redis server, multiplexed over one connection that is kept up."""

import asyncio
import logging
import random
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from hiredis import ReplyError

from engine.errors import EngineError, OutcomeUnknown, Overloaded, ServerError, Unavailable
from engine.lane_connection import Argument, Call, LaneConnection
from engine.lane_counts import LaneCounts
from engine.redis_address import RedisAddress
from engine.scripts import Script
from engine.server_identity import IDENTITY_COMMANDS, NotServing, ServerIdentity, read_identity
from engine.together import all_of
from engine.unawaited import look_at

# The server cannot run this now and did not: wait for it, or for another one at the same address.
_SERVER_NOT_READY = frozenset({"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN"})
# What a node of a cluster says of a slot; nothing is wrong with the node.
_SLOT_ELSEWHERE = frozenset({"ASK", "CLUSTERDOWN", "MOVED", "TRYAGAIN"})
# The server will not run this, and did not, until an operator has helped it: waiting is of no use to a caller.
_SERVER_IN_NEED = frozenset({"MISCONF", "NOREPLICAS", "OOM"})
# No other try can change these answers to the first commands of a connection.
_LOGIN_REFUSED = frozenset({"ERR", "NOAUTH", "NOPERM", "WRONGPASS"})
# So begins the answer to whatever a connection asks first that is one too many; another time there may be room.
_NO_ROOM = "max number of clients"
# Redis 6.2 wraps the error of a command inside of a script into one of its own.
_WRAPPED_ERROR = re.compile(r"ERR Error running script .*?: -(?P<error>[A-Z]+ .*)", re.DOTALL)

EARLY_WRITE_CALLS = 32
"""With so many waiting, a write does not wait for the end of the tick: else the server and this process take turns, and
with 64 connections half a core of two has nothing to do.

Not under TLS: uvloop reports the loss of such a connection one tick late, and what is written in between is lost.
"""

CLOSED = "this process has closed its connection"

_LOADS_MAX = 3  # a script that is still not there after it was loaded so often does not compile
_OWN = -1  # in the place of "how often loaded": a command of the lane's own, which judges its errors itself
_RECHECK_PAUSE_S = 0.02
_TELL_NEED_EVERY_S = 30.0
_LOOK_PAUSE_S = 0.02  # the deadlines within it are looked after together: a look goes through all that wait

_log = logging.getLogger("firstcome.lane")


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """How patient a lane is. ``reply_timeout_s`` below half of a request's deadline leaves time to send again."""

    connect_timeout_s: float = 5.0
    reply_timeout_s: float = 2.0  # a server that owes replies and sends nothing for so long is given up
    drain_timeout_s: float = 2.0
    probe_interval_s: float = 1.0
    backoff_min_s: float = 0.02
    backoff_max_s: float = 1.0
    # Queued and in flight: at 15 us a call a server works off so many in an eighth of a second.
    in_flight_limit: int = 8192
    client_name: str = "firstcome"


class Router(Protocol):
    """Who has several lanes, and knows which one leads to a partition."""

    def reroute(self, lane: "Lane", call: Call, code: str, message: str) -> None:
        """The server of this lane has not executed the call, and says why: send it where it belongs, or later."""

    def troubled(self) -> None:
        """A lane has lost its server, or has not found it: another one may be in its place."""


class Lane:
    """The one connection to a server and the queue before it.

    Calls leave at the end of their event loop tick, or as soon as `EARLY_WRITE_CALLS` wait. While there is no
    connection they wait, each until its deadline. A server that answers as a replica, or as one that is loading or
    busy, is left and connected to anew (the address may lead to another one by then), and the calls it refused are sent
    again. What callers get is written at `engine.lanes.Lanes`.

    With a router, the lane is one to a node of a cluster: what the node refuses goes back to the router.
    """

    __slots__ = (
        "_address", "_attention", "_clock_offset_ms", "_closing", "_connection", "_early_write_calls", "_failures",
        "_first", "_flush_due", "_identity", "_keeper", "_limit", "_load_errors", "_loop", "_origin", "_queue",
        "_refused", "_router", "_settings", "_tell_need_at", "_timer", "_told", "_trouble", "_unloaded", "_wake_at",
        "counts",
    )  # fmt: skip

    def __init__(
        self,
        address: RedisAddress,
        settings: LaneSettings,
        counts: LaneCounts | None = None,
        router: Router | None = None,
    ) -> None:
        self.counts = counts or LaneCounts()
        self._address = address
        self._settings = settings
        self._router = router
        self._limit = settings.in_flight_limit
        self._early_write_calls = sys.maxsize if address.tls else EARLY_WRITE_CALLS
        self._connection: LaneConnection | None = None
        self._identity: bytes | None = None
        self._origin = b""
        self._clock_offset_ms = 0
        self._queue: list[Call] = []
        self._flush_due = False
        self._unloaded: dict[bytes, Script] = {}  # by sha1: load them with the next write
        self._load_errors: dict[bytes, tuple[str, str]] = {}  # by sha1: code and message
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = inf
        self._trouble = "not connected yet"
        self._told = ""  # the trouble that stands in the log last, and still holds
        self._refused = ""  # what the server said when it would not serve
        self._tell_need_at = 0.0
        self._failures = 0
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def identity(self) -> bytes | None:
        """The identity that scripts are sent with now, None while there is no connection."""
        return self._identity

    @property
    def under_way(self) -> int:
        """How many calls wait to be written or answered."""
        return len(self._queue) + (0 if self._connection is None else len(self._connection.in_flight))

    @property
    def first(self) -> asyncio.Future[None]:
        """Done with the first connection, or when the login was refused."""
        return self._first

    @property
    def trouble(self) -> str:
        """Where it leads to, and why it is not connected, when it is not."""
        return f"{self._address}: {self._trouble}"

    @property
    def origin(self) -> bytes:
        """The replication id whose history the server went on with when it was promoted; nothing where it was not."""
        return self._origin

    def now_ms(self) -> int:
        """The server's wall clock as last compared with this machine's, in ms since 1970."""
        return time.time_ns() // 1_000_000 + self._clock_offset_ms

    def open(self, trouble: str) -> None:
        """Take calls in and connect to nothing: each waits until its deadline, or until it is taken away."""
        self.counts.lanes.append(self)
        self._loop = asyncio.get_running_loop()
        self._attention = asyncio.Event()
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._first.add_done_callback(look_at)
        self._trouble = trouble

    def begin(self) -> None:
        """Begin to connect, and go on until it is closed."""
        self.open(self._trouble)
        self._keeper = self._loop.create_task(self._keep_connected(), name=f"lane to {self._address}")

    async def start(self, *, patient: bool = False) -> None:
        """Connect and learn the identity. Raises Unavailable when that takes longer than ``connect_timeout_s`` or the
        login is refused; or goes on trying, where it is ``patient``.
        """
        self.begin()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._first
        except (TimeoutError, Unavailable):
            if not patient:
                trouble = self._unavailable()
                await self.close()
                raise trouble from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Take no new calls, wait for those under way up to ``drain_timeout_s``, then drop the connection."""
        self._closing = True
        if self in self.counts.lanes:
            self.counts.lanes.remove(self)
        if self._keeper is not None:
            under_way = {call[0] for call in self._calls() if not call[0].done()}
            if under_way:
                await asyncio.wait(under_way, timeout=self._settings.drain_timeout_s)
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._first.cancel()
        for call in self._queue:
            if not call[0].done():
                call[0].set_exception(self._unavailable())
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def recheck(self) -> None:
        """Ask for the identity now rather than within ``probe_interval_s``."""
        self._attention.set()

    # ---- the queue -------------------------------------------------------------------------------------------------

    def call(
        self,
        partition: int,
        script: Script | None,
        keys: Sequence[bytes | str],
        arguments: Sequence[Argument],
        deadline: float,
    ) -> asyncio.Future[Any]:
        """Run a script, with the identity of the connection that it is written to as its ARGV[1], or a plain command.

        This is the hot path: no coroutine, no timer, no object but the future and a tuple.
        """
        future = self._loop.create_future()
        queue = self._queue
        connection = self._connection
        under_way = len(queue) if connection is None else len(queue) + len(connection.in_flight)
        if under_way >= self._limit:
            self.counts.shed += 1
            future.set_exception(Overloaded(f"{under_way} calls to {self._address} are under way"))
            return future
        if self._closing:
            future.set_exception(self._unavailable())
            return future
        if deadline < self._wake_at:
            if deadline <= self._loop.time():
                future.set_exception(Unavailable("there was no time left to send it"))
                return future
            self._wake(deadline)
        queue.append((future, deadline, script, keys, arguments, 0, partition))
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        elif len(queue) >= self._early_write_calls:
            self._send_queue()
        return future

    def put(self, call: Call) -> None:
        """Take over a call that was given to another lane, or refused; its caller has been let in already."""
        if self._closing:
            if not call[0].done():
                call[0].set_exception(self._unavailable())
            return
        self._queue.append(call)
        self._wake_for(call)
        self._flush_soon()

    def put_asking(self, call: Call) -> bool:
        """Send a call to the node that a slot is being moved to, with the ASKING that it takes; false if not now."""
        connection, identity = self._connection, self._identity
        if connection is None or identity is None or not connection.writable:
            return False
        asking = self._own("ASKING")
        asking[0].add_done_callback(look_at)
        self._write(connection, (asking, call), identity)
        self._wake_for(call)
        return True

    def take_queue(self) -> list[Call]:
        """The calls that were not written yet; they are the caller's now."""
        calls, self._queue = self._queue, []
        return calls

    def _put_again(self, call: Call, loads: int) -> None:
        self.counts.sent_again += 1
        self._queue.append((*call[:5], loads, call[6]))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        self._send_queue()

    def _send_queue(self) -> None:
        connection = self._connection
        identity = self._identity
        if connection is None or identity is None or not connection.writable or not (self._queue or self._unloaded):
            return
        calls, self._queue = self._queue, []
        if self._unloaded:
            calls[:0] = [self._load(script) for script in self._unloaded.values()]
            self._unloaded.clear()
        self._write(connection, calls, identity)

    def _write(self, connection: LaneConnection, calls: Sequence[Call], identity: bytes) -> None:
        self.counts.sent += connection.write(calls, identity)
        silent_at = connection.progress_at + self._settings.reply_timeout_s
        if silent_at < self._wake_at:
            self._wake(silent_at)

    def _own(self, *command: Argument) -> Call:
        """A command of the lane's own: it has no deadline but ``reply_timeout_s``, and passes the in-flight limit."""
        return (self._loop.create_future(), inf, None, (), command, _OWN, -1)

    def _load(self, script: Script) -> Call:
        def loaded(future: asyncio.Future[Any]) -> None:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, ServerError):
                self._load_errors[script.sha1] = (error.code, error.message)

        call = self._own("SCRIPT", "LOAD", script.source)
        call[0].add_done_callback(loaded)
        return call

    # ---- replies that are errors -------------------------------------------------------------------------------------

    def error_reply(self, call: Call, error: ReplyError) -> None:
        """Send again what the server has not executed and may execute yet; all else is the caller's."""
        text = str(error)
        if wrapped := _WRAPPED_ERROR.match(text):
            text = wrapped["error"]
        code, _, message = text.partition(" ")
        future, _, script, _, _, loads, _ = call
        self._attention.set()
        if future.done():
            return
        if loads == _OWN:
            future.set_exception(ServerError(code, message))
        elif code == "NOSCRIPT" and script is not None and loads < _LOADS_MAX:
            self._unloaded[script.sha1] = script
            self._put_again(call, loads + 1)
        elif self._router is not None and code in _SLOT_ELSEWHERE:
            self._router.reroute(self, call, code, message)
        elif code in _SERVER_NOT_READY:
            self._refused = text
            if self._router is None:
                self._put_again(call, loads)
            else:
                self._router.reroute(self, call, code, message)
            if self._connection is not None:
                self._connection.finish()
        elif code in _SERVER_IN_NEED:
            self._tell_need(text)
            future.set_exception(Unavailable(f"{self._address} refuses to write: {text}"))
        elif code == "NOSCRIPT" and script is not None and script.sha1 in self._load_errors:
            future.set_exception(ServerError(*self._load_errors[script.sha1]))
        else:
            future.set_exception(ServerError(code, message))

    def writable_again(self) -> None:
        """The connection takes more again: send what has gathered."""
        self._flush_soon()

    # ---- deadlines: one timer for all --------------------------------------------------------------------------------

    def _calls(self) -> list[Call]:
        return self._queue if self._connection is None else [*self._connection.in_flight, *self._queue]

    def _wake_for(self, call: Call) -> None:
        if call[1] < self._wake_at:
            self._wake(call[1])

    def _wake(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wake_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """Fail what is overdue, and leave a silent server.

        A process that was itself held up has read what came meanwhile: both event loops read before they run timers.
        """
        self._timer = None
        self._wake_at = inf
        self._queue = [call for call in self._queue if not call[0].done()]  # who gave up takes nobody's room
        now = self._loop.time()
        connection = self._connection
        silent_at = inf
        if connection is not None and connection.in_flight:
            silent_at = connection.progress_at + self._settings.reply_timeout_s
        waiting = [call for call in self._calls() if not call[0].done()]
        earliest = min((call[1] for call in waiting), default=inf)
        if connection is not None and silent_at <= now:
            silent_at = inf
            self.counts.silences += 1
            connection.drop(f"the server was silent for {self._settings.reply_timeout_s:g} s")
        if earliest <= now:
            self._expire(now)
            earliest = min((call[1] for call in waiting if call[1] > now), default=inf)
        wake_at = min(earliest, silent_at)
        if wake_at < self._wake_at:
            self._wake(max(wake_at, now + _LOOK_PAUSE_S))

    def _expire(self, now: float) -> None:
        for call in self._queue:
            if call[1] <= now and not call[0].done():
                call[0].set_exception(self._unavailable())
        self._queue = [call for call in self._queue if not call[0].done()]
        for call in self._connection.in_flight if self._connection is not None else ():
            if call[1] <= now and not call[0].done():
                call[0].set_exception(OutcomeUnknown(f"{self._address} has not answered in time"))

    # ---- the connection ----------------------------------------------------------------------------------------------

    def _unavailable(self) -> Unavailable:
        if self._closing:
            return Unavailable(CLOSED)
        if self._keeper is None:
            return Unavailable(self._trouble)
        remedy = "Check that Redis or Valkey runs there and that FIRSTCOME_REDIS_URL names it."
        return Unavailable(f"{self.trouble}. {remedy}")

    async def _keep_connected(self) -> None:
        while True:
            try:
                connection, identity = await self._connect()
                self._connection = connection
                self.counts.connections += 1
                if self._told:
                    _log.warning("%s answers again", self._address)
                    self._told = ""
                self._adopt(identity)
                self._trouble = "it does not take in what is sent"
                self._flush_soon()
                if not self._first.done():
                    self._first.set_result(None)
                connected_at = self._loop.time()
                self._trouble = await self._watch(connection)
                if not self._closing:
                    self._tell(self._trouble)
                if self._loop.time() - connected_at > self._settings.backoff_max_s:
                    self._failures = 0
            except Exception as error:  # whatever it was: a lane that stops trying is of no use to anyone
                self._note(error)
            finally:
                self._leave()
                if self._router is not None:
                    self._router.troubled()
            await asyncio.sleep(self._backoff_s())
            self._failures += 1

    def _note(self, error: Exception) -> None:
        if self._closing:
            return
        if isinstance(error, TimeoutError):
            self._trouble = f"no answer within {self._settings.connect_timeout_s:g} s"
        else:
            reason = error.reason if isinstance(error, EngineError) else str(error)
            self._trouble = reason or type(error).__name__
        self._tell(self._trouble)
        refused = isinstance(error, ServerError) and error.code in _LOGIN_REFUSED and not _has_no_room(error)
        if refused and not self._first.done():
            self._first.set_exception(self._unavailable())

    def _tell(self, trouble: str) -> None:
        """Log what is wrong: once for as long as it stays the same and the server does not answer."""
        if trouble != self._told:
            self._told = trouble
            _log.warning("%s: %s", self._address, trouble)

    def _tell_need(self, text: str) -> None:
        """Log that the server refuses to write, now and again for as long as it does: nobody else says when it ends."""
        now = self._loop.time()
        if now >= self._tell_need_at:
            self._tell_need_at = now + _TELL_NEED_EVERY_S
            _log.warning("%s refuses to write: %s", self._address, text)

    def _backoff_s(self) -> float:
        longest = min(self._settings.backoff_max_s, self._settings.backoff_min_s * 2.0 ** min(self._failures, 16))
        return longest * random.uniform(0.5, 1.0)

    def _adopt(self, identity: ServerIdentity) -> None:
        self._identity = identity.token
        self._origin = identity.origin
        self._clock_offset_ms = identity.clock_ms - time.time_ns() // 1_000_000

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.drop(self._trouble)
        self._connection = None
        self._identity = None

    async def _connect(self) -> tuple[LaneConnection, ServerIdentity]:
        address = self._address
        loop = self._loop
        async with asyncio.timeout(self._settings.connect_timeout_s):
            connection = LaneConnection(self, loop)
            if address.socket_path is not None:
                await loop.create_unix_connection(lambda: connection, address.socket_path)
            else:
                await loop.create_connection(lambda: connection, address.host, address.port, ssl=address.tls_context())
            try:
                await self._log_in(connection)
                return connection, await self._ask_identity(connection)
            except BaseException:
                connection.drop("it did not get ready")
                raise

    async def _log_in(self, connection: LaneConnection) -> None:
        address = self._address
        if address.password is not None:
            user = () if address.username is None else (address.username,)
            await self._ask(connection, ("AUTH", *user, address.password))
        try:
            await self._ask(connection, ("CLIENT", "SETNAME", self._settings.client_name))
        except ServerError as error:  # a name is for the operator's eyes; a server that allows none will do
            if _has_no_room(error):
                raise

    async def _ask(self, connection: LaneConnection, *commands: Sequence[Argument]) -> list[Any]:
        if connection.lost.done():
            raise OutcomeUnknown(connection.lost.result())
        calls = [self._own(*command) for command in commands]
        self._write(connection, calls, b"")
        return await all_of(call[0] for call in calls)

    async def _ask_identity(self, connection: LaneConnection) -> ServerIdentity:
        answers = await self._ask(connection, *IDENTITY_COMMANDS)
        return read_identity(*answers, in_cluster=self._router is not None)

    async def _watch(self, connection: LaneConnection) -> str:
        """Ask for the identity every second and whenever something went wrong. Returns why the connection was lost."""
        self._refused = ""
        self._attention.clear()
        connection.lost.add_done_callback(lambda _: self._attention.set())
        while not connection.lost.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.probe_interval_s):
                    await self._attention.wait()
            self._attention.clear()
            if connection.writable:
                try:
                    self._adopt(await self._ask_identity(connection))
                except (NotServing, ServerError) as error:
                    self._refused = str(error)
                    connection.finish()
                except OutcomeUnknown:
                    break
            # A storm of error replies shall not become a storm of questions.
            await asyncio.wait({connection.lost}, timeout=_RECHECK_PAUSE_S)
        return self._refused or await connection.lost


def _has_no_room(error: ServerError) -> bool:
    return error.message.startswith(_NO_ROOM)
