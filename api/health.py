"""Liveness and readiness."""

from __future__ import annotations

import asyncio
from typing import Final

from api import schemas
from api.asgi import Answer, Call, Handler
from api.shop import Shop
from engine.errors import EngineError

LOOK_WITHIN_S: Final = 1.0


def handlers(shop: Shop) -> dict[str, Handler]:
    """The operations that a load balancer and a supervisor ask."""
    engine = shop.engine

    async def get_livez(_: Call[None, schemas.NoQuery]) -> Answer:
        return Answer(200, schemas.Liveness(alive=True))

    async def get_readyz(_: Call[None, schemas.NoQuery]) -> Answer:
        recovering = await recovering_partitions()
        reason = None
        if shop.draining():
            reason = "This process is stopping."
        elif engine.lanes.identity(0) is None:
            reason = "Redis cannot be reached."
        elif len(recovering) == engine.partitions.count:
            reason = "No partition is trusted yet; a worker must be running, with PostgreSQL in reach."
        body = schemas.Readiness(ready=reason is None, reason=reason, recovering_partitions=recovering)
        return Answer(200 if body.ready else 503, body)

    async def recovering_partitions() -> list[int]:
        partitions = range(engine.partitions.count)
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                metas = await asyncio.gather(*(engine.recovery.inspect(partition) for partition in partitions))
        except (EngineError, TimeoutError):
            return list(partitions)
        identities = [engine.lanes.identity(partition) for partition in partitions]
        return [
            partition
            for partition, meta, identity in zip(partitions, metas, identities, strict=True)
            if meta is None or identity is None or meta.server != identity.decode()
        ]

    return {"get_livez": get_livez, "get_readyz": get_readyz}
