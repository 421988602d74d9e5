"""What each part could do by itself: how far a path is from it says what the rest costs.

An echo over HTTP by a bare uvicorn; the engine's flows without HTTP, through one lane; COPY into the same tables.
"""

import json
import subprocess
import sys
import time
from typing import Any, ClassVar, LiteralString

import psycopg

from loadtests import traffic
from loadtests.machine import cpu_seconds
from loadtests.systems import PARTITIONS, ROOT, Firstcome, System
from persistence.migrations import upgrade
from persistence.row_targets import LEDGER, ORDER_LINES, ORDERS, OUTBOX, RESERVATIONS, Target

COPY_BATCH = 2_000
COPY_BATCHES = 10
_ANSWER = json.dumps({"coupon_id": "user-1-20261126-1", "campaign_id": "opening", "issue_number": 1} | {"x": "x" * 400})


class Echo(System):
    """Nothing but the server: the body is read, one like a coupon's is answered."""

    name = "echo"
    title = "bare ASGI echo"
    durable = False
    application: ClassVar[str] = "loadtests.ceilings:make_echo"

    def roles(self) -> dict[str, list[int]]:
        return {"api": [api.pid for api in self.apis]}

    def counts(self) -> dict[str, int]:
        return {}

    def settle(self) -> None:
        """Nothing is ever under way."""

    def broken_laws(self) -> list[str]:
        return []

    def _start_servers(self) -> None:
        """It has none."""

    def _seed(self) -> None:
        """It has nothing."""


def make_echo() -> Any:
    """The application."""
    body = _ANSWER.encode()
    head = {
        "type": "http.response.start",
        "status": 201,
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
    }

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        await send(head)
        await send({"type": "http.response.body", "body": body})

    return echo


def without_http(system: Firstcome, flow: str, seconds: float) -> dict[str, float]:
    """The engine's flow of a path, many at once in one process, through one lane; the worker follows as always."""
    command = [sys.executable, "-m", "loadtests.lane_driver", "--flow", flow, "--seconds", str(seconds)]
    command += ["--users", str(system.users), "--products", str(system.products)]
    redis_before = cpu_seconds(system.roles()["redis"])
    done = subprocess.run(
        command, env=system.environment(), capture_output=True, text=True, check=True, cwd=ROOT, timeout=seconds + 60
    )
    found: dict[str, float] = json.loads(done.stdout)
    marks_at = time.perf_counter()
    system.await_durable(system.marks())
    durable_s = found["seconds"] + time.perf_counter() - marks_at
    system.settle()
    redis_s = cpu_seconds(system.roles()["redis"]) - redis_before
    return {
        **found,
        "durable_per_s": round(found["done"] / durable_s, 1),
        "redis_cpu_us": round(redis_s / found["done"] * 1e6, 1),
    }


_ROWS: tuple[tuple[Target, int, LiteralString], ...] = (
    (
        ORDERS,
        1,
        "{id}\t{home}\tuser-{n}\tcompleted\t\\N\t2000\t0\t2000\t\\N\t2026-11-26\t\\N\t2026-11-26\t2026-11-26\t1-{n}\n",
    ),
    (ORDER_LINES, 2, "{id}\t{l}\t{home}\tproduct-{p}\tone\tproduct-{p}\tone size\t1000\t1\t1000\n"),
    (LEDGER, 1, "{home}\t{n}\t1\tuser-{n}\tpayment\t-2000\t100000\t{id}\t2026-11-26\n"),
    (RESERVATIONS, 2, "{there}\t{id}\tuser-{n}\tsold\tproduct-{p}:one:1\t2026-11-26\t2026-11-26\t1-{n}\n"),
    (OUTBOX, 1, "{home}\t{id}\tuser-{n}\t{id}\t2026-11-26\t{id}\n"),
)


def copy(system: Firstcome) -> dict[str, float]:
    """Orders of two lines into the same tables by COPY alone, in transactions of a busy writer."""
    with psycopg.connect(system.postgres.database_url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE copied TEMPLATE template0")
    url = system.postgres.database_url("copied")
    upgrade(url)
    postgres_before = cpu_seconds(system.roles()["postgres"])
    batches = [_copied(number) for number in range(COPY_BATCHES)]
    began = time.perf_counter()
    with psycopg.connect(url) as connection:
        for batch in batches:
            for (target, _, _), text in zip(_ROWS, batch, strict=True):
                with connection.cursor().copy(target.copy) as copying:
                    copying.write(text)
            connection.commit()
    took_s = time.perf_counter() - began
    orders = COPY_BATCH * COPY_BATCHES
    postgres_s = cpu_seconds(system.roles()["postgres"]) - postgres_before
    with psycopg.connect(system.postgres.database_url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE copied WITH (FORCE)")
    return {
        "orders": orders,
        "orders_per_s": round(orders / took_s, 1),
        "postgres_cpu_us": round(postgres_s / orders * 1e6, 1),
    }


def _copied(batch: int) -> list[str]:
    numbers = range(batch * COPY_BATCH, (batch + 1) * COPY_BATCH)
    return [
        "".join(
            form.format(
                id=f"{n:032x}", n=n, l=line, home=n % PARTITIONS, there=(n + 31 * (line + 1)) % PARTITIONS,
                p=(n + line) % traffic.PRODUCTS,
            )
            for n in numbers
            for line in range(lines)
        )
        for _, lines, form in _ROWS
    ]  # fmt: skip
