"""`firstcome api`: the HTTP server, in one process or several that share a port.

uvicorn's own supervisor kills a process that does not answer it for five seconds, which a loaded machine reaches; so
each process here is a uvicorn of its own on an inherited socket, started again when it ends, never because it is slow.
"""

import contextlib
import os
import signal
import socket
import sys
import threading

import click
import uvicorn

from api.commands.listening import CannotListen, http_url, listen, require_loopback
from api.commands.logs import configure_logs
from api.commands.processes import ChildProcess, ProcessFailed, Supervisor, stop_signals

DRAIN_S = 10
"""How long requests under way may take after the stop was asked for."""

KEEP_ALIVE_S = 75
"""Longer than the 60 s of common load balancers, so that it is they who close an idle connection."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1, 256), help="How many share the port.")
@click.option("--fd", type=int, hidden=True, help="Serve on this inherited socket.")
def api(host: str, port: int, processes: int, fd: int | None) -> None:
    """Serve HTTP.

    Where Redis and PostgreSQL are is read from FIRSTCOME_REDIS_URL and FIRSTCOME_DATABASE_URL. A SIGTERM ends it once
    the requests under way are answered.
    """
    configure_logs()
    if fd is not None:
        serve(socket.socket(fileno=fd))
        return
    try:
        require_loopback(host)
        listeners = listen(host, port, processes)
    except CannotListen as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"serving on {http_url(host, listeners[0].getsockname()[1])}", err=True)
    if processes == 1:
        serve(listeners[0])
    else:
        _serve_with_children(listeners)


def serve(listener: socket.socket) -> None:
    """Serves in this process until SIGTERM or SIGINT; exits with uvicorn's status when it cannot start."""
    config = uvicorn.Config(
        "api.app:create_app",
        factory=True,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises the signals it caught once more when it is done; here that ends in a clean exit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listener])


def _serve_with_children(listeners: list[socket.socket]) -> None:
    stopping = threading.Event()
    children = [
        ChildProcess(
            name=f"API process {number}",
            argv=[*program(), "api", "--fd", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stop_timeout_s=DRAIN_S + 5,
        )
        for number, listener in enumerate(listeners, start=1)
    ]
    supervisor = Supervisor(children, tell=lambda message: click.echo(message, err=True))
    with stop_signals(stopping), contextlib.closing(supervisor):
        try:
            supervisor.start()
        except ProcessFailed as error:
            raise click.ClickException(str(error)) from error
        supervisor.watch(stopping)


def program() -> list[str]:
    """The command line that runs `firstcome` in another process, whatever folder it is started in."""
    return [sys.executable, "-P", "-m", "api.commands"]


def environment(**settings: str) -> dict[str, str]:
    """Our environment with these settings in it."""
    return {**os.environ, **settings}
