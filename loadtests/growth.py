"""Does a shop slow down as it grows? A shop, and beside it one with so many times the users, products, orders and
coupons on record, all of them bought: each path is measured in the one and at once in the other, some times in turn.
Run it with `python -m loadtests.growth`; it brings servers of its own.

A machine that is slower by then is so for both. The middle of each path's measurements counts: the CPU for each answer,
beside that of the generator, which knows nothing of what is on record. All must add up at the end, and both audits be
clean.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, LiteralString

import click
import psycopg
import redis
from psycopg import sql

from api.commands.redis_memory import EVENTS, KINDS, sample
from loadtests import traffic
from loadtests.machine import commit
from loadtests.measure import Plan, load, measure
from loadtests.systems import Firstcome, WrongOutcome
from loadtests.tables import Found, markdown

CONNECTIONS = 64
SLICE_S = 10.0
"""History is made for so long at a time; then the writer may come after."""

WARM_UP_S = 1.0
TITLES = {path.name: path.title.replace("1,000 products", "all products") for path in traffic.ALL}
GROWTH_HEAD = (
    "path", "small: on record", "large: on record", "small: answers/s", "large: answers/s",
    "small: CPU us", "large: CPU us", "CPU, large to small", "generator's CPU, large to small",
    "small: p99 ms", "large: p99 ms",
)  # fmt: skip
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


class Shop:
    """A shop of some size, and what was measured in it."""

    def __init__(self, system: Firstcome, size: Size) -> None:
        self.system = system
        self.figures: dict[str, list[Found]] = {}
        _grow(system, size)
        self.size = self._counted()
        self.redis_bytes = int(system.redis.info("memory")["used_memory"])

    def measure(self, path: traffic.Path, seconds: float) -> None:
        """Load one path; the first time after a warm-up."""
        warm_up_s = 0.0 if path.name in self.figures else min(WARM_UP_S, seconds)
        self.figures.setdefault(path.name, []).append(self._measured(path, seconds, warm_up_s))

    def measure_best_sellers_again(self, seconds: float) -> None:
        """With all the orders that the other paths have added."""
        self.best_sellers_at_the_end = self._measured(traffic.BEST_SELLERS, seconds, min(WARM_UP_S, seconds))

    def _measured(self, path: traffic.Path, seconds: float, warm_up_s: float) -> Found:
        on_record = asdict(self._counted())
        return measure(self.system, path, Plan(seconds, CONNECTIONS, warm_up_s)).saved() | {"on_record": on_record}

    def saved(self) -> dict[str, Any]:
        """As JSON has it. ``tables``: bytes of the rows and of the indexes of each, and how many rows, at the end."""
        with psycopg.connect(self.system.postgres.url) as connection:
            tables = {
                table: (rows, indexes, _row_count(connection, table))
                for table, rows, indexes in connection.execute(_SIZES).fetchall()
            }
        return {
            "size": asdict(self.size),
            "size_at_the_end": asdict(self._counted()),
            "redis_bytes": self.redis_bytes,
            "entities": self._entities(),
            "tables": tables,
            "figures": self.figures,
            "best_sellers_at_the_end": self.best_sellers_at_the_end,
        }

    def _entities(self) -> dict[str, tuple[int, int]]:
        """How many of each kind were looked at in Redis, and the bytes that they take."""
        with redis.Redis.from_url(self.system.valkey.url) as client:
            found = sample(client)
        names = {**KINDS, EVENTS: "event in a stream"}
        return {names[kind]: (each.count, each.bytes) for kind, each in found.by_kind.items() if kind in names}

    def _counted(self) -> Size:
        counts = self.system.counts()
        return Size(self.system.users, self.system.products, counts["orders"], counts["coupons"])


@click.command(help=__doc__)
@click.option("--times", default=100, show_default=True, help="How much larger the other shop is.")
@click.option("--users", default=1_000, show_default=True, help="Users of the small one.")
@click.option("--products", default=100, show_default=True, help="Its products.")
@click.option("--orders", default=2_000, show_default=True, help="Its orders, and as many coupons.")
@click.option("--seconds", default=2.0, show_default=True, help="How long each path is loaded at a time.")
@click.option("--rounds", default=5, show_default=True, help="How often, in each shop.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Where the results go, as JSON.")
def main(times: int, users: int, products: int, orders: int, seconds: float, rounds: int, save: Path | None) -> None:
    """Grow, measure in turn, print, save."""
    traffic.USERS, traffic.PRODUCTS = users, products
    size = Size(users, products, orders, orders)
    with tempfile.TemporaryDirectory(prefix="firstcome-growth-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        results = compare(folder, size, times, seconds, rounds)
    click.echo(summary(results))
    if save is not None:
        save.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def compare(folder: Path, size: Size, times: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Both shops, measured in turn, as JSON has it. Raises `WrongOutcome`."""
    systems = []
    for name in ("large", "small"):
        (folder / name).mkdir(mode=0o755)
        systems.append(Firstcome(folder / name, 1))
    with systems[0] as large_one, systems[1] as small_one:
        large, small = Shop(large_one, size.times(times)), Shop(small_one, size)
        # What adds to the record comes last, so that the small shop is small for as long as can be.
        paths = [path for path in traffic.ALL if path is not traffic.COUPON_DURABLE]  # the same, but for the waiting
        for path in sorted(paths, key=lambda path: path.accepts is not None):
            for number in range(rounds):
                for shop in (small, large) if number % 2 == 0 else (large, small):
                    shop.measure(path, seconds)
            ratio = _middle(large.figures[path.name], cpu_us) / _middle(small.figures[path.name], cpu_us)
            click.echo(f"  {TITLES[path.name]}: {ratio:.2f} x the CPU")
        for shop in (small, large):
            shop.measure_best_sellers_again(seconds)
        if broken := [*small_one.broken_laws(), *large_one.broken_laws()]:
            raise WrongOutcome("; ".join(broken))
        return {
            "commit": commit(),
            "command": " ".join(["python -m loadtests.growth", *sys.argv[1:]]),
            "small": small.saved(),
            "large": large.saved(),
        }


