"""From saved results to `docs/performance.md`, its plots, and the README's headline: `python -m loadtests.report`."""

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import click

from loadtests import growth, traffic
from loadtests.baselines import one_script, redis_locks, row_locks
from loadtests.systems import SYSTEMS, Firstcome, OneScript, RedisLocks, RowLocks
from loadtests.tables import (
    BUDGET_HEAD,
    COST_HEAD,
    PATHS,
    RATE_HEAD,
    RATIO_HEAD,
    ROLES,
    Found,
    budgets,
    costs,
    counted,
    markdown,
    middle,
    of,
    rates,
    ratios,
)

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "loadtests" / "results" / "official.json"
DOUBLED = ROOT / "loadtests" / "results" / "two-processes.json"
GROWN = ROOT / "loadtests" / "results" / "growth.json"
HELD = ROOT / "loadtests" / "results" / "steady.json"
LATE_MS = 1_000
DOCUMENT = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "plots"
BEGIN, END = "<!-- figures of loadtests/results/official.json: begin -->", "<!-- figures: end -->"
COLOURS = ("#1b7f5c", "#2f6fb3", "#d98e04", "#b3402f", "#777777")
WIDTH, LEFT, BAR = 720, 230, 22


def load(path: Path = RESULTS) -> Found:
    """Saved results."""
    found: Found = json.loads(path.read_text(encoding="utf-8"))
    return found


def headline(results: Found) -> str:
    """The README's table: what is accepted and durable a second, beside the baselines."""
    rows = []
    for path in traffic.COMPARED:
        rates_of = [middle(results, system.name, path.name, counted) for system in SYSTEMS]
        rows.append([path.title, *("" if each is None else f"{each:,.0f}/s" for each in rates_of)])
    return markdown(("", *(system.title for system in SYSTEMS)), rows)


