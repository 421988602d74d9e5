"""Traces for OpenTelemetry: of requests by its ASGI instrumentation, of PostgreSQL's statements by its psycopg one.

Off unless `FIRSTCOME_TRACES` asks for them; the packages are the extra `otel` and are not loaded before. Where the
traces go is said by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.settings import SettingError, read_settings, setting

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from starlette.types import ASGIApp, Scope

    from api.asgi import Application


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Whether a process traces what it does."""

    traces: bool = setting(
        False, unit="true or false", reason="OpenTelemetry traces of requests and statements; needs the extra otel"
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> TraceSettings:
        """Read ``FIRSTCOME_*``; raises `SettingError`."""
        return read_settings(cls, environ)


class _OncePerOutage(logging.Filter):
    """Lets the first complaint about a collector through; the next one when it has taken something in between."""

    told = False

    def filter(self, _: logging.LogRecord) -> bool:
        first, self.told = not self.told, True
        return first


def _exporter() -> SpanExporter:
    """Sends spans by OTLP to where the environment says."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    once = _OncePerOutage()
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(once)

    class Exporter(OTLPSpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            if result is SpanExportResult.SUCCESS:
                once.told = False
            return result

    return Exporter()


def begin_traces(service: str, exporter: SpanExporter | None = None) -> TracerProvider:
    """Traces every statement from now on; spans go to ``exporter``, or by OTLP to where the environment says.

    Raises `SettingError` where the packages are not installed.
    """
    try:
        from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        processor = BatchSpanProcessor(_exporter()) if exporter is None else SimpleSpanProcessor(exporter)
    except ImportError as error:
        raise SettingError(
            "FIRSTCOME_TRACES needs the extra otel, which `make install` and the image bring: in a clone, "
            f".venv/bin/pip install -c constraints.txt -e '.[otel]' ({error})"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(processor)
    PsycopgInstrumentor().instrument(tracer_provider=provider)
    return provider


def traced(application: Application, provider: TracerProvider) -> ASGIApp:
    """The application with a span for each request, named after its operation."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    def details(scope: Scope) -> tuple[str, dict[str, Any]]:
        found = application.surface.find(scope.get("path", ""))
        endpoint = None if found is None else found[0].endpoints.get(scope.get("method", ""))
        if endpoint is None:
            return f"{scope.get('method', '')} other", {}
        return endpoint.operation.operation_id, {"http.route": endpoint.operation.path}

    outermost: ASGIApp = OpenTelemetryMiddleware(
        application, default_span_details=details, tracer_provider=provider, exclude_spans=["receive", "send"]
    )
    return outermost
