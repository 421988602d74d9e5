"""How far the writer is behind while a load runs."""

import threading
import time
from collections.abc import Callable

import redis

from engine.keys import Keys

LOOKS_PER_S = 4


def oldest_waiting_ms(client: redis.Redis, keys: Keys, partitions: int) -> float:
    """How old the oldest event is that PostgreSQL does not have yet, in ms by Redis's clock; 0 where it has all.

    Each partition by itself: one that is left behind does not hide among those that are kept up with.
    """
    metas = client.pipeline(transaction=False)
    for partition in range(partitions):
        metas.hmget(keys.meta(partition), "epoch", "seq", "durable")
    waiting = client.pipeline(transaction=False)
    for partition, (epoch, seq, durable) in enumerate(metas.execute()):
        if int(durable or 0) < int(seq or 0):
            waiting.xrange(keys.events(partition), f"({epoch}-{durable}", "+", count=1)
    waiting.time()
    *oldest, (seconds, microseconds) = waiting.execute()
    now_ms = int(seconds) * 1000 + int(microseconds) / 1000
    return max((now_ms - int(fields["at"]) for entries in oldest for _, fields in entries), default=0.0)


class Lag:
    """Watches from aside how far the writer is behind. A context manager, which raises what the watching met with."""

    def __init__(self, look: Callable[[], float]) -> None:
        self.found_ms: list[list[float]] = []
        """Seconds since the beginning, and what ``look`` said then."""
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lag")
        self._error: Exception | None = None

    def __enter__(self) -> "Lag":
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _watch(self) -> None:
        try:
            over = False
            while not over:
                over = self._over.wait(1 / LOOKS_PER_S)  # and a last look at the end
                late_ms = self._look()
                self.found_ms.append([round(time.perf_counter() - self._began, 2), round(late_ms, 1)])
        except Exception as error:  # whatever it was: what nobody watched was not in time
            self._error = error
