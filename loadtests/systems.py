"""What is measured, each with servers of its own: started, stocked, asked what it has on record, held to its laws."""

import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, LiteralString, Self

import httpx
import psycopg
import redis
from prometheus_client.parser import text_string_to_metric_families
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.commands.api import program
from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from api.commands.listening import listen
from api.commands.processes import ChildProcess, wait_until
from api.times import format_moment
from engine.keys import Keys
from engine.partitions import Partitions
from loadtests import traffic
from loadtests.generators import generate
from loadtests.lag import oldest_waiting_ms
from loadtests.python_load import Job
from persistence.migrations import upgrade

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[1]
PARTITIONS = 64
STOCK = 100_000_000
COUPONS = 100_000_000
READY_S = 60.0
UNCHANGED_S = 0.5
SETTLED_S = 300.0
AUDITED_S = 3_600.0
"""An audit reads at a gentle pace, and minutes of load make a million orders."""
VALUE = 300
"""What a coupon takes off."""


Marks = tuple[int, ...]
"""How far each partition has come."""


class WrongOutcome(Exception):
    """A system has not done what it answered: its figures count for nothing."""


def query(url: str, statement: LiteralString, users: int) -> int:
    """The one number that a query gives; it may name the campaign, the stock of a product and all that was charged."""
    known = {"campaign": traffic.CAMPAIGN, "stock": STOCK, "charged": users * traffic.CHARGED}
    with psycopg.connect(url) as connection:
        row = connection.execute(statement, known).fetchone()
    assert row is not None
    return int(row[0])


def redis_client(url: str) -> redis.Redis:
    """A client for seeding and looking."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=60, decode_responses=True)


class System(ABC):
    """One way to build the shop. A context manager: within it, it runs, and has the stock of `traffic`."""

    name: ClassVar[str]
    title: ClassVar[str]
    durable: ClassVar[bool]
    application: ClassVar[str] = ""
    starves: ClassVar[bool] = False
    """Whether it may refuse what it has no time for, and be given up by clients."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder = folder / self.name
        self.processes = processes
        self.users, self.products = traffic.USERS, traffic.PRODUCTS
        self.apis: list[ChildProcess] = []
        self._children: list[ChildProcess] = []
        self.port = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o755, parents=True)
        with self._stack:
            self._start_servers()
            self._start_apis()
            self._seed()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @abstractmethod
    def roles(self) -> dict[str, list[int]]:
        """The root processes of each part."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """How many coupons and orders are on record."""

    @abstractmethod
    def broken_laws(self) -> list[str]:
        """What does not add up, in what is on record."""

    def refusals(self) -> Counter[str]:
        """How often each problem was answered, by its own count; nothing, where it does not count."""
        return Counter()

    def marks(self) -> Marks:
        """How far all is accepted, as of now; nothing, where what is answered is as safe as it gets."""
        return ()

    def await_durable(self, marks: Marks) -> None:
        """Wait until all up to there is as safe as it gets in this system."""
        assert not marks

    def settle(self) -> None:
        """Wait until nothing is under way: what a client has left behind is still carried out."""
        deadline = time.monotonic() + SETTLED_S
        counts, same_since = self.counts(), time.monotonic()
        while time.monotonic() < min(same_since + UNCHANGED_S, deadline):
            time.sleep(0.05)
            now = self.counts()
            if now != counts:
                counts, same_since = now, time.monotonic()
                if same_since > deadline:
                    raise WrongOutcome(f"{self.title} is still at work after {SETTLED_S:g} s")

    @abstractmethod
    def _start_servers(self) -> None: ...

    @abstractmethod
    def _seed(self) -> None: ...

    def _api_command(self, fd: int) -> list[str]:
        return [sys.executable, "-m", "loadtests.serve", self.application, "--fd", str(fd)]

    def environment(self) -> dict[str, str]:
        """What its processes are told."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("FIRSTCOME_", "BASELINE_"))}

    def _start_apis(self) -> None:
        listeners = listen(HOST, 0, self.processes)
        for listener in {listener.fileno(): listener for listener in listeners}.values():
            self._stack.callback(listener.close)
        self.port = listeners[0].getsockname()[1]
        for number, listener in enumerate(listeners, start=1):
            api = self._child(f"api-{number}", self._api_command(listener.fileno()), [listener.fileno()])
            self.apis.append(api)
        for api in self.apis:
            wait_until(lambda api=api: self._serves(api), timeout_s=READY_S, what=f"{self.title} serves")  # type: ignore[misc]

    def _serves(self, api: ChildProcess) -> bool:
        if not api.running:
            raise api.failure()
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as probe:
                probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return bool(probe.recv(64))
        except OSError:
            return False

    def _child(self, name: str, argv: Sequence[str], fds: Sequence[int] = ()) -> ChildProcess:
        log = self.folder / f"{name}.log"
        child = ChildProcess(name, argv, log, env=self.environment(), cwd=ROOT, pass_fds=fds, stop_timeout_s=20)
        child.start()
        self._stack.callback(child.stop)
        self._children.append(child)
        return child

    def require_running(self) -> None:
        """Raises ProcessFailed where a process of the system's has ended: then nobody knows what was measured."""
        for child in self._children:
            if not child.running:
                raise child.failure()


