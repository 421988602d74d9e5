"""`firstcome api`: the HTTP server, in one process or several that share a port.

uvicorn's own supervisor kills a process that does not answer it for five seconds, which a loaded machine reaches; so
each process here is a uvicorn of its own on an inherited socket, started again when it ends, never because it is slow.
"""

import contextlib
import functools
import os
import resource
import signal
import socket
import sys
import tempfile
import threading

import click
import uvicorn

from api.app import create_app
from api.asgi import Application
from api.authentication import Keys, read_keys
from api.commands.first_look import look_first
from api.commands.listening import CannotListen, http_url, listen, require_loopback
from api.commands.logs import configure_logs
from api.commands.processes import WATCH_INTERVAL_S, ChildProcess, ProcessFailed, Supervisor, stop_signals
from api.commands.setting_names import warn_of_unknown_settings
from api.guards.connections import ConnectionLimits, limited_to
from api.request_counts import LAYOUT, RequestCounts
from api.settings import ApiSettings
from engine.settings import EngineSettings, SettingError
from persistence.settings import HistorySettings
from persistence.start_checks import StartRefused

DRAIN_S = 10
"""How long requests under way may take after the stop was asked for."""

KEEP_ALIVE_S = 75
"""Longer than the 60 s of common load balancers, so that it is they who close an idle connection."""

OWN_FILES = 128
"""Files and connections of a process beside those of its clients: Redis, PostgreSQL, logs."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1, 256), help="How many share the port.")
@click.option("--fd", type=int, hidden=True, help="Serve on this inherited socket.")
@click.option(
    "--counts", type=(int, int), hidden=True, help="Count in this inherited file, as the process of a number."
)
def api(host: str, port: int, processes: int, fd: int | None, counts: tuple[int, int] | None) -> None:
    """Serve HTTP.

    Where Redis and PostgreSQL are is read from FIRSTCOME_REDIS_URL and FIRSTCOME_DATABASE_URL. Tokens are asked for
    once FIRSTCOME_TOKEN_SECRET or FIRSTCOME_TOKEN_KEY_FILE is set; until then only this machine is served. A SIGTERM
    ends it once the requests under way are answered.
    """
    try:
        configure_logs()
        settings = ApiSettings.from_environment()
        keys = read_keys(settings)
        servers = EngineSettings.from_environment(), HistorySettings.from_environment()
        listeners = [_inherited(fd, keys)] if fd is not None else _own(host, port, processes, keys)
        if counts is None:  # else whoever started this process has warned
            warn_of_unknown_settings()
        look_first(*servers)
    except StartRefused as error:
        raise Refused(str(error)) from error
    except (CannotListen, SettingError) as error:
        raise click.ClickException(str(error)) from error
    if fd is None:
        click.echo(f"serving on {http_url(host, listeners[0].getsockname()[1])}: {asked_for(keys)}", err=True)
    if len(listeners) == 1:
        serve(listeners[0], settings, None if counts is None else _shared_counts(*counts, processes))
    else:
        _serve_with_children(listeners)


class Refused(click.ClickException):
    """What would damage what is stored is not served, and never will be with these settings."""

    exit_code = 3


def _own(host: str, port: int, processes: int, keys: Keys | None) -> list[socket.socket]:
    if keys is None:
        require_loopback(host)
    return listen(host, port, processes)


def _inherited(fd: int, keys: Keys | None) -> socket.socket:
    """A socket of whoever started this process; one in the file system is reached from this machine only."""
    listener = socket.socket(fileno=fd)
    try:
        if keys is None and listener.family != socket.AF_UNIX:
            require_loopback(str(listener.getsockname()[0]))
    except CannotListen:
        listener.close()
        raise
    return listener


def asked_for(keys: Keys | None) -> str:
    """What callers must show, for the line that says where the API serves."""
    if keys is None:
        return "this machine only, without tokens, as no key is configured"
    return f"tokens signed with {keys.algorithm} are asked for"


def _shared_counts(file: int, number: int, processes: int) -> RequestCounts:
    try:
        return RequestCounts(file, number, processes)
    except ValueError as error:
        raise click.ClickException(f"{error}: this program was replaced while it ran; start all of it anew") from error


def serve(listener: socket.socket, settings: ApiSettings, counts: RequestCounts | None = None) -> None:
    """Serves in this process until SIGTERM or SIGINT; exits with uvicorn's status when it cannot start."""
    config = uvicorn.Config(
        functools.partial(create_app, counts),
        factory=True,
        loop="uvloop",
        http=limited_to(connection_limits(settings)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = _Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises the signals it caught once more when it is done; here that ends in a clean exit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listener])
    if server.application is not None and server.application.ended_by:
        raise Refused(server.application.ended_by)


class _Server(uvicorn.Server):
    """Ends streams before it waits for the requests under way."""

    @property
    def application(self) -> Application | None:
        """Ours, once it is loaded; where requests are traced, it is inside of what traces them."""
        loaded = getattr(self.config, "loaded_app", None)
        application = getattr(loaded, "app", loaded)
        return application if isinstance(application, Application) else None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.application is not None:
            self.application.stop()
        await super().shutdown(sockets)


def connection_limits(settings: ApiSettings) -> ConnectionLimits:
    """The limits of the settings, within what the system lets this process open, which is raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    room = sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - OWN_FILES, 1)
    return ConnectionLimits(
        connections_max=min(settings.connections_max, room),
        head_seconds_max=settings.head_timeout_ms / 1000,
        body_seconds_max=settings.body_timeout_ms / 1000,
        send_seconds_max=settings.send_timeout_ms / 1000,
    )


def _serve_with_children(listeners: list[socket.socket]) -> None:
    stopping = threading.Event()
    # A file without a name: it is gone when the last process is, however that ends.
    file = tempfile.TemporaryFile(prefix="firstcome-counts-")  # noqa: SIM115
    file.truncate(LAYOUT.bytes_of(len(listeners)))
    children = [
        ChildProcess(
            name=f"API process {number}",
            argv=[*program(), "api", *_part(listener, file.fileno(), number - 1, len(listeners))],
            pass_fds=[listener.fileno(), file.fileno()],
            stop_timeout_s=DRAIN_S + 5,
        )
        for number, listener in enumerate(listeners, start=1)
    ]
    supervisor = Supervisor(children, tell=lambda message: click.echo(message, err=True))
    with stop_signals(stopping), file, contextlib.closing(supervisor):
        try:
            supervisor.start()
        except ProcessFailed as error:
            raise click.ClickException(str(error)) from error
        while not stopping.wait(WATCH_INTERVAL_S):
            if any(child.exit_code == Refused.exit_code for child in children):
                raise Refused("an API process was refused its start, as it says above; the others are stopped")
            supervisor.look()


def _part(listener: socket.socket, counts: int, number: int, processes: int) -> list[str]:
    return [
        "--fd", str(listener.fileno()), "--counts", str(counts), str(number), "--processes", str(processes),
    ]  # fmt: skip


def program() -> list[str]:
    """The command line that runs `firstcome` in another process, whatever folder it is started in."""
    return [sys.executable, "-P", "-m", "api.commands"]


def environment(**settings: str) -> dict[str, str]:
    """Our environment with these settings in it."""
    return {**os.environ, **settings}