def _row_count(connection: psycopg.Connection[tuple[Any, ...]], table: str) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


def _grow(system: Firstcome, size: Size) -> None:
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


def cpu_us(figures: Found) -> float:
    """CPU for each answer, of all parts but the generator."""
    return sum(float(figures["cpu_us"][role]) for role in PARTS)


def _generator_us(figures: Found) -> float:
    return float(figures["cpu_us"]["generator"])


def _rate(figures: Found) -> float:
    return float(figures["answered_per_s"])


def _on_record(figures: Found) -> float:
    return float(figures["on_record"]["orders"] + figures["on_record"]["coupons"])


def _p99_ms(figures: Found) -> float:
    return float(figures["latency_ms"]["99"])


def _middle(found: Sequence[Found], of: Callable[[Found], float]) -> float:
    return median(map(of, found))


def summary(results: Found) -> str:
    """Saved results as text: a table of the paths, one of PostgreSQL's tables, and what Redis takes."""
    small, large = results["small"], results["large"]
    rows = []
    for path in (path.name for path in traffic.ALL if path.name in small["figures"]):

        def row(of: Callable[[Found], float], form: str, path: str = path) -> tuple[float, list[str]]:
            one, other = _middle(small["figures"][path], of), _middle(large["figures"][path], of)
            return other / one, [format(one, form), format(other, form)]

        (_, rate), (ratio, cpu), (_, on_record) = row(_rate, ",.0f"), row(cpu_us, ",.0f"), row(_on_record, ",.0f")
        (same, _), (_, late) = row(_generator_us, ""), row(_p99_ms, ".1f")
        rows.append([TITLES[path], *on_record, *rate, *cpu, f"{ratio:.2f} x", f"{same:.2f} x", *late])
    entities = [
        [kind, f"{count:,}", f"{size / count:,.0f}"] for kind, (count, size) in large["entities"].items() if count
    ]
    sizes = [
        [name, f"{table / 2**20:,.1f}", f"{indexes / 2**20:,.1f}", f"{(table + indexes) / max(count, 1):,.0f}"]
        for name, (table, indexes, count) in large["tables"].items()
    ]
    users, orders, coupons = (large["size"][kind] - small["size"][kind] for kind in ("users", "orders", "coupons"))
    return "\n\n".join(
        [
            f"The small shop has {_told(small['size'])} when it is first measured, and "
            f"{_told(small['size_at_the_end'])} at the end; the large one {_told(large['size'])}, and "
            f"{_told(large['size_at_the_end'])}.",
            "`on record` are the orders and coupons there when a path was measured: the middle, as loading a path adds "
            "to them, in both shops alike, so the paths that write, which came last, compare shops whose histories are "
            "nearer to each other than their users and products are.",
            markdown(GROWTH_HEAD, rows),
            "Best sellers by the orders on record, as a ranking counts three days' sales and no orders:",
            markdown(["orders", "answers/s", "CPU us", "p99 ms"], _best_sellers(small, large)),
            f"Redis takes {small['redis_bytes'] / 2**20:,.0f} MiB in the small shop and "
            f"{large['redis_bytes'] / 2**20:,.0f} MiB in the large one, when they are first measured: "
            f"{(large['redis_bytes'] - small['redis_bytes']) / users:,.0f} bytes for each further user, with "
            f"{orders / users:.1f} orders and {coupons / users:.1f} coupons for each. What one takes there, the mean "
            "of those that were looked at in the large shop at the end:",
            markdown(["in Redis", "looked at", "bytes each"], entities),
            "PostgreSQL in the large shop, at the end:",
            markdown(["table", "rows, MiB", "indexes, MiB", "rows and indexes, bytes for each row"], sizes),
        ]
    )


def _best_sellers(small: Found, large: Found) -> list[list[str]]:
    found = [figures for shop in (small, large) for figures in shop["figures"].get(traffic.BEST_SELLERS.name, ())]
    found += [shop["best_sellers_at_the_end"] for shop in (small, large)]
    by_orders: dict[int, list[Found]] = {}
    for figures in found:
        by_orders.setdefault(figures["on_record"]["orders"], []).append(figures)
    return [
        [
            f"{orders:,}",
            f"{_middle(each, _rate):,.0f}",
            f"{_middle(each, cpu_us):,.0f}",
            f"{_middle(each, _p99_ms):.1f}",
        ]
        for orders, each in sorted(by_orders.items())
    ]


def _told(size: Found) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in size.items())


if __name__ == "__main__":
    main()
