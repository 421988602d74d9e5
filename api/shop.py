"""What every handler works with: the engine, the history, the settings; and how safe a change is by its answer."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from msgspec import Struct

from api.asgi import Call
from api.idempotency import replayed_headers
from api.problems import invalid_request
from api.request_headers import WAIT_SECONDS_DEFAULT
from api.settings import ApiSettings
from api.whole_messages import Header
from engine.engine import Engine
from engine.positions import Position, last_of_each, parse_position
from persistence.history import History

HISTORY_WAIT_S: Final = 1.0
_APPLIED: Final[Header] = (b"preference-applied", b"durable")


class Safety(Struct, frozen=True):
    """Whether a request's changes are in PostgreSQL as of its answer, and the headers that say so."""

    durable: bool
    headers: tuple[Header, ...] = ()

    @property
    def applied(self) -> bool:
        """Whether the client's `Prefer: durable` was honoured."""
        return _APPLIED in self.headers


class Shop:
    """One API process: its engine and its way to the history."""

    def __init__(self, engine: Engine, history: History, settings: ApiSettings, database_url: str) -> None:
        self.engine = engine
        self.history = history
        self.settings = settings
        self.database_url = database_url
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """From now on this process is not ready for new requests, and streams end."""
        self.stopping.set()

    def draining(self) -> bool:
        """Whether this process is stopping."""
        return self.stopping.is_set()

    @property
    def currency(self) -> str:
        """The currency of every price."""
        return self.engine.settings.currency

    async def safety(
        self, call: Call[Any, Any], positions: tuple[Position, ...], *, replayed: bool = False, found_so: bool = False
    ) -> Safety:
        """Wait until the changes are durable where the client or the settings ask for it, as long as they let.

        A change that an earlier request has made, of the same key or not, may be durable by now without waiting.
        """
        repeated = replayed_headers(replayed)
        asked = call.prefer.durable
        wait_s = call.prefer.wait_seconds
        if wait_s is None:
            wait_s = WAIT_SECONDS_DEFAULT
        if not wait_s or not (asked or self.settings.durable_by_default):
            return Safety((replayed or found_so) and await self.engine.durability.check(positions), repeated)
        # What an ended epoch still shows is durable as of now, and nobody waits for that.
        durable = (replayed or found_so) and await self.engine.durability.check(positions)
        durable = durable or await self.engine.durability.wait(positions, wait_s)
        return Safety(durable, (_APPLIED, *repeated) if asked and durable else repeated)

    def positions(self, text: str, location: str) -> tuple[Position, ...]:
        """The positions in a client's text; the problem names its ``location`` when it is none of ours."""
        try:
            positions = parse_position(text)
        except ValueError:
            positions = ()
        count = self.engine.partitions.count
        if not positions or any(position.partition >= count for position in positions):
            raise invalid_request(location, "Expected the `position` of an earlier answer")
        return positions

    async def await_history(self, user_id: str, after: str | None) -> None:
        """Wait up to a second until the change at the position ``after`` is in the user's history.

        A history is of its user's partition alone. What a position says of others is not waited for: each of them would
        be asked after two hundred times a second, and one request can name them all.
        """
        if after is not None:
            own = self.engine.partitions.of(user_id)
            told = self.positions(after, "query.after")
            latest = last_of_each(position for position in told if position.partition == own)
            await self.engine.durability.wait(latest, HISTORY_WAIT_S)
