"""The simulation finds nothing; and what it finds can be found again."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Databases
from tests.simulation.servers import Servers, connected

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 200
SOAK_SEEDS = 10_000
PROCESSES = 4
"""More than cores: each waits for its servers half of the time."""


@pytest.mark.timeout(600)
def test_two_hundred_seeds_break_no_law(databases: Databases) -> None:
    run_seeds(databases, 0, SEEDS)


@pytest.mark.soak
def test_ten_thousand_seeds_break_no_law(databases: Databases) -> None:
    run_seeds(databases, SEEDS, SOAK_SEEDS)


def test_a_seed_replays_step_by_step(redis_url: str, database_url: str) -> None:
    with connected(redis_url, database_url) as servers:
        first, second = trace_of(servers, 3), trace_of(servers, 3)
    assert len(first) > 100
    assert first == second


def trace_of(servers: Servers, seed: int) -> list[str]:
    """Everything that ran in a simulation."""
    simulation = servers.simulate(seed)
    simulation.run()
    return simulation.witness.trace


def run_seeds(databases: Databases, first: int, end: int) -> None:
    """Runs the seeds in some processes at once; what fails is shown with the command that replays it."""
    urls = [databases.make_migrated() for _ in range(PROCESSES)]
    size = -(-(end - first) // PROCESSES)
    runs = [
        run_some(url, first + number * size, min(end, first + (number + 1) * size)) for number, url in enumerate(urls)
    ]
    outputs = [run.communicate()[0] for run in runs]
    for url in urls:
        databases.drop(url)
    assert [run.returncode for run in runs] == [0] * PROCESSES, "\n".join(output[-8_000:] for output in outputs)


def run_some(url: str, first: int, end: int) -> subprocess.Popen[str]:
    """A process that runs the seeds from the first to before the end."""
    options = ["--database", url, "--seeds", str(first), str(end)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
