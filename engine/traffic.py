"""What the API processes of an installation tell each other of their traffic, wherever they run.

Each puts its own counts under its name once a second; whoever shows an operator the whole shop reads them all. Nothing
is decided by it, and nothing is lost when it is lost.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from engine.keys import Keys, traffic_key
from engine.lanes import Lanes, deadline_in

PARTITION: Final = 0
DEADLINE_S: Final = 1.0
ALIVE_FOR_MS: Final = 5_000
FORGOTTEN_AFTER_MS: Final = 60_000


class Traffic:
    """The counts of every API process, on the server that has the first partition."""

    def __init__(self, lanes: Lanes, keys: Keys) -> None:
        self._lanes = lanes
        self._key = traffic_key(keys, PARTITION)

    async def tell(self, process: str, counts: Mapping[str, object]) -> None:
        """Note this process's counts. Raises `EngineError`."""
        value = orjson.dumps({"at": self._lanes.now_ms(PARTITION), **counts})
        deadline = deadline_in(DEADLINE_S)
        await self._lanes.execute(PARTITION, "HSET", self._key, process, value, deadline=deadline)
        # All of it goes when the last process has gone.
        await self._lanes.execute(PARTITION, "PEXPIRE", self._key, FORGOTTEN_AFTER_MS, deadline=deadline)

    async def processes(self) -> dict[str, dict[str, object]]:
        """The counts of each process that is there, by its name. Raises `EngineError`."""
        flat = await self._lanes.execute(PARTITION, "HGETALL", self._key, deadline=deadline_in(DEADLINE_S))
        now_ms = self._lanes.now_ms(PARTITION)
        told = {name.decode(): orjson.loads(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
        gone = [name for name, counts in told.items() if now_ms - counts["at"] > FORGOTTEN_AFTER_MS]
        if gone:
            await self._lanes.execute(PARTITION, "HDEL", self._key, *gone, deadline=deadline_in(DEADLINE_S))
        return {name: counts for name, counts in told.items() if now_ms - counts["at"] <= ALIVE_FOR_MS}
