"""Results as tables: what a run prints, and what the documents show."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtests import traffic
from loadtests.systems import BASELINES, SYSTEMS, Firstcome, OneScript, RedisLocks, RowLocks

Found = Mapping[str, Any]
TITLES = {system.name: system.title for system in SYSTEMS}
PATHS = {path.name: path.title for path in (traffic.CHARGE, *traffic.ALL)}


def of(results: Found, system: str, path: str, loop: str = "closed") -> Found | None:
    """The figures of one path of one system; None where it was not measured."""
    for figures in results["figures"]:
        if (figures["system"], figures["path"], figures["loop"]) == (system, path, loop):
            return dict(figures)
    return None


def counted(figures: Found) -> float:
    """The rate that a comparison counts: durable where there is such a thing, else accepted; answers where neither."""
    if figures["durable_per_s"] is not None:
        return float(figures["durable_per_s"])
    return float(figures["accepted_per_s"] or figures["answered_per_s"])


def in_rounds(results: Found, system: str, path: str) -> dict[int, Found]:
    """The figures of one path of one system in a closed loop, by round."""
    return {
        figures.get("round", 0): figures
        for figures in (*results["figures"], *results.get("rounds", ()))
        if (figures["system"], figures["path"], figures["loop"]) == (system, path, "closed")
    }


def middle(results: Found, system: str, path: str, count: Callable[[Found], float]) -> float | None:
    """The median of what is counted, over all rounds; None where it was not measured."""
    found = [count(figures) for figures in in_rounds(results, system, path).values()]
    return statistics.median(found) if found else None


def ratios_over(results: Found, path: str, baseline: str) -> list[float]:
    """Firstcome's durable rate over a baseline's on one path, of each round in which both were measured."""
    own, other = (in_rounds(results, system, path) for system in (Firstcome.name, baseline))
    rates = [(counted(own[number]), counted(other[number])) for number in own if number in other]
    return [ours / theirs for ours, theirs in rates if theirs]


def ratios(results: Found) -> list[list[str]]:
    """Firstcome's durable rate over each baseline's, path by path: the median of all rounds, and their range."""
    rows = [
        [path.title, *(_with_range(ratios_over(results, path.name, baseline.name)) for baseline in BASELINES)]
        for path in traffic.COMPARED
    ]
    return [row for row in rows if any(row[1:])]


def _with_range(found: Sequence[float]) -> str:
    if not found:
        return ""
    middle = f"{statistics.median(found):.1f} x"
    return middle if len(found) == 1 else f"{middle} ({min(found):.1f} to {max(found):.1f})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, its first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(
        "-" * (width + 2) if column == 0 else "-" * (width + 1) + ":" for column, width in enumerate(widths)
    )
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def rates(results: Found, loop: str = "closed") -> list[list[str]]:
    """Accepted, refused and durable apart, and the latencies; of open loops also the rate that was asked for."""
    rows = []
    for figures in results["figures"]:
        if figures["loop"] != loop:
            continue
        durable = figures["durable_per_s"]
        latency = figures["latency_ms"]
        rows.append(
            [
                f"{TITLES[figures['system']]}: {PATHS[figures['path']]}",
                *([f"{figures['asked_rate']:,.0f}"] if loop == "open" else []),
                f"{figures['accepted_per_s']:,.0f}",
                f"{figures['refused_per_s']:,.0f}",
                "-" if durable is None else f"{durable:,.0f}",
                *(f"{latency[percentile]:,.1f}" for percentile in ("50", "99", "99.9")),
                "-" if figures["lag_ms_max"] is None else f"{figures['lag_ms_max']:,.0f}",
            ]
        )
    return rows


def costs(results: Found) -> list[list[str]]:
    """CPU for each answer by role, and how many cores were used, closed loops."""
    rows = []
    for figures in results["figures"]:
        if figures["loop"] == "closed":
            cpu = figures["cpu_us"]
            rows.append(
                [
                    f"{TITLES[figures['system']]}: {PATHS[figures['path']]}",
                    *(f"{cpu[role]:,.0f}" if role in cpu else "-" for role in ROLES),
                    f"{cpu['api'] * figures['answered_per_s'] / 1e6:.2f}",
                    f"{_cores_in_use(figures):.2f}",
                ]
            )
    return rows


def _cores_in_use(figures: Found) -> float:
    """By all parts together, what the writer does after the load included."""
    return float(sum(figures["cpu_us"].values()) * figures["answered_per_s"] / 1e6)


def memory(results: Found) -> list[list[str]]:
    """What each part has at the end of a path, closed loops."""
    return [
        [
            f"{TITLES[figures['system']]}: {PATHS[figures['path']]}",
            *(f"{figures['memory_mib'][role]:,.0f}" if role in figures["memory_mib"] else "-" for role in ROLES[:-1]),
        ]
        for figures in results["figures"]
        if figures["loop"] == "closed"
    ]


def by_connections(swept: Sequence[Found]) -> list[list[str]]:
    """What the same path answers with fewer and with more connections."""
    return [
        [
            PATHS[figures["path"]],
            f"{figures['connections']:,}",
            f"{figures['accepted_per_s']:,.0f}",
            *(f"{figures['latency_ms'][percentile]:,.1f}" for percentile in ("50", "99")),
            f"{_cores_in_use(figures):.2f}",
        ]
        for figures in swept
    ]


ROLES = ("api", "redis", "worker", "postgres", "generator")
RATE_HEAD = ("path", "accepted/s", "refused/s", "durable/s", "p50 ms", "p99 ms", "p99.9 ms", "lag ms")
OPEN_HEAD = (RATE_HEAD[0], "asked/s", *RATE_HEAD[1:])
RATIO_HEAD = (f"{Firstcome.title}, durable, against", *(each.title for each in BASELINES))
CONNECTIONS_HEAD = ("path", "connections", "accepted/s", "p50 ms", "p99 ms", "all, cores")
MEMORY_HEAD = ("memory, MiB, after", *ROLES[:-1])
COST_HEAD = ("CPU, us for each answer", *ROLES, "API, cores", "all, cores")


CEILING_HEAD = ("by itself", "how much", "in, s", "each second", "durable each second", "CPU, us for each")


def ceilings(found: Found) -> list[list[str]]:
    """What each part does by itself: how much in how long, its rate, and the CPU that it takes."""
    echo, copied, behind, rebuilt = (
        found[name] for name in ("bare echo", "COPY", "writer catching up", "rebuild of Redis")
    )
    rows = [["HTTP server that only echoes", "", "", f"{echo['answered_per_s']:,.0f} answers", "",
             f"API {echo['api_cpu_us']:.1f}"]]  # fmt: skip
    for flow in ("coupon", "checkout"):
        alone = found[f"{flow} without HTTP"]
        rows.append([
            f"{flow} without HTTP", f"{alone['done']:,} {flow}s", f"{alone['seconds']:.1f}",
            f"{alone['per_s']:,.0f} {flow}s", f"{alone['durable_per_s']:,.0f} {flow}s",
            f"engine {alone['cpu_us']:.1f}, Redis {alone['redis_cpu_us']:.1f}",
        ])  # fmt: skip
    rows.append([
        "COPY", f"{copied['orders']:,} orders", f"{copied['orders'] / copied['orders_per_s']:.1f}", "",
        f"{copied['orders_per_s']:,.0f} orders", f"PostgreSQL {copied['postgres_cpu_us']:.1f}",
    ])  # fmt: skip
    rows.append([
        "worker that is behind", f"{behind['orders']:,} orders", f"{behind['seconds']:.1f}", "",
        f"{behind['events_per_s']:,.0f} events",
        f"worker {behind['worker_cpu_us_per_event']:.1f}, PostgreSQL {behind['postgres_cpu_us_per_event']:.1f}",
    ])  # fmt: skip
    rows.append([
        "rebuild", f"{rebuilt['rows']:,} rows", f"{rebuilt['seconds']:.1f}", f"{rebuilt['users_per_s']:,.0f} users",
        "", "",
    ])  # fmt: skip
    return [[cell or "-" for cell in row] for row in rows]


DISTANCE_HEAD = (
    "us of all cores for each answer", "answers/s", "of the echo", "of no HTTP",
    "echo", "engine", "rest of API", *ROLES[1:], "unused",
)  # fmt: skip


def distances(results: Found) -> list[list[str]]:
    """How far each path of Firstcome is from its ceilings, and what the time of all cores went to meanwhile.

    All from `echo` to `unused` together are the cores' time for each answer. What the engine takes was measured without
    HTTP, where more calls are under way; where it was not measured, it is in the rest of the API.
    """
    alone, cores = results["ceilings"], results["machine"]["cores"]
    echo = alone["bare echo"]
    rows = []
    for path in traffic.ALL:
        figures = of(results, Firstcome.name, path.name)
        if figures is None:
            continue
        cpu, answered = figures["cpu_us"], figures["answered_per_s"]
        engine = alone.get(f"{path.name} without HTTP")
        engine_us = engine["cpu_us"] if engine else 0.0
        spent = [
            echo["api_cpu_us"],
            engine_us,
            cpu["api"] - echo["api_cpu_us"] - engine_us,
            *(cpu[role] for role in ROLES[1:]),
        ]
        rows.append([
            path.title, f"{answered:,.0f}", f"{answered / echo['answered_per_s']:.0%}",
            f"{answered / engine['per_s']:.0%}" if engine else "-",
            *(f"{part:,.0f}" if part else "-" for part in spent),
            f"{cores * 1e6 / answered - sum(spent):,.0f}",
        ])  # fmt: skip
    return rows


def summary(results: Found) -> str:
    """What a run prints at its end: ratios first."""
    parts = []
    if compared := ratios(results):
        parts.append(markdown(RATIO_HEAD, compared))
    parts.append(markdown(RATE_HEAD, rates(results)))
    if opened := rates(results, "open"):
        parts.append("Open loop: latencies count from when a request was due.\n" + markdown(OPEN_HEAD, opened))
    parts.append(markdown(COST_HEAD, costs(results)))
    parts.append(markdown(MEMORY_HEAD, memory(results)))
    if alone := results["ceilings"]:
        parts.append(markdown(CEILING_HEAD, ceilings(alone)))
        parts.append(markdown(DISTANCE_HEAD, distances(results)))
    return "\n" + "\n\n".join(parts)


def _goal(what: str, goal: str, found: str, is_met: bool) -> list[str]:
    return [what, goal, found, "yes" if is_met else "no"]


BUDGET_HEAD = ("of the design's budget", "goal", "measured", "met")


def budgets(results: Found) -> list[list[str]]:
    """The goals of the design beside what this run has measured; none without the figures of all of them."""
    names = ("coupon", "coupon-gone", "checkout", "checkout-gone", "product", "balance")
    paths = {name: figures for name in names if (figures := of(results, Firstcome.name, name)) is not None}
    alone = results["ceilings"]
    if len(paths) < len(names) or "best sellers" not in alone:
        return []
    checkout = paths["checkout"]

    def typical(path: str, count: Callable[[Found], float]) -> float:
        return middle(results, Firstcome.name, path, count) or 0.0

    echo, behind, rebuilt = alone["bare echo"], alone["writer catching up"], alone["rebuild of Redis"]
    lag_ms = max(figures["lag_ms_max"] for figures in results["figures"] if figures["system"] == Firstcome.name)
    late_ms = checkout["latency_ms"]["99"]
    sellers = alone["best sellers"]
    api_share = typical("coupon", lambda figures: figures["cpu_us"]["api"]) / echo["api_cpu_us"]
    gone = min(
        paths[f"{name}-gone"]["refused_per_s"] / paths[name]["accepted_per_s"] for name in ("coupon", "checkout")
    )
    # Each call of a checkout appends one event, so calls for each order are events for each order.
    events_per_s = checkout["accepted_per_s"] * behind["redis_calls_per_order"]

    def rate(what: str, goal: int, found: float) -> list[str]:
        return _goal(what, f"{goal:,}/s", f"{found:,.0f}/s", found >= goal)

    return [
        *_compared(results),
        rate("coupon issue over HTTP, accepted", 8_000, typical("coupon", lambda figures: figures["accepted_per_s"])),
        _goal("CPU of the API for a coupon", "2 x a bare echo", f"{api_share:.1f} x", api_share <= 2),
        rate("checkout of two lines, durable", 5_000, typical("checkout", lambda figures: figures["durable_per_s"])),
        _goal("its p99, closed loop, at the rate reached", "50 ms", f"{late_ms:.0f} ms", late_ms < 50),
        _goal("writer lag, the worst look at any path", "1,000 ms", f"{lag_ms:,.0f} ms", lag_ms < 1_000),
        rate("product detail", 10_000, paths["product"]["answered_per_s"]),
        rate("balance", 10_000, paths["balance"]["answered_per_s"]),
        _goal(
            f"best sellers, p99, at {sellers['asked_per_s']}/s",
            "1 ms",
            f"{sellers['p99_ms']:.2f} ms",
            sellers["p99_ms"] < 1,
        ),
        _goal("refusals against acceptances", "faster", f"{gone:.1f} x", gone > 1),
        _goal(
            "writer catching up, events/s over those an API process makes",
            "2 x",
            f"{behind['events_per_s'] / events_per_s:.1f} x",
            behind["events_per_s"] >= 2 * events_per_s,
        ),
        _goal(
            "CPU of the worker for an order, confirmed too",
            "60 us",
            f"{behind['worker_cpu_us_per_settled_order']:.0f} us",
            behind["worker_cpu_us_per_settled_order"] < 60,
        ),
        rate("rebuild of Redis, users while users are loaded", 100_000, rebuilt["users_per_s"]),
        _goal(
            "calls to Redis for a checkout of two lines, mostly in three partitions",
            "3",
            f"{behind['redis_calls_per_order']:.2f}",
            round(behind["redis_calls_per_order"], 2) <= 3,
        ),
    ]


GOALS = (
    (traffic.COUPON, RowLocks, 15.0),
    (traffic.COUPON, RedisLocks, 25.0),
    (traffic.COUPON, OneScript, 1.5),
    (traffic.CHECKOUT, RowLocks, 12.0),
    (traffic.CHECKOUT_HOT, RowLocks, 20.0),
)
"""How many times the rate of a baseline is wanted."""


def _compared(results: Found) -> list[list[str]]:
    rows = []
    for path, baseline, goal in GOALS:
        found = ratios_over(results, path.name, baseline.name)
        if found:
            what = f"{path.title}, over {baseline.title.split(',')[0]}"
            rows.append(_goal(what, f"{goal:g} x", _with_range(found), statistics.median(found) >= goal))
    return rows
