"""Traces, where they are asked for: a request and its statements are one trace, and a worker's statements are traced
too. Else nothing is."""

import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from api.app import make_app
from api.commands.api import environment
from api.commands.listening import free_port
from api.settings import ApiSettings
from api.tracing import begin_traces, traced
from engine.settings import EngineSettings
from persistence.settings import HistorySettings
from tests.running_shop import charge, eventually
from tests.servers import Databases
from tests.shop_servers import opened_shop

sdk = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="the extra otel is missing")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
AMOUNT = 7_654_321


@pytest.fixture
def exporter() -> Iterator[Any]:
    yield sdk.InMemorySpanExporter()
    importlib.import_module("opentelemetry.instrumentation.psycopg").PsycopgInstrumentor().uninstrument()


async def test_a_request_and_its_statements_are_one_trace_that_tells_nobodys_amounts(
    exporter: Any, redis_url: str, database_url: str
) -> None:
    app = make_app(EngineSettings(redis_url=redis_url), ApiSettings(), HistorySettings(database_url=database_url))
    provider = begin_traces("a-shop", exporter)
    surface = traced(app, provider)
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(surface), base_url="http://shop", headers=headers) as client,
    ):
        assert (await client.get("/v1/users/mina/balance/entries")).status_code == httpx.codes.OK
        await client.post("/v1/users/mina/balance/charges", json={"amount": AMOUNT})
        assert (await client.get("/nowhere")).status_code == httpx.codes.NOT_FOUND
    spans = exporter.get_finished_spans()
    requests = {span.name: span for span in spans if span.parent and f"{span.parent.span_id:016x}" == PARENT}
    assert requests.keys() == {"list_balance_entries", "charge_balance", "GET other"}
    asked = requests["list_balance_entries"]
    assert asked.attributes["http.route"] == "/v1/users/{user_id}/balance/entries"
    assert {f"{span.context.trace_id:032x}" for span in requests.values()} == {TRACE}
    statements = [span for span in spans if span.parent and span.parent.span_id == asked.context.span_id]
    assert any("ledger_entry" in span.attributes.get("db.statement", "") for span in statements)
    assert str(AMOUNT) not in "".join(span.to_json() for span in spans)
    provider.shutdown()


@contextmanager
def collecting(port: int = 0) -> Iterator[tuple[str, list[bytes]]]:
    """A collector of traces as OTLP has them over HTTP: its address, and the bodies that it was sent."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", bodies
        finally:
            server.shutdown()
            thread.join()


def test_a_shop_that_is_traced_works_and_its_workers_tell_their_statements_and_nobodys_amounts(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    with collecting() as (address, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")

        def names(service: str) -> set[str]:
            """The first words of what this process has traced so far."""
            found = set()
            for body in list(bodies):
                for resource in request.ExportTraceServiceRequest.FromString(body).resource_spans:
                    told = {each.key: each.value.string_value for each in resource.resource.attributes}
                    if told["service.name"] == service:
                        found |= {span.name for scope in resource.scope_spans for span in scope.spans}
            return found

        with opened_shop(databases, traces="true") as shop:
            charge(shop.client(), "mina", AMOUNT)
            shop.assert_conserved()
            eventually(lambda: {"INSERT", "UPDATE"} <= names("firstcome-worker"), what="the worker's statements")
            eventually(lambda: "charge_balance" in names("firstcome-api"), what="the API's request")
            assert shop.errors_logged() == []
    assert str(AMOUNT).encode() not in b"".join(bodies)


def test_nothing_is_traced_unless_asked_for() -> None:
    script = (
        "import sys, api.app; app = api.app.create_app();"
        " sys.exit(type(app).__name__ != 'Application' or 'opentelemetry.instrumentation.asgi' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=environment())


def test_without_the_packages_the_setting_is_refused_with_the_remedy() -> None:
    script = (
        "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None\n"
        "import api.app; api.app.create_app()"
    )
    traces = environment(FIRSTCOME_TRACES="true")
    done = subprocess.run([sys.executable, "-c", script], env=traces, capture_output=True, text=True, check=False)
    assert ".venv/bin/pip install -c constraints.txt -e '.[otel]'" in done.stderr


def test_a_collector_that_is_away_is_told_of_once_until_it_is_back(
    exporter: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    provider = begin_traces("a-shop")
    tracer = provider.get_tracer("a-shop")

    def told(times: int) -> list[str]:
        for _ in range(times):
            tracer.start_span("a span").end()
            provider.force_flush()
        found = [record.getMessage() for record in caplog.records if "exporter" in record.name]
        caplog.clear()
        return found

    assert len(told(3)) == 1
    with collecting(port) as (_, bodies):
        assert told(2) == []
        assert bodies
    assert len(told(3)) == 1
    provider.shutdown()
