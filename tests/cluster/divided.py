"""A network that falls into two parts: nodes, clients and workers reach those on their own side alone."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from api.commands.embedded_cluster import HOST, EmbeddedCluster
from api.commands.listening import BUS_PORT_OFFSET
from api.commands.processes import wait_until

NODE_HOST = "127.0.0.{}"
FIRST_HOST = 11
FIRST_CHUNK = 1 << 16

Answer = TypeVar("Answer")


class DividedNetwork:
    """A proxy before the ports of each node, which the nodes announce instead of their own. A context manager.

    `divide` leaves one node alone with those clients that log in as ``login``; `join` undoes it. Nodes are known by the
    address that their connections come from, clients by the user whose name is in their first words. What crosses is
    silently held, as when a cable is cut, and connections of that time end when it is mended.
    """

    def __init__(self, cluster: EmbeddedCluster, login: str) -> None:
        self._cluster = cluster
        self._login = login.encode()
        self._alone: int | None = None
        self._held_back: int | None = None
        self._joined = asyncio.Event()
        self._crossing: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        # The bus must not wait for what a test does: a node that is not heard of for a second is taken to have failed.
        self._thread = threading.Thread(target=self._loop.run_forever, name="divided network")
        self.ports: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            for node, port in enumerate(self._cluster.ports):
                clients, bus = (self._run(self._listen(node, at)) for at in (port, port + BUS_PORT_OFFSET))
                self.ports.append(clients)
                for name, value in (
                    ("bind-source-addr", NODE_HOST.format(FIRST_HOST + node)),
                    ("cluster-announce-port", str(clients)),
                    ("cluster-announce-bus-port", str(bus)),
                ):
                    self._cluster.ask(node, "CONFIG", "SET", name, value)
            wait_until(self._is_announced, timeout_s=30, what="every node knows the others by their new ports")
            for node in range(len(self._cluster.nodes)):
                # Connections of before came from where all come from.
                self._cluster.ask(node, "CLIENT", "KILL", "TYPE", "replica")
            self._cluster.wait_until_whole()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, user: str, password: str) -> str:
        """Of the cluster, through the proxies."""
        return f"redis+cluster://{user}:{password}@{','.join(f'{HOST}:{port}' for port in self.ports)}"

    def divide(self, node: int) -> None:
        """From now on this node is alone with its clients."""
        self._joined.clear()
        self._alone = node

    def hold_back(self, replica: int) -> None:
        """From now on this node gets nothing of what its primary does; to the others it is well."""
        self._joined.clear()
        self._held_back = replica

    def join(self) -> None:
        """Everybody reaches everybody again."""
        self._alone = self._held_back = None
        self._run(self._abort())

    def _is_announced(self) -> bool:
        wanted = {str(port) for port in self.ports}
        return all(
            {line.split(" ")[1].partition("@")[0].rpartition(":")[2] for line in self._cluster.lines(node)} == wanted
            for node in range(len(self.ports))
        )

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self, node: int, port: int) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            # A task that is cancelled would be told of as an error by the server that began it.
            with suppress(asyncio.CancelledError):
                await self._serve(node, port, reader, writer)
            self._tasks.discard(task)

        server = await asyncio.start_server(serve, HOST, 0)
        self._servers.append(server)
        found: int = server.sockets[0].getsockname()[1]
        return found

    async def _serve(self, node: int, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            first = await reader.read(FIRST_CHUNK)
            host = writer.get_extra_info("peername")[0]
            other = int(host.rpartition(".")[2]) - FIRST_HOST  # a client's is below zero
            is_on_lonely_side = self._login in first
            inner_reader, inner_writer = await asyncio.open_connection(HOST, port)

            def crosses() -> bool:
                if other >= 0 and other == self._held_back and port in self._cluster.ports:
                    return True
                if self._alone is None:
                    return False
                from_alone = other == self._alone if other >= 0 else is_on_lonely_side
                return from_alone != (node == self._alone)

            async def copy(data: bytes, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                with suppress(OSError):
                    while data:
                        if crosses():
                            self._crossing |= {writer, inner_writer}
                            await self._joined.wait()
                            return
                        target.write(data)
                        await target.drain()
                        data = await source.read(FIRST_CHUNK)
                target.close()

            back = asyncio.create_task(inner_reader.read(FIRST_CHUNK))
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(copy(first, reader, inner_writer))
                    both.create_task(copy(await back, inner_reader, writer))
            finally:
                writer.close()
                inner_writer.close()

    async def _abort(self) -> None:
        self._joined.set()
        for writer in self._crossing:
            writer.transport.abort()
        self._crossing.clear()

    async def _close(self) -> None:
        await self._abort()
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
