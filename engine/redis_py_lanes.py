"""The lanes' interface on redis-py's own client: slow, for a fakeredis in a unit test's own process."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from engine.errors import OutcomeUnknown, ServerError, Unavailable
from engine.lanes import Argument, Lanes, deadline_in
from engine.scripts import Script


class RedisPyLanes(Lanes):
    """Every partition on one server that ``client`` leads to; ``identity`` never changes.

    Commands go out on the pool's bare connections: nothing is repeated, whatever retries the client is set to, and the
    replies are not reshaped. The client must speak RESP2 (``protocol=2``) and leave replies as bytes.
    """

    def __init__(self, client: Redis, identity: bytes = b"fixed:fixed") -> None:
        self._pool = client.connection_pool
        self._identity = identity

    async def start(self, *, patient: bool = False) -> None:
        connection = await self._connected(deadline_in(5.0))
        await self._pool.release(connection)

    async def close(self) -> None:
        await self._pool.disconnect()

    def identity(self, partition: int) -> bytes | None:
        return self._identity

    def call(
        self,
        partition: int,
        script: Script,
        keys: Sequence[bytes | str],
        arguments: Sequence[Argument],
        *,
        deadline: float,
    ) -> asyncio.Future[Any]:
        return asyncio.ensure_future(
            self._call(script, (len(keys), *keys, script.claim + self._identity, *arguments), deadline)
        )

    def execute(self, partition: int, *command: Argument, deadline: float) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._execute(command, deadline))

    def recheck(self, partition: int) -> None:
        pass

    def now_ms(self, partition: int) -> int:
        return time.time_ns() // 1_000_000

    async def _call(self, script: Script, rest: tuple[Argument, ...], deadline: float) -> Any:
        try:
            return await self._execute(("EVALSHA", script.sha1, *rest), deadline)
        except ServerError as error:
            if error.code != "NOSCRIPT":
                raise
        await self._execute(("SCRIPT", "LOAD", script.source), deadline)
        return await self._execute(("EVALSHA", script.sha1, *rest), deadline)

    async def _execute(self, command: tuple[Argument, ...], deadline: float) -> Any:
        connection = await self._connected(deadline)
        try:
            async with asyncio.timeout_at(deadline):
                await connection.send_command(*command)
                return await connection.read_response()
        except ResponseError as error:
            # redis-py cuts off the codes that it knows, and leaves the others in the text.
            text = f"{error.status_code} {error.args[0]}" if error.status_code else str(error.args[0])
            code, _, message = text.partition(" ")
            raise ServerError(code, message) from error
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            raise OutcomeUnknown(str(error)) from error
        except BaseException:  # cancelled with a reply still to come, which must not answer the next command
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def _connected(self, deadline: float) -> AbstractConnection:
        try:
            async with asyncio.timeout_at(deadline):
                return cast(AbstractConnection, await self._pool.get_connection())  # type: ignore[no-untyped-call]
        except (RedisConnectionError, OSError, TimeoutError) as error:
            raise Unavailable(str(error)) from error
