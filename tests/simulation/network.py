"""The network between the engine and Redis: a lane implementation that holds calls and replies back, in seeded order.

Each partition has a server of its own as far as anybody can see: an identity, and an append-only file of what was
executed. What a server loses is the end of that file: the partition is emptied and the rest is executed anew.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.errors import OutcomeUnknown, ServerError, Unavailable
from engine.lanes import Argument, Lanes
from engine.partitions import Partitions
from engine.scripts import Script
from tests.simulation.virtual_time import VirtualLoop

REPLY_TIMEOUT_S = 1.5
LATE_S_MAX = 50.0
"""How late an original may arrive at the most: later than an order id may be old."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely it is that things go wrong on the way, for each call; and what somebody dies of."""

    request_lost: float = 0.0
    reply_lost: float = 0.0
    late: float = 0.0
    slow: float = 0.0
    flow_dies: float = 0.0
    worker_dies: float = 0.0


class Process:
    """An API or worker process: while it is dead, nothing of it goes on."""

    def __init__(self, name: str, loop: VirtualLoop, rng: random.Random) -> None:
        self.name = name
        self.is_alive = True
        self.dies_of_its_steps = False
        self.on_death: Callable[[], None] = lambda: None
        self._loop = loop
        self._rng = rng
        self._paused_until_s = 0.0

    def die(self) -> None:
        """Stop for ever: whoever waits waits on, and no clean-up runs."""
        if self.is_alive:
            self.is_alive = False
            self.on_death()

    def pause(self, for_s: float) -> None:
        """Take no step and notice nothing for a while."""
        self._paused_until_s = self._loop.time() + for_s

    def resumes_at_s(self) -> float:
        """The earliest moment at which it can notice anything."""
        return max(self._loop.time(), self._paused_until_s)

    async def step(self, weather: Weather) -> None:
        """A step on its way through its work: takes a moment, and it may die here."""
        await asyncio.sleep(self._rng.expovariate(5_000))
        if self.dies_of_its_steps and self._rng.random() < weather.worker_dies:
            self.die()
        if self.is_alive and self.resumes_at_s() > self._loop.time():
            await asyncio.sleep(self.resumes_at_s() - self._loop.time())
        if not self.is_alive:
            await self._loop.create_future()


@dataclass(frozen=True, slots=True, eq=False)
class Executed:
    """A script that a server has run: all that is needed to run it again."""

    name: str
    command: tuple[Argument, ...]
    keys: tuple[str, ...]
    arguments: dict[str, Any]
    at_ms: int

    @property
    def events_max(self) -> int:
        """How many events it may have appended: one, or one for each user who asks for a coupon."""
        return len(self.arguments["user"]) if self.name == "issue_coupons" else 1

    def alone(self, event: dict[str, str]) -> "Executed":
        """What it did by one of its events: durable together or not, each is a step of its own."""
        if self.events_max == 1:
            return self
        return replace(self, arguments=self.arguments | {"user": [event["user"]], "request": event["request"]})


@dataclass(slots=True)
class Server:
    """The server of one partition."""

    partition: int
    prefix: str
    incarnation: int = 0
    is_up: bool = True
    file: list[Executed] = field(default_factory=list)

    @property
    def identity(self) -> bytes:
        """Another after every restart."""
        return b"run%d.%d:repl%d" % (self.partition, self.incarnation, self.partition)


