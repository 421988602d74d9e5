"""Runs scripts: the argument head that all share, the guard's refusals, and sending again what may be sent again."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, TypeVar

from engine.errors import EngineError, OutcomeUnknown, Recovering, StaleGeneration, Unavailable, WriterBehind
from engine.keys import Keys
from engine.lanes import Lanes
from engine.partitions import Partitions
from engine.request_id import REQUEST_ID
from engine.scripts import Scripts
from engine.settings import EngineSettings
from engine.statuses import Status, status_of

SENDS_MAX = 4
"""How often one call is sent when its outcome stays unknown."""

_GUARDS = frozenset({Status.UNVERIFIED, Status.STALE, Status.OVERLOADED})
"""What a script answers that has not looked at what it was asked. One look for all: on Python 3.11 each member of an
enumeration takes ten times as long to find as a name does."""

Answer = TypeVar("Answer")


class Flow:
    """One request on its way through several scripts: its id, the generation it began in, when it must be over."""

    __slots__ = ("deadline", "generation", "now_ms", "request", "sent_again")

    def __init__(self, generation: str, deadline: float, now_ms: str, request: str) -> None:
        self.generation = generation
        self.deadline = deadline
        self.now_ms = now_ms
        self.request = request
        self.sent_again = False
        """Whether some call of this flow was sent more than once, so that an effect seen may be its own."""


class Reply:
    """A script's answer: its status, and what follows it as the script's head says."""

    __slots__ = ("status", "values")

    def __init__(self, status: Status, values: list[Any]) -> None:
        self.status = status
        self.values = values

    def text(self, index: int) -> str:
        """The value at ``index`` as text."""
        value: bytes = self.values[index]
        return value.decode()

    def integer(self, index: int) -> int:
        """The value at ``index`` as an integer."""
        return int(self.values[index])


class ScriptRunner:
    """What every subject of the engine calls scripts through."""

    def __init__(
        self, lanes: Lanes, scripts: Scripts, partitions: Partitions, keys: Keys, settings: EngineSettings
    ) -> None:
        self.lanes = lanes
        self.partitions = partitions
        self.keys = keys
        self._scripts = scripts
        self._settings = settings
        self._generation = "0"
        self._backlog_max = str(settings.backlog_max)
        self._backlog_max_urgent = str(settings.backlog_max + settings.backlog_headroom)
        self._deadline_s = settings.request_deadline_ms / 1000
        self.sent_again = 0
        """Calls sent again since the start, as their outcome was unknown."""
        self.begun_again = 0
        """Flows begun again since the start, as a recovery had overtaken them."""
        self.test_now_ms = ""
        """The time that scripts are told, ms; empty in production, where each partition's own clock decides."""

    def begin(self, within_s: float | None = None) -> Flow:
        """Note the generation, and start the clock of the flow's deadline: the request's, or ``within_s``."""
        deadline = asyncio.get_running_loop().time() + (within_s or self._deadline_s)
        return Flow(self._generation, deadline, self.test_now_ms, REQUEST_ID.get())

    def within(self, flow: Flow, within_s: float) -> Flow:
        """A last step of a flow: of its generation, with a deadline of its own."""
        deadline = asyncio.get_running_loop().time() + within_s
        return Flow(flow.generation, deadline, flow.now_ms, flow.request)

    def now_ms(self, partition: int) -> int:
        """The partition's clock as known here, ms since 1970: for what is made before a script runs."""
        return int(self.test_now_ms) if self.test_now_ms else self.lanes.now_ms(partition)

    def change(
        self,
        flow: Flow,
        partition: int,
        name: str,
        keys: Sequence[str],
        arguments: Sequence[bytes | str | int],
        *,
        repeatable: bool = True,
        urgent: bool = False,
    ) -> Awaitable[Reply]:
        """Run a changing script. ``urgent`` calls use the backlog's headroom; not ``repeatable`` ones are sent once.

        It is queued at once, whenever it is awaited. Awaiting it raises `Recovering`, `StaleGeneration`,
        `WriterBehind`, `Overloaded` and `Unavailable` when nothing was changed, `OutcomeUnknown` when it cannot be
        known; `ServerError` and `TypeError` where a script or its caller is at fault.
        """
        backlog_max = self._backlog_max_urgent if urgent else self._backlog_max
        head = (flow.generation, flow.now_ms, backlog_max, flow.request)
        return _Sent(self, flow, partition, name, keys, (*head, *arguments), SENDS_MAX if repeatable else 1)

    async def read(
        self, flow: Flow, partition: int, name: str, keys: Sequence[str], arguments: Sequence[bytes | str | int] = ()
    ) -> Any:
        """Run a script that appends no event and may be sent again: a read, or an eviction of what PostgreSQL has.

        Returns its first value. Raises as `change`, but never `OutcomeUnknown`.
        """
        try:
            reply = await _Sent(self, flow, partition, name, keys, (flow.generation, *arguments), SENDS_MAX)
        except OutcomeUnknown as error:
            raise Unavailable(error.reason) from error
        return reply.values[0]

    async def alone(self, step: Callable[[Flow], Awaitable[Answer]], within_s: float | None = None) -> Answer:
        """Run a flow that may begin once more when a recovery overtook it: nothing of it has taken effect then."""
        try:
            return await step(self.begin(within_s))
        except StaleGeneration:
            self.begun_again += 1
            try:
                return await step(self.begin(within_s))
            except StaleGeneration as error:
                raise Recovering from error

    def send(
        self,
        flow: Flow,
        partition: int,
        name: str,
        keys: Sequence[str],
        arguments: Sequence[bytes | str | int],
    ) -> Awaitable[Any]:
        """Send a script, once."""
        return self.lanes.call(partition, self._scripts[name], keys, arguments, deadline=flow.deadline)

    def answered(self, partition: int, values: list[Any], unknown: OutcomeUnknown | None) -> Reply:
        """A script's answer, unless it is a refusal of the guard. ``unknown``: what became of an earlier send."""
        status = status_of(values[0])
        if status in _GUARDS:
            raise self._guarded(partition, status, values, unknown)
        return Reply(status, values[1:])

    def _guarded(
        self, partition: int, status: Status, values: list[Any], unknown: OutcomeUnknown | None
    ) -> EngineError:
        """What the guard's refusal means; also sees to it that it is not met with for ever."""
        if status is Status.UNVERIFIED:
            self.lanes.recheck(partition)
            return unknown or Recovering("the partition is not trusted yet")
        if status is Status.STALE:
            self._generation = values[1].decode()
            return unknown or StaleGeneration()
        return unknown or WriterBehind()


class _Sent:
    """A call on its way, to be awaited once."""

    __slots__ = ("_call", "_runner", "_sends_max", "_to_send")

    def __init__(
        self,
        runner: ScriptRunner,
        flow: Flow,
        partition: int,
        name: str,
        keys: Sequence[str],
        arguments: Sequence[bytes | str | int],
        sends_max: int,
    ) -> None:
        self._runner = runner
        self._to_send = (flow, partition, name, keys, arguments)
        self._sends_max = sends_max
        self._call = runner.send(*self._to_send)

    def __await__(self) -> Generator[Any, Any, Reply]:
        runner = self._runner
        flow, partition, *_ = self._to_send
        unknown: OutcomeUnknown | None = None
        sent = 1
        while True:
            try:
                values = yield from self._call.__await__()
                break
            except OutcomeUnknown as error:
                if sent == self._sends_max or flow.deadline <= asyncio.get_running_loop().time():
                    raise
                unknown = error
            except EngineError as error:
                # Whatever this send met with, an earlier one may have been executed.
                if unknown is not None:
                    raise unknown from error
                raise
            sent += 1
            flow.sent_again = True
            runner.sent_again += 1
            self._call = runner.send(*self._to_send)
        return runner.answered(partition, values, unknown)
