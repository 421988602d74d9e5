"""What the metrics of API and worker have in common: families that both expose, and counting of distributions."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from engine.engine import Engine

LANE_GAUGES: Final[Mapping[str, str]] = {
    "lane_in_flight": "Calls to Redis that wait to be written or answered.",
}
LANE_COUNTERS: Final[Mapping[str, str]] = {
    "lane_sent": "Calls written to Redis.",
    "lane_sent_again": "Calls that Redis had not executed, and that were sent again: not loaded, not ready, moved.",
    "lane_connections": "Connections to Redis that were made.",
    "lane_silences": "Connections given up because Redis owed replies and sent nothing.",
    "lane_shed": "Calls refused because too many were under way.",
    "sent_again": "Calls of scripts sent again because their outcome was unknown.",
    "begun_again": "Flows begun again because a recovery had overtaken them.",
}


def lane_numbers(engine: Engine) -> dict[str, int]:
    """This process's numbers for `LANE_GAUGES` and `LANE_COUNTERS`."""
    counts = engine.lane_counts
    return {
        "lane_in_flight": counts.in_flight,
        "lane_sent": counts.sent,
        "lane_sent_again": counts.sent_again,
        "lane_connections": counts.connections,
        "lane_silences": counts.silences,
        "lane_shed": counts.shed,
        "sent_again": engine.runner.sent_again,
        "begun_again": engine.runner.begun_again,
    }


def lane_families(numbers: Mapping[str, int]) -> Iterator[Metric]:
    """The same as families."""
    for name, meaning in LANE_GAUGES.items():
        yield GaugeMetricFamily(f"firstcome_{name}", meaning, numbers[name])
    for name, meaning in LANE_COUNTERS.items():
        yield CounterMetricFamily(f"firstcome_{name}", meaning, numbers[name])


def build_info() -> Metric:
    """Which program this is."""
    family = GaugeMetricFamily("firstcome_build_info", "Always 1; which program this is.", labels=["version"])
    family.add_metric([version("firstcome")], 1)
    return family


def buckets_of(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Counts of each bucket, the last one without a bound, as the client wants them: cumulative, by upper bound."""
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))


class Distribution:
    """How often a value fell into each bucket, and the sum of all."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, meaning: str) -> Metric:
        """As a histogram."""
        return HistogramMetricFamily(name, meaning, buckets_of(self._bounds, list(self._counts)), self._sum)
