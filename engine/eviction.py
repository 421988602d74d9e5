"""Eviction: what is finished, and what PostgreSQL has, leaves Redis. What is not finished is refused by the scripts.

No state changes, so there is no event: only where it is read. See docs/decisions/0008-hot-and-cold.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.order_ids import created_ms
from engine.runner import ScriptRunner

_BEGINNING = "0:"


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a walk over what is finished has come: when its last one ended, ms since 1970, and the id of that."""

    ended_ms: int
    id: str

    def __str__(self) -> str:
        return f"{self.ended_ms}:{self.id}"

    @classmethod
    def of(cls, text: str) -> "Mark":
        """From its text."""
        ended_ms, _, id = text.partition(":")
        return cls(int(ended_ms), id)


@dataclass(frozen=True, slots=True)
class Marks:
    """How far the walks of one partition have come; in Redis, beside what they are about: both go back together."""

    reservations: Mark
    coupons: Mark


class Eviction:
    """Calls of one partition each, of at most some hundreds of keys. Every call returns how many left.

    Raises what scripts raise; then it is not known how many left, and the same may be asked again.
    """

    def __init__(self, runner: ScriptRunner, order_age_max_ms: int) -> None:
        self._runner = runner
        self._order_age_max_ms = order_age_max_ms

    async def marks(self, partition: int) -> Marks:
        """How far the walks have come."""
        keys = (self._runner.keys.meta(partition), self._runner.keys.cold(partition))
        found = await self._runner.alone(
            lambda flow: self._runner.read(flow, partition, "read_fields", keys, ("reservations", "coupons"))
        )
        reservations, coupons = (Mark.of(text.decode() if text else _BEGINNING) for text in found)
        return Marks(reservations, coupons)

    async def orders(self, partition: int, orders: Sequence[tuple[str, str]], hot_from_ms: int) -> int:
        """Let go of finished orders (order, user) of one partition, with their coupons where these are over too."""
        keys, names, arguments = self._runner.keys, [], list[str | int]()
        for order_id, user_id in orders:
            names += [
                keys.order(partition, order_id),
                keys.wallet(partition, user_id),
                keys.coupons(partition, user_id),
            ]
            arguments += (order_id, created_ms(order_id))
        return await self._evict(
            partition, "evict_orders", (keys.cold(partition), *names), hot_from_ms, self._order_age_max_ms, *arguments
        )

    async def reservations(
        self, partition: int, order_ids: Sequence[str], hot_from_ms: int, mark: Mark | None = None
    ) -> int:
        """Let go of finished reservations, and note how far the walk has come when these have left."""
        keys = self._runner.keys
        names = [keys.reservation(partition, order_id) for order_id in order_ids]
        arguments = [mark or "", *(part for order_id in order_ids for part in (order_id, created_ms(order_id)))]
        return await self._evict(
            partition,
            "evict_reservations",
            (keys.cold(partition), *names),
            hot_from_ms,
            self._order_age_max_ms,
            *arguments,
        )

    async def coupons(
        self, partition: int, coupons: Sequence[tuple[str, str]], hot_from_ms: int, mark: Mark | None = None
    ) -> int:
        """The same of coupons (coupon, user) that are over."""
        keys = self._runner.keys
        names = [keys.coupons(partition, user_id) for _, user_id in coupons]
        arguments = (mark or "", *(coupon_id for coupon_id, _ in coupons))
        return await self._evict(
            partition,
            "evict_coupons",
            (keys.cold(partition), *names),
            hot_from_ms,
            self._order_age_max_ms,
            *arguments,
        )

    async def sales(self, partition: int, days: Sequence[str], keep_days: int) -> int:
        """Let go of the units sold on these days, yyyymmdd, but those of the last ``keep_days`` (UTC)."""
        names = [self._runner.keys.sales(partition, day) for day in days]
        return await self._evict(partition, "evict_sales", names, keep_days, *days)

    async def _evict(self, partition: int, script: str, keys: Sequence[str], *arguments: str | int | Mark) -> int:
        # Not begun anew after a recovery: what PostgreSQL said was before it, and the next step asks again.
        flow = self._runner.begin()
        values = [value if isinstance(value, int) else str(value) for value in arguments]
        names = (self._runner.keys.meta(partition), *keys)
        return int(await self._runner.read(flow, partition, script, names, (flow.now_ms, *values)))
