"""A small load generator on raw asyncio: a job as JSON on standard input, its result on standard output.

Closed loop: each connection asks again when it is answered, as wrk does. Open loop: requests are due at fixed times
whatever the server does, and a latency counts from when its request was due; so a server that stalls cannot hide how
many it would have kept waiting (coordinated omission). It is run to the end: every request that was sent is answered.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import uvloop

PERCENTILES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9, 99.99)
DRAIN_S = 60.0
_NAME = re.compile(r"<([a-z]+)>")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Job:
    """What to send. ``rate`` is requests/s in open loop, 0 for closed loop; ``count`` ends it before ``seconds`` do."""

    host: str
    port: int
    method: str
    path: str
    body: str
    first: int
    users: int
    products: int
    seed: int
    connections: int
    seconds: float
    rate: float = 0.0
    count: int = 0
    header: str = ""


def requests(job: Job) -> Callable[[], bytes]:
    """Makes one request after the other; the same as `requests.lua` does."""
    numbers = iter(range(job.first, sys.maxsize))
    chance = random.Random(job.seed)
    head = f"{job.method} {job.path} HTTP/1.1\r\nHost: {job.host}:{job.port}\r\n"
    if job.header:
        head += f"{job.header}\r\n"

    def values() -> dict[str, int]:
        product = chance.randrange(job.products)
        other = (product + chance.randrange(1, job.products)) % job.products
        return {"n": next(numbers), "user": chance.randrange(job.users), "product": product, "other": other}

    head_format, body_format = template(head), template(job.body)

    def make() -> bytes:
        filled = values()
        body = body_format(filled)
        entity = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        return f"{head_format(filled)}{entity}\r\n{body}".encode()

    return make


def template(text: str) -> Callable[[dict[str, int]], str]:
    """What fills in a text of `traffic`, given a number for each place."""
    form = _NAME.sub(r"%(\1)d", text.replace("%", "%%"))
    return lambda values: form % values


class Run:
    """One job on its way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.make = requests(job)
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.broken = 0
        self.sent = 0
        self.ends_at = 0.0
        self.last_answer_at = 0.0
        self.free: deque[Connection] = deque()
        self.due: deque[float] = deque()
        self.open = 0
        self.over = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        """Send everything and wait for every answer."""
        loop = asyncio.get_running_loop()
        job = self.job
        for _ in range(job.connections):
            _, connection = await loop.create_connection(lambda: Connection(self), job.host, job.port)
            self.free.append(connection)
            self.open += 1
        began = time.perf_counter()
        self.ends_at = began + job.seconds
        if job.rate:
            await self._send_at_rate(began)
        else:
            while self.free and self.may_send():
                self.free.popleft().ask(time.perf_counter())
        await asyncio.wait_for(self.over.wait(), job.seconds + DRAIN_S)
        return self._result(began)

    def may_send(self) -> bool:
        """Whether a closed loop goes on."""
        job = self.job
        return (not job.count or self.sent < job.count) and time.perf_counter() < self.ends_at

    async def _send_at_rate(self, began: float) -> None:
        made = 0
        total = self.job.count or int(self.job.rate * self.job.seconds)
        while made < total:
            now = time.perf_counter()
            while made < total and began + made / self.job.rate <= now:
                due = began + made / self.job.rate
                made += 1
                if self.free:
                    self.free.popleft().ask(due)
                else:
                    self.due.append(due)
            await asyncio.sleep(0.001)
        if not self.due and len(self.free) == self.open:
            self.over.set()
        self.ends_at = 0.0

    def answered(self, connection: "Connection", status: int, due: float) -> None:
        """Counts an answer, and gives the connection its next request."""
        now = time.perf_counter()
        self.last_answer_at = now
        self.statuses[status] += 1
        self.latencies.append(now - due)
        if self.job.rate:
            if self.due:
                connection.ask(self.due.popleft())
                return
        elif self.may_send():
            connection.ask(now)
            return
        self.free.append(connection)
        self._end_when_idle()

    def lost(self, was_waiting: bool) -> None:
        """Counts a connection that the server has closed."""
        self.open -= 1
        self.broken += was_waiting
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        closed_loop_over = not self.job.rate and not self.may_send()
        open_loop_over = bool(self.job.rate) and self.ends_at == 0.0 and not self.due
        if len(self.free) == self.open and (closed_loop_over or open_loop_over):
            self.over.set()

    def _result(self, began: float) -> dict[str, Any]:
        ordered = sorted(self.latencies)
        quantiles = [
            [percentile, ordered[min(len(ordered) - 1, int(len(ordered) * percentile / 100))] * 1000]
            for percentile in PERCENTILES
            if ordered
        ]
        answered = len(ordered)
        accepted = sum(count for status, count in self.statuses.items() if status < 400)
        return {
            "answered": answered,
            "refused": answered - accepted,
            "broken": self.broken,
            "seconds": self.last_answer_at - began,
            "latency_ms": quantiles,
            "statuses": dict(self.statuses),
        }


class Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    __slots__ = ("_due", "_received", "_run", "_transport", "_waiting")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._received = b""
        self._due = 0.0
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, due: float) -> None:
        """Send the next request, which was due at ``due``."""
        self._due = due
        self._waiting = True
        self._run.sent += 1
        self._transport.write(self._run.make())

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        length = _LENGTH.search(received, 0, end) if end >= 0 else None
        if end < 0 or length is None or len(received) < end + 4 + int(length[1]):
            self._received = received
            return
        self._received = b""
        self._waiting = False
        self._run.answered(self, int(received[9:12]), self._due)

    def connection_lost(self, _error: Exception | None) -> None:
        self._run.lost(self._waiting)


def main() -> None:
    """Read a job, do it, write the result."""
    job = Job(**json.load(sys.stdin))
    json.dump({**uvloop.run(Run(job).run()), "job": asdict(job)}, sys.stdout)


if __name__ == "__main__":
    main()
