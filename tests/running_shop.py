"""A whole shop in processes of its own, as it runs in production: several APIs, several workers, real servers."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import psycopg

from api.commands.api import program
from api.commands.listening import http_url, listen
from api.commands.processes import ChildProcess, wait_until
from api.openapi import openapi_document
from api.times import format_moment
from engine.keys import Keys
from engine.partitions import Partitions
from tests.books import Books, broken_laws, broken_ledger, differences, read_postgres, read_redis
from tests.contract.specification import SpecValidator
from tests.servers import redis_client

ROOT: Final = Path(__file__).resolve().parents[1]
HOST: Final = "127.0.0.1"
PARTITIONS: Final = 64
READY_WITHIN_S: Final = 40.0
SETTLED_WITHIN_S: Final = 30.0
CLIENTS_PER_API: Final = 24
LOST: Final = (httpx.TransportError,)
"""What a client sees of a server that dies: it cannot know what became of its request.

No client verifies certificates: nothing here has one, and reading the machine's takes longer than a request."""

_UNSETTLED = """
SELECT (SELECT count(*) FROM reservation r LEFT JOIN orders o ON o.order_id = r.order_id
        WHERE r.state = 'held' AND o.status IS DISTINCT FROM 'awaiting_payment')
     + (SELECT count(*) FROM coupon_issue i WHERE NOT EXISTS
        (SELECT FROM coupon c WHERE c.user_id = i.user_id AND c.campaign_id = i.campaign_id))
     + (SELECT count(*) FROM alarm WHERE kind = 'partition_untrusted' AND cleared_at IS NULL)
"""


@dataclass(slots=True)
class Settlement:
    """Whether everything that was begun is finished and durable; `what` is for the message when it is not."""

    is_done: bool
    what: str
    cursors: dict[int, tuple[int, int]]
    """Of each partition epoch and sequence: what is made anew has other ones, though nothing happened there."""