class Wire:
    """A bare connection to the real server. Commands sent together are answered together."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=10)
        self._connection: Any = self._client.connection_pool.get_connection()

    def run(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """The replies; an error reply as the exception."""
        if not commands:
            return []
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [self._reply() for _ in commands]

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except redis.ResponseError as error:
            return error

    def close(self) -> None:
        self._client.connection_pool.release(self._connection)
        self._client.close()


@dataclass(slots=True)
class _Call:
    process: Process
    server: Server
    identity: bytes
    script: Script | None
    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]
    answer: asyncio.Future[Any]
    sent_at_s: float


Witness = Callable[[Server, Executed, Any, list[Any]], None]
"""Told of each changing script that ran: where, what, the reply, and what its keys hold after it."""


class Network:
    """All servers and everything that is on its way. ``witness`` sees each execution, and may raise."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, wire: Wire, partitions: Partitions) -> None:
        self._loop = loop
        self._rng = rng
        self._wire = wire
        self._loaded: set[bytes] = set()
        self._pending: dict[int, _Call] = {}
        self.weather = Weather()
        self.witness: Witness = lambda *_: None
        self.calls = 0
        self.servers = [Server(number, f"fc:{{{partitions.tag(number)}}}:") for number in range(partitions.count)]

    # ---- what can happen to a server ---------------------------------------------------------------------------------

    def restart(self, server: Server, lose: int, down_s: float) -> None:
        """End a server; what comes back after a while has lost the last ``lose`` calls, and is another one."""
        self.empty(server, len(server.file) - lose)
        server.incarnation += 1
        server.is_up = False
        self._loop.call_later(down_s, setattr, server, "is_up", True)
        for number, call in list(self._pending.items()):
            if call.server is server:
                del self._pending[number]
                self._fail(call, OutcomeUnknown("the connection was lost"))

    def empty(self, server: Server, keep: int = 0) -> None:
        """Lose all but the first ``keep`` calls, on the spot: the server itself does not notice."""
        names = self.names(server)
        del server.file[max(0, keep) :]
        commands: list[tuple[Argument, ...]] = [("DEL", *names)] if names else []
        self._wire.run([*commands, *(executed.command for executed in server.file)])

    def names(self, server: Server) -> list[str]:
        """Every key of the server's partition."""
        (names,) = self._wire.run([("KEYS", server.prefix.replace("{", "\\{").replace("[", "\\[") + "*")])
        return sorted(name.decode() for name in names)

    def contents(self, names: Sequence[str]) -> list[Any]:
        """What keys hold: hashes and sorted sets flat, of streams the last entry."""
        return self._wire.run([_content_command(name) for name in names])

    # ---- calls -------------------------------------------------------------------------------------------------------

    def send(
        self,
        process: Process,
        partition: int,
        script: Script | None,
        keys: tuple[str, ...],
        arguments: tuple[Argument, ...],
        deadline: float,
    ) -> asyncio.Future[Any]:
        """Put a call on its way; the future is answered, refused or never done, as the weather is."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        server, now = self.servers[partition], self._loop.time()
        if not process.is_alive:
            return answer
        if not server.is_up:
            self._loop.call_later(0.001, self._settle, process, answer, None, Unavailable("it is down"))
            return answer
        call = _Call(process, server, server.identity, script, keys, arguments, answer, now)
        self.calls += 1
        number = self.calls
        self._pending[number] = call
        weather, fate, delay = self.weather, self._rng.random(), self._rng.expovariate(2_000)
        if fate < weather.request_lost:
            delay = -1.0
        elif fate < weather.request_lost + weather.late:
            delay = self._rng.uniform(REPLY_TIMEOUT_S, LATE_S_MAX)
        elif fate < weather.request_lost + weather.late + weather.slow:
            delay = self._rng.uniform(0.0, REPLY_TIMEOUT_S)
        if delay >= 0:
            self._loop.call_later(delay, self._arrive, number)
        gives_up_at = min(deadline, now + REPLY_TIMEOUT_S)
        no_reply = OutcomeUnknown("no reply came")
        timer = self._loop.call_at(gives_up_at, self._settle, process, answer, None, no_reply)
        answer.add_done_callback(lambda _: timer.cancel())
        return answer

    def _arrive(self, number: int) -> None:
        call = self._pending.pop(number, None)
        if call is None:
            return
        if call.identity != call.server.identity or not call.server.is_up:
            self._fail(call, OutcomeUnknown("the connection was lost"))
            return
        reply = self._execute(call)
        if self._rng.random() < self.weather.reply_lost:
            return
        if not call.process.dies_of_its_steps and self._rng.random() < self.weather.flow_dies:
            call.answer = self._loop.create_future()  # whoever waited for this waits for ever
            return
        error = _server_error(reply) if isinstance(reply, redis.ResponseError) else None
        delay = self._rng.expovariate(2_000)
        self._loop.call_later(delay, self._settle, call.process, call.answer, reply, error)

    def _fail(self, call: _Call, error: Exception) -> None:
        self._loop.call_later(0.0005, self._settle, call.process, call.answer, None, error)

    def _settle(self, process: Process, answer: asyncio.Future[Any], reply: Any, error: Exception | None) -> None:
        if answer.done() or not process.is_alive:
            return
        resumes_at_s = process.resumes_at_s()
        if resumes_at_s > self._loop.time():
            self._loop.call_at(resumes_at_s, self._settle, process, answer, reply, error)
        elif error is not None:
            answer.set_exception(error)
            answer.exception()  # it may be that nobody waits for it any more
        else:
            answer.set_result(reply)

    def _execute(self, call: _Call) -> Any:
        script = call.script
        if script is None:
            return self._wire.run([call.arguments])[0]
        if script.sha1 not in self._loaded:
            self._wire.run([("SCRIPT", "LOAD", script.source)])
            self._loaded.add(script.sha1)
        now_ms = self._loop.now_ms()
        head = script.head.arguments
        values = [script.claim + call.identity, *call.arguments]
        if len(head) > 2 and head[2].name == "now_ms":
            values[2] = now_ms
        command = ("EVALSHA", script.sha1, len(call.keys), *call.keys, *values)
        if any(answer.status == "read" for answer in script.head.returns):
            return self._wire.run([command])[0]
        executed = Executed(script.name, command, call.keys, _named(script, values), now_ms)
        reply, *contents = self._wire.run([command, *(_content_command(key, executed.events_max) for key in call.keys)])
        call.server.file.append(executed)
        self.witness(call.server, executed, reply, contents)
        return reply


class VirtualLanes(Lanes):
    """One process's way through the network."""

    def __init__(self, network: Network, process: Process, loop: VirtualLoop) -> None:
        self._network = network
        self._process = process
        self._loop = loop

    async def start(self, *, patient: bool = False) -> None:
        pass

    async def close(self) -> None:
        pass

    def identity(self, partition: int) -> bytes | None:
        server = self._network.servers[partition]
        return server.identity if server.is_up else None

    def call(
        self,
        partition: int,
        script: Script,
        keys: Sequence[bytes | str],
        arguments: Sequence[Argument],
        *,
        deadline: float,
    ) -> asyncio.Future[Any]:
        names = tuple(_text(key) for key in keys)
        return self._network.send(self._process, partition, script, names, tuple(arguments), deadline)

    def execute(self, partition: int, *command: Argument, deadline: float) -> asyncio.Future[Any]:
        return self._network.send(self._process, partition, None, (), command, deadline)

    def recheck(self, partition: int) -> None:
        pass

    def now_ms(self, partition: int) -> int:
        return self._loop.now_ms()


def _content_command(name: str, events_max: int = 1) -> tuple[Argument, ...]:
    kind = name.partition("}:")[2].partition(":")[0]
    if kind == "events":
        return ("XREVRANGE", name, "+", "-", "COUNT", events_max)
    if kind in {"products", "campaigns", "sales"}:
        return ("ZRANGE", name, 0, -1, "WITHSCORES")
    return ("HGETALL", name)


def _named(script: Script, values: Sequence[Argument]) -> dict[str, Any]:
    """Arguments by the names in the script's head, as text; what repeats as a list."""
    texts = [_text(value) for value in values]
    return {
        each.name: texts[each.index - 1 :] if each.repeats else texts[each.index - 1] for each in script.head.arguments
    }


def _server_error(error: redis.ResponseError) -> ServerError:
    code, _, message = str(error.args[0]).partition(" ")
    return ServerError(code, message)


def _text(value: Argument) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
