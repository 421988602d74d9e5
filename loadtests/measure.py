"""One path of one system under load: what was accepted, refused and made durable, how fast, and at what cost."""

import itertools
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from loadtests.generators import Load, closed_loop_generator, generate
from loadtests.lag import Lag
from loadtests.machine import cpu_of_roles, memory_bytes
from loadtests.python_load import Job, template
from loadtests.systems import HOST, Firstcome, System, WrongOutcome
from loadtests.traffic import Path

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Figures:
    """What is saved of one path of one system. Rates are per second, times in ms, CPU in microseconds."""

    system: str
    path: str
    loop: str
    generator: str
    connections: int
    asked_rate: float
    seconds: float
    answered: int
    accepted: int
    refused: int
    answered_per_s: float
    accepted_per_s: float
    refused_per_s: float
    durable_per_s: float | None
    """Accepted and in PostgreSQL, by the time until the last of it was there; None where nothing ever is."""
    latency_ms: dict[str, float]
    cpu_us: dict[str, float]
    """CPU for each answer, by role, until all of it was settled; `generator` is not the system's own."""
    memory_mib: dict[str, float]
    events: int | None = None
    """What was written to Redis's streams meanwhile, until all of it was settled; None where there are none."""
    lag_ms_max: float | None = None
    lag_ms: list[list[float]] = field(default_factory=list)
    """Seconds into the run, and how old the oldest event was that was not durable then."""

    def saved(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard. ``rate`` above 0 is an open loop, by wrk if ``paced`` and where there is one: that takes
    less of the machine, and times a request from when it is sent.
    """

    seconds: float
    connections: int
    warm_up_s: float = 0.0
    rate: float = 0.0
    paced: bool = False


def measure(system: System, path: Path, plan: Plan) -> Figures:
    """Load one path, wait until all of it is settled, and hold the answers against what is on record.

    Raises `WrongOutcome`.
    """
    if plan.warm_up_s:
        warm_up = generate(_job(system, path, plan.warm_up_s, plan.connections), closed_loop_generator())
        if not warm_up.answered:
            raise WrongOutcome(f"{system.title}, {path.title}: nothing was answered in {plan.warm_up_s:g} s")
        system.settle()
    if path.refusal:
        _require_refusal(system, path)
    generator = "python_load" if plan.rate and not plan.paced else closed_loop_generator()
    before, refusals_before = system.counts(), system.refusals()
    events_before = system.events() if isinstance(system, Firstcome) else 0
    cpu_before = cpu_of_roles(system.roles())
    lag = Lag(system.oldest_waiting_ms) if isinstance(system, Firstcome) else None
    job = _job(system, path, plan.seconds, plan.connections, plan.rate)
    if lag is None:
        load = generate(job, generator)
    else:
        with lag:
            load = generate(job, generator)
    loaded_at = time.perf_counter()
    system.await_durable(system.marks())
    durable_s = load.seconds + time.perf_counter() - loaded_at
    system.settle()
    cpu_after = cpu_of_roles(system.roles())
    system.require_running()
    events = system.events() - events_before if isinstance(system, Firstcome) else None
    _require_right(system, path, load, before, plan.connections)
    _require_refusals(system, path, load, refusals_before)
    if events and path.accepts is None:
        raise WrongOutcome(f"{system.title}, {path.title}: {events} events were written, and nothing was to change")
    answered = max(load.answered, 1)
    cpu_us = {role: round((cpu_after[role] - spent) / answered * 1e6, 1) for role, spent in cpu_before.items()}
    cpu_us["generator"] = round(load.generator_cpu_s / answered * 1e6, 1)
    return Figures(
        system=system.name,
        path=path.name,
        loop="paced" if plan.rate and generator == "wrk" else "open" if plan.rate else "closed",
        generator=generator,
        connections=plan.connections,
        asked_rate=round(plan.rate, 1),
        seconds=round(load.seconds, 3),
        answered=load.answered,
        accepted=load.accepted,
        refused=load.refused,
        answered_per_s=round(load.answered / load.seconds, 1),
        accepted_per_s=round(load.accepted / load.seconds, 1),
        refused_per_s=round(load.refused / load.seconds, 1),
        durable_per_s=round(load.accepted / durable_s, 1) if system.durable and path.accepts else None,
        latency_ms={str(percentile): ms for percentile, ms in load.latency_ms},
        cpu_us=cpu_us,
        memory_mib={role: round(memory_bytes(pids) / 2**20, 1) for role, pids in system.roles().items()},
        events=events,
        lag_ms_max=max((ms for _, ms in lag.found_ms), default=0.0) if lag else None,
        lag_ms=lag.found_ms if lag else [],
    )


def load(system: System, path: Path, plan: Plan) -> Load:
    """Load one path and look at nothing."""
    return generate(_job(system, path, plan.seconds, plan.connections, plan.rate), closed_loop_generator())


def _job(system: System, path: Path, seconds: float, connections: int, rate: float = 0.0) -> Job:
    number = next(_numbers)
    return Job(
        HOST,
        system.port,
        path.method,
        path.path,
        path.body,
        first=number * 10_000_000,
        users=system.users,
        products=system.products,
        seed=number,
        connections=connections,
        seconds=seconds,
        rate=rate,
        header=path.header,
    )


def _require_refusal(system: System, path: Path) -> None:
    """A generator counts refusals and does not read them: one is read before, and has to be the one that is meant."""
    values = {"n": next(_numbers), "user": 0}
    where, body = template(path.path)(values), template(path.body)(values)
    headers = {"Content-Type": "application/json"}
    answer = httpx.request(path.method, system.url + where, content=body, headers=headers, timeout=60, trust_env=False)
    if path.refusal not in answer.text:
        said = answer.text[:200]
        raise WrongOutcome(f"{system.title}, {path.title}: {answer.status_code} and not {path.refusal}: {said}")


def _require_right(system: System, path: Path, load: Load, before: dict[str, int], connections: int) -> None:
    """What was accepted is on record, and nothing else; but wrk leaves one request of each connection on its way, which
    may be done all the same."""
    wrong = []
    if not load.answered:
        wrong.append("nothing was answered")
    elif path.accepts and not load.accepted:
        wrong.append("nothing was accepted")
    if load.broken and not system.starves:
        wrong.append(f"{load.broken} requests broke")
    if path.refusal and load.accepted:
        wrong.append(f"{load.accepted} accepted where nothing was left")
    if not path.refusal and load.refused and not system.starves:
        wrong.append(f"{load.refused} refused where all should be accepted")
    left_over = 0 if load.exact else connections
    if system.starves:
        # What clients gave up may be done all the same, and what lost its lock after it had written is refused; each
        # connection may be in the midst of one more at the end.
        left_over += load.broken + load.refused + connections
    after = system.counts()
    for kind, count in before.items():
        least = load.accepted if path.accepts == kind else 0
        most = least + (left_over if path.accepts == kind else 0)
        more = after[kind] - count
        if not least <= more <= most:
            wrong.append(f"{more} more {kind} on record, not {least} to {most}")
    if wrong:
        raise WrongOutcome(f"{system.title}, {path.title}: {'; '.join(wrong)}")


def _require_refusals(system: System, path: Path, load: Load, before: Counter[str]) -> None:
    """To a generator every answer from 400 on is a refusal: those of the load were the one that is meant, as far as the
    system itself counts what it answers."""
    answered = system.refusals() - before
    meant = answered.pop(path.refusal, 0)
    if answered:
        told = ", ".join(f"{count} times {problem}" for problem, count in answered.items())
        raise WrongOutcome(f"{system.title}, {path.title}: answered {told}")
    if isinstance(system, Firstcome) and meant < load.refused:
        raise WrongOutcome(f"{system.title}, {path.title}: {load.refused} refused, {meant} with {path.refusal}")