def document(results: Found) -> str:
    """The whole page."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    parts = [
        "# Performance",
        *_verdict(results),
        "Measured, not estimated: this page and its plots are made from "
        "[saved results](../loadtests/results/official.json) by `python -m loadtests.report`. "
        f"`make bench ARGS='{_arguments(results)}'` repeats the run, in {results['took_s'] / 60:.0f} minutes; "
        "a run whose outcome is wrong fails.",
        f"One run on {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, {machine['system']}, "
        "which servers, clients and whatever else ran there shared. "
        f"{machine['redis']}; Python {machine['python']}; {packages}. "
        f"Began {results['began']}, commit {results['commit']}, `{results['command']}`: "
        f"{results['processes']} API process(es) for each system, {results['connections']} "
        f"connections, {results['seconds']:g} s a path, closed loops by {results['generator']}, open loops by "
        "`loadtests/python_load.py`. **Ratios within the run are what counts**; absolute figures are of this machine "
        "under what else ran there.",
        *_what_is_compared(),
        "## Side by side",
        markdown(RATIO_HEAD, ratios(results)),
        *_rounds(results),
        "Of Firstcome and the row locks the durable rate counts (all of it in PostgreSQL, the time until the last "
        "of it was there included); the two on Redis alone are never durable.",
        *(f"![{PATHS[path.name]}](plots/{path.name}.svg)" for path in traffic.COMPARED),
        *_two_processes(),
        *_budgets(results),
        "## Closed loop",
        markdown(RATE_HEAD, rates(results)),
        "## Open loop",
        "Requests are due at 70 % of the closed loop's rate whatever the server does, and a latency counts from when "
        "its request was due.",
        markdown(RATE_HEAD, rates(results, "open")),
        "![latencies](plots/latency.svg)",
        "## What it takes",
        markdown(COST_HEAD, costs(results)),
        "![CPU split](plots/cpu.svg)",
    ]
    if results.get("by_connections"):
        parts += ["## Connections", "![throughput against connections](plots/connections.svg)"]
    parts += _held()
    if extra := results.get("ceilings"):
        parts += ["## Ceilings, and what no client asks for", markdown(("figure", "value"), _flat(extra))]
    if GROWN.exists():
        grown = load(GROWN)
        parts += [
            "## As the shop grows",
            f"Another run, of commit {grown['commit']}: `{grown['command']}`. Two shops of different size ran side by "
            "side and were loaded in turn; the middle of each path's measurements is shown. The CPU for each answer, "
            "of all parts together, is what counts. The generator knows nothing of what is on record, so its ratio "
            "tells how far two equal measurements are apart here.",
            growth.summary(grown),
        ]
    return "\n\n".join(parts) + "\n"


def _arguments(results: Found) -> str:
    command = re.sub(r"--save \S+", "", results["command"])
    return command.removeprefix("python -m loadtests.bench").strip()


def _verdict(results: Found) -> list[str]:
    rows = budgets(results)
    if not rows:
        return []
    missed = [row for row in rows if row[-1] == "no"]
    return [
        f"Of {len(rows)} [goals](#goals) this run met {len(rows) - len(missed)} and missed {len(missed)}: "
        f"{'; '.join(f'{what} ({found} of {goal})' for what, goal, found, _ in missed)}. "
        "[Why, and what it would take](decisions/0011-throughput-goals-missed.md)."
    ]


def _what_is_compared() -> list[str]:
    return [
        "## What is compared",
        "The same two endpoints, with the same checks, the same requests by the same generator; each system has "
        "servers of its own and runs alone. What differs:",
        markdown(
            ("", "stack", "when it answers"),
            [
                [
                    Firstcome.title, "one API process (uvicorn, uvloop), one worker; Valkey, PostgreSQL",
                    "decided in Valkey; in PostgreSQL tens to hundreds of ms later",
                ],
                [
                    RowLocks.title, f"one process: FastAPI, SQLAlchemy asyncio, asyncpg (pool of {row_locks.POOL})",
                    "committed in PostgreSQL",
                ],
                [
                    RedisLocks.title, f"one process: FastAPI, redis-py (pool of {redis_locks.POOL}); Valkey",
                    "written in Valkey; never in PostgreSQL",
                ],
                [
                    OneScript.title, f"one process: Starlette, redis-py (pool of {one_script.POOL}); Valkey",
                    "written in Valkey; never in PostgreSQL, no history, no idempotency key",
                ],
            ],
        ),
        "Valkey syncs its append-only file each second, PostgreSQL its log at each commit, in all of them alike.",
        "Each baseline is at the limit of its one Python process (the last columns of [What it takes](#what-it-takes) "
        "are the cores in use), while Firstcome spreads over an API process, Redis, a worker and PostgreSQL. So a "
        "ratio says what each serves with one API process on this machine; what a request takes is in that table.",
    ]  # fmt: skip


def _two_processes() -> list[str]:
    if not DOUBLED.exists():
        return []
    run = load(DOUBLED)
    return [
        f"With {run['processes']} API processes of each system, another run (`{run['command']}`, commit "
        f"{run['commit']}):",
        markdown(RATIO_HEAD, ratios(run)),
        headline(run),
    ]


def _rounds(results: Found) -> list[str]:
    count = max((each["round"] for each in results.get("rounds", ())), default=0)
    if not count:
        return []
    return [
        f"The middle of {count + 1} rounds, and their range: in each, every system had servers of its own and ran "
        "alone, one after the other. Of the goals below, the ratios, coupons/s, checkouts/s and the API's CPU are the "
        "middle too; all else is of the first round."
    ]


def _held() -> list[str]:
    if not HELD.exists():
        return []
    run = load(HELD)
    figures, before = run["steady"]["figures"], run["steady"]["memory_before_mib"]
    memory = ", ".join(f"{role} {before[role]:,.0f} to {after:,.0f}" for role, after in figures["memory_mib"].items())
    latency = figures["latency_ms"]
    late = sum(ms > LATE_MS for _, ms in figures["lag_ms"])
    return [
        "## Minutes at 80 % of the peak",
        f"Another run, of commit {run['commit']}: `{run['command']}`. {figures['seconds']:,.0f} s of checkouts at "
        f"{figures['asked_rate']:,.0f} a second by `{figures['generator']}`: {figures['accepted_per_s']:,.0f}/s "
        f"accepted, {figures['durable_per_s']:,.0f}/s durable; p50 {latency['50']:.1f} ms, p99 {latency['99']:.1f} ms, "
        f"p99.9 {latency['99.9']:.1f} ms from when a request was sent. The writer was at most "
        f"{figures['lag_ms_max']:,.0f} ms behind, and more than a second in {late} of {len(figures['lag_ms'])} looks, "
        "four a second. Memory in MiB, before and after: "
        f"{memory}; what Redis and PostgreSQL keep of every order is a part of theirs.",
        "![lag over time](plots/lag.svg)",
    ]


def _budgets(results: Found) -> list[str]:
    rows = budgets(results)
    if not rows:
        return []
    told = (
        "What is wanted of two cores that everything shares, the load generator included, and what this run "
        "found. [Why so much is missed, and what was tried](decisions/0011-throughput-goals-missed.md)."
    )
    return ["## Goals", told, markdown(BUDGET_HEAD, rows)]


def _flat(found: Found, above: str = "") -> list[list[str]]:
    rows: list[list[str]] = []
    for name, value in found.items():
        title = f"{above}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            rows += _flat(value, f"{title}: ")
        else:
            rows.append([title, f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"])
    return rows


def bars(title: str, unit: str, rows: Sequence[tuple[str, Sequence[float]]], legend: Sequence[str] = ()) -> str:
    """Horizontal bars, stacked where a row has several values, as SVG."""
    most = max((sum(values) for _, values in rows), default=1.0) or 1.0
    height = 50 + BAR * len(rows) + (20 if legend else 0)
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, values) in enumerate(rows):
        y, x = 34 + BAR * number, float(LEFT)
        text.append(f'<text x="{LEFT - 6}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        for index, value in enumerate(values):
            width = value / most * (WIDTH - LEFT - 110)
            colour = COLOURS[index if legend else min(number, len(COLOURS) - 1)]
            text.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR - 5}" fill="{colour}"/>')
            x += width
        text.append(f'<text x="{x + 5:.1f}" y="{y + 14}">{sum(values):,.0f} {escape(unit)}</text>')
    for index, name in enumerate(legend):
        x, y = LEFT + 95 * index, height - 22
        text.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{COLOURS[index]}"/>')
        text.append(f'<text x="{x + 14}" y="{y + 10}">{escape(name)}</text>')
    return "\n".join([*text, "</svg>"]) + "\n"


def lines(title: str, across: str, up: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Lines over a common ground, each point (across, up), as SVG."""
    height, left, right, top, foot = 320, 70, 20, 40, 60
    most_across = max((x for _, points in series for x, _ in points), default=1.0) or 1.0
    most_up = max((y for _, points in series for _, y in points), default=1.0) or 1.0
    wide, high = WIDTH - left - right, height - top - foot

    def at(x: float, y: float) -> str:
        return f"{left + x / most_across * wide:.1f},{top + high - y / most_up * high:.1f}"

    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for quarter in range(5):
        y = top + high - high * quarter / 4
        text.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + wide}" y2="{y:.1f}" stroke="#dddddd"/>')
        text.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{most_up * quarter / 4:,.0f}</text>')
        x = left + wide * quarter / 4
        text.append(
            f'<text x="{x:.1f}" y="{top + high + 16}" text-anchor="middle">{most_across * quarter / 4:,.0f}</text>'
        )
    text.append(f'<text x="{left}" y="{height - 28}">{escape(across)}; up: {escape(up)}</text>')
    for index, (name, points) in enumerate(series):
        drawn = " ".join(at(*point) for point in points)
        text.append(f'<polyline points="{drawn}" fill="none" stroke="{COLOURS[index]}" stroke-width="2"/>')
        text.append(
            f'<rect x="{left + 190 * index}" y="{height - 18}" width="10" height="10" fill="{COLOURS[index]}"/>'
        )
        text.append(f'<text x="{left + 14 + 190 * index}" y="{height - 8}">{escape(name)}</text>')
    return "\n".join([*text, "</svg>"]) + "\n"


