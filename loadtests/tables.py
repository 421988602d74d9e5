"""Results as tables: what a run prints, and what the documents show."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from loadtests import traffic
from loadtests.systems import BASELINES, SYSTEMS, Firstcome

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


def ratios(results: Found) -> list[list[str]]:
    """Firstcome's durable rate over each baseline's, path by path: the median of all rounds, and their range."""
    rounds: dict[tuple[str, str], dict[int, float]] = {}
    for figures in (*results["figures"], *results.get("rounds", ())):
        if figures["loop"] == "closed":
            rounds.setdefault((figures["system"], figures["path"]), {})[figures.get("round", 0)] = counted(figures)
    rows = []
    for path in traffic.COMPARED:
        own = rounds.get((Firstcome.name, path.name), {})
        row = [path.title]
        for baseline in BASELINES:
            other = rounds.get((baseline.name, path.name), {})
            row.append(_middle([own[number] / other[number] for number in own if number in other]))
        if any(row[1:]):
            rows.append(row)
    return rows


def _middle(found: Sequence[float]) -> str:
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
    """Accepted, refused and durable apart, and the latencies."""
    rows = []
    for figures in results["figures"]:
        if figures["loop"] != loop:
            continue
        durable = figures["durable_per_s"]
        latency = figures["latency_ms"]
        rows.append(
            [
                f"{TITLES[figures['system']]}: {PATHS[figures['path']]}",
                f"{figures['accepted_per_s']:,.0f}",
                f"{figures['refused_per_s']:,.0f}",
                "-" if durable is None else f"{durable:,.0f}",
                *(f"{latency[percentile]:,.1f}" for percentile in ("50", "99", "99.9")),
                "-" if figures["lag_ms_max"] is None else f"{figures['lag_ms_max']:,.0f}",
            ]
        )
    return rows


def costs(results: Found) -> list[list[str]]:
    """CPU for each answer by role, closed loops."""
    rows = []
    for figures in results["figures"]:
        if figures["loop"] == "closed":
            cpu = figures["cpu_us"]
            rows.append(
                [
                    f"{TITLES[figures['system']]}: {PATHS[figures['path']]}",
                    *(f"{cpu[role]:,.0f}" if role in cpu else "-" for role in ROLES),
                ]
            )
    return rows


ROLES = ("api", "redis", "worker", "postgres", "generator")
RATE_HEAD = ("path", "accepted/s", "refused/s", "durable/s", "p50 ms", "p99 ms", "p99.9 ms", "lag ms")
COST_HEAD = ("CPU, us for each answer", *ROLES)


def summary(results: Found) -> str:
    """What a run prints at its end: ratios first."""
    parts = []
    if compared := ratios(results):
        parts.append(markdown(("Firstcome, durable, against", *(TITLES[each.name] for each in BASELINES)), compared))
    parts.append(markdown(RATE_HEAD, rates(results)))
    if opened := rates(results, "open"):
        parts.append("Open loop: latencies count from when a request was due.\n" + markdown(RATE_HEAD, opened))
    parts.append(markdown(COST_HEAD, costs(results)))
    return "\n" + "\n\n".join(parts)


BUDGET_HEAD = ("of the design's budget", "goal", "measured", "met")


def budgets(results: Found) -> list[list[str]]:
    """The goals of the design beside what this run has measured; none without the figures of all of them."""
    names = ("coupon", "coupon-gone", "checkout", "checkout-gone", "product", "balance")
    paths = {name: figures for name in names if (figures := of(results, Firstcome.name, name)) is not None}
    alone = results["ceilings"]
    asked = f"best sellers at {traffic.READ_RATE}/s"
    if len(paths) < len(names) or asked not in alone:
        return []
    coupon, checkout = paths["coupon"], paths["checkout"]
    echo, behind, rebuilt = alone["bare echo"], alone["writer catching up"], alone["rebuild of Redis"]
    lag_ms = max(figures["lag_ms_max"] for figures in results["figures"] if figures["system"] == Firstcome.name)
    late_ms = checkout["latency_ms"]["99"]
    shown_ms = alone[asked]["p99_ms"]
    api_share = coupon["cpu_us"]["api"] / echo["api_cpu_us"]
    gone = min(
        paths[f"{name}-gone"]["refused_per_s"] / paths[name]["accepted_per_s"] for name in ("coupon", "checkout")
    )
    # An order is one event in each partition that it touches, and so is each call.
    events_per_s = checkout["accepted_per_s"] * behind["redis_calls_per_order"]

    def row(what: str, goal: str, found: str, is_met: bool) -> list[str]:
        return [what, goal, found, "yes" if is_met else "no"]

    def rate(what: str, goal: int, found: float) -> list[str]:
        return row(what, f"{goal:,}/s", f"{found:,.0f}/s", found >= goal)

    return [
        rate("coupon issue over HTTP, accepted", 8_000, coupon["accepted_per_s"]),
        row("CPU of the API for a coupon", "2 x a bare echo", f"{api_share:.1f} x", api_share <= 2),
        rate("checkout of two lines, durable", 5_000, checkout["durable_per_s"]),
        row("its p99, closed loop", "50 ms", f"{late_ms:.0f} ms", late_ms < 50),
        row("writer lag, the worst of all paths", "1,000 ms", f"{lag_ms:,.0f} ms", lag_ms < 1_000),
        rate("product detail", 10_000, paths["product"]["answered_per_s"]),
        rate("balance", 10_000, paths["balance"]["answered_per_s"]),
        row(f"best sellers, p99, at {traffic.READ_RATE}/s", "1 ms", f"{shown_ms:.2f} ms", shown_ms < 1),
        row("refusals against acceptances", "faster", f"{gone:.1f} x", gone > 1),
        row(
            "writer catching up, against the API's events",
            "2 x",
            f"{behind['events_per_s'] / events_per_s:.1f} x",
            behind["events_per_s"] >= 2 * events_per_s,
        ),
        row(
            "its own CPU for an order, settled",
            "60 us",
            f"{behind['worker_cpu_us_per_settled_order']:.0f} us",
            behind["worker_cpu_us_per_settled_order"] < 60,
        ),
        rate("rebuild of Redis, users", 100_000, rebuilt["users_per_s"]),
        row(
            "calls to Redis of a checkout in three partitions",
            "3",
            f"{behind['redis_calls_per_order']:.2f}",
            round(behind["redis_calls_per_order"], 1) <= 3,
        ),
    ]
