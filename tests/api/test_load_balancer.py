"""The load balancer of the containers, run here: what it answers in the shop's place is a problem, like the shop's."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from api.commands.listening import free_port
from api.problems import PROBLEMS
from tests.running_shop import ROOT

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not on the PATH")

OWN = {"type": "/problems/outcome-unknown", "status": 504, "retryable": True}
WITHIN_S = 10.0


@contextlib.contextmanager
def balancer(folder: Path, upstream: int) -> Iterator[httpx.Client]:
    """nginx on the file as it is, but for its folder, its port, its patience and its upstreams, which are one."""
    port = free_port()
    text = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    for here, there in {
        r"server api-\d:8000": f"server 127.0.0.1:{upstream}",
        r"listen 8080": f"listen 127.0.0.1:{port}",
        r"worker_processes auto": "worker_processes 1",
        r"worker_rlimit_nofile \d+;": "",
        r"worker_connections \d+": "worker_connections 64",
        r"proxy_read_timeout 30s": "proxy_read_timeout 200ms",
        r"/tmp/": f"{folder}/",
    }.items():
        text, found = re.subn(here, there, text)
        assert found, here
    file = folder / "nginx.conf"
    file.write_text(text, encoding="utf-8")
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(["nginx", "-c", str(file), "-g", "daemon off;"], stderr=log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN_S) as client,
    ):
        try:
            deadline = time.monotonic() + WITHIN_S
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)
            yield client
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def before_none(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A load balancer without any API behind it."""
    with balancer(tmp_path_factory.mktemp("nginx"), free_port()) as client:
        yield client


@pytest.fixture(scope="module")
def before_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A load balancer before an API that breaks off at `/breaks`, is silent at `/silent`, and else has a refusal."""
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/silent":
                over.wait()
            if self.path in {"/silent", "/breaks"}:
                return
            body = json.dumps(OWN).encode()
            self.send_response(504)
            self.send_header("Content-Type", "application/problem+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as api:
        thread = Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with balancer(tmp_path_factory.mktemp("nginx"), api.server_port) as client:
                yield client
        finally:
            over.set()
            api.shutdown()
            thread.join()


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The body, once it has what every problem has."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert list(body)[:6] == ["type", "title", "status", "detail", "retryable", "request_id"]
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    if body["type"] != "about:blank":
        kind = PROBLEMS[body["type"].removeprefix("/problems/")]
        assert (body["title"], body["status"]) == (kind.title, kind.status)
        assert list(body)[6:] == list(kind.members)
    return body


@pytest.mark.parametrize(
    ("method", "path", "headers", "retryable"),
    [
        ("POST", "/v1/users/mina/balance/charges", {"Idempotency-Key": "one"}, True),
        ("POST", "/v1/users/mina/balance/charges", {}, False),
        ("POST", "/v1/users/mina/orders/1/payment", {}, True),
        ("POST", "/v1/users/mina/orders/1/cancellation", {}, True),
        ("PUT", "/admin/v1/products/cap", {}, True),
        ("GET", "/v1/products", {}, True),
        ("GET", "/docs/page.html", {}, True),
    ],
)
def test_without_an_api_it_says_whether_to_send_the_same_again(
    before_none: httpx.Client, method: str, path: str, headers: dict[str, str], retryable: bool
) -> None:
    answer = before_none.request(method, path, headers=headers, content=b"{}" if method != "GET" else None)
    said = problem(answer)
    assert (said["type"], said["title"], said["status"]) == ("about:blank", "Bad Gateway", 502)
    assert said["retryable"] is retryable
    assert int(answer.headers["retry-after"]) > 0


def test_an_api_that_breaks_off_or_is_silent_is_told_of_by_a_problem(before_one: httpx.Client) -> None:
    for path, status in (("/breaks", 502), ("/silent", 504)):
        said = problem(before_one.post(path, content=b"{}", headers={"Idempotency-Key": "one"}))
        assert (said["status"], said["retryable"], said["type"]) == (status, True, "about:blank")


def test_what_an_api_answers_is_passed_on_as_it_is(before_one: httpx.Client) -> None:
    answer = before_one.post("/v1/users/mina/checkout", content=b"{}")
    assert (answer.status_code, answer.json()) == (504, OWN)


def test_what_it_refuses_by_itself_is_a_problem_too(before_none: httpx.Client) -> None:
    too_large = problem(before_none.post("/v1/users/mina/checkout", content=b" " * 65_537))
    assert (too_large["type"], too_large["retryable"], too_large["limit"]) == (
        "/problems/body-too-large",
        False,
        65_536,
    )
    assert problem(before_none.get("/metrics"))["type"] == "/problems/not-found"
    assert problem(before_none.get("/problem/413"))["type"] == "/problems/not-found"
    assert problem(before_none.get(f"/{'a' * 40_000}"))["status"] == 431
    assert problem(before_none.get("/", headers={"X-Large": "a" * 40_000}))["status"] == 431
    with socket.create_connection((before_none.base_url.host, before_none.base_url.port or 0)) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        connection.settimeout(WITHIN_S)
        with connection.makefile("rb") as file:
            head, _, body = file.read().partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 400