@dataclass(slots=True)
class RunningShop:
    """A shop over given servers. Each API process listens on a port of its own, so a test chooses whom it asks.

    `settings` are `FIRSTCOME_*` of every process. The sockets belong to the test: a request that comes while its
    process is dead waits for the successor. `start` returns when every API is ready to sell.
    """

    folder: Path
    redis_url: str
    database_url: str
    api_count: int = 1
    worker_count: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    apis: list[ChildProcess] = field(default_factory=list, init=False)
    workers: list[ChildProcess] = field(default_factory=list, init=False)
    specification: SpecValidator = field(init=False)
    _listeners: list[socket.socket] = field(default_factory=list, init=False)
    _clients: dict[int, httpx.Client] = field(default_factory=dict, init=False)
    _keys: Keys = field(init=False)

    def __post_init__(self) -> None:
        self._keys = Keys(Partitions(PARTITIONS))
        self.specification = SpecValidator(openapi_document())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts every process, and waits until the shop sells."""
        for number in range(self.worker_count):
            self.workers.append(self.process(f"worker-{number}", ["worker"]))
        for number in range(self.api_count):
            (listener,) = listen(HOST, 0)
            self._listeners.append(listener)
            self.apis.append(self.process(f"api-{number}", self.api_arguments(number), [listener.fileno()]))
        for process in (*self.workers, *self.apis):
            process.start()
        self.wait_until_ready()

    def stop(self) -> None:
        """Stops every process cleanly."""
        for client in self._clients.values():
            client.close()
        with ThreadPoolExecutor() as pool:
            for processes in (self.apis, self.workers):
                list(pool.map(ChildProcess.stop, processes))
        for listener in self._listeners:
            listener.close()

    def wait_until_ready(self) -> None:
        """Waits until every API process says that it is ready, with every partition trusted."""
        deadline = time.monotonic() + READY_WITHIN_S
        for number, process in enumerate(self.apis):
            while not self._is_ready(number):
                if time.monotonic() > deadline:
                    raise process.failure("is not ready")
                time.sleep(0.02)

    def api_arguments(self, number: int) -> list[str]:
        """What `firstcome` is told to serve on the socket of this API."""
        return ["api", "--fd", str(self._listeners[number].fileno())]

    def process(self, name: str, arguments: Sequence[str], fds: Sequence[int] = (), **settings: str) -> ChildProcess:
        """A process of this shop, not started yet, with `FIRSTCOME_*` of its own besides; its log has its name."""
        return ChildProcess(
            name,
            [*program(), *arguments],
            self.folder / f"{name}.log",
            env={**self._environment(), **settings},
            cwd=self.folder,
            pass_fds=fds,
            stop_timeout_s=15,
        )

    def dying(self, name: str, arguments: Sequence[str], point: str, number: int = 0) -> ChildProcess:
        """A process like the others that kills itself with SIGKILL at ``point``; see `tests.faults.dying`."""
        argv = [sys.executable, "-m", "tests.faults.dying", point, *arguments]
        fds = [self._listeners[number].fileno()] if arguments[0] == "api" else []
        return ChildProcess(
            name, argv, self.folder / f"{name}.log", env=self._environment(), cwd=ROOT, pass_fds=fds, stop_timeout_s=15
        )

    def url(self, number: int = 0) -> str:
        """Where an API process serves."""
        return http_url(HOST, self._listeners[number].getsockname()[1])

    def client(self, number: int = 0) -> httpx.Client:
        """A client of one API process that holds every answer to the specification; closed with the shop."""
        if number not in self._clients:
            hooks = {"response": [self._check]}
            self._clients[number] = httpx.Client(base_url=self.url(number), timeout=30, event_hooks=hooks, verify=False)
        return self._clients[number]

    def crowd(self) -> "Crowd":
        """Many clients at once, spread over every API process."""
        return Crowd([self.url(number) for number in range(self.api_count)], self.specification)

    def settlement(self) -> Settlement:
        """Whether every change is in PostgreSQL and no finished order holds anything, as of now."""
        with redis_client(self.redis_url) as client, psycopg.connect(self.database_url) as connection:
            pipeline = client.pipeline(transaction=False)
            for partition in range(PARTITIONS):
                pipeline.hmget(self._keys.meta(partition), "seq", "durable", "server")
            metas = pipeline.execute()
            rows = connection.execute("SELECT partition, epoch, seq FROM partition_cursor").fetchall()
            ((unsettled,),) = connection.execute(_UNSETTLED).fetchall()
        cursors = {partition: (epoch, seq) for partition, epoch, seq in rows}
        behind = [
            f"{partition} (at {seq} by {server}, durable {durable}, in PostgreSQL {cursors[partition]})"
            for partition, (seq, durable, server) in enumerate(metas)
            if not seq or seq != durable or int(seq) != cursors[partition][1]
        ]
        what = f"partitions {', '.join(behind)} are behind, {unsettled} reservations, issues or alarms are left over"
        return Settlement(not behind and not unsettled, what, cursors)

    def settle(self, within_s: float = SETTLED_WITHIN_S) -> Settlement:
        """Waits until nothing is under way any more; AssertionError says what is."""
        deadline = time.monotonic() + within_s
        while not (settlement := self.settlement()).is_done:
            assert time.monotonic() < deadline, f"not settled within {within_s:g} s: {settlement.what}"
            time.sleep(0.02)
        return settlement

    def assert_conserved(self, within_s: float = SETTLED_WITHIN_S) -> Books:
        """Once settled, both stores agree and every law holds in each; the books, for what a test knows besides."""
        in_redis, in_postgres = self.settled_books(within_s)
        broken = [f"Redis: {law}" for law in broken_laws(in_redis)]
        broken += [f"PostgreSQL: {law}" for law in (*broken_laws(in_postgres), *broken_ledger(self.database_url))]
        broken += differences(in_redis, in_postgres)
        assert not broken, "\n".join(broken[:20])
        return in_redis

    def settled_books(self, within_s: float) -> tuple[Books, Books]:
        """The books of both stores at one moment: an order that expires while they are read makes them be read anew."""
        before = self.settle(within_s)
        deadline = time.monotonic() + within_s
        while True:
            books = read_redis(self.redis_url), read_postgres(self.database_url)
            after = self.settle(within_s)
            if after.cursors == before.cursors:
                return books
            assert time.monotonic() < deadline, f"something has changed at every look for {within_s:g} s"
            before = after

    def command(self, *arguments: str) -> str:
        """What `firstcome` says, told where this shop's servers are."""
        argv, environment = [*program(), *arguments], self._environment()
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def audit(self) -> None:
        """Both stores agree about everything, says `firstcome audit --full`."""
        said = self.command("audit", "--full")
        assert "Nothing is wrong." in said, said

    def errors_logged(self) -> list[str]:
        """Lines of level error in the logs: what nobody foresaw, or what must alarm an operator."""
        return [
            line
            for log in sorted(self.folder.glob("*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if '"level": "error"' in line or line.startswith("Traceback")
        ]

    def put_product(self, product_id: str, *, price: int = 1000, **stock: int) -> None:
        """Makes a product with these stock items, or one stock item `one` of 100."""
        put_product(self.client(), product_id, price=price, **stock)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTCOME_")}
        return {
            **inherited,
            "FIRSTCOME_REDIS_URL": self.redis_url,
            "FIRSTCOME_DATABASE_URL": self.database_url,
            "FIRSTCOME_PARTITIONS": str(PARTITIONS),
            **self.settings,
        }

    def _is_ready(self, number: int) -> bool:
        for process in (*self.apis, *self.workers):
            if not process.running:
                raise process.failure("has ended")
        try:
            answer = httpx.get(f"{self.url(number)}/readyz", timeout=2, verify=False)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK and answer.json()["recovering_partitions"] == []

    def _check(self, response: httpx.Response) -> None:
        response.read()
        self.specification.check(response)


class Crowd:
    """Clients that ask at once, in turn at each API process. A context manager.

    Each has one connection: a larger pool of the HTTP library looks at all of its connections for every request, which
    would cost more than what is tested.
    """

    def __init__(self, urls: Sequence[str], specification: SpecValidator) -> None:
        limits = httpx.Limits(max_connections=1)
        self._clients = [
            httpx.AsyncClient(base_url=url, timeout=60, limits=limits, verify=False)
            for _ in range(CLIENTS_PER_API)
            for url in urls
        ]
        self._free: asyncio.Queue[httpx.AsyncClient] = asyncio.Queue()
        self._specification = specification
        self._checked: set[tuple[str, str, int]] = set()

    async def __aenter__(self) -> Self:
        for client in self._clients:
            self._free.put_nowait(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.aclose() for client in self._clients))

    async def post(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """One request, once a client is free. Of answers that look alike the first is held to the specification."""
        client = await self._free.get()
        try:
            answer = await client.post(path, json=body, headers=headers)
        finally:
            self._free.put_nowait(client)
        kind = (path.rsplit("/", 1)[-1], answer.headers["content-type"], answer.status_code)
        if kind not in self._checked:
            self._checked.add(kind)
            self._specification.check(answer)
        return answer

    async def all(self, requests: Sequence[Awaitable[httpx.Response]]) -> list[httpx.Response]:
        """The answers to all of these, in their order."""
        return list(await asyncio.gather(*requests))


def put_product(client: httpx.Client, product_id: str, *, price: int = 1000, **stock: int) -> dict[str, Any]:
    """Makes a product with these stock items (id = initial quantity), or one stock item `one` of 100."""
    items = [
        {"stock_id": stock_id, "option": stock_id, "initial_quantity": n}
        for stock_id, n in (stock or {"one": 100}).items()
    ]
    answer = client.put(
        f"/admin/v1/products/{product_id}", json={"name": f"Product {product_id}", "price": price, "stock": items}
    )
    assert answer.is_success, answer.text
    return dict(answer.json())


def put_campaign(client: httpx.Client, campaign_id: str, **changes: Any) -> dict[str, Any]:
    """Makes a campaign that is open: 100 coupons of 300 off, valid for 7 days; `changes` are other members."""
    now = datetime.now(UTC)
    body = {
        "name": f"Campaign {campaign_id}",
        "discount": {"kind": "amount", "value": 300},
        "quantity": 100,
        "opens_at": format_moment(now - timedelta(hours=1)),
        "closes_at": format_moment(now + timedelta(days=1)),
        "valid_days": 7,
        **changes,
    }
    answer = client.put(f"/admin/v1/campaigns/{campaign_id}", json=body)
    assert answer.is_success, answer.text
    return dict(answer.json())


def charge(client: httpx.Client, user: str, amount: int = 100_000) -> int:
    """Charges a balance; what it is then."""
    answer = client.post(f"/v1/users/{user}/balance/charges", json={"amount": amount})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return int(answer.json()["balance"])


def take_coupon(client: httpx.Client, user: str, campaign_id: str) -> str:
    """Takes a coupon; its id."""
    answer = client.post(f"/v1/users/{user}/coupons", json={"campaign_id": campaign_id})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return str(answer.json()["coupon_id"])


def place(
    client: httpx.Client, user: str, *lines: tuple[str, str, int], coupon: str | None = None, at: str = "orders"
) -> httpx.Response:
    """Places an order of (product, stock item, quantity), or checks it out where ``at`` is `checkout`."""
    body = {
        "lines": [{"product_id": product, "stock_id": stock, "quantity": n} for product, stock, n in lines],
        "coupon_id": coupon,
    }
    return client.post(f"/v1/users/{user}/{at}", json=body)


def problem(answer: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """The members of a problem that must be this one."""
    assert (answer.status_code, answer.json().get("type")) == (status, f"/problems/{name}"), answer.text
    return dict(answer.json())


async def ended(process: ChildProcess, within_s: float) -> None:
    """Waits until a process has ended, by itself or by a signal."""
    await asyncio.to_thread(
        wait_until, lambda: not process.running, timeout_s=within_s, what=f"{process.name} has ended"
    )


def eventually(condition: Callable[[], bool], *, within_s: float = 15, what: str = "condition") -> None:
    """Waits until a condition holds."""
    wait_until(condition, timeout_s=within_s, what=what)
