"""`/metrics` of an API: all its processes together, whichever of them is asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.asgi import Surface
from api.operations import OPERATORS, Operation
from api.problems import Problem
from api.request_counts import ADDED, GAUGES, OUTCOMES, SECONDS_MAX, Block, RequestCounts
from engine.engine import Engine
from persistence.metric_families import buckets_of, build_info, lane_families, lane_numbers

FOLD_EVERY_S: Final = 0.1
"""What is gathered is counted so often, so that the rates of other processes are smooth."""
FOLDS_TO_A_PUBLISHING: Final = 10

METRICS: Final = Operation(
    operation_id="get_metrics",
    method="GET",
    path="/metrics",
    tag=OPERATORS,
    summary="Read the metrics",
    security="admin",
    answers={},
)
"""Whose right `/metrics` needs, where tokens are asked for. It is no JSON, so the specification has nothing of it."""


class ApiMetrics(Collector):
    """What this process counts, and the page that shows it with what its siblings do."""

    def __init__(self, engine: Engine, counts: RequestCounts) -> None:
        self.counts = counts
        self.surface: Surface | None = None
        self._engine = engine
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry need not collect once to learn the names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        totals, alive = self.counts.totals()
        layout = self.counts.layout
        numbers = {name: totals[index] for name, index in (layout.gauges | layout.added).items()}
        yield build_info()
        yield GaugeMetricFamily("firstcome_api_processes", "Processes of this API that are alive.", alive)
        yield GaugeMetricFamily(
            "firstcome_requests_in_flight", "Requests being handled.", numbers["requests_in_flight"]
        )
        yield CounterMetricFamily(
            "firstcome_api_cpu_seconds", "Processor time of this API's processes.", numbers["cpu_us"] / 1_000_000
        )
        yield from lane_families(numbers)
        yield from _request_families(totals, layout.blocks)

    def publish(self) -> None:
        """Put into the shared cells what is not counted there."""
        numbers = lane_numbers(self._engine) | {"cpu_us": time.process_time_ns() // 1_000}
        in_flight = 0 if self.surface is None else self.surface.in_flight.count
        gauges = {name: numbers[name] for name in GAUGES if name in numbers} | {"requests_in_flight": in_flight}
        self.counts.publish(gauges, {name: numbers[name] for name in ADDED})

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Within it the shared cells are kept up to date."""
        task = asyncio.create_task(self._keep_publishing(), name="metrics")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self.publish()

    async def _keep_publishing(self) -> None:
        while True:
            self.publish()
            for _ in range(FOLDS_TO_A_PUBLISHING):
                await asyncio.sleep(FOLD_EVERY_S)
                self.counts.fold()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the page, to those who may read it."""
        surface: Surface = scope["surface"]
        try:
            surface.require_right(METRICS, scope)
        except Problem as problem:
            await surface.refuse(problem, scope, send)
            return
        self.publish()
        encoder, media_type = choose_encoder(Headers(scope=scope).get("accept", ""))
        # Not in the event loop: it would hold requests up for some milliseconds.
        page = await run_in_threadpool(encoder, self._registry)
        headers = {"content-type": media_type, "cache-control": "no-store"}
        await Response(page, headers=headers)(scope, receive, send)


def _request_families(totals: Sequence[int], blocks: Mapping[str, Block]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "firstcome_requests", "Requests by what became of them.", labels=["operation", "outcome"]
    )
    refusals = CounterMetricFamily("firstcome_refusals", "Problems answered.", labels=["operation", "problem"])
    seconds = HistogramMetricFamily(
        "firstcome_request_seconds", "Time from a request's head to the end of its answer.", labels=["operation"]
    )
    for operation, block in blocks.items():
        for index, outcome in enumerate(OUTCOMES):
            requests.add_metric([operation, outcome], totals[block.outcomes + index])
        for problem, index in block.problems.items():
            refusals.add_metric([operation, problem], totals[index])
        buckets = totals[block.buckets : block.buckets + len(SECONDS_MAX) + 1]
        seconds.add_metric([operation], buckets_of(SECONDS_MAX, buckets), totals[block.nanoseconds] / 1_000_000_000)
    yield requests
    yield refusals
    yield seconds
