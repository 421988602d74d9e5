"""The way to Redis: which lane a partition's calls take."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from engine.lane import Lane, LaneSettings
from engine.lane_connection import Argument
from engine.lane_counts import LaneCounts
from engine.redis_address import parse_redis_url
from engine.scripts import Script

__all__ = ["Argument", "LaneSettings", "Lanes", "RedisLanes", "deadline_in"]


def deadline_in(seconds: float) -> float:
    """The deadline of a call that is made now, as `Lanes` takes it."""
    return asyncio.get_running_loop().time() + seconds


class Lanes(Protocol):
    """Calls to the servers that own the partitions.

    ``deadline`` is on the event loop's clock: `deadline_in` so many seconds. `call` and `execute` queue
    at once and raise nothing themselves; they leave by the end of the tick, in writes of many. Awaiting one gives
    the reply as RESP2 has it (int, bytes, list, None) or raises:

    - Overloaded: too many calls are under way; nothing was sent.
    - Unavailable: it was not executed; the server could not be reached, or would not execute it, until the deadline.
    - OutcomeUnknown: it was sent; the connection was lost, the server fell silent, or the deadline passed.
    - ServerError: the server answered with any other error.
    - TypeError: an argument is not bytes, str or int; nothing was sent.

    Calls under way at the same time may run in any order (one is sent again when its script has to be loaded first).
    Cancelling a call that was sent does not undo it. Commands that block or change the connection's state (BLPOP,
    MULTI, SUBSCRIBE) must not be used here: all callers share the connection.
    """

    async def start(self, *, patient: bool = False) -> None:
        """Connect and learn the servers' identities. Raises Unavailable, with what to do, when that is not possible; or
        goes on trying, where it is ``patient``, while calls wait until their deadlines.
        """

    async def close(self) -> None:
        """Take no new calls, give those under way a moment to finish, then disconnect."""

    def identity(self, partition: int) -> bytes | None:
        """``run_id:master_replid`` of the server that owns the partition, None while it cannot be reached."""

    def call(
        self,
        partition: int,
        script: Script,
        keys: Sequence[bytes | str],
        arguments: Sequence[Argument],
        *,
        deadline: float,
    ) -> Awaitable[Any]:
        """Run a script. ``arguments`` begin with ARGV[2]: ARGV[1], the server's identity, is put in when it is sent."""

    def execute(self, partition: int, *command: Argument, deadline: float) -> Awaitable[Any]:
        """Run a plain command on the server that owns the partition."""

    def recheck(self, partition: int) -> None:
        """Ask the server for its identity now: a script did not recognise the one it was given."""

    def now_ms(self, partition: int) -> int:
        """The wall clock of the partition's server, in ms since 1970, as well as it is known here."""

    def goes_on(self, partition: int, server: str) -> bool:
        """Whether the partition's server has the history of the one whose identity was ``server``, as a server does
        that was restarted or promoted. Where it has not, the partition was moved to it, key by key.
        """
        return True

    async def moving(self) -> frozenset[int]:
        """The partitions that are being moved from one server to another right now. Raises Unavailable."""
        return frozenset()


class RedisLanes(Lanes):
    """Every partition on one Redis or Valkey.

    Raises ValueError when the URL is not one that `engine.redis_address.parse_redis_url` takes.
    """

    def __init__(self, url: str, settings: LaneSettings | None = None, counts: LaneCounts | None = None) -> None:
        self._lane = Lane(parse_redis_url(url), settings or LaneSettings(), counts)

    async def start(self, *, patient: bool = False) -> None:
        await self._lane.start(patient=patient)

    async def close(self) -> None:
        await self._lane.close()

    def identity(self, partition: int) -> bytes | None:
        return self._lane.identity

    def call(
        self,
        partition: int,
        script: Script,
        keys: Sequence[bytes | str],
        arguments: Sequence[Argument],
        *,
        deadline: float,
    ) -> asyncio.Future[Any]:
        return self._lane.call(partition, script, keys, arguments, deadline)

    def execute(self, partition: int, *command: Argument, deadline: float) -> asyncio.Future[Any]:
        return self._lane.call(partition, None, (), command, deadline)

    def recheck(self, partition: int) -> None:
        self._lane.recheck()

    def now_ms(self, partition: int) -> int:
        return self._lane.now_ms()
