"""``firstcome receiver``: a small data platform for the demo. It verifies and keeps every order event it is sent."""

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import orjson
import uvicorn
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.commands.listening import CannotListen, http_url, listen
from engine.settings import SettingError, read_settings
from persistence.settings import ReceiverSettings
from persistence.webhooks import make_secret

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
        self.refused = 0
        """Posts whose signature was none of ours."""
        if file.exists():
            # A line that a crash cut short was never answered, so it will be sent again.
            whole = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            file.write_bytes(b"".join(whole))
            for line in whole:
                self._remember(orjson.loads(line))

    def keep(self, events: Sequence[dict[str, Any]]) -> None:
        """Take events in; one that is sent again counts as a repeat and is kept once."""
        fresh = {event["id"]: event for event in events if event["id"] not in self._ids}
        self._repeats += len(events) - len(fresh)
        with self._file.open("ab") as lines:
            lines.write(b"".join(orjson.dumps(event) + b"\n" for event in fresh.values()))
        for event in fresh.values():
            self._remember(event)

    def summary(self) -> dict[str, Any]:
        """How many events there are, and the last of them, newest first."""
        last = list(reversed(self._last))
        return {"count": len(self._ids), "repeats": self._repeats, "refused": self.refused, "last": last}

    def _remember(self, event: dict[str, Any]) -> None:
        self._ids.add(event["id"])
        self._last.append(event)


def receiver_app(file: Path, secrets: Sequence[str]) -> Starlette:
    """POST / takes a batch of events, signed with one of the secrets; GET / shows what came."""
    receiver = Receiver(file)
    webhooks = [Webhook(secret) for secret in secrets]

    async def take(request: Request) -> Response:
        body = await request.body()
        if len(body) > BODY_MAX_BYTES:
            return JSONResponse({"detail": f"more than {BODY_MAX_BYTES} bytes"}, status_code=413)
        if not any(_is_signed(webhook, body, request.headers) for webhook in webhooks):
            receiver.refused += 1
            return JSONResponse({"detail": "not signed with a secret that is known here"}, status_code=401)
        events = _events(body)
        if events is None:
            return JSONResponse({"detail": "not a batch of CloudEvents 1.0"}, status_code=400)
        receiver.keep(events)
        return Response(status_code=204)

    async def show(_: Request) -> Response:
        return JSONResponse(receiver.summary())

    return Starlette(routes=[Route("/", take, methods=["POST"]), Route("/", show, methods=["GET"])])


def _is_signed(webhook: Webhook, body: bytes, headers: Mapping[str, str]) -> bool:
    try:
        webhook.verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        return False
    return True


def _events(body: bytes) -> list[dict[str, Any]] | None:
    try:
        events: list[dict[str, Any]] = orjson.loads(body)
        are_events = isinstance(events, list) and all(
            event["specversion"] == "1.0" and isinstance(event["id"], str) for event in events
        )
    except (ValueError, TypeError, KeyError):
        return None
    return events if are_events else None


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8081, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(".firstcome/received.jsonl"),
    show_default=True,
    help="Where the events are kept, one JSON document a line.",
)
@click.option("--new-secret", is_flag=True, help="Print a new secret for FIRSTCOME_DATA_PLATFORM_SECRETS, and end.")
def receiver(host: str, port: int, file: Path, new_secret: bool) -> None:
    """Receive the paid orders that the worker sends to the data platform, for the demo.

    What is not signed with a secret of FIRSTCOME_DATA_PLATFORM_SECRETS is refused.
    """
    if new_secret:
        click.echo(make_secret())
        return
    try:
        app = receiver_app(file, read_settings(ReceiverSettings).secrets)
        listeners = listen(host, port)
    except (CannotListen, SettingError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{file} cannot be used: {error.strerror}: choose another --file") from error
    click.echo(f"receiving on {http_url(host, listeners[0].getsockname()[1])}", err=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=listeners)
