"""Days in the business time zone: of coupon ids and of the sales counters."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo


class BusinessDays:
    """Calendar days of one time zone."""

    def __init__(self, time_zone: str) -> None:
        self.time_zone = time_zone
        self._zone = ZoneInfo(time_zone)
        # Most moments are in the same minute as the one before; a day begins at a full one.
        self._text_of_minute = lru_cache(maxsize=64)(self._text)

    def of(self, at_ms: int) -> date:
        """The day that holds the moment ``at_ms`` (ms since 1970, UTC)."""
        return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(self._zone).date()

    def text(self, at_ms: int) -> str:
        """The same as ``yyyymmdd``."""
        return self._text_of_minute(at_ms // 60_000)

    def _text(self, minute: int) -> str:
        return self.of(minute * 60_000).strftime("%Y%m%d")

    def last(self, count: int, at_ms: int) -> list[date]:
        """The day of ``at_ms`` and the ``count - 1`` days before it, oldest first."""
        today = self.of(at_ms)
        return [today - timedelta(days=back) for back in range(count - 1, -1, -1)]
