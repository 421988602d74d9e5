"""A server that speaks RESP and does what a test tells it to, for what a real one does too rarely."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeAlias

from hiredis import Reader

Command: TypeAlias = list[bytes]
Answer: TypeAlias = Callable[[Command, "Client"], Coroutine[Any, Any, bytes | None]]
"""What to send for a command, or nothing. `Client` lets a test write or hang up by itself."""


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


class Client:
    """One connection from the server's side."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    def hang_up(self) -> None:
        self.writer.transport.abort()


class ScriptedServer:
    """Answers a lane's own questions as a healthy primary does, and hands every other command to ``answer``.

    ``commands`` are those others in the order they came; ``connections`` counts the connections made, ``resets`` those
    that the lane ended hard, ``received_bytes`` what was read. Without ``reading`` it reads once more and then nothing.
    Change ``run_id``, ``role``, ``mode`` or ``loading`` to become another server.
    """

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.run_id = "r" * 40
        self.role = "master"
        self.mode = "standalone"
        self.loading = 0
        self.reading = asyncio.Event()
        self.reading.set()
        self.commands: list[Command] = []
        self.own_commands: list[Command] = []
        self.connections = 0
        self.resets = 0
        self.received_bytes = 0
        self._answer = answer
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=2**16)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"{'rediss' if self._tls else 'redis'}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        client = Client(writer)
        parser = Reader()
        try:
            while await self.reading.wait() and (data := await reader.read(2**16)):
                self.received_bytes += len(data)
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    reply = await self._reply(command, client)
                    if reply is not None:
                        writer.write(reply)
        except ConnectionResetError:
            self.resets += 1
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _reply(self, command: Command, client: Client) -> bytes | None:
        own = self._own_reply(command)
        if own is None:
            self.commands.append(command)
            return await self._answer(command, client)
        self.own_commands.append(command)
        return own

    def _own_reply(self, command: Command) -> bytes | None:
        match [part.upper() for part in command[:2]]:
            case [b"INFO", b"SERVER"]:
                return bulk(f"# Server\r\nredis_mode:{self.mode}\r\nrun_id:{self.run_id}\r\n".encode())
            case [b"INFO", b"REPLICATION"]:
                return bulk(f"role:{self.role}\r\nmaster_host:primary.test\r\nmaster_replid:{'a' * 40}\r\n".encode())
            case [b"INFO", b"PERSISTENCE"]:
                return bulk(f"loading:{self.loading}\r\n".encode())
            case [b"TIME"]:
                return b"*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n"
            case [b"AUTH", _] | [b"CLIENT", b"SETNAME"]:
                return b"+OK\r\n"
        return None
