"""Clients who charge, and the count of what they were told that is not there afterwards."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import count

import httpx

from tests.books import Books
from tests.running_shop import LOST, RunningShop


@dataclass(slots=True)
class Chargers:
    """So many clients at once who charge one user after the other, each once, and remember what they were told.

    ``accepted``: whether it was durable, by user. ``at``: when they were told, of `time.monotonic`.
    """

    shop: RunningShop
    name: str
    clients: int = 8
    accepted: dict[str, bool] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)
    _users: "count[int]" = field(default_factory=count)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._charge(self.shop.url(number % self.shop.api_count), stop))

    def lost(self, books: Books) -> Collection[str]:
        """Users whose charge was accepted and is not there. None of them was told that it is durable."""
        assert {text.partition(" ")[0] for text in self._refused} <= {"503", "504"}, self._refused
        lost = [user for user in self.accepted if books.balances.get(user, 0) != 1]
        durable = [user for user in lost if self.accepted[user]]
        counted = f"of {len(self.accepted)} accepted charges {len(lost)} were lost, {len(durable)} of them durable"
        print(f"{self.name}: {counted}")  # noqa: T201
        assert durable == []
        return lost

    async def _charge(self, url: str, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30, verify=False) as client:
            while not stop.is_set():
                user = f"{self.name}-{next(self._users)}"
                try:
                    answer = await client.post(f"/v1/users/{user}/balance/charges", json={"amount": 1})
                except LOST:
                    continue
                if answer.is_success:
                    self.accepted[user] = bool(answer.json()["durable"])
                    self.at[user] = time.monotonic()
                else:
                    self._refused.add(f"{answer.status_code} {answer.json().get('type')}")
                    await asyncio.sleep(0.02)
