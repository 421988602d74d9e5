"""What counting costs: `python -m loadtests.metrics_cost`, side by side in one process.

An API with servers of its own is handed the bytes of requests as a socket would hand them on, and counts what it
answers or does not, in turns of some requests each. What is compared is the processor time of this process, one turn
with the next; of the ratios the median is taken, for a neighbour on the machine disturbs single turns. Without the
kernel's share a request costs less here than in truth, so the share found is the most that it can be.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg
import uvicorn
import uvloop
from uvicorn.server import ServerState

from api.app import make_app
from api.asgi import Application, Count
from api.commands.api import connection_limits
from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from api.guards.connections import GuardedConnection, limited_to
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

ROUNDS: Final = 2_000
WARM_ROUNDS: Final = 30
REQUESTS: Final = 64
"""Of one turn: few, so that what slows one slows its neighbours too."""
CONNECTIONS: Final = 32
USERS: Final = 1_000
BALANCE: Final = "/v1/users/user-{}/balance"
CHARGES: Final = "/v1/users/user-{}/balance/charges"
HEAD: Final = "Host: shop\r\nUser-Agent: shopper\r\nAccept: */*\r\n"


@dataclass(frozen=True, slots=True)
class Median:
    """The middle of many values, and the interval in which 95 of 100 such medians lie, whatever their distribution."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Median:
        """By the ranks of the values beside the middle."""
        ordered, half = sorted(values), 0.98 * len(values) ** 0.5
        middle = len(ordered) / 2
        return cls(statistics.median(ordered), ordered[int(middle - half)], ordered[int(middle + half)])

    def __str__(self) -> str:
        return f"{self.value:+.2%} ({self.low:+.2%} to {self.high:+.2%})"


class Wire(asyncio.Transport):
    """A connection without a socket: keeps what was written last."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 80)})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes an answer, or a part of it."""
        self.written = bytes(data) if data[:5] == b"HTTP/" else self.written

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def pause_reading(self) -> None:
        """Nothing comes unasked."""

    def resume_reading(self) -> None:
        """Nothing comes unasked."""

    def close(self) -> None:
        """There is nothing to close."""


class Shopper:
    """One connection, and the requests that it sends, each once the one before is answered."""

    def __init__(self, protocol: type[GuardedConnection], config: uvicorn.Config, state: ServerState) -> None:
        self._wire = Wire()
        self._answered: asyncio.Future[None] | None = None

        class Connection(protocol):  # type: ignore[misc, valid-type]
            def on_response_complete(connection) -> None:
                super().on_response_complete()
                if self._answered is not None:
                    self._answered.set_result(None)

        self._connection: GuardedConnection = Connection(config, state, {})
        self._connection.connection_made(self._wire)

    async def ask(self, request: bytes) -> None:
        """Sends a request and takes its answer."""
        self._answered = asyncio.get_running_loop().create_future()
        self._connection.data_received(request)
        await self._answered
        assert self._wire.written.startswith(b"HTTP/1.1 20"), self._wire.written


@dataclass(frozen=True, slots=True)
class Side:
    """The application, its counters, and those who ask."""

    app: Application
    counters: dict[str, Count | None]
    shoppers: list[Shopper]

    def set_counting(self, is_counting: bool) -> None:
        """Gives each endpoint its counter, or none."""
        for name, path, method in (("get_balance", BALANCE, "GET"), ("charge_balance", CHARGES, "POST")):
            found = self.app.surface.find(path.format(1))
            assert found is not None
            found[0].endpoints[method].count = self.counters[name] if is_counting else None

    async def turn_us(self, requests: Sequence[bytes]) -> float:
        """Processor time of one of these requests."""
        waiting = iter(requests)

        async def shop(shopper: Shopper) -> None:
            for request in waiting:
                await shopper.ask(request)

        began_ns = time.process_time_ns()
        await asyncio.gather(*map(shop, self.shoppers))
        return (time.process_time_ns() - began_ns) / len(requests) / 1_000

    async def compare(self, method: str, path: str, body: str) -> str:
        """What a request takes that is not counted, by what share one that is takes more, and by what share another
        does that is not, which shows how much of all this is chance. Who of the three comes first changes."""
        numbers = count()
        rounds: list[list[float]] = []
        for number in range(-WARM_ROUNDS, ROUNDS):
            took = [0.0, 0.0, 0.0]
            for turn in range(3):
                which = (turn + number) % 3
                self.set_counting(which == 1)
                requests = [_request(method, path.format(next(numbers) % USERS), body) for _ in range(REQUESTS)]
                took[which] = await self.turn_us(requests)
            rounds.append(took)
        plain = statistics.median(each[0] for each in rounds[WARM_ROUNDS:])
        counted, again = (Median.of([each[kind] / each[0] - 1 for each in rounds[WARM_ROUNDS:]]) for kind in (1, 2))
        return f"{plain:6.1f} us; counted {counted}; not counted once more {again}"


def _request(method: str, path: str, body: str) -> bytes:
    entity = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\n{HEAD}{entity}\r\n{body}".encode()


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
    config: Any = uvicorn.Config(app, log_config=None, access_log=False)
    config.load()
    protocol, state = limited_to(connection_limits(ApiSettings())), ServerState()
    async with app.router.lifespan_context(app):
        shoppers = [Shopper(protocol, config, state) for _ in range(CONNECTIONS)]
        side = Side(app, {each.operation_id: counts.counter_for(each) for each in OPERATIONS}, shoppers)
        for name, method, path, body in (
            ("read a balance", "GET", BALANCE, ""),
            ("charge", "POST", CHARGES, '{"amount": 1}'),
        ):
            print(f"{name:16} {await side.compare(method, path, body)}")  # noqa: T201


def main() -> None:
    """Servers of its own, then the measurement."""
    folder = Path(tempfile.mkdtemp(prefix="firstcome-cost-"))
    with EmbeddedValkey(folder) as valkey, EmbeddedPostgres(reachable_folder()) as postgres:
        url = postgres.database_url("cost")
        with psycopg.connect(postgres.database_url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE cost")
        upgrade(url)
        uvloop.run(measure(valkey.url, url))


if __name__ == "__main__":
    main()
