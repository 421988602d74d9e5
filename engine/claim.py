"""A recovery's claim on partitions: what it alone may run there, from taking hold of them until they are trusted.

While a recovery works on a partition, `meta.server` (or `meta.loading`) is its mark: ``recovering:<token>:`` and the
identity of the server. No flow's scripts run then, since none sends such a mark; nor do another recovery's, whose token
is another; nor do this one's on a server that has copied the mark, whose identity is another.
"""

from collections.abc import Sequence

from engine.errors import ClaimLost, OutcomeUnknown
from engine.keys import Keys
from engine.lanes import Argument, Lanes, deadline_in
from engine.runner import Reply
from engine.scripts import Scripts
from engine.statuses import Status, status_of

DEADLINE_S = 10.0
SENDS_MAX = 6

_MARK = "recovering:"
_REBUILDING = "rebuild-"

BACKLOG_MAX = 2**53 - 1
"""What a recovery still has to do is not held up by what it has done: it waits for the writers itself."""


def rebuild_token(token: str) -> str:
    """The token of a claim that a partition must be made anew after, whatever becomes of the claim."""
    return _REBUILDING + token


def must_be_rebuilt(mark: str) -> bool:
    """Whether a partition whose `meta.server` is this was held to be made anew, and was not yet."""
    return mark.startswith(_MARK + _REBUILDING)


def server_of(mark: str) -> str:
    """The identity in a `meta.server`, be it the trusted server's or the one that a recovery held it on."""
    return mark.split(":", 2)[2] if mark.startswith(_MARK) else mark


class Claim:
    """One attempt at a recovery, under a token of its own. Every call raises `ClaimLost` where it has no effect."""

    def __init__(self, lanes: Lanes, scripts: Scripts, keys: Keys, token: str) -> None:
        self._lanes = lanes
        self._scripts = scripts
        self._keys = keys
        self._prefix = f"{_MARK}{token}:".encode()
        self._held: set[int] = set()

    def mark(self, server: str) -> str:
        """What a partition says of who holds it, when this recovery does on that server."""
        return self._prefix.decode() + server

    # ---- a partition that goes on from where it is ------------------------------------------------------------------

    async def hold(self, partition: int, expected_server: str) -> tuple[int, int]:
        """Let no flow in, if `meta.server` is still what it was when looked at; the epoch and the last sequence."""
        reply = await self._call(partition, "hold_partition", (), (expected_server,), Status.HELD)
        self._held.add(partition)
        return reply.integer(0), reply.integer(1)

    async def begin_epoch(self, partition: int, generation: int, epoch: int, next_epoch: int, seq: int) -> None:
        """End ``epoch`` at ``seq``; all that comes is of ``next_epoch``."""
        await self._call(partition, "begin_epoch", (), (generation, epoch, next_epoch, seq), Status.BEGUN)

    async def trust(self, partition: int, epoch: int, seq: int) -> None:
        """Let flows in again: the partition stands at ``seq`` of ``epoch``, and all of it is durable."""
        await self._call(partition, "trust_partition", (), (self._prefix, epoch, seq), Status.TRUSTED)
        self._held.discard(partition)

    # ---- a partition that is loaded anew ----------------------------------------------------------------------------

    async def begin_load(self, partition: int, expected_mark: str) -> None:
        """Take the partition's meta away, if who holds it is still who did when looked at."""
        await self._call(partition, "begin_load", (), (self._prefix, expected_mark), Status.LOADING)
        self._held.discard(partition)

    async def clear(self, partition: int, keys: Sequence[bytes]) -> None:
        """Remove keys, at most some hundreds."""
        await self._call(partition, "clear_keys", keys, (), Status.CLEARED)

    async def load(self, partition: int, keys: Sequence[str], content: Sequence[Argument]) -> None:
        """Put keys, at most some hundreds; ``content`` as load_keys takes it, from its command on."""
        await self._call(partition, "load_keys", keys, content, Status.LOADED)

    async def finish_load(self, partition: int, generation: int, epoch: int, seq: int, layout: str) -> None:
        """Write the meta: the partition stands at ``seq``, in a new ``epoch``, and is held."""
        await self._call(partition, "finish_load", (), (generation, epoch, seq, layout), Status.HELD)
        self._held.add(partition)

    # ---- reconciling ------------------------------------------------------------------------------------------------

    async def change(
        self, partition: int, name: str, keys: Sequence[str], generation: int, arguments: Sequence[Argument]
    ) -> Reply:
        """Run a changing script: under the claim where the partition is held, else as any flow of ``generation``."""
        reply = await self._run(
            partition,
            name,
            (self._keys.events(partition), *keys),
            (generation, "", BACKLOG_MAX, "", *arguments),
            claimed=partition in self._held,
        )
        if reply.status in {Status.UNVERIFIED, Status.STALE, Status.OVERLOADED}:
            raise ClaimLost(f"{name} in partition {partition} answered {reply.status}")
        return reply

    async def _call(
        self,
        partition: int,
        name: str,
        keys: Sequence[bytes | str],
        arguments: Sequence[Argument],
        expected: Status,
    ) -> Reply:
        reply = await self._run(partition, name, keys, arguments, claimed=True)
        if reply.status is not expected:
            raise ClaimLost(f"{name} in partition {partition} answered {reply.status}")
        return reply

    async def _run(
        self,
        partition: int,
        name: str,
        keys: Sequence[bytes | str],
        arguments: Sequence[Argument],
        *,
        claimed: bool,
    ) -> Reply:
        script = self._scripts[name].claimed(self._prefix) if claimed else self._scripts[name]
        names = (self._keys.meta(partition), *keys)
        # All that a recovery runs is repeatable, and beginning anew costs more than waiting for a server that is slow.
        for left in reversed(range(SENDS_MAX)):
            deadline = deadline_in(DEADLINE_S)
            try:
                values = await self._lanes.call(partition, script, names, arguments, deadline=deadline)
                break
            except OutcomeUnknown:
                if not left:
                    raise
        return Reply(status_of(values[0]), values[1:])