def _product(product_id: str, units: int) -> dict[str, object]:
    stock = {"stock_id": "one", "option": "one size", "initial_quantity": units}
    return {"name": product_id, "price": traffic.PRICE, "stock": [stock]}


class Firstcome(System):
    """The real thing: API processes, one worker, Valkey, PostgreSQL."""

    name = "firstcome"
    title = "Firstcome"
    durable = True

    def _start_servers(self) -> None:
        self.valkey = self._stack.enter_context(EmbeddedValkey(self.folder / "valkey"))
        self.postgres = self._stack.enter_context(EmbeddedPostgres(self.folder / "postgres"))
        upgrade(self.postgres.url)
        self.redis = redis_client(self.valkey.url)
        self._stack.callback(self.redis.close)
        self._keys = Keys(Partitions(PARTITIONS))
        self.worker = self._child("worker", [*program(), "worker"])

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "FIRSTCOME_REDIS_URL": self.valkey.url,
            "FIRSTCOME_DATABASE_URL": self.postgres.url,
            "FIRSTCOME_PARTITIONS": str(PARTITIONS),
            # Nothing is younger than this once all is settled.
            "FIRSTCOME_AUDIT_AGE_MS": "1000",
        }

    def _api_command(self, fd: int) -> list[str]:
        return [*program(), "api", "--fd", str(fd)]

    def _serves(self, api: ChildProcess) -> bool:
        if not api.running:
            raise api.failure()
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=2, verify=False)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK and answer.json()["recovering_partitions"] == []

    def roles(self) -> dict[str, list[int]]:
        return {
            "api": [api.pid for api in self.apis],
            "redis": [self.valkey.pid],
            "worker": [self.worker.pid],
            "postgres": [self.postgres.pid],
        }

    def _seed(self) -> None:
        now = datetime.now(UTC)
        with httpx.Client(base_url=self.url, timeout=60, verify=False) as client:

            def put(path: str, body: dict[str, object]) -> None:
                client.put(path, json=body).raise_for_status()

            for campaign, quantity in ((traffic.CAMPAIGN, COUPONS), (traffic.EXHAUSTED, 1)):
                body = {
                    "name": campaign, "discount": {"kind": "amount", "value": VALUE}, "quantity": quantity,
                    "opens_at": format_moment(now - timedelta(hours=1)),
                    "closes_at": format_moment(now + timedelta(days=1)), "valid_days": 7,
                }  # fmt: skip
                put(f"/admin/v1/campaigns/{campaign}", body)
            client.post("/v1/users/first/coupons", json={"campaign_id": traffic.EXHAUSTED}).raise_for_status()
            for gone in traffic.GONE:
                put(f"/admin/v1/products/{gone}", _product(gone, 0))
        self._stock(traffic.product_ids(self.products))
        self._charge(0, self.users)
        self.settle()

    def grow(self, users: int, products: int) -> None:
        """Have more of both, all of them charged and stocked."""
        self._stock([f"product-{number}" for number in range(self.products, products)])
        self._charge(self.users, users)
        self.users, self.products = users, products
        self.settle()

    def _stock(self, product_ids: Sequence[str]) -> None:
        with httpx.Client(base_url=self.url, timeout=60, verify=False) as client, ThreadPoolExecutor(8) as threads:

            def put(product_id: str) -> None:
                client.put(f"/admin/v1/products/{product_id}", json=_product(product_id, STOCK)).raise_for_status()

            list(threads.map(put, product_ids))

    def _charge(self, first: int, end: int) -> None:
        if first == end:
            return  # a job of no requests would be one without end
        charge = traffic.CHARGE
        job = Job(
            HOST, self.port, charge.method, charge.path, charge.body, first=first, users=1, products=2, seed=1,
            connections=32, seconds=3_600, count=end - first,
        )  # fmt: skip
        done = generate(job, "python_load")
        if done.accepted != end - first:
            raise WrongOutcome(f"{done.accepted} of {end - first} charges were accepted")

    def _metas(self) -> list[tuple[int, int]]:
        """Sequence and durable sequence of each partition."""
        pipeline = self.redis.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            pipeline.hmget(self._keys.meta(partition), "seq", "durable")
        return [(int(seq or 0), int(durable or 0)) for seq, durable in pipeline.execute()]

    def refusals(self) -> Counter[str]:
        page = httpx.get(f"{self.url}/metrics", timeout=60, verify=False).text
        counts: Counter[str] = Counter()
        for family in text_string_to_metric_families(page):
            if family.name == "firstcome_refusals":
                for sample in family.samples:
                    counts[sample.labels["problem"]] += int(sample.value)
        return counts

    def marks(self) -> Marks:
        return tuple(seq for seq, _ in self._metas())

    def events(self) -> int:
        """How many events there have been."""
        return sum(self.marks())

    def durable_events(self) -> int:
        """How many events PostgreSQL has had."""
        return sum(durable for _, durable in self._metas())

    def oldest_waiting_ms(self) -> float:
        """See `loadtests.lag`."""
        return oldest_waiting_ms(self.redis, self._keys, PARTITIONS)

    def await_durable(self, marks: Marks) -> None:
        deadline = time.monotonic() + SETTLED_S
        while any(durable < mark for (_, durable), mark in zip(self._metas(), marks, strict=True)):
            self.require_running()
            if time.monotonic() > deadline:
                raise WrongOutcome(f"not durable after {SETTLED_S:g} s")
            time.sleep(0.01)

    def settle(self) -> None:
        deadline = time.monotonic() + SETTLED_S
        while True:
            self.await_durable(self.marks())
            if not self._unsettled() and all(seq == durable for seq, durable in self._metas()):
                return
            if time.monotonic() > deadline:
                raise WrongOutcome(f"{self._unsettled()} reservations or coupons are left over after {SETTLED_S:g} s")
            time.sleep(0.1)

    def _unsettled(self) -> int:
        return self._query(
            """SELECT (SELECT count(*) FROM reservation WHERE state = 'held')
                    + (SELECT count(*) FROM coupon_issue) - (SELECT count(*) FROM coupon)"""
        )

    def _query(self, statement: LiteralString) -> int:
        return query(self.postgres.url, statement, self.users)

    def counts(self) -> dict[str, int]:
        return {
            "coupons": self._query("SELECT count(*) FROM coupon WHERE campaign_id = %(campaign)s"),
            "orders": self._query("SELECT count(*) FROM orders WHERE status = 'completed'"),
        }

    def broken_laws(self) -> list[str]:
        laws: dict[str, LiteralString] = {
            "a campaign's issues are not those of its coupons": """
                SELECT count(*) FROM campaign c WHERE issued <> (SELECT count(DISTINCT user_id) FROM coupon_issue i
                    WHERE i.campaign_id = c.campaign_id)
                OR issued <> (SELECT count(*) FROM coupon k WHERE k.campaign_id = c.campaign_id)""",
            "units that are not received, or of nobody": """
                SELECT count(*) FROM stock_item WHERE received <> available + reserved + sold OR reserved <> 0""",
            "units sold that no order has, or the other way round": """
                SELECT abs((SELECT coalesce(sum(sold), 0) FROM stock_item) - (SELECT coalesce(sum(quantity), 0)
                    FROM order_line JOIN orders USING (order_id) WHERE status = 'completed'))""",
            "coins that went elsewhere": """
                SELECT abs(%(charged)s::bigint - (SELECT sum(balance) FROM wallet)
                           - (SELECT coalesce(sum(total), 0) FROM orders WHERE status = 'completed'))""",
        }
        broken = [f"{law}: {found}" for law, statement in laws.items() if (found := self._query(statement))]
        audit = ChildProcess(
            "audit", [*program(), "audit", "--full"], self.folder / "audit.log", env=self.environment(), cwd=ROOT
        )
        audit.start()
        wait_until(lambda: not audit.running, timeout_s=AUDITED_S, what="the audit is over")
        audit.stop()
        if audit.exit_code:
            broken.append(f"firstcome audit --full: exit code {audit.exit_code}: {audit.log_tail()}")
        return broken


