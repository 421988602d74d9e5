"""Drives the engine's flows without HTTP, many at once, and prints how many were done as JSON."""

import asyncio
import json
import random
import resource
import time
from collections.abc import Awaitable, Callable

import click
import uvloop

from engine import garbage
from engine.engine import Engine, open_engine
from engine.settings import EngineSettings
from engine.stock import LineRequest
from loadtests import traffic

AT_ONCE = 256


@click.command()
@click.option("--flow", type=click.Choice(["coupon", "checkout"]), required=True)
@click.option("--seconds", type=float, required=True)
@click.option("--users", default=traffic.USERS, show_default=True, help="So many are charged.")
@click.option("--products", default=traffic.PRODUCTS, show_default=True, help="So many are stocked.")
def main(flow: str, seconds: float, users: int, products: int) -> None:
    """Drive one flow against the Redis that FIRSTCOME_REDIS_URL names."""
    click.echo(json.dumps(uvloop.run(drive(flow, seconds, users, products))))


async def drive(flow: str, seconds: float, users: int, products: int) -> dict[str, float]:
    """How many were done in how long, and what it took of this process."""
    chance = random.Random(1)
    done = 0

    def coupon(engine: Engine) -> Awaitable[object]:
        return engine.coupons.issue(f"lane-{time.time_ns()}-{chance.random()}"[:64], traffic.CAMPAIGN)

    def checkout(engine: Engine) -> Awaitable[object]:
        one = chance.randrange(products)
        other = (one + chance.randrange(1, products)) % products
        lines = [LineRequest(f"product-{product}", "one", 1) for product in (one, other)]
        return engine.orders.checkout(f"user-{chance.randrange(users)}", lines, None)

    act: Callable[[Engine], Awaitable[object]] = coupon if flow == "coupon" else checkout

    async def repeat(engine: Engine, until: float) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await act(engine)
            done += 1

    async with open_engine(EngineSettings.from_environment()) as engine:
        await act(engine)
        garbage.settle()
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(repeat(engine, began + seconds))
        took_s = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "done": done,
        "seconds": round(took_s, 3),
        "per_s": round(done / took_s, 1),
        "cpu_us": round(cpu_s / done * 1e6, 1),
    }


if __name__ == "__main__":
    main()
