"""What counting costs: `python -m loadtests.metrics_cost`, side by side in one process.

The application runs on a Redis of its own and is called as uvicorn would call it, in turns with and without counting.
What is compared is the processor time of this process, so neighbours on the machine matter little; without the HTTP
server a request costs less here than in truth, so the share found is the most that it can be.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import psycopg

from api.app import make_app
from api.asgi import Application, Count
from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from api.operations import OPERATIONS
from api.request_counts import RequestCounts
from api.settings import ApiSettings
from engine.engine import make_engine
from engine.settings import EngineSettings
from persistence.database import connect
from persistence.migrations import upgrade
from persistence.settings import HistorySettings
from persistence.trust import Trust, register_installation
from tests.servers import reachable_folder

ROUNDS: Final = 100
REQUESTS: Final = 400
AT_ONCE: Final = 64
BALANCE: Final = "/v1/users/user-{}/balance"
CHARGES: Final = "/v1/users/user-{}/balance/charges"
Ask = Callable[[Application, int], Awaitable[None]]


def scope_of(method: str, path: str) -> dict[str, Any]:
    """A request as uvicorn hands it on."""
    headers = [(b"host", b"shop"), (b"content-type", b"application/json"), (b"accept", b"*/*")]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 5),
    }


async def ask(app: Application, method: str, path: str, body: bytes = b"") -> int:
    """One request; its status."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope_of(method, path), receive, send)
    return status


async def read(app: Application, number: int) -> None:
    """The cheapest request that asks Redis."""
    assert await ask(app, "GET", BALANCE.format(number)) == 200


async def charge(app: Application, number: int) -> None:
    """A request with a body that changes something."""
    assert await ask(app, "POST", CHARGES.format(number), b'{"amount": 1}') == 201


async def round_us(app: Application, request: Ask) -> float:
    """Processor time of a request, in microseconds."""
    numbers = iter(range(REQUESTS))

    async def buyer() -> None:
        for number in numbers:
            await request(app, number)

    began = time.process_time_ns()
    await asyncio.gather(*(buyer() for _ in range(AT_ONCE)))
    return (time.process_time_ns() - began) / REQUESTS / 1_000


def set_counting(app: Application, counters: dict[str, Count | None]) -> None:
    """Gives each endpoint its counter, or none."""
    for name, path, method in (("get_balance", BALANCE, "GET"), ("charge_balance", CHARGES, "POST")):
        found = app.surface.find(path.format(1))
        assert found is not None
        found[0].endpoints[method].count = counters.get(name)


async def compare(app: Application, counters: dict[str, Count | None], request: Ask) -> tuple[float, float]:
    """With and without counting: of many short rounds the median of the fastest quarter, which nobody disturbed."""
    with_counts: list[float] = []
    without: list[float] = []
    for number in range(ROUNDS + 2):
        turns: list[tuple[list[float], dict[str, Count | None]]] = [(with_counts, counters), (without, {})]
        for into, told in turns if number % 2 else turns[::-1]:
            set_counting(app, told)
            into.append(await round_us(app, request))
    fastest = ROUNDS // 4
    return statistics.median(sorted(with_counts)[:fastest]), statistics.median(sorted(without)[:fastest])


async def measure(redis_url: str, database_url: str) -> None:
    """Prints what a read and a charge cost with and without."""
    settings = EngineSettings(redis_url=redis_url, backlog_max=10_000_000)
    engine = make_engine(settings)
    await engine.start()
    async with await connect(database_url, "cost") as connection:
        await register_installation(connection, settings)
        assert await Trust(engine).look(connection)
    await engine.close()
    counts = RequestCounts()
    app = make_app(settings, ApiSettings(), HistorySettings(database_url=database_url), counts)
    counters: dict[str, Count | None] = {each.operation_id: counts.counter_for(each) for each in OPERATIONS}
    async with app.router.lifespan_context(app):
        for name, request in (("read a balance", read), ("charge", charge)):
            counted, plain = await compare(app, counters, request)
            share = (counted - plain) / plain
            print(f"{name:16} {plain:6.1f} us without, {counted:6.1f} us with: {share:+.1%}")  # noqa: T201


def main() -> None:
    """Servers of its own, then the measurement."""
    folder = Path(tempfile.mkdtemp(prefix="firstcome-cost-"))
    with EmbeddedValkey(folder) as valkey, EmbeddedPostgres(reachable_folder()) as postgres:
        url = postgres.database_url("cost")
        with psycopg.connect(postgres.database_url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE cost")
        upgrade(url)
        asyncio.run(measure(valkey.url, url))


if __name__ == "__main__":
    main()
