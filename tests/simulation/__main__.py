"""`python -m tests.simulation --seed N` replays a seed; `--seeds FROM TO` runs many."""

import sys
import time
import traceback
from contextlib import AbstractContextManager

import click

from tests.simulation.servers import Servers, started, with_database
from tests.simulation.simulation import STEPS

FAILURES_MAX = 5
"""So many are enough to look at."""

SHRINK_BY = 2


@click.command()
@click.option("--seed", type=int, help="the seed to replay")
@click.option("--seeds", type=int, nargs=2, help="run the seeds from the first to before the second")
@click.option("--steps", default=STEPS, show_default=True, help="how much customers and accidents begin")
@click.option("--trace", is_flag=True, help="print every script that ran")
@click.option("--database", help="a migrated database to use and to empty; else a server is started")
def main(seed: int | None, seeds: tuple[int, int] | None, steps: int, trace: bool, database: str | None) -> None:
    """Simulate the shop. Ends with 1 when a seed fails, after the command that replays it."""
    wanted = [seed] if seed is not None else list(range(*(seeds or (0, 20))))
    failed = 0
    servers_context: AbstractContextManager[Servers] = with_database(database) if database else started()
    with servers_context as servers:
        for each in wanted:
            failed += not _run(servers, each, steps, trace)
            if failed == FAILURES_MAX:
                break
    click.echo(f"{len(wanted)} seeds, {failed} failed")
    sys.exit(failed > 0)


def _run(servers: Servers, seed: int, steps: int, trace: bool) -> bool:
    began = time.perf_counter()
    simulation = servers.simulate(seed, steps)
    trouble: Exception | None = None
    try:
        simulation.run()
    except Exception as error:  # shown with the seed, however it came about
        trouble = error
    if trace:
        click.echo("\n".join(simulation.witness.trace))
    if trouble is not None:
        if not isinstance(trouble, AssertionError):
            traceback.print_exception(trouble, file=sys.stdout)
        click.echo(f"seed {seed}: {type(trouble).__name__}: {trouble}")
        click.echo(f"replay it: python -m tests.simulation --seed {seed} --steps {_fewest_steps(servers, seed, steps)}")
        return False
    took_ms = (time.perf_counter() - began) * 1000
    click.echo(f"seed {seed}: {simulation.network.calls} calls, {simulation.loop.time():.0f} s, in {took_ms:.0f} ms")
    return True


def _fewest_steps(servers: Servers, seed: int, steps: int) -> int:
    """How few steps make a failing seed fail, if only in another way: the shorter is the easier to read."""
    for fewer in range(SHRINK_BY, steps, SHRINK_BY):
        try:
            servers.simulate(seed, fewer).run()
        except Exception:
            return fewer
    return steps


if __name__ == "__main__":
    main()
