"""`/metrics` of a worker, on a small HTTP port of its own."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.engine import Engine
from persistence.alarms import STOCK_SHORT
from persistence.continuous_audit import ContinuousAudit
from persistence.dispatcher import Dispatcher
from persistence.metric_families import Distribution, build_info, lane_families, lane_numbers
from persistence.settings import WorkerSettings
from persistence.settler import Settler
from persistence.start_checks import StartRefused
from persistence.sweeper import Sweeper
from persistence.trust import Trust
from persistence.watch import PartitionState, StoresSnapshot, Watch

SIGHT_HOLDS_S = 30.0
"""What was seen longer ago is not shown any more: then it is not known."""

BATCH_EVENTS = (1, 10, 50, 100, 500, 1_000, 2_000, 5_000)
BATCH_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


@dataclass(slots=True)
class DutyCounts:
    """How often a duty had to begin anew, and whether it is at work."""

    failures: int = 0
    is_running: bool = False


@dataclass(slots=True)
class WriterCounts:
    """What the writer has written."""

    events: Distribution = field(default_factory=lambda: Distribution(BATCH_EVENTS))
    seconds: Distribution = field(default_factory=lambda: Distribution(BATCH_SECONDS))

    def add(self, events: int, seconds: float) -> None:
        """Count a round that had something to write."""
        self.events.add(events)
        self.seconds.add(seconds)


@dataclass(frozen=True, slots=True)
class Duties:
    """Whose numbers are shown."""

    writer: WriterCounts
    settler: Settler
    sweeper: Sweeper
    dispatcher: Dispatcher
    audit: ContinuousAudit
    trust: Trust
    duties: Mapping[str, DutyCounts]


class WorkerCollector(Collector):
    """Reads the duties' plain numbers; runs in the port's thread, and changes nothing."""

    def __init__(self, engine: Engine, duties: Duties, watch: Watch) -> None:
        self._engine = engine
        self._duties = duties
        self._watch = watch

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry need not collect once to learn the names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield build_info()
        yield from lane_families(lane_numbers(self._engine))
        yield from _duty_families(self._duties)
        limit = self._engine.settings.backlog_max
        yield _gauge("backlog_limit_events", "A partition's backlog from which on new work is refused.", limit)
        sight = self._watch.sight
        age_s = float("inf") if sight is None else time.monotonic() - sight.at_s
        yield _gauge("watch_age_seconds", "Time since both stores were last looked at.", age_s)
        if sight is not None and age_s <= SIGHT_HOLDS_S:
            yield from _sight_families(sight)


@contextmanager
def metrics_port(settings: WorkerSettings, collector: Collector) -> Iterator[None]:
    """Within it the metrics are served, if the settings name a port. Raises `StartRefused` when that is not free."""
    if not settings.worker_metrics_port:
        yield
        return
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(settings.worker_metrics_port, settings.worker_metrics_host, registry)
    except OSError as error:
        raise StartRefused(
            f"metrics cannot be served on {settings.worker_metrics_host} port {settings.worker_metrics_port}:"
            f" {error.strerror or error}. Set FIRSTCOME_WORKER_METRICS_PORT to a free one, another for each worker of a"
            " machine, or to 0"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"firstcome_{name}", meaning, value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(f"firstcome_{name}", meaning, value)


def _duty_families(duties: Duties) -> Iterator[Metric]:
    settler, sweeper, dispatcher, audit = duties.settler, duties.sweeper, duties.dispatcher, duties.audit
    running = GaugeMetricFamily("firstcome_duty_running", "1 while a duty has its servers.", labels=["duty"])
    failures = CounterMetricFamily("firstcome_duty_failures", "Times that a duty began anew.", labels=["duty"])
    for name, counts in list(duties.duties.items()):
        running.add_metric([name], counts.is_running)
        failures.add_metric([name], counts.failures)
    yield running
    yield failures
    yield duties.writer.events.family("firstcome_writer_batch_events", "Events of a transaction of the writer.")
    yield duties.writer.seconds.family("firstcome_writer_batch_seconds", "From its first read to Redis being told.")
    yield _counter("settler_confirmed", "Reservations that became sold.", settler.confirmed)
    yield _counter("settler_released", "Reservations given back by the worker.", settler.released)
    yield _counter("settler_granted", "Coupons granted by the worker, as the API had not.", settler.granted)
    yield _counter("settler_left", "Steps left to a later walk, as Redis would not do them.", settler.left)
    yield _gauge("settler_waiting_orders", "Durable orders that wait for their confirm.", settler.waiting)
    yield _counter("sweeper_expired", "Orders failed as they were not paid in time.", sweeper.expired)
    yield _counter("sweeper_voided", "Reservations of flows that died.", sweeper.voided)
    yield _counter("sweeper_walked", "Held reservations looked at.", sweeper.walked)
    yield _counter("cooler_rows", "Settled rows looked at to leave Redis.", sweeper.cooled)
    deliveries = CounterMetricFamily(
        "firstcome_deliveries", "Events posted to the data platform, by what became of them.", labels=["outcome"]
    )
    deliveries.add_metric(["delivered"], dispatcher.delivered)
    deliveries.add_metric(["failed"], dispatcher.failed)
    deliveries.add_metric(["dead"], dispatcher.dead)
    yield deliveries
    yield dispatcher.seconds.family("firstcome_delivery_seconds", "Time of a post to the data platform.")
    yield _counter("auditor_steps", "Steps of the continuous audit.", audit.steps)
    yield _counter("auditor_compared", "Entities compared.", audit.compared)
    yield _counter("auditor_mismatches", "Mismatches found, each as often as it was seen.", audit.mismatches)
    yield _counter("recoveries", "Recoveries that this worker has done.", duties.trust.recoveries)


def _partition_families(states: Mapping[int, PartitionState]) -> Iterator[Metric]:
    shown: dict[str, tuple[str, Callable[[PartitionState], float | None]]] = {
        "sequence": ("Events so far, as Redis says.", lambda state: state.sequence),
        "durable_sequence": ("Events that PostgreSQL has.", lambda state: state.durable),
        "backlog_events": ("Events that PostgreSQL has not.", lambda state: state.backlog),
        "lag_seconds": ("Age of the oldest event that PostgreSQL has not.", lambda state: state.lag_s),
        "trusted": ("1 while it is served from.", lambda state: state.is_trusted),
        "stopped": ("1 while its writer has stopped at an event.", lambda state: state.is_stopped),
    }
    for name, (meaning, value_of) in shown.items():
        family = GaugeMetricFamily(f"firstcome_partition_{name}", meaning, labels=["partition"])
        for partition, state in sorted(states.items()):
            value = value_of(state)
            if value is not None:
                family.add_metric([str(partition)], value)
        yield family


def _sight_families(sight: StoresSnapshot) -> Iterator[Metric]:
    yield from _partition_families(sight.partitions)
    alarms = GaugeMetricFamily("firstcome_alarms_open", "Alarms that are open.", labels=["kind"])
    for kind, count in sight.alarms_open.items():
        alarms.add_metric([kind], count)
    yield alarms
    yield _gauge("stock_shortages_open", "Sold lines that no stock is left for.", sight.alarms_open[STOCK_SHORT])
    yield _counter("stock_shortages", "Such lines so far.", sight.shortages)
    yield _gauge("deliveries_waiting", "Paid orders not told to the data platform, at most 10,000 of them.",
                 sight.deliveries_waiting)  # fmt: skip
    yield _gauge("delivery_oldest_seconds", "Age of the oldest of those that are due first.", sight.delivery_oldest_s)
    yield _gauge("workers", "Workers that are there.", sight.workers)
