"""From saved results to `docs/performance.md`, its plots and the READMEs' headline: `python -m loadtests.report`."""

import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import click

from loadtests import growth, traffic
from loadtests.baselines import one_script, redis_locks, row_locks
from loadtests.bench import OPEN_SHARE, STEADY_SHARE
from loadtests.headlines import READMES, headline, with_headline
from loadtests.lag import LOOKS_PER_S
from loadtests.lane_driver import AT_ONCE
from loadtests.systems import SYSTEMS, Firstcome, OneScript, RedisLocks, RowLocks
from loadtests.tables import (
    BUDGET_HEAD,
    CEILING_HEAD,
    CONNECTIONS_HEAD,
    COST_HEAD,
    DISTANCE_HEAD,
    MEMORY_HEAD,
    OPEN_HEAD,
    PATHS,
    RATE_HEAD,
    RATIO_HEAD,
    ROLES,
    Found,
    budgets,
    by_connections,
    ceilings,
    costs,
    counted,
    distances,
    markdown,
    memory,
    middle,
    of,
    rates,
    ratios,
)

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "loadtests" / "results" / "official.json"
DOUBLED = ROOT / "loadtests" / "results" / "two-processes.json"
CROWDED = ROOT / "loadtests" / "results" / "crowd.json"
GROWN = ROOT / "loadtests" / "results" / "growth.json"
HELD = ROOT / "loadtests" / "results" / "steady.json"
LATE_MS = 1_000
SPREAD_NINES_MAX = 3
"""A few seconds of load have no p99.99."""
DOCUMENT = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "plots"
COLOURS = ("#1b7f5c", "#2f6fb3", "#d98e04", "#b3402f", "#777777")
WIDTH, LEFT, BAR = 720, 230, 22
TICKS_MAX = 6
"""An axis has at most so many intervals."""


def load(path: Path = RESULTS) -> Found:
    """Saved results."""
    found: Found = json.loads(path.read_text(encoding="utf-8"))
    return found


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
        f"{_processes(results['processes'])} for each system, {results['connections']} "
        f"connections, {results['seconds']:g} s a path, closed loops by {results['generator']}, open loops by "
        "`loadtests/python_load.py`. **Ratios within the run are what counts**; absolute figures are of this machine "
        "under what else ran there.",
        *_what_is_compared(),
        "## Side by side",
        markdown(RATIO_HEAD, ratios(results)),
        *_rounds(results),
        "Of Firstcome and the row locks the durable rate counts (all of it in PostgreSQL, the time until the last "
        "of it was there included); the two on Redis alone are never durable.",
        f"The rates of which these are the ratios{', each the middle' if _further_rounds(results) else ''}; "
        f"`{traffic.COUPON_DURABLE.title}` was measured in the first round alone, and has beside it what row locks "
        "make of coupons, which they always answer so:",
        headline(results),
        *(f"![{PATHS[path.name]}](plots/{path.name}.svg)" for path in traffic.COMPARED),
        *_other_runs(),
        *_budgets(results),
        "## Closed loop",
        f"Each of {results['connections']} connections sends its next request as soon as the last is answered, so the "
        "server is never without work: what is the most it serves? A latency counts from when its request was sent, "
        "and wrk adds to an answer that is later than its connection's usual ones those that would have waited behind "
        "it, so that a stall counts for as many as it would have kept waiting. "
        f"`lag ms` is how old, at the worst of {LOOKS_PER_S} looks a second, the oldest event of any partition was "
        "that PostgreSQL did not have yet. `-` is where there is no such thing: reads make nothing durable, nor do the "
        "two systems on Redis alone, "
        "and only Firstcome has a writer that can be behind.",
        markdown(RATE_HEAD, rates(results)),
        *_refusals(results),
        "## Open loop",
        f"Requests are due at `asked/s`, {OPEN_SHARE:.0%} of what the closed loop answered, whatever the server does: "
        "how long does one take where the server is not at its limit? A latency counts from when its request was due, "
        "so one that had to wait for its turn is as late as its client would find it. The other columns are those of "
        "the closed loop.",
        markdown(OPEN_HEAD, rates(results, "open")),
        "![latencies](plots/latency.svg)",
        "How they are spread: at 1 on the axis nine of ten were answered by then, at 2 it is 99 of a hundred, at 3 it "
        "is 999 of a thousand.",
        "![how latencies are spread](plots/distribution.svg)",
        "## What it takes",
        "In the closed loop: the processor time of each part until all was durable and settled, for each answer, in "
        "microseconds; the generator's is not the system's own. `-` is a part that a system does not have. The last "
        f"two columns are that times the answers of a second: cores in use, of {machine['cores']}. What the writer "
        "does after the load, until all is durable and settled, is in there too, so that it can come to more than "
        "there are.",
        markdown(COST_HEAD, costs(results)),
        "![CPU split](plots/cpu.svg)",
        "The memory of each part when that was over; what Redis and PostgreSQL keep of every order and coupon is a "
        "part of theirs, and a system's paths came one after the other.",
        markdown(MEMORY_HEAD, memory(results)),
    ]
    parts += _connections(results)
    parts += _held()
    parts += _ceilings(results)
    parts += _grown()
    return "\n\n".join(parts) + "\n"


