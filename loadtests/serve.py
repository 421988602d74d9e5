"""Serves an application on an inherited socket as `firstcome api` does: uvicorn, uvloop, httptools, no access log, the
garbage collector seldom at work.

`firstcome api` also guards its connections, and sends an answer in one write where uvicorn sends two
(`api/whole_messages.py`).
"""

import signal
import socket

import click
import uvicorn

from engine import garbage


@click.command()
@click.argument("application")
@click.option("--fd", type=int, required=True, help="A listening socket.")
def main(application: str, fd: int) -> None:
    """Serve APPLICATION, a factory such as `loadtests.baselines.row_locks:make_app`, until SIGTERM."""
    config = uvicorn.Config(
        application,
        factory=True,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    config.load()
    garbage.settle()
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    main()
