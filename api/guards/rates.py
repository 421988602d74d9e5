"""How many requests somebody may send."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from api.guards.recent import Recent

REMEMBERED_MIN: Final = 50_000
"""Of so many senders at least it is known how much they have sent; whoever is forgotten begins anew."""


class RateLimit:
    """So many requests a second for each sender, and ``burst`` at once after a pause; a rate of 0 is no limit.

    It keeps one number for each sender (GCRA): the moment at which all that was taken will have been earned. Each
    process counts by itself.
    """

    __slots__ = ("_allowance_s", "_earned_at", "_interval_s", "_now")

    def __init__(
        self,
        per_second: float,
        burst: int,
        *,
        remembered_min: int = REMEMBERED_MIN,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s = 1 / per_second if per_second else 0.0
        self._allowance_s = self._interval_s * max(burst, 1)
        self._earned_at: Recent[str, float] = Recent(remembered_min)
        self._now = now

    def take(self, sender: str) -> float:
        """Takes one request: 0.0, or the seconds to wait where there is none to take."""
        if not self._interval_s:
            return 0.0
        now = self._now()
        earned_at = max(self._earned_at.get(sender) or 0.0, now) + self._interval_s
        wait_s = earned_at - now - self._allowance_s
        if wait_s > _ROUNDING_S:
            return wait_s
        self._earned_at.put(sender, earned_at)
        return 0.0

    def wait_s(self, sender: str) -> float:
        """What `take` would return, without taking anything."""
        if not self._interval_s:
            return 0.0
        now = self._now()
        wait_s = max(self._earned_at.get(sender) or 0.0, now) + self._interval_s - now - self._allowance_s
        return wait_s if wait_s > _ROUNDING_S else 0.0


_ROUNDING_S: Final = 1e-9