class RowLocks(System):
    """Baseline (a): FastAPI, SQLAlchemy, asyncpg; each request locks the rows that it changes."""

    name = "row-locks"
    title = "PostgreSQL, SELECT FOR UPDATE"
    durable = True
    application = "loadtests.baselines.row_locks:make_app"

    def _start_servers(self) -> None:
        self.postgres = self._stack.enter_context(EmbeddedPostgres(self.folder / "postgres"))

    def environment(self) -> dict[str, str]:
        url = self.postgres.url.replace("postgresql://", "postgresql+asyncpg://", 1)
        return {**super().environment(), "BASELINE_DATABASE_URL": url}

    def roles(self) -> dict[str, list[int]]:
        return {"api": [api.pid for api in self.apis], "postgres": [self.postgres.pid]}

    def _seed(self) -> None:
        # Its packages are of the benchmark's own extra.
        from sqlalchemy import create_engine  # noqa: PLC0415

        from loadtests.baselines.row_locks import Base  # noqa: PLC0415

        engine = create_engine(self.postgres.url.replace("postgresql://", "postgresql+psycopg://", 1))
        Base.metadata.create_all(engine)
        engine.dispose()
        with psycopg.connect(self.postgres.url) as connection:
            connection.execute(
                "INSERT INTO wallet SELECT 'user-' || n, %s FROM generate_series(0, %s) n",
                (traffic.CHARGED, self.users - 1),
            )
            stocked = [(product, STOCK) for product in traffic.product_ids(self.products)] + [
                (gone, 0) for gone in traffic.GONE
            ]
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO product VALUES (%s, %s, %s)",
                    [(product, product, traffic.PRICE) for product, _ in stocked],
                )
                cursor.executemany("INSERT INTO stock VALUES (%s, 'one', %s, 0)", stocked)
                cursor.executemany(
                    """INSERT INTO campaign VALUES (%s, %s, %s, %s, now() - interval '1 hour',
                                                    now() + interval '1 day')""",
                    [(traffic.CAMPAIGN, COUPONS, 0, VALUE), (traffic.EXHAUSTED, 1, 1, VALUE)],
                )
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def _query(self, statement: LiteralString) -> int:
        return query(self.postgres.url, statement, self.users)

    def counts(self) -> dict[str, int]:
        return {
            "coupons": self._query("SELECT count(*) FROM coupon"),
            "orders": self._query("SELECT count(*) FROM orders"),
        }

    def broken_laws(self) -> list[str]:
        laws: dict[str, LiteralString] = {
            "issue numbers that were given twice": "SELECT count(*) - count(DISTINCT number) FROM coupon",
            "coupons beyond the quantity": """
                SELECT greatest(0, issued - quantity) FROM campaign WHERE campaign_id = %(campaign)s""",
            "lines that no order has, or the other way round": """
                SELECT (SELECT count(*) FROM order_line) - 2 * (SELECT count(*) FROM orders)""",
            "payments that the ledger does not have": """
                SELECT (SELECT coalesce(sum(amount), 0) FROM ledger_entry)
                       + (SELECT coalesce(sum(total), 0) FROM orders)""",
            "issued beside the coupons": """
                SELECT abs((SELECT issued FROM campaign WHERE campaign_id = %(campaign)s)
                           - (SELECT count(DISTINCT user_id) FROM coupon))""",
            "units that went elsewhere": """
                SELECT count(*) FROM stock WHERE available + sold NOT IN (0, %(stock)s) OR available < 0""",
            "units sold that no order has": "SELECT (SELECT sum(sold) FROM stock) - 2 * (SELECT count(*) FROM orders)",
            "coins that went elsewhere": """
                SELECT %(charged)s::bigint - (SELECT sum(balance) FROM wallet)
                       - (SELECT coalesce(sum(total), 0) FROM orders)""",
        }
        return [f"{law}: {found}" for law, statement in laws.items() if (found := self._query(statement))]


