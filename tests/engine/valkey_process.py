"""A real Valkey for tests that kill, stop and restart it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from api.commands.listening import free_port
from api.commands.server_files import redis_programs

DEADLINE_S = 10.0


class ValkeyProcess:
    """One server on a loopback port and a Unix socket, nothing kept on disk. `start` after `kill` is a restart."""

    def __init__(self, folder: Path, *options: str, program: Path | None = None) -> None:
        self._program = str(program or redis_programs()[0].program)
        self.port = free_port()
        self.socket_path = f"{folder}/valkey.sock"
        self._folder = folder
        self._options: Sequence[str] = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", self.socket_path)
        what = ("--dir", str(self._folder), "--save", "", "--appendonly", "no", "--loglevel", "warning")
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, *where, *what, *self._options], stdout=log, stderr=log)
        give_up_at = time.monotonic() + DEADLINE_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "valkey.log").read_text()
            assert time.monotonic() < give_up_at, "the server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100)[:1] in {b"+", b"-"}
        except OSError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
