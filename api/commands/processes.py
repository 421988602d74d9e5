"""Child processes that do not outlive the process that started them.

Every child runs in a session of its own, so that Ctrl-C in the terminal reaches only `firstcome`, which then stops its
children in the right order. What a `kill -9` of `firstcome` would leave behind is ended by a leash: a shell that waits
for the end of a pipe whose other end only the parent holds. The kernel closes that pipe however the parent dies, on
every Unix, and whichever thread started the child, where Linux' parent-death signal depends on both.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

LOG_TAIL_BYTES = 4096
LOG_BYTES_MAX = 16 * 1024 * 1024
POLL_INTERVAL_S = 0.02
LEASH_GRACE_S = 15
WATCH_INTERVAL_S = 0.2
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.5, 10.0
STEADY_S = 30.0
"""A service that ran for so long is not in a loop of crashes."""

_LEASH = """
read -r _
kill -s "$2" "$1" 2>/dev/null || exit 0
waited=0
while [ "$waited" -lt "$3" ]; do
    sleep 1
    kill -0 "$1" 2>/dev/null || exit 0
    waited=$((waited + 1))
done
kill -s KILL "$1" 2>/dev/null
"""


class ProcessFailed(Exception):
    """A child process ended, or did not become ready, when it was needed."""


class Interrupted(Exception):
    """A stop was asked for while something was being waited for."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine that a child runs as."""

    name: str
    uid: int
    gid: int


def wait_until(
    condition: Callable[[], bool], *, timeout_s: float, what: str, stopping: threading.Event | None = None
) -> None:
    """Waits for `condition`; raises ProcessFailed naming `what` after `timeout_s`, Interrupted when `stopping`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if stopping is not None and stopping.is_set():
            raise Interrupted(what)
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{what}: not after {timeout_s:g} s")
        time.sleep(POLL_INTERVAL_S)


def process_exists(pid: int) -> bool:
    """Whether a process of this id exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_line(pid: int) -> str:
    """The command line of a running process, or "" when there is none to be seen."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    with contextlib.suppress(OSError):  # macOS has no /proc, small containers have no ps
        argv = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    return ""


@dataclass(slots=True)
class ChildProcess:
    """One child with its log file and its leash; `start` may be called again after it ended.

    `pass_fds` are handed on by number; without a `log` it writes where we do. `stop_signal` asks for a clean end, for
    which it has `stop_timeout_s`.
    """

    name: str
    argv: Sequence[str]
    log: Path | None = None
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    account: Account | None = None
    pass_fds: Sequence[int] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 30
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _leash: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _log_from: int = field(default=0, init=False)

    @property
    def pid(self) -> int:
        """The id of the process; raises ProcessFailed when it was never started."""
        if self._process is None:
            raise ProcessFailed(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit status (negative: the signal that ended it), None while it runs or before it started."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Starts the process; raises ProcessFailed when it runs already or the program cannot be executed."""
        if self.running:
            raise ProcessFailed(f"{self.name} runs already, as process {self.pid}")
        self._release_leash()
        try:
            with contextlib.ExitStack() as files:
                output = None if self.log is None else files.enter_context(_open_log(self.log))
                self._log_from = 0 if output is None else output.tell()
                self._process = subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
                    env=None if self.env is None else dict(self.env),
                    cwd=self.cwd,
                    pass_fds=self.pass_fds,
                    start_new_session=True,
                    user=None if self.account is None else self.account.uid,
                    group=None if self.account is None else self.account.gid,
                    extra_groups=None if self.account is None else [],
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise ProcessFailed(f"{self.name} cannot be started: {error}") from error
        self._leash = _leash(self._process.pid, self.stop_signal)

    def stop(self) -> None:
        """Asks the process to end, and kills it when it takes too long; nothing happens when it does not run."""
        if self.running:
            self.signal(self.stop_signal)
            try:
                wait_until(lambda: not self.running, timeout_s=self.stop_timeout_s, what=f"{self.name} stopped")
            except ProcessFailed:
                self.signal(signal.SIGKILL)
        self._reap()

    def kill(self) -> None:
        """Ends the process at once, as a crash would."""
        self.signal(signal.SIGKILL)
        self._reap()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the process runs."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def log_tail(self, *, lines: int = 8) -> str:
        """The last lines that the process has written since it was started last; "" without a log."""
        if self.log is None:
            return ""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_from, self.log.stat().st_size - LOG_TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def failure(self, problem: str = "has ended") -> ProcessFailed:
        """An error that shows the end of the log beside the problem, unless a signal of others explains it."""
        code = self.exit_code
        if code is not None and -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            return ProcessFailed(f"{self.name} was ended from outside, by {signal.Signals(-code).name}")
        tail = self.log_tail()
        return ProcessFailed(f"{self.name} {problem}" + (f"; its last words in {self.log}:\n{tail}" if tail else ""))

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
        self._release_leash()

    def _release_leash(self) -> None:
        if self._leash is None:
            return
        self._leash.kill()
        if self._leash.stdin is not None:
            self._leash.stdin.close()
        self._leash.wait()
        self._leash = None


