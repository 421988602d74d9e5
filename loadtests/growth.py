"""Does a shop slow down as it grows? Every path before and after it has so many times the users, products, orders and
coupons on record, made by buying. Run it with `python -m loadtests.growth`; it brings servers of its own.

Before and after are some minutes apart, and the machine may be slower by then: the CPU for each answer counts, beside
that of the generator, which knows nothing of what is on record. All must add up at the end, and the audit be clean.
"""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, LiteralString

import click
import psycopg

from loadtests import traffic
from loadtests.machine import commit
from loadtests.measure import Figures, Plan, load, measure
from loadtests.systems import Firstcome, WrongOutcome
from loadtests.tables import Found, markdown

CONNECTIONS = 64
SLICE_S = 10.0
"""History is made for so long at a time; then the writer may come after."""

TITLES = {path.name: path.title.replace("1,000 products", "all products") for path in traffic.ALL}
PARTS = ("api", "redis", "worker", "postgres")
_SIZES: LiteralString = """
SELECT relname, pg_table_size(c.oid), pg_indexes_size(c.oid)
FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
  AND pg_total_relation_size(c.oid) > 1000000
ORDER BY pg_total_relation_size(c.oid) DESC"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is on record."""

    users: int
    products: int
    orders: int
    coupons: int

    def times(self, factor: int) -> "Size":
        """So many times of everything."""
        return Size(self.users * factor, self.products * factor, self.orders * factor, self.coupons * factor)


@dataclass(frozen=True, slots=True)
class Stand:
    """A shop of some size: what is on record, what each path costs, and what all of it takes."""

    size: Size
    figures: list[Figures]
    redis_bytes: int
    tables: dict[str, tuple[int, int]]
    """Bytes of rows and of indexes."""


@click.command(help=__doc__)
@click.option("--times", default=100, show_default=True, help="How much larger the shop becomes.")
@click.option("--users", default=2_000, show_default=True, help="Users before.")
@click.option("--products", default=100, show_default=True, help="Products before.")
@click.option("--orders", default=2_000, show_default=True, help="Orders before, and as many coupons.")
@click.option("--seconds", default=5.0, show_default=True, help="How long each path is loaded.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Where the results go, as JSON.")
def main(times: int, users: int, products: int, orders: int, seconds: float, save: Path | None) -> None:
    """Measure, grow, measure, print, save."""
    traffic.USERS, traffic.PRODUCTS = users, products
    before = Size(users, products, orders, orders)
    with tempfile.TemporaryDirectory(prefix="firstcome-growth-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Firstcome(folder, 1) as system:
            small, large = stand(system, before, seconds), stand(system, before.times(times), seconds)
            if broken := system.broken_laws():
                raise click.ClickException("; ".join(broken))
    results = saved(small, large)
    click.echo(summary(results))
    if save is not None:
        save.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def stand(system: Firstcome, size: Size, seconds: float) -> Stand:
    """Let the shop become so large, then measure every path. Raises `WrongOutcome`."""
    click.echo(f"{size.users:,} users, {size.products:,} products, {size.orders:,} orders and coupons")
    system.grow(size.users, size.products)
    for path, wanted in ((traffic.CHECKOUT, size.orders), (traffic.COUPON, size.coupons)):
        assert path.accepts is not None
        while (missing := wanted - system.counts()[path.accepts]) > 0:
            # Only as long as is needed: a shop of 2,000 orders is not to begin with ten times of that.
            done = load(system, path, Plan(min(SLICE_S, max(1.0, missing / 2_000)), CONNECTIONS))
            if done.broken or not done.accepted:
                raise WrongOutcome(f"{path.title}: {done.accepted} accepted, {done.broken} broken")
            system.settle()
    with psycopg.connect(system.postgres.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    counts = system.counts()
    figures = []
    for path in traffic.ALL:
        found = measure(system, path, Plan(seconds, CONNECTIONS, warm_up_s=min(1.0, seconds)))
        figures.append(found)
        click.echo(f"  {path.title}: {found.answered_per_s:,.0f}/s, {cpu_us(found.saved()):,.0f} us")
    with psycopg.connect(system.postgres.url) as connection:
        tables = {table: (rows, indexes) for table, rows, indexes in connection.execute(_SIZES).fetchall()}
    found_size = Size(system.users, system.products, counts["orders"], counts["coupons"])
    return Stand(found_size, figures, int(system.redis.info("memory")["used_memory"]), tables)


def cpu_us(figures: Found) -> float:
    """CPU for each answer, of all parts but the generator."""
    return sum(float(figures["cpu_us"][role]) for role in PARTS)


def summary(results: Found) -> str:
    """Saved results as text: a table of the paths, one of PostgreSQL's tables, and what Redis takes."""
    before, after = results["before"], results["after"]
    paths = [
        [
            TITLES[small["path"]],
            f"{small['answered_per_s']:,.0f}",
            f"{large['answered_per_s']:,.0f}",
            f"{cpu_us(small):,.0f}",
            f"{cpu_us(large):,.0f}",
            f"{cpu_us(large) / cpu_us(small):.2f} x",
            f"{large['cpu_us']['generator'] / small['cpu_us']['generator']:.2f} x",
            f"{small['latency_ms']['99']:.1f}",
            f"{large['latency_ms']['99']:.1f}",
        ]
        for small, large in zip(before["figures"], after["figures"], strict=True)
    ]
    sizes = [
        [name, f"{rows / 2**20:,.1f}", f"{indexes / 2**20:,.1f}"] for name, (rows, indexes) in after["tables"].items()
    ]
    users = after["size"]["users"] - before["size"]["users"]
    orders, coupons = (after["size"][kind] - before["size"][kind] for kind in ("orders", "coupons"))
    return "\n\n".join(
        [
            f"{_told(before['size'])}; then {_told(after['size'])}.",
            markdown(["path", "answers/s", "then", "CPU us", "then", "ratio", "generator", "p99 ms", "then"], paths),
            f"Redis takes {before['redis_bytes'] / 2**20:,.0f} MiB, then {after['redis_bytes'] / 2**20:,.0f} MiB: "
            f"{(after['redis_bytes'] - before['redis_bytes']) / users:,.0f} bytes for each further user, with "
            f"{orders / users:.1f} orders and {coupons / users:.1f} coupons for each. PostgreSQL, then:",
            markdown(["table", "rows, MiB", "indexes, MiB"], sizes),
        ]
    )


def _told(size: Found) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in size.items())


def saved(small: Stand, large: Stand) -> dict[str, Any]:
    """As JSON has it."""
    return {"commit": commit(), "command": " ".join(["python -m loadtests.growth", *sys.argv[1:]])} | {
        name: {
            "size": asdict(each.size),
            "figures": [figures.saved() for figures in each.figures],
            "redis_bytes": each.redis_bytes,
            "tables": each.tables,
        }
        for name, each in (("before", small), ("after", large))
    }


if __name__ == "__main__":
    main()