class RedisOnly(System):
    """What baselines (b) and (c) have in common: the same Valkey, and nothing behind it."""

    durable = False

    def _start_servers(self) -> None:
        self.valkey = self._stack.enter_context(EmbeddedValkey(self.folder / "valkey"))
        self.redis = redis_client(self.valkey.url)
        self._stack.callback(self.redis.close)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "BASELINE_REDIS_URL": self.valkey.url}

    def roles(self) -> dict[str, list[int]]:
        return {"api": [api.pid for api in self.apis], "redis": [self.valkey.pid]}

    def _seed(self) -> None:
        now = datetime.now(UTC)
        opens, closes = now - timedelta(hours=1), now + timedelta(days=1)
        pipeline = self.redis.pipeline(transaction=False)
        for user in range(self.users):
            pipeline.set(f"balance:user-{user}", traffic.CHARGED)
        for product in (*traffic.product_ids(self.products), *traffic.GONE):
            available = 0 if product in traffic.GONE else STOCK
            fields: Any = {"name": product, "price": traffic.PRICE, "available:one": available}
            pipeline.hset(f"product:{product}", mapping=fields)
        for campaign, quantity, issued in ((traffic.CAMPAIGN, COUPONS, 0), (traffic.EXHAUSTED, 1, 1)):
            fields = {
                "quantity": quantity, "issued": issued, "value": VALUE,
                "opens_at": opens.isoformat(), "closes_at": closes.isoformat(),
                "opens_ms": int(opens.timestamp() * 1000), "closes_ms": int(closes.timestamp() * 1000),
            }  # fmt: skip
            pipeline.hset(f"campaign:{campaign}", mapping=fields)
        pipeline.execute()

    def counts(self) -> dict[str, int]:
        return {
            "coupons": self.redis.hlen(f"issued:{traffic.CAMPAIGN}"),
            "orders": int(self.redis.get("orders") or 0),
        }

    def broken_laws(self) -> list[str]:
        broken = []
        counts = self.counts()
        issued = int(self.redis.hget(f"campaign:{traffic.CAMPAIGN}", "issued") or 0)
        if issued != counts["coupons"]:
            broken.append(f"{issued} issued, {counts['coupons']} coupons")
        if issued > COUPONS:
            broken.append(f"{issued} issued, of {COUPONS}")
        coupons: Any = self.redis.hvals(f"issued:{traffic.CAMPAIGN}")
        numbers = {coupon.rpartition("-")[2] for coupon in coupons}
        if len(numbers) != counts["coupons"]:
            broken.append(f"{counts['coupons']} coupons have {len(numbers)} numbers")
        sold = {name: int(units) for name, units in self.redis.hgetall("sold").items()}
        if sum(sold.values()) != 2 * counts["orders"]:
            broken.append(f"{sum(sold.values())} units sold in {counts['orders']} orders of two")
        pipeline = self.redis.pipeline(transaction=False)
        products = traffic.product_ids(self.products)
        for product in products:
            pipeline.hget(f"product:{product}", "available:one")
        left = dict(zip(products, map(int, pipeline.execute()), strict=True))
        wrong = [product for product in products if left[product] + sold.get(f"{product}:one", 0) != STOCK]
        if wrong:
            broken.append(f"units went elsewhere: {wrong[:5]}")
        balances = sum(
            int(balance or 0) for balance in self.redis.mget([f"balance:user-{user}" for user in range(self.users)])
        )
        paid = 2 * traffic.PRICE * counts["orders"]
        if balances + paid != self.users * traffic.CHARGED:
            broken.append(f"coins went elsewhere: {self.users * traffic.CHARGED - balances - paid}")
        return broken


class RedisLocks(RedisOnly):
    """Baseline (b): FastAPI, redis-py; a lock for each user and product around read, change and write."""

    name = "redis-locks"
    title = "Redis locks"
    application = "loadtests.baselines.redis_locks:make_app"
    starves = True


class OneScript(RedisOnly):
    """Baseline (c): Starlette, redis-py; one Lua script for each request."""

    name = "one-script"
    title = "one Lua script, nothing durable"
    application = "loadtests.baselines.one_script:make_app"


BASELINES: tuple[type[System], ...] = (RowLocks, RedisLocks, OneScript)
SYSTEMS: tuple[type[System], ...] = (Firstcome, *BASELINES)