def _leash(pid: int, stop_signal: signal.Signals) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            "/bin/sh",
            "-c",
            _LEASH,
            "firstcome-leash",
            str(pid),
            stop_signal.name.removeprefix("SIG"),
            str(LEASH_GRACE_S),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def run_as(
    account: Account | None, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end as `account` (None: ourselves), output captured; any exit status is an answer."""
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=timeout_s,
        env=None if env is None else dict(env),
        cwd="/",
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
    )


def _open_log(log: Path) -> IO[bytes]:
    """Keeps one older log beside the current one, so that logs cannot fill the disk run by run."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_name(log.name + ".1"))
    return log.open("ab")


class Service(Protocol):
    """What a supervisor keeps going: a child process or an embedded server."""

    @property
    def name(self) -> str: ...

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def failure(self, problem: str = ...) -> ProcessFailed: ...


@dataclass(slots=True)
class _Watched:
    service: Service
    started_at: float = 0.0
    restart_at: float | None = None
    backoff_s: float = BACKOFF_S_MIN


class Supervisor:
    """Keeps services running: one that ends is started again, after a pause that doubles while it keeps ending."""

    def __init__(self, services: Sequence[Service] = (), *, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._watched = [_Watched(service) for service in services]

    def add(self, service: Service) -> None:
        """Looks after one more, which runs already or is started by `start`."""
        self._watched.append(_Watched(service, started_at=time.monotonic()))

    def start(self) -> None:
        """Starts those that do not run yet, in the order they were given. Raises what a start raises."""
        for watched in self._watched:
            if not watched.service.running:
                watched.service.start()
                watched.started_at = time.monotonic()

    def watch(self, stopping: threading.Event) -> None:
        """Starts again what ends, until `stopping` is set."""
        while not stopping.wait(WATCH_INTERVAL_S):
            self.look()

    def look(self) -> None:
        """One look at every service."""
        for watched in self._watched:
            if not watched.service.running:
                self._revive(watched)

    def close(self) -> None:
        """Stops every service, the last one first."""
        while self._watched:
            self._watched.pop().service.stop()

    def _revive(self, watched: _Watched) -> None:
        now = time.monotonic()
        if watched.restart_at is None:
            if now - watched.started_at > STEADY_S:
                watched.backoff_s = BACKOFF_S_MIN
            watched.restart_at = now + watched.backoff_s
            self._tell(f"{watched.service.failure()}\n{watched.service.name} starts again in {watched.backoff_s:g} s")
            watched.backoff_s = min(watched.backoff_s * 2, BACKOFF_S_MAX)
        elif now >= watched.restart_at:
            watched.restart_at = None
            watched.started_at = now
            # A start that fails leaves the service as it is, and the next look finds it so.
            with contextlib.suppress(ProcessFailed):
                watched.service.start()


@contextlib.contextmanager
def stop_signals(stopping: threading.Event) -> Iterator[None]:
    """Within it, SIGINT, SIGTERM and SIGHUP set `stopping`; a second one changes nothing, as stopping is under way."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
