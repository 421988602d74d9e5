"""How the whole installation stands: what Redis and PostgreSQL each show of it, whichever of them answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from api import schemas
from api.shop import Shop
from engine.errors import EngineError
from engine.recovery import Meta
from persistence.history import HistoryUnavailable
from persistence.oversight import CursorRow, InstallationState, Oversight
from persistence.watch import lag_after_ms

LOOK_WITHIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class ShopSnapshot:
    """One look. `progress` is None where PostgreSQL does not answer: what is durable is then what Redis was told."""

    redis_is_there: bool
    progress: InstallationState | None
    partitions: list[schemas.PartitionStatus]

    @property
    def trusted(self) -> int:
        """How many partitions are served."""
        return sum(partition.state == "trusted" for partition in self.partitions)

    @property
    def backlog(self) -> int | None:
        """Events not yet in PostgreSQL; None where a partition does not tell."""
        known = [partition.backlog for partition in self.partitions if partition.backlog is not None]
        return sum(known) if len(known) == len(self.partitions) else None

    @property
    def lag_ms(self) -> int:
        """Age of the oldest event not yet in PostgreSQL."""
        return max((partition.lag_ms or 0 for partition in self.partitions), default=0)


class System:
    """Looks at both stores."""

    def __init__(self, shop: Shop, oversight: Oversight) -> None:
        self._engine = shop.engine
        self._oversight = oversight

    async def look(self) -> ShopSnapshot:
        """One look, soon, whatever is out of reach."""
        try:
            progress = await self._oversight.progress()
        except HistoryUnavailable:
            progress = None
        return await self.look_beside(progress)

    async def look_beside(self, progress: InstallationState | None) -> ShopSnapshot:
        """What Redis shows, beside what PostgreSQL has shown."""
        cursors = {} if progress is None else {cursor.partition: cursor for cursor in progress.cursors}
        partitions = await asyncio.gather(
            *(self._partition(index, cursors.get(index)) for index in range(self._engine.partitions.count))
        )
        return ShopSnapshot(self._engine.lanes.identity(0) is not None, progress, list(partitions))

    async def _partition(self, index: int, cursor: CursorRow | None) -> schemas.PartitionStatus:
        meta: Meta | None = None
        durable = None if cursor is None else cursor.seq
        lag_ms: int | None = None
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                meta = await self._engine.recovery.inspect(index)
                if meta is not None:
                    durable = meta.durable if cursor is None else cursor.seq
                    epoch = meta.epoch if cursor is None else cursor.epoch
                    lag_ms = 0 if meta.seq <= durable else await lag_after_ms(self._engine, index, epoch, durable)
        except (EngineError, TimeoutError):
            meta = None
        identity = self._engine.lanes.identity(index)
        trusted = meta is not None and identity is not None and meta.server == identity.decode()
        stopped = None if cursor is None else cursor.stopped
        state: schemas.PartitionState = "trusted" if trusted else "recovering"
        return schemas.PartitionStatus(
            partition=index,
            state="stopped" if stopped else state,
            epoch=None if meta is None else meta.epoch,
            sequence=None if meta is None else meta.seq,
            durable_sequence=durable,
            backlog=None if meta is None or durable is None else max(0, meta.seq - durable),
            lag_ms=lag_ms,
            server=meta.server if cursor is None and meta is not None else None if cursor is None else cursor.server,
            stopped=stopped,
        )
