"""The paths that no client asks for: the writer catching up, Redis made anew, and the calls that one checkout makes."""

import os
import re
import signal
import subprocess
import time
from typing import Any

from api.commands.api import program
from loadtests import traffic
from loadtests.machine import cpu_of_roles
from loadtests.measure import Plan, load
from loadtests.systems import ROOT, Firstcome, WrongOutcome

_REBUILT = re.compile(r"(\d+) partitions rebuilt from ([\d,]+) rows in ([\d.]+) s(?:, ([\d,]+) users/s)?")


def catch_up(system: Firstcome, seconds: float, connections: int) -> dict[str, Any]:
    """Check out with the worker held, counting the calls to Redis; then let the worker make all of it durable."""
    os.kill(system.worker.pid, signal.SIGSTOP)
    system.redis.config_resetstat()
    before = system.counts()["orders"]
    done = load(system, traffic.CHECKOUT, Plan(seconds, connections))
    if done.refused or done.broken or not done.accepted:
        os.kill(system.worker.pid, signal.SIGCONT)
        raise WrongOutcome(f"with the worker held, {done.refused} of {done.answered} were refused, {done.broken} broke")
    statistics: dict[str, Any] = system.redis.info("commandstats")
    marks = system.marks()
    first, cpu_before, began = system.durable_events(), cpu_of_roles(system.roles()), time.perf_counter()
    os.kill(system.worker.pid, signal.SIGCONT)
    system.await_durable(marks)
    took_s, written = time.perf_counter() - began, max(system.durable_events() - first, 1)
    cpu_after = cpu_of_roles(system.roles())
    system.settle()
    settled = cpu_of_roles(system.roles())
    orders = system.counts()["orders"] - before
    return {
        "orders": orders,
        "redis_calls_per_order": round(statistics["cmdstat_evalsha"]["calls"] / max(done.answered, 1), 2),
        "events_per_s": round(written / took_s, 1),
        "seconds": round(took_s, 3),
        "worker_cpu_us_per_event": round((cpu_after["worker"] - cpu_before["worker"]) / written * 1e6, 1),
        "postgres_cpu_us_per_event": round((cpu_after["postgres"] - cpu_before["postgres"]) / written * 1e6, 1),
        "worker_cpu_us_per_settled_order": round((settled["worker"] - cpu_before["worker"]) / orders * 1e6, 1),
    }


def rebuild(system: Firstcome) -> dict[str, float]:
    """Make Redis anew from PostgreSQL, as `firstcome rebuild` says it."""
    done = subprocess.run(
        [*program(), "rebuild"], env=system.environment(), capture_output=True, text=True, check=False, cwd=ROOT,
        timeout=600,
    )  # fmt: skip
    said = _REBUILT.search(done.stdout)
    if done.returncode or said is None:
        raise WrongOutcome(f"firstcome rebuild: {done.stdout}{done.stderr[-1000:]}")
    return {
        "rows": int(said[2].replace(",", "")),
        "seconds": float(said[3]),
        "users_per_s": float((said[4] or "0").replace(",", "")),
    }
