"""The client in docs/how-to-retry.md, as it stands there, against a server that answers as shops and proxies do."""

import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import httpx
import pytest

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to-retry.md"
KEY: Final = "6b0c1d3e-5f2a-4d8e-9a77-1c2b3d4e5f60"
PROBLEM: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer; one of status 0 is a connection that breaks after the request was read."""

    status: int
    body: Any = None
    kind: str = PROBLEM
    headers: dict[str, str] = field(default_factory=dict)


DONE: Final = Said(201, {"balance": 100}, "application/json")
BROKEN: Final = Said(0)
BAD_GATEWAY: Final = Said(502, "<html><h1>502 Bad Gateway</h1></html>", "text/html")
BUSY: Final = Said(503, {"type": "/problems/overloaded", "retryable": True}, headers={"Retry-After": "7"})


@dataclass(slots=True)
class Scripted:
    """A server that says what it is told, the last of it for ever."""

    url: str = ""
    script: list[Said] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """`Idempotency-Key` of each request."""

    def next(self, key: str) -> Said:
        self.keys.append(key)
        return self.script[min(len(self.keys), len(self.script)) - 1]


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            said = scripted.next(self.headers["Idempotency-Key"])
            if said.status == 0:
                return
            body = (said.body if isinstance(said.body, str) else json.dumps(said.body)).encode()
            self.send_response(said.status)
            for name, value in {"Content-Type": said.kind, "Content-Length": str(len(body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        scripted.url = f"http://127.0.0.1:{listening.server_port}/v1/users/mina/balance/charges"
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield scripted
        listening.shutdown()
        thread.join()


@pytest.fixture
def pauses_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited, each time for the longest that its jitter allows."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return slept


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """What the document's Python defines."""
    (text,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(text, DOCUMENT.name, "exec"), scope)
    return scope


def post(shown: dict[str, Any], server: Scripted, *script: Said) -> httpx.Response:
    server.script = list(script)
    with httpx.Client() as client:
        answer: httpx.Response = shown["post"](client, server.url, {"amount": 100}, KEY)
    return answer


@pytest.mark.parametrize(
    "first",
    [
        BAD_GATEWAY,
        BROKEN,
        Said(504, "", "text/html"),
        Said(502, {"type": "about:blank", "retryable": True}),
        Said(503, "not JSON"),
        Said(503, ["a", "list"]),
        Said(500, {"error": "of another program"}, "application/json"),
        Said(200, "<html>log in to this network</html>", "text/html"),
        Said(302, "", "text/html", {"Location": "/elsewhere"}),
        Said(409, {"type": "/problems/request-in-progress", "retryable": True}),
    ],
)
def test_what_is_no_answer_of_the_shop_is_sent_again_with_the_same_key(
    shown: dict[str, Any], server: Scripted, pauses_s: list[float], first: Said
) -> None:
    answer = post(shown, server, first, first, DONE)
    assert (answer.status_code, answer.json()) == (201, {"balance": 100})
    assert server.keys == [KEY] * 3
    assert pauses_s == [0.2, 0.4]


@pytest.mark.parametrize(
    ("asked", "pause_s"), [("7", 7.2), ("0", 0.2), ("3600", 60.2), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.2), ("-1", 0.2)]
)
def test_it_waits_as_long_as_it_is_asked_to_within_reason(
    shown: dict[str, Any], server: Scripted, pauses_s: list[float], asked: str, pause_s: float
) -> None:
    said = Said(503, {"type": "/problems/recovering", "retryable": True}, headers={"Retry-After": asked})
    assert post(shown, server, said, DONE).status_code == 201
    assert pauses_s == [pytest.approx(pause_s)]


@pytest.mark.parametrize("status", [400, 402, 409, 422])
def test_a_refusal_that_will_not_change_is_the_answer(
    shown: dict[str, Any], server: Scripted, pauses_s: list[float], status: int
) -> None:
    refusal = Said(status, {"type": "/problems/some", "retryable": False}, f"{PROBLEM}; charset=utf-8")
    assert post(shown, server, refusal).status_code == status
    assert (server.keys, pauses_s) == ([KEY], [])


@pytest.mark.parametrize(("never", "last"), [(BUSY, "503"), (BAD_GATEWAY, "502"), (BROKEN, "RemoteProtocolError")])
def test_it_gives_up_in_the_end_and_says_with_which_key_to_go_on(
    shown: dict[str, Any], server: Scripted, pauses_s: list[float], never: Said, last: str
) -> None:
    with pytest.raises(shown["NoAnswer"], match=f"{KEY}.*{last}") as raised:
        post(shown, server, never)
    assert raised.value.key == KEY
    assert server.keys == [KEY] * 8
    assert len(pauses_s) == 7


def test_its_pauses_have_jitter(shown: dict[str, Any], server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert post(shown, server, BROKEN, BROKEN, BROKEN, DONE).status_code == 201
    assert all(pause_s / 2 <= was <= pause_s for was, pause_s in zip(slept, (0.2, 0.4, 0.8), strict=True))
    assert slept != [0.2, 0.4, 0.8]
