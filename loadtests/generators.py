"""The load generators: wrk where it is on the PATH, else the one in `python_load`, which also does all open loops.

wrk can keep a pace, too, for a third of the CPU; but it times a request from when it is sent, not from when it was due,
and corrects for a stall by what its connection's usual answers take, while `python_load` corrects nothing in a closed
loop.
"""

import json
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.python_load import Job

SCRIPT = Path(__file__).with_name("requests.lua")
WRK_TIMEOUT_S = 30
_RESULT = re.compile(r"^RESULT (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """What a generator saw. ``latency_ms``: pairs of percentile and ms. ``exact``: no request was left unanswered."""

    answered: int
    refused: int
    broken: int
    seconds: float
    latency_ms: tuple[tuple[float, float], ...]
    generator: str
    generator_cpu_s: float
    exact: bool

    @property
    def accepted(self) -> int:
        return self.answered - self.refused

    def percentile(self, wanted: float) -> float:
        """The latency at one of the percentiles that generators report, ms."""
        return dict(self.latency_ms)[wanted]


class GeneratorFailed(Exception):
    """The load generator ended with an error."""


def closed_loop_generator() -> str:
    """`wrk`, or `python_load` where there is none."""
    return "wrk" if shutil.which("wrk") else "python_load"


def generate(job: Job, generator: str) -> Load:
    """Do a job. wrk can work over a time only, and leaves the last request of each connection unanswered."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if generator == "wrk":
        if job.count:
            raise ValueError("wrk works over a time only")
        found = _wrk(job)
    else:
        found = _python(job)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Load(
        answered=found["answered"],
        refused=found["refused"],
        broken=found["broken"],
        seconds=found["seconds"],
        latency_ms=tuple((percentile, round(ms, 3)) for percentile, ms in found["latency_ms"]),
        generator=generator,
        generator_cpu_s=cpu_s,
        exact=generator != "wrk",
    )


def _wrk(job: Job) -> dict[str, Any]:
    command = [
        "wrk", "-t1", f"-c{job.connections}", f"-d{max(1, round(job.seconds))}s", f"--timeout={WRK_TIMEOUT_S}s",
        "-s", str(SCRIPT), f"http://{job.host}:{job.port}", "--",
        job.method, job.path, job.body, job.header,
        *map(str, (job.first, job.users, job.products, job.seed, job.rate)),
    ]  # fmt: skip
    output = _run(command, "", job.seconds + WRK_TIMEOUT_S + 30)
    result = _RESULT.search(output)
    if result is None:
        raise GeneratorFailed(output)
    return dict(json.loads(result[1]))


def _python(job: Job) -> dict[str, Any]:
    command = [sys.executable, "-m", "loadtests.python_load"]
    return dict(json.loads(_run(command, json.dumps(asdict(job)), job.seconds + 120)))


def _run(command: list[str], given: str, timeout_s: float) -> str:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=timeout_s, cwd=root
    )
    if done.returncode:
        raise GeneratorFailed(f"{command[0]}: {done.stderr[-2000:]}")
    return done.stdout