def _connections(results: Found) -> list[str]:
    swept = results.get("by_connections")
    if not swept:
        return []
    return [
        "## Connections",
        "Firstcome with fewer and with more connections, closed loop: with one connection each request waits for "
        "all the steps of the one before it; from some on the processors are the limit, and more only wait longer. "
        "`all, cores` has the writer's work after the load in it, which a short load leaves more of.",
        markdown(CONNECTIONS_HEAD, by_connections(swept)),
        "![throughput against connections](plots/connections.svg)",
    ]


def _grown() -> list[str]:
    if not GROWN.exists():
        return []
    grown = load(GROWN)
    return [
        "## As the shop grows",
        f"Another run, of commit {grown['commit']}: `{grown['command']}`. A small shop and a large one ran side by "
        "side and were loaded in turn; the middle of each path's measurements is shown. What counts is the CPU for "
        "each answer, of all parts together, and how many times the small shop's the large one's is. The load "
        "generator knows nothing of what is on record, so what should be 1 x in its column tells how far two equal "
        "measurements are apart here.",
        growth.summary(grown),
    ]


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
        "[why, and what it would take](decisions/0011-throughput-goals-missed.md)."
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
        "ratio says what each serves with one API process on this machine; what a request takes is in that table. The "
        "baselines take no coupon for an order, and no request here has one.",
    ]  # fmt: skip


def _other_runs() -> list[str]:
    told = []
    for run in (load(file) for file in (DOUBLED, CROWDED) if file.exists()):
        told += [
            f"With {_processes(run['processes'])} of each system and {run['connections']} connections, another run "
            f"(`{run['command']}`, commit {run['commit']}), {_middle_of(run)}:",
            markdown(RATIO_HEAD, ratios(run)),
            f"and the rates of which these are the ratios{', each the middle' if _further_rounds(run) else ''}:",
            headline(run),
        ]
    return told


def _rounds(results: Found) -> list[str]:
    if not _further_rounds(results):
        return []
    told = _middle_of(results)
    return [
        f"{told[0].upper()}{told[1:]}. In each, every system had servers of its own and ran alone, one after the "
        "other. Of the goals below, the ratios, coupons/s, checkouts/s and the API's CPU are the middle too; all else "
        "is of the first round."
    ]


def _refusals(results: Found) -> list[str]:
    gone = [of(results, Firstcome.name, path.name) for path in (traffic.COUPON_GONE, traffic.CHECKOUT_GONE)]
    told = [
        f"{figures['refused']:,} times `{PATHS[figures['path']]}` wrote {figures['events']:,} events"
        for figures in gone
        if figures and figures.get("events") is not None
    ]
    if not told:
        return []
    return [
        f"A refusal writes nothing, and a run in which one does fails: {' and '.join(told)}. It takes less than an "
        "acceptance, so more of them are answered each second; but whoever comes to a stampede last waits behind all "
        "others before being refused, and in a load test of many users at once refusals are therefore the later ones."
    ]


def _further_rounds(results: Found) -> int:
    return max((each["round"] for each in results.get("rounds", ())), default=0)


