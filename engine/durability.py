"""Whether changes have reached PostgreSQL, as each partition's meta says; and waiting until they have."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from engine.errors import EngineError
from engine.positions import Position
from engine.runner import ScriptRunner

LOOK_EVERY_S = 0.005
READ_WITHIN_S = 1.0


class _Waiter(NamedTuple):
    epoch: int
    seq: int
    future: "asyncio.Future[bool]"


class Durability:
    """One reader for each partition that somebody waits for, however many wait; none while nobody does."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner
        self._waiters: defaultdict[int, list[_Waiter]] = defaultdict(list)
        self._readers: dict[int, asyncio.Task[None]] = {}

    async def wait(self, positions: Iterable[Position], timeout_s: float) -> bool:
        """Whether every position is durable, waiting up to ``timeout_s`` for it. False too when one was lost."""
        loop = asyncio.get_running_loop()
        futures = []
        for position in positions:
            future: asyncio.Future[bool] = loop.create_future()
            futures.append(future)
            self._waiters[position.partition].append(_Waiter(position.epoch, position.seq, future))
            if position.partition not in self._readers:
                self._readers[position.partition] = asyncio.create_task(self._read(position.partition))
        try:
            async with asyncio.timeout(timeout_s):
                return all(await asyncio.gather(*futures))
        except TimeoutError:
            return False

    async def check(self, positions: Iterable[Position]) -> bool:
        """Whether what Redis shows with these positions is durable as of now; raises as the lanes do.

        What it still shows of an epoch that has ended is: a recovery trusts nothing that PostgreSQL does not have.
        """
        wanted = list(positions)
        deadline = asyncio.get_running_loop().time() + READ_WITHIN_S
        metas = await asyncio.gather(*(self._meta(position.partition, deadline) for position in wanted))
        return all(
            meta is not None and (position.epoch < meta[0] or position.seq <= meta[1])
            for position, meta in zip(wanted, metas, strict=True)
        )

    async def made(self, position: Position) -> bool:
        """Whether a change with this position has been made; raises as the lanes do, and `Recovering` where the
        partition is not trusted: it cannot be told what that one has lost.
        """
        keys, partition = self._runner.keys, position.partition
        hashes = (keys.meta(partition), keys.meta(partition))
        values = await self._runner.alone(
            lambda flow: self._runner.read(flow, partition, "read_fields", hashes, ("epoch", "seq"))
        )
        return (position.epoch, position.seq) <= (int(values[0]), int(values[1]))

    async def close(self) -> None:
        """Stop the readers; who still waits is answered false."""
        readers = list(self._readers.values())
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.future.done():
                    waiter.future.set_result(False)

    async def _read(self, partition: int) -> None:
        waiters = self._waiters[partition]
        try:
            while waiters:
                with contextlib.suppress(EngineError):
                    await self._look(partition, waiters)
                if waiters:
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            del self._readers[partition]

    async def _look(self, partition: int, waiters: list[_Waiter]) -> None:
        deadline = asyncio.get_running_loop().time() + READ_WITHIN_S
        meta = await self._meta(partition, deadline)
        if meta is not None:
            epoch, durable = meta
            for waiter in waiters:
                # An epoch that has ended is PostgreSQL's to judge: what was durable then was seen while it lasted.
                if not waiter.future.done() and (waiter.epoch < epoch or waiter.seq <= durable):
                    waiter.future.set_result(waiter.epoch == epoch)
        waiters[:] = [waiter for waiter in waiters if not waiter.future.done()]

    async def _meta(self, partition: int, deadline: float) -> tuple[int, int] | None:
        """The partition's epoch, and the last sequence of it that is durable."""
        meta = self._runner.keys.meta(partition)
        values = await self._runner.lanes.execute(partition, "HMGET", meta, "epoch", "durable", deadline=deadline)
        return None if values[0] is None else (int(values[0]), int(values[1]))
