"""The benchmark: Firstcome beside the baselines, with the same load, in one run. `make bench` runs it.

Every system has servers, ports and folders of its own and runs alone. A run whose outcome is wrong fails: what was
answered as accepted must be on record, and nothing else but what a generator left under way at its end (one request of
each connection at most); what is refused or only read must write no event; and every law must hold.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx
import psycopg
import redis

from api.commands.processes import ProcessFailed
from loadtests import traffic
from loadtests.ceilings import Echo, copy, without_http
from loadtests.generators import GeneratorFailed, closed_loop_generator
from loadtests.machine import commit, description
from loadtests.measure import Figures, Plan, measure
from loadtests.systems import SYSTEMS, Firstcome, System, WrongOutcome
from loadtests.tables import summary
from loadtests.worker_paths import catch_up, rebuild

CONNECTIONS = 64
OPEN_CONNECTIONS = 512
OPEN_SHARE = 0.7
"""The rate of an open loop, as a share of what the closed loop before it reached."""

STEADY_SHARE = 0.8
PACED_CONNECTIONS = 128
"""More than are ever waiting at that rate; wrk looks through all of them each time."""
CONNECTION_COUNTS = (1, 4, 16, 64, 256)
READ_CONNECTIONS = 16
FAILURES = (
    WrongOutcome,
    GeneratorFailed,
    ProcessFailed,
    subprocess.SubprocessError,
    httpx.HTTPError,
    redis.RedisError,
    psycopg.Error,
)
"""What ends a run without figures: an outcome that is wrong, or a server or a program that is not there any more."""
LATEST = Path(__file__).parent / "results" / "latest.json"


@click.command(help=__doc__)
@click.option("--short", is_flag=True, help="Three minutes on an idle machine: a look, not a record.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True),
    help="How long each path is loaded: 10 s unless told, 2 s where it is short.",
)  # fmt: skip
@click.option(
    "--processes", type=click.IntRange(1), default=1, show_default=True,
    help="Processes that serve HTTP, of each system.",
)  # fmt: skip
@click.option(
    "--connections", type=click.IntRange(1), default=CONNECTIONS, show_default=True,
    help="Connections of a closed loop.",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(0), default=0, show_default=True,
    help="Rounds of the compared paths after the first, in turn.",
)  # fmt: skip
@click.option("--only", multiple=True, type=click.Choice([kind.name for kind in SYSTEMS]), help="Only this system.")
@click.option(
    "--path", "paths", multiple=True, type=click.Choice([path.name for path in traffic.ALL]), help="Only this."
)
@click.option(
    "--steady", type=click.FloatRange(0), default=0.0,
    help=f"Check out for so long at {STEADY_SHARE:.0%} of the peak, in seconds.",
)  # fmt: skip
@click.option(
    "--save", type=click.Path(dir_okay=False, writable=True, path_type=Path), default=LATEST,
    help="Where the results go, as JSON: loadtests/results/latest.json unless told.",
)  # fmt: skip
def main(
    short: bool,
    seconds: float | None,
    processes: int,
    connections: int,
    rounds: int,
    only: Sequence[str],
    paths: Sequence[str],
    steady: float,
    save: Path,
) -> None:
    """Run, print, save."""
    try:
        save.touch()  # what cannot be saved is better known before it is measured
    except OSError as error:
        raise click.BadParameter(f"{save}: {error.strerror}", param_hint="--save") from error
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing is left behind
    tell(_introduction())
    run = Run(
        seconds or (2 if short else 10),
        processes,
        connections,
        [path for path in traffic.ALL if not paths or path.name in paths],
        short,
        extras=not paths,
        steady_s=steady,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="firstcome-bench-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            kinds = [kind for kind in SYSTEMS if not only or kind.name in only]
            for kind in kinds:
                run.system(kind, folder)
            for number in range(1, rounds + 1):
                tell(f"side by side once more, {number} of {rounds}")
                for kind in kinds:
                    run.once_more(kind, folder / f"round-{number}", number)
    except FAILURES as error:
        raise click.ClickException(str(error)) from error
    results = run.results()
    click.echo(summary(results))
    save.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tell(f"saved in {save}")


def _introduction() -> str:
    """What measures, what is measured, and where."""
    machine = description()
    generator = closed_loop_generator()
    lacking = "" if generator == "wrk" else " (wrk is not on the PATH, and asks several times as fast for its CPU)"
    return f"commit {commit()}; {machine['cores']} cores of {machine['cpu']}; load by {generator}{lacking}"


class Run:
    """One run of the benchmark and what it has found."""

    def __init__(
        self,
        seconds: float,
        processes: int,
        connections: int,
        paths: Sequence[traffic.Path],
        short: bool,
        extras: bool = False,
        steady_s: float = 0.0,
    ) -> None:
        self._seconds = seconds
        self._processes = processes
        self._connections = connections
        self._paths = paths
        self._short = short
        self._warm_up_s = min(3.0, seconds // 2)
        self._extras = extras
        self._steady_s = steady_s
        self._by_connections: list[Figures] = []
        self._steady: dict[str, Any] = {}
        self._figures: list[Figures] = []
        self._rounds: list[dict[str, Any]] = []
        self._began = datetime.now(UTC)
        self._checked: list[str] = []
        self._ceilings: dict[str, Any] = {}

    def system(self, kind: type[System], folder: Path) -> None:
        """Measure one system on every path that it has."""
        tell(f"{kind.title}: starting")
        with kind(folder, self._processes) as system:
            for path in self._paths:
                if isinstance(system, Firstcome) or path in traffic.COMPARED:
                    self._path(system, path)
            if isinstance(system, Firstcome) and self._extras:
                self._by_itself(system, folder)
                if not self._short:
                    self._sweep(system)
            if isinstance(system, Firstcome) and self._steady_s:
                self._hold(system)
            self._require_lawful(system)
            self._checked.append(kind.name)

    def once_more(self, kind: type[System], folder: Path, number: int) -> None:
        """Measure the compared paths of a system in another round: a machine is not equally fast all the time."""
        with kind(folder, self._processes) as system:
            for path in self._paths:
                if path in traffic.COMPARED:
                    figures = measure(system, path, Plan(self._seconds, self._connections, self._warm_up_s))
                    self._rounds.append({"round": number, **_in_short(figures)})
                    tell(f"  {kind.title}, {path.name}: {figures.accepted_per_s:,.0f}/s")
            self._require_lawful(system)

    def _require_lawful(self, system: System) -> None:
        tell(f"{system.title}: does every law hold?")
        broken = system.broken_laws()
        if broken:
            raise WrongOutcome(f"{system.title}: {'; '.join(broken)}")
        tell(f"{system.title}: every law holds")

    def _by_itself(self, system: Firstcome, folder: Path) -> None:
        """The ceilings, and what no client asks for."""
        with Echo(folder, self._processes) as echo:
            answered = measure(echo, traffic.COUPON, Plan(self._seconds, self._connections, 1.0))
        asked = Plan(self._seconds, READ_CONNECTIONS, 1.0, rate=traffic.READ_RATE, paced=True)
        sellers = measure(system, traffic.BEST_SELLERS, asked)
        tell("  ceilings: what each part does by itself")
        self._ceilings = {
            "best sellers": {
                "asked_per_s": traffic.READ_RATE,
                **{f"p{each}_ms": sellers.latency_ms[each] for each in ("50", "99")},
            },
            "bare echo": {"answered_per_s": answered.answered_per_s, "api_cpu_us": answered.cpu_us["api"]},
            "coupon without HTTP": without_http(system, "coupon", self._seconds),
            "checkout without HTTP": without_http(system, "checkout", self._seconds),
            "COPY": copy(system),
            "writer catching up": catch_up(system, self._seconds, self._connections),
            "rebuild of Redis": rebuild(system),
        }
        system.settle()

    def _sweep(self, system: Firstcome) -> None:
        """The same paths with fewer and with more connections."""
        for path in (traffic.COUPON, traffic.CHECKOUT):
            for connections in CONNECTION_COUNTS:
                figures = measure(system, path, Plan(max(self._seconds / 3, 1.0), connections))
                self._by_connections.append(figures)
                tell(f"  {path.name}, {connections} connections: {figures.accepted_per_s:,.0f}/s")

    def _hold(self, system: Firstcome) -> None:
        """Orders at a share of the peak for minutes: does the writer keep up, does memory stay?"""
        peak = measure(system, traffic.CHECKOUT, Plan(self._seconds, self._connections)).accepted_per_s
        rate = peak * STEADY_SHARE
        warm_up = measure(system, traffic.CHECKOUT, Plan(self._steady_s / 5, PACED_CONNECTIONS, rate=rate, paced=True))
        rest = measure(system, traffic.CHECKOUT, Plan(self._steady_s, PACED_CONNECTIONS, rate=rate, paced=True))
        self._steady = {"peak": peak, "memory_before_mib": warm_up.memory_mib, "figures": rest.saved()}
        tell(f"  {self._steady_s:g} s at {rate:,.0f} orders/s: lag at most {rest.lag_ms_max:,.0f} ms")

    def _path(self, system: System, path: traffic.Path) -> None:
        closed = measure(system, path, Plan(self._seconds, self._connections, self._warm_up_s))
        self._keep(closed)
        if path in traffic.COMPARED or not self._short:
            rate = closed.answered_per_s * OPEN_SHARE
            self._keep(measure(system, path, Plan(self._seconds, OPEN_CONNECTIONS, rate=rate)))

    def _keep(self, figures: Figures) -> None:
        self._figures.append(figures)
        durable = "" if figures.durable_per_s is None else f", durable {figures.durable_per_s:,.0f}/s"
        tell(
            f"  {figures.path} ({figures.loop}): {figures.answered_per_s:,.0f}/s{durable}, "
            f"p50 {figures.latency_ms['50']:.1f} p99 {figures.latency_ms['99']:.1f} ms, "
            f"CPU {', '.join(f'{role} {us:.0f}' for role, us in figures.cpu_us.items())} us"
            + ("" if figures.lag_ms_max is None else f", lag {figures.lag_ms_max:.0f} ms")
        )

    def results(self) -> dict[str, Any]:
        """All that a run has found, as JSON has it."""
        return {
            "began": self._began.isoformat(timespec="seconds"),
            "took_s": round((datetime.now(UTC) - self._began).total_seconds()),
            "command": " ".join(["python -m loadtests.bench", *sys.argv[1:]]),
            "commit": commit(),
            "machine": description(),
            "generator": closed_loop_generator(),
            "processes": self._processes,
            "connections": self._connections,
            "seconds": self._seconds,
            "outcome_checked": self._checked,
            "ceilings": self._ceilings,
            "figures": [figures.saved() for figures in self._figures],
            "rounds": self._rounds,
            "by_connections": [figures.saved() for figures in self._by_connections],
            "steady": self._steady,
        }


def _in_short(figures: Figures) -> dict[str, Any]:
    """What a comparison needs of them."""
    names = ("system", "path", "loop", "answered_per_s", "accepted_per_s", "durable_per_s", "cpu_us")
    return {name: getattr(figures, name) for name in names}


def tell(line: str) -> None:
    """Say what is under way."""
    click.echo(f"{time.strftime('%H:%M:%S')} {line}")


if __name__ == "__main__":
    main()
