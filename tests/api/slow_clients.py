"""A thousand clients that never finish a request, in a process of their own: `python -m tests.api.slow_clients PORT`.

Half of them send headers byte by byte, half a body; who is cut off comes back at once. A line on stdout says when all
are connected; at the end of its input it tells how often they were cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from typing import Final

CLIENTS: Final = 1000
PAUSE_S: Final = 1.0
HEADERS: Final = b"GET /v1/products HTTP/1.1\r\nHost: shop\r\nX-Slow: "
BODY: Final = (
    b"POST /v1/users/slow/balance/charges HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
    b"Content-Length: 60000\r\n\r\n"
)


class Crowd:
    """The slow clients of one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._met = 0
        self.cut_off = 0
        self.all_connected = asyncio.Event()

    async def client(self, beginning: bytes) -> None:
        """One of them, for ever."""
        while True:
            with contextlib.suppress(ConnectionError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self._met += 1
                if self._met == CLIENTS:
                    self.all_connected.set()
                writer.write(beginning)
                await self._dawdle(reader, writer)

    async def _dawdle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A byte now and then, until the server has enough of it."""
        ended = asyncio.ensure_future(reader.read())
        try:
            while not (await asyncio.wait([ended], timeout=PAUSE_S))[0]:
                writer.write(b" ")
            self.cut_off += 1
            await ended
        finally:
            ended.cancel()
            writer.close()


async def main(port: int) -> None:
    """Slow clients until the end of input."""
    crowd = Crowd(port)
    clients = [
        asyncio.create_task(crowd.client(beginning))
        for beginning in itertools.islice(itertools.cycle((HEADERS, BODY)), CLIENTS)
    ]
    await crowd.all_connected.wait()
    print("connected", flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)
    print(crowd.cut_off, flush=True)  # noqa: T201
    for client in clients:
        client.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
