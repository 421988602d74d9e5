"""``firstcome receiver``: a small data platform for the demo. It keeps every order event that it is sent."""

from collections import deque
from pathlib import Path
from typing import Any

import click
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LAST_SHOWN = 20
BODY_MAX_BYTES = 1 << 20


class Receiver:
    """Appends each event to a file of JSON lines, once per event id, and remembers the last ones."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        self._ids: set[str] = set()
        self._last: deque[dict[str, Any]] = deque(maxlen=LAST_SHOWN)
        self._repeats = 0
        if file.exists():
            # A line that a crash cut short was never answered, so it will be sent again.
            whole = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            file.write_bytes(b"".join(whole))
            for line in whole:
                self._remember(orjson.loads(line))

    def keep(self, event: dict[str, Any]) -> None:
        """Take an event in; one that is sent again counts as a repeat and is kept once."""
        if event["id"] in self._ids:
            self._repeats += 1
            return
        with self._file.open("ab") as lines:
            lines.write(orjson.dumps(event) + b"\n")
        self._remember(event)

    def summary(self) -> dict[str, Any]:
        """How many events there are, and the last of them, newest first."""
        return {"count": len(self._ids), "repeats": self._repeats, "last": list(reversed(self._last))}

    def _remember(self, event: dict[str, Any]) -> None:
        self._ids.add(event["id"])
        self._last.append(event)


def receiver_app(file: Path) -> Starlette:
    """POST / takes an event (a CloudEvent in structured JSON); GET / shows what came."""
    receiver = Receiver(file)

    async def take(request: Request) -> Response:
        body = await request.body()
        try:
            event = orjson.loads(body)
            is_event = event["specversion"] == "1.0" and isinstance(event["id"], str)
        except (ValueError, TypeError, KeyError):
            is_event = False
        if not is_event or len(body) > BODY_MAX_BYTES:
            return JSONResponse({"detail": "not a CloudEvent 1.0 in structured JSON"}, status_code=400)
        receiver.keep(event)
        return Response(status_code=204)

    async def show(_: Request) -> Response:
        return JSONResponse(receiver.summary())

    return Starlette(routes=[Route("/", take, methods=["POST"]), Route("/", show, methods=["GET"])])


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8081, show_default=True, help="Port to listen on.")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(".firstcome/received.jsonl"),
    show_default=True,
    help="Where the events are kept, one JSON document a line.",
)
def receiver(host: str, port: int, file: Path) -> None:
    """Receive the paid orders that the worker sends to the data platform, for the demo."""
    uvicorn.run(receiver_app(file), host=host, port=port, log_level="warning")