def _middle_of(results: Found) -> str:
    """What the ratios are the middle of: the run's own round and those that `--rounds` adds."""
    further = _further_rounds(results)
    return (
        f"the middle of {further + 1} rounds, the first and {further} more (`--rounds {further}`), and their range"
        if further
        else "one round"
    )


def _processes(count: int) -> str:
    return f"{count} API process{'' if count == 1 else 'es'}"


def _held() -> list[str]:
    if not HELD.exists():
        return []
    run = load(HELD)
    figures, before = run["steady"]["figures"], run["steady"]["memory_before_mib"]
    memory = ", ".join(f"{role} {before[role]:,.0f} to {after:,.0f}" for role, after in figures["memory_mib"].items())
    latency = figures["latency_ms"]
    late = sum(ms > LATE_MS for _, ms in figures["lag_ms"])
    return [
        f"## Minutes at {STEADY_SHARE:.0%} of the peak",
        f"Another run, of commit {run['commit']}: `{run['command']}`. {figures['seconds']:,.0f} s of checkouts at "
        f"{figures['asked_rate']:,.0f} a second by `{figures['generator']}`: {figures['accepted_per_s']:,.0f}/s "
        f"accepted, {figures['durable_per_s']:,.0f}/s durable; p50 {latency['50']:.1f} ms, p99 {latency['99']:.1f} ms, "
        f"p99.9 {latency['99.9']:.1f} ms from when a request was sent. The writer was at most "
        f"{figures['lag_ms_max']:,.0f} ms behind, and more than a second in {late:,} of "
        f"{len(figures['lag_ms']):,} looks, {LOOKS_PER_S} a second. Memory in MiB, before and after: "
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


def _ceilings(results: Found) -> list[str]:
    found = results.get("ceilings")
    if not found:
        return []
    sellers, behind = found["best sellers"], found["writer catching up"]
    return [
        "## Ceilings, and what no client asks for",
        "How far a path is from what each part does by itself says what the rest costs. The HTTP server that only "
        "echoes is a bare uvicorn, without the guards of ours; `without HTTP`: a process of its own calls the engine, "
        f"with {AT_ONCE} calls under way, and the worker follows as always; `COPY`: PostgreSQL's command for loading "
        "rows in bulk, here of orders of two lines into the shop's own tables, without a worker; "
        "`worker that is behind`: it was held while orders were paid, then let go; `rebuild`: Redis made anew from "
        "PostgreSQL. CPU is that of the processes that are named, for each one of what the rate counts.",
        markdown(CEILING_HEAD, ceilings(found)),
        "How far each path is from two of them, the echo and, where it was measured, the same flow without HTTP; and "
        f"where the time of all {results['machine']['cores']} cores went, in microseconds for each answer. `echo` and "
        "`engine` are the API's time for the ceilings, `rest of API` is what it takes besides: routing, reading and "
        "checking the request, encoding the answer, and the engine where it was not measured alone. `unused` is the "
        "rest of the time that there was: a core had nothing to do, as all connections waited for one of the other "
        "parts. It was more by what the writer did after the load.",
        markdown(DISTANCE_HEAD, distances(results)),
        f"An order of two lines takes {behind['redis_calls_per_order']:.1f} calls to Redis and, until its units are "
        f"confirmed as sold, {behind['worker_cpu_us_per_settled_order']:.1f} us of the worker. Best sellers, asked for "
        f"{sellers['asked_per_s']} times a second, are answered in {sellers['p50_ms']:.1f} ms (p50) and "
        f"{sellers['p99_ms']:.1f} ms (p99).",
    ]


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


def ticks(most: float) -> list[int]:
    """Round numbers from 0 to the first that is not below the most: 1, 2 or 5 times a power of ten apart."""
    step = 10 ** max(0, math.floor(math.log10(max(most, 1.0) / TICKS_MAX)))
    step *= next(times for times in (1, 2, 5, 10) if step * times * TICKS_MAX >= most)
    return [step * number for number in range(max(1, math.ceil(most / step)) + 1)]


def lines(title: str, across: str, up: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Lines over a common ground, each point (across, up), as SVG."""
    height, left, right, top, foot = 320, 70, 20, 40, 60
    ticks_across = ticks(max((x for _, points in series for x, _ in points), default=1.0))
    ticks_up = ticks(max((y for _, points in series for _, y in points), default=1.0))
    most_across, most_up = ticks_across[-1], ticks_up[-1]
    wide, high = WIDTH - left - right, height - top - foot

    def at(x: float, y: float) -> str:
        return f"{left + x / most_across * wide:.1f},{top + high - y / most_up * high:.1f}"

    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for tick in ticks_up:
        y = top + high - high * tick / most_up
        text.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + wide}" y2="{y:.1f}" stroke="#dddddd"/>')
        text.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:,}</text>')
    for tick in ticks_across:
        x = left + wide * tick / most_across
        text.append(f'<text x="{x:.1f}" y="{top + high + 16}" text-anchor="middle">{tick:,}</text>')
    text.append(f'<text x="{left}" y="{height - 28}">{escape(across)}; up: {escape(up)}</text>')
    apart = min(190, wide // max(len(series), 1))
    for index, (name, points) in enumerate(series):
        drawn = " ".join(at(*point) for point in points)
        text.append(f'<polyline points="{drawn}" fill="none" stroke="{COLOURS[index]}" stroke-width="2"/>')
        text.append(
            f'<rect x="{left + apart * index}" y="{height - 18}" width="10" height="10" fill="{COLOURS[index]}"/>'
        )
        text.append(f'<text x="{left + 14 + apart * index}" y="{height - 8}">{escape(name)}</text>')
    return "\n".join([*text, "</svg>"]) + "\n"


def plots(results: Found) -> dict[str, str]:
    """Every plot by its file's name."""
    drawn = {}
    for path in traffic.COMPARED:
        found = [(system.title, middle(results, system.name, path.name, counted)) for system in SYSTEMS]
        rows = [(title, [rate]) for title, rate in found if rate is not None]
        title = f"{path.title}: durable where the system has that, else accepted; the middle of all rounds"
        drawn[f"{path.name}.svg"] = bars(title, "/s", rows)
    split: list[tuple[str, list[float]]] = []
    late: list[tuple[str, list[float]]] = []
    for system in SYSTEMS:
        for path in (traffic.COUPON, traffic.CHECKOUT):
            closed, opened = (of(results, system.name, path.name, loop) for loop in ("closed", "open"))
            name = f"{system.title.split(',')[0]}: {path.title.split(',')[0]}"
            # The CPU of the locks in Redis would be most of this plot's width.
            if closed and system is not RedisLocks:
                split.append((name, [closed["cpu_us"].get(role, 0.0) for role in ROLES]))
            if opened:
                late.append((name, [opened["latency_ms"]["99"]]))
    drawn["cpu.svg"] = bars("CPU for each answer, first round", "us", split, ROLES)
    spread = [
        (system.title.split(",")[0], [(_nines(percentile), ms) for percentile, ms in opened["latency_ms"].items()])
        for system in SYSTEMS
        if (opened := of(results, system.name, traffic.COUPON.name, "open"))
    ]
    title = f"{traffic.COUPON.title} at {OPEN_SHARE:.0%} of each system's own peak, open loop"
    drawn["distribution.svg"] = lines(
        title, "nines of the share answered by then: 1 is p90, 2 is p99, 3 is p99.9", "ms",
        [(name, [point for point in points if point[0] <= SPREAD_NINES_MAX]) for name, points in spread],
    )  # fmt: skip
    drawn["latency.svg"] = bars(f"p99 at {OPEN_SHARE:.0%} of each system's own peak, open loop", "ms", late)
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


def _nines(percentile: str) -> float:
    return round(-math.log10(1 - float(percentile) / 100), 3)


@click.command()
def main() -> None:
    """Write docs/performance.md, the plots in docs/plots and the table of figures in both READMEs anew.

    All of it comes from the results that are saved in loadtests/results; nothing is measured.
    """
    results: Any = load()
    written = {DOCUMENT: document(results)}
    written |= {PLOTS / name: drawing for name, drawing in plots(results).items()}
    for name, language in READMES.items():
        readme = ROOT / name
        written[readme] = with_headline(readme.read_text(encoding="utf-8"), results, language)
    PLOTS.mkdir(exist_ok=True)
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
