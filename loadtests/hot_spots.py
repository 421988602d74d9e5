"""What one partition carries: one hot campaign and one hot product on a cluster of three primaries.

`python -m loadtests.hot_spots` prints rates, and the CPU of each node's main thread for each operation. The engine is
driven directly, without HTTP and without a worker.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import click
import uvloop

from api.commands.embedded_cluster import EmbeddedCluster
from engine.catalog import NewStockItem
from engine.coupons import Campaign, Discount
from engine.engine import Engine, open_engine
from engine.settings import EngineSettings
from engine.stock import LineRequest

SPREAD = 64
AT_ONCE = 256
PLENTY = 1_000_000

Job = Callable[[], Awaitable[object]]


async def run(jobs: Sequence[Job]) -> float:
    """All of them, some at once; how many a second."""
    left = iter(jobs)

    async def work() -> None:
        for job in left:
            await job()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return len(jobs) / (time.perf_counter() - began)


def busy_us(cluster: EmbeddedCluster) -> list[float]:
    """What each node's main thread has used so far."""
    found = []
    for node in range(len(cluster.nodes)):
        info = cluster.info(node, "INFO", "cpu")
        found.append(1e6 * sum(float(info[f"used_cpu_{kind}_main_thread"]) for kind in ("user", "sys")))
    return found


async def measure(cluster: EmbeddedCluster, name: str, jobs: Sequence[Job]) -> None:
    """Run and print."""
    before = busy_us(cluster)
    rate = await run(jobs)
    each = [(after - then) / len(jobs) for then, after in zip(before, busy_us(cluster), strict=True)]
    click.echo(f"{name}: {rate:,.0f} a second; CPU of each node {', '.join(f'{us:.0f}' for us in each)} us each")


async def stock(engine: Engine) -> None:
    """Begin every partition; campaigns and products, plenty of each."""
    for partition in range(engine.partitions.count):
        await engine.recovery.init(partition, 1)
    now = int(time.time() * 1000)
    discount = Discount("amount", 1, None, None)
    for number in range(SPREAD):
        await engine.coupons.put_campaign(
            Campaign(f"c{number}", "C", discount, PLENTY, 0, now - 1_000, now + 86_400_000, 7)
        )
        await engine.catalog.put(f"p{number}", "P", 10, [NewStockItem("one", "", PLENTY)])


async def main(operations: int) -> None:
    """Everything."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedCluster(Path(folder) / "cluster", with_replicas=False) as cluster,
    ):
        settings = EngineSettings(redis_url=cluster.application_url, backlog_max=PLENTY)
        async with open_engine(settings) as engine:
            await stock(engine)
            users = range(operations)
            coupons, orders, wallets = engine.coupons, engine.orders, engine.wallets
            await run([partial(wallets.charge, f"b{user}", 10_000) for user in users])
            await measure(cluster, "coupons of one campaign", [partial(coupons.issue, f"u{u}", "c0") for u in users])
            await measure(
                cluster,
                f"coupons of {SPREAD} campaigns",
                [partial(coupons.issue, f"v{u}", f"c{u % SPREAD}") for u in users],
            )
            for name, count in (("one product", 1), (f"{SPREAD} products", SPREAD)):
                lines = [[LineRequest(f"p{user % count}", "one", 1)] for user in users]
                jobs = [partial(orders.checkout, f"b{u}", line, None) for u, line in zip(users, lines, strict=True)]
                await measure(cluster, f"checkouts of {name}", jobs)


@click.command()
@click.option("--operations", default=6_000, show_default=True)
def command(operations: int) -> None:
    """Measure hot spots on a cluster."""
    uvloop.run(main(operations))


if __name__ == "__main__":
    command()
