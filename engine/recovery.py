"""What the worker asks of a partition to begin it, to trust it, and to note how far it is durable."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from engine.claim import Claim
from engine.keys import ALL_KEYS, Keys
from engine.lanes import Lanes, deadline_in
from engine.scripts import Scripts
from engine.server_identity import read_version
from engine.statuses import Status, status_of

FORMAT = "1"
"""Version of the layout of keys and events."""

FIRST_EPOCH = 1
DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Meta:
    """A partition's meta hash."""

    format: str
    server: str
    generation: int
    epoch: int
    seq: int
    durable: int


class Recovery:
    """Each call names the server it was meant for, which the lane puts in: another server changes nothing."""

    def __init__(self, lanes: Lanes, scripts: Scripts, keys: Keys) -> None:
        self._lanes = lanes
        self._scripts = scripts
        self._keys = keys

    async def inspect(self, partition: int) -> Meta | None:
        """The partition's meta, or ``None`` where there is none, or only the mark of a loading."""
        fields = ("format", "server", "generation", "epoch", "seq", "durable")
        values = await self._lanes.execute(
            partition, "HMGET", self._keys.meta(partition), *fields, deadline=deadline_in(DEADLINE_S)
        )
        if values[3] is None:
            return None
        layout, server, generation, epoch, seq, durable = (value.decode() if value else "" for value in values)
        return Meta(layout, server, int(generation), int(epoch), int(seq), int(durable))

    async def mark(self, partition: int) -> str:
        """Who says to hold the partition: a server, a recovery, or nobody."""
        values = await self._lanes.execute(
            partition, "HMGET", self._keys.meta(partition), "server", "loading", deadline=deadline_in(DEADLINE_S)
        )
        mark: bytes = values[0] or values[1] or b""
        return mark.decode()

    async def first_event_after(self, partition: int, epoch: int, seq: int) -> tuple[int, int] | None:
        """Epoch and sequence of the first event kept that is later; ``None`` where there is none."""
        entry = await self._first_entry_after(partition, epoch, seq)
        if entry is None:
            return None
        later_epoch, _, later_seq = entry[0].partition(b"-")
        return int(later_epoch), int(later_seq)

    async def oldest_event_after_ms(self, partition: int, epoch: int, seq: int) -> int | None:
        """When the first event kept that is later happened, ms since 1970; ``None`` where there is none, and 0 where it
        does not say when, which the writer stops at.
        """
        entry = await self._first_entry_after(partition, epoch, seq)
        if entry is None:
            return None
        _, flat = entry
        return int(dict(zip(flat[::2], flat[1::2], strict=False)).get(b"at", 0))

    async def _first_entry_after(self, partition: int, epoch: int, seq: int) -> tuple[bytes, list[bytes]] | None:
        events, deadline = self._keys.events(partition), deadline_in(DEADLINE_S)
        entries = await self._lanes.execute(
            partition, "XRANGE", events, f"({epoch}-{seq}", "+", "COUNT", 1, deadline=deadline
        )
        return entries[0] if entries else None

    async def server_version(self, partition: int) -> str:
        """Name and version of the server that has this partition: ``Redis 7.4.1``, ``Valkey 9.1.0``."""
        info: bytes = await self._lanes.execute(partition, "INFO", "server", deadline=deadline_in(DEADLINE_S))
        return read_version(info)

    async def scan_keys(self, partition: int, count: int) -> AsyncIterator[list[bytes]]:
        """All keys of ours on the server that has this partition, other partitions' too, some at a time."""
        cursor: bytes | int = 0
        while True:
            cursor, found = await self._lanes.execute(
                partition, "SCAN", cursor, "MATCH", ALL_KEYS, "COUNT", count, deadline=deadline_in(DEADLINE_S)
            )
            yield found
            if int(cursor) == 0:
                return

    def claim(self, token: str) -> Claim:
        """The claim of a recovery; ``token`` is another for each."""
        return Claim(self._lanes, self._scripts, self._keys, token)

    async def init(self, partition: int, generation: int) -> bool:
        """Begin a partition that holds nothing; false when there is something."""
        keys = (self._keys.meta(partition), self._keys.events(partition))
        status = await self._call(partition, "init_partition", keys, (generation, FIRST_EPOCH, FORMAT))
        return status is Status.TRUSTED

    async def raise_generation(self, partition: int, generation: int) -> int | None:
        """Make flows of earlier generations stale; the partition's seq then. ``None`` where it is not trusted."""
        values = await self._lanes.call(
            partition,
            self._scripts["raise_generation"],
            (self._keys.meta(partition),),
            (generation,),
            deadline=deadline_in(DEADLINE_S),
        )
        return int(values[1]) if status_of(values[0]) is Status.RAISED else None

    async def mark_durable(self, partition: int, epoch: int, seq: int, keep_from_seq: int) -> Status:
        """Note that PostgreSQL has the events up to ``seq``; ones before ``keep_from_seq`` may leave the stream.

        Status `MARKED`, `CHANGED` or `UNVERIFIED`.
        """
        keys = (self._keys.meta(partition), self._keys.events(partition))
        return await self._call(partition, "mark_durable", keys, (epoch, seq, max(0, keep_from_seq)))

    async def _call(self, partition: int, name: str, keys: tuple[str, ...], arguments: tuple[str | int, ...]) -> Status:
        values = await self._lanes.call(
            partition, self._scripts[name], keys, arguments, deadline=deadline_in(DEADLINE_S)
        )
        return status_of(values[0])
