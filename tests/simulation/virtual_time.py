"""An event loop whose time passes only when nothing is left to do, and then at once."""

import asyncio
import selectors

BASE_MS = 1_900_000_000_000
"""The wall clock at the loop's beginning, ms since 1970."""


class NothingHappens(Exception):
    """Every task waits and no timer runs: the simulation stands still for ever."""


class _Instantly(selectors.SelectSelector):
    """Waits for no file and no socket: what takes time here is a timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingHappens
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The same tasks and timers always run in the same order, whatever the machine does meanwhile."""

    def __init__(self) -> None:
        self._instantly = _Instantly()
        super().__init__(self._instantly)
        self._clock_resolution = 1e-7

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._instantly.now_s

    def now_ms(self) -> int:
        """The wall clock of everybody, ms since 1970."""
        return BASE_MS + int(self._instantly.now_s * 1000)
