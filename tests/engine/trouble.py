"""A proxy before Redis that loses replies, delivers originals late, and lets something happen just before a script."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

from engine.scripts import load_scripts

Happening: TypeAlias = Callable[[], Awaitable[object]]


class Proxy:
    """Hands on bytes both ways. A trouble is set for one script and happens at the next write that calls it."""

    def __init__(self, port: int) -> None:
        self._redis_port = port
        self._lost: set[bytes] = set()
        self._late: set[bytes] = set()
        self._before: dict[bytes, Happening] = {}
        self._undelivered: list[tuple[asyncio.StreamWriter, asyncio.Task[None], bytes]] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._seen: list[bytes] = []

    async def start(self, port: int = 0) -> str:
        """The URL to connect to, on this port or a free one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def lose_reply(self, script: str) -> None:
        """The script is executed, and its caller is cut off before the reply."""
        self._lost.add(load_scripts()[script].sha1)

    def deliver_late(self, script: str) -> None:
        """The caller is cut off, and the script is executed when `deliver` is called."""
        self._late.add(load_scripts()[script].sha1)

    def before(self, script: str, happening: Happening) -> None:
        """``happening`` is awaited before the script is handed on."""
        self._before[load_scripts()[script].sha1] = happening

    async def deliver(self) -> None:
        """Let what is late arrive, and wait until it was executed."""
        for writer, replies, data in self._undelivered:
            writer.write(data)
            writer.write_eof()
            await replies
        self._undelivered.clear()

    def times_sent(self, script: str) -> int:
        """How often the script was called so far."""
        return sum(data.count(load_scripts()[script].sha1) for data in self._seen)

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._redis_port)
        self._writers += [client_writer, writer]
        swallow = asyncio.Event()
        replies = asyncio.create_task(self._replies(reader, client_writer, swallow))
        self._tasks |= {replies}
        with suppress(OSError):
            while data := await client_reader.read(1 << 20):
                self._seen.append(data)
                for sha in [sha for sha in self._before if sha in data]:
                    await self._before.pop(sha)()
                if late := {sha for sha in self._late if sha in data}:
                    self._late -= late
                    self._undelivered.append((writer, replies, data))
                    client_writer.transport.abort()
                    return
                if lost := {sha for sha in self._lost if sha in data}:
                    self._lost -= lost
                    swallow.set()
                writer.write(data)
        client_writer.close()
        if not swallow.is_set():
            writer.close()

    async def _replies(
        self, reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter, swallow: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 20):
                if swallow.is_set():
                    client_writer.transport.abort()
                    return
                if not client_writer.is_closing():
                    client_writer.write(data)
