"""Idempotency keys: a request that carries one has its effect once, and its first answer comes again for a day.

The script with the effect spends the key: its result is kept beside the key, in the user's partition, and is in the
event. A request of one script needs no more. One of several scripts claims the key first, so that its like does not
begin meanwhile; the claim alone promises nothing, and one that is left behind is taken over when its time is over.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

from engine.errors import EngineError, IdempotencyKeyReused, OutcomeUnknown, Refusal, RequestInProgress
from engine.positions import Position, parse_position, position_of
from engine.runner import Flow, Reply, ScriptRunner
from engine.statuses import Status

KEPT_MS = 86_400_000
"""How long a spent key is kept; `lua/include/idempotency.lua` says the same."""

FREE_WITHIN_S = 1.5
"""How long freeing a key may hold up a refusal; past it that goes on beside, until the claim has run out by itself."""

LET_GO_WITHIN_S = 0.1
"""How long ending a claim may hold up an answer that has waited for Redis all the time that it had."""

TRY_AGAIN_S, TRY_AGAIN_S_MAX = 0.2, 2.0


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request's key: ``owner`` is the user, or nothing for an operator; the two digests are hex."""

    owner: str
    digest: str
    fingerprint: str
    claim: str = field(default_factory=lambda: secrets.token_hex(8))
    """Names this request among others of the same key."""


def request_key(owner: str, key: str, scope: str, request: bytes) -> RequestKey:
    """The key as the client gave it, for ``request``: all that makes another request of it. ``scope`` is what the key
    belongs to besides its owner.
    """
    return RequestKey(owner, _digest(f"{scope}\0{key}".encode(), 16), _digest(request, 12))


def _digest(text: bytes, size: int) -> str:
    return blake2b(text, digest_size=size).hexdigest()


_OF_THE_KEY = frozenset({Status.REPLAYED, Status.KEY_REUSED, Status.KEY_IN_PROGRESS})


class Replayed(Exception):
    """This request has had its effect before: the result that its script kept."""

    def __init__(self, result: str, position: Position) -> None:
        super().__init__(result)
        self.status, *self.values = result.split(" ")
        self.position = position

    def positions(self, index: int) -> tuple[Position, ...]:
        """That of the effect, and those of other partitions that the result holds at ``index``."""
        others = self.values[index] if len(self.values) > index else ""
        return (self.position, *(parse_position(others) if others else ()))


def check_key(reply: Reply, partition: int) -> None:
    """Raise what a script says of the request's key: `Replayed`, `IdempotencyKeyReused`, `RequestInProgress`."""
    if reply.status not in _OF_THE_KEY:
        return
    match reply.status:
        case Status.REPLAYED:
            raise Replayed(reply.text(1), position_of(partition, reply.values[0]))
        case Status.KEY_REUSED:
            raise IdempotencyKeyReused
        case Status.KEY_IN_PROGRESS:
            raise RequestInProgress


class KeyClaims:
    """Claims of the keys of flows of several scripts."""

    def __init__(self, runner: ScriptRunner, lease_ms: int) -> None:
        self._runner = runner
        self._lease_ms = lease_ms
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def close(self) -> None:
        """Leave what is not ended yet to run out by itself."""
        self._is_closed = True
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def record(self, partition: int, key: RequestKey | None) -> tuple[str, ...]:
        """The key's hash, as the last of a script's KEYS; none without a key."""
        return () if key is None else (self._runner.keys.request_key(partition, key.owner, key.digest),)

    @asynccontextmanager
    async def held(self, flow: Flow, partition: int, key: RequestKey) -> AsyncIterator[bool]:
        """Hold the key's claim; yields whether an earlier request had claimed it and ended without a word.

        Raises as `check_key` does. What was refused within leaves the key free again. After an unknown outcome the
        same request may be sent again at once: the script with the effect sees to it that only one of them acts.
        """
        try:
            resumed = await self._claim(flow, partition, key, self._lease_ms)
        except OutcomeUnknown:
            # Not free: an earlier request of the key may have gone far, and its mark stays.
            await self.let_go(partition, key)
            raise
        try:
            yield resumed
        except OutcomeUnknown:
            await self.let_go(partition, key)
            raise
        except EngineError:
            await self._free(partition, key)
            raise

    async def let_go(self, partition: int, key: RequestKey) -> None:
        """End the claim, but let the next request of the key know that this one has gone far. Never raises."""
        await self._end(lambda flow: self._claim(flow, partition, key, 0), LET_GO_WITHIN_S)

    async def _free(self, partition: int, key: RequestKey) -> None:
        """Forget the claim, unless the key is spent or another request's by now. Never raises."""
        keys = (self._runner.keys.meta(partition), *self.record(partition, key))
        await self._end(
            lambda flow: self._runner.change(flow, partition, "free_key", keys, (key.claim,), urgent=True),
            FREE_WITHIN_S,
        )

    async def _end(self, step: Callable[[Flow], Awaitable[object]], within_s: float) -> None:
        """Take this step, which ends a claim, and wait so long for it; a Redis that does not answer yet is asked on."""
        ending = asyncio.create_task(self._keep_ending(step))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.wait({ending}, timeout=within_s)

    async def _keep_ending(self, step: Callable[[Flow], Awaitable[object]]) -> None:
        clock = asyncio.get_running_loop().time
        runs_out_at = clock() + self._lease_ms / 1000
        pause_s = TRY_AGAIN_S
        while clock() < runs_out_at and not self._is_closed:
            try:
                await self._runner.alone(step, within_s=FREE_WITHIN_S)
                return
            except (Refusal, Replayed):  # the key is spent, or another request's by now
                return
            except EngineError:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, TRY_AGAIN_S_MAX)

    async def _claim(self, flow: Flow, partition: int, key: RequestKey, lease_ms: int) -> bool:
        keys = (self._runner.keys.meta(partition), *self.record(partition, key))
        arguments = (key.fingerprint, key.claim, lease_ms)
        reply = await self._runner.change(flow, partition, "claim_key", keys, arguments)
        check_key(reply, partition)
        return reply.status is Status.RESUMED


def key_arguments(key: RequestKey | None) -> tuple[str, str]:
    """The arguments ``key`` and ``fingerprint`` of the scripts that spend a key."""
    return ("", "") if key is None else (key.digest, key.fingerprint)
