"""Results as tables: what a run prints, and what the documents show."""

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
    """Firstcome's durable rate over each baseline's, path by path."""
    rows = []
    for path in traffic.COMPARED:
        own = of(results, Firstcome.name, path.name)
        row = [path.title]
        for baseline in BASELINES:
            other = of(results, baseline.name, path.name)
            row.append(f"{counted(own) / counted(other):.1f} x" if own and other else "")
        if any(row[1:]):
            rows.append(row)
    return rows


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