def plots(results: Found) -> dict[str, str]:
    """Every plot by its file's name."""
    drawn = {}
    for path in traffic.COMPARED:
        found = [(system.title, of(results, system.name, path.name)) for system in SYSTEMS]
        rows = [(title, [counted(figures)]) for title, figures in found if figures]
        drawn[f"{path.name}.svg"] = bars(f"{path.title}, as durable as it gets", "/s", rows)
    split: list[tuple[str, list[float]]] = []
    late: list[tuple[str, list[float]]] = []
    for system in SYSTEMS:
        for path in (traffic.COUPON, traffic.CHECKOUT):
            closed, opened = (of(results, system.name, path.name, loop) for loop in ("closed", "open"))
            name = f"{system.title.split(',')[0]}: {path.title.split(',')[0]}"
            if closed and (system is Firstcome or system.name != "redis-locks"):
                split.append((name, [closed["cpu_us"].get(role, 0.0) for role in ROLES]))
            if opened:
                late.append((name, [opened["latency_ms"]["99"]]))
    drawn["cpu.svg"] = bars("CPU for each answer", "us", split, ROLES)
    drawn["latency.svg"] = bars("p99 at 70 % of each system's own peak, open loop", "ms", late)
    if swept := results.get("by_connections"):
        titles = {path.name: path.title.split(",")[0] for path in (traffic.COUPON, traffic.CHECKOUT)}
        drawn["connections.svg"] = lines(
            "Accepted by the number of connections, closed loop", "connections", "accepted/s",
            [
                (title, [(each["connections"], each["accepted_per_s"]) for each in swept if each["path"] == name])
                for name, title in titles.items()
            ],
        )  # fmt: skip
    if HELD.exists():
        points = [(at, late) for at, late in load(HELD)["steady"]["figures"]["lag_ms"]]
        drawn["lag.svg"] = lines("How far the writer is behind", "seconds", "ms", [("checkout", points)])
    return drawn


def with_headline(readme: str, results: Found) -> str:
    """The README with its headline table anew."""
    block = f"{BEGIN}\n{headline(results)}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, readme, flags=re.DOTALL)


@click.command()
def main() -> None:
    """Write docs/performance.md, the plots in docs/plots and the README's table of figures anew.

    All of it comes from the results that are saved in loadtests/results; nothing is measured.
    """
    results: Any = load()
    readme = ROOT / "README.md"
    written = {DOCUMENT: document(results)}
    written |= {PLOTS / name: drawing for name, drawing in plots(results).items()}
    written[readme] = with_headline(readme.read_text(encoding="utf-8"), results)
    PLOTS.mkdir(exist_ok=True)
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
