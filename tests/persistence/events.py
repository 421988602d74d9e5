"""Events as scripts put them into a partition's stream, and such that no script would."""

from typing import Any

import redis.asyncio

from engine.engine import Engine


class Events:
    """One partition's, from sequence 1 of epoch 1 on."""

    def __init__(self, engine: Engine, client: redis.asyncio.Redis, partition: int) -> None:
        self._client = client
        self._meta = engine.keys.meta(partition)
        self._stream = engine.keys.events(partition)
        self.seq = 0

    async def add(self, kind: str, /, *, skip: int = 0, version: str = "1", **fields: str | int) -> None:
        """Append an event; ``skip`` leaves out as many sequences before it."""
        self.seq += 1 + skip
        event: dict[Any, Any] = {"type": kind, "v": version, "at": 1_700_000_000_000 + self.seq, **fields}
        await self._client.xadd(self._stream, event, id=f"1-{self.seq}")
        await self._client.hset(self._meta, "seq", str(self.seq))

    async def charge(self, user: str, amount: int, balance: int, *, skip: int = 0) -> None:
        """A well-formed `wallet.charged`."""
        await self.add("wallet.charged", skip=skip, user=user, amount=amount, balance=balance, key="", fingerprint="")
