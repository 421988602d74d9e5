"""Clients that do as the specification says: after 503 they wait and repeat, each request under its own key."""

import asyncio
from dataclasses import dataclass, field

import httpx

from tests.books import Books
from tests.faults.buyers import PRODUCTS
from tests.running_shop import RunningShop

PATIENCE_S = 60.0
CHARGE = 1_000_000
AGAIN = {503, 504}


@dataclass(slots=True)
class PatientBuyers:
    """Users who buy one thing after the other until they are told to stop, and give up nothing that they began."""

    shop: RunningShop
    name: str
    count: int
    orders: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    unexpected: list[str] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> "PatientBuyers":
        self._tasks = [asyncio.create_task(self._buy(number)) for number in range(self.count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    def check(self, books: Books) -> None:
        """Every order that was begun is there, once, and paid; nothing but it was paid."""
        assert not self.unexpected, self.unexpected[:5]
        for user in {*self.orders.values()}:
            told = {order for order, buyer in self.orders.items() if buyer == user}
            made = {
                order for order, state in books.orders.items() if state.user == user and state.status == "completed"
            }
            assert told == made, f"{user} was told of {told - made}, and not of {made - told}"
            spent = sum(books.orders[order].total for order in made)
            assert books.balances[user] == CHARGE - spent

    async def _buy(self, number: int) -> None:
        user = f"{self.name}-{number}"
        url = self.shop.url(number % self.shop.api_count)
        async with httpx.AsyncClient(base_url=f"{url}/v1/users/{user}", timeout=30, verify=False) as client:
            await self._ask(client, "balance/charges", {"amount": CHARGE}, f"{user}-charge")
            for turn in range(1_000_000):
                if self._stop.is_set():
                    return
                lines = [
                    {"product_id": PRODUCTS[(number + turn + step) % len(PRODUCTS)], "stock_id": "S", "quantity": 1}
                    for step in (0, 3, 7)
                ]
                order_id = await self._ask(client, "checkout", {"lines": lines}, f"{user}-{turn}")
                if order_id is not None:
                    self.orders[order_id] = user

    async def _ask(self, client: httpx.AsyncClient, path: str, body: object, key: str) -> str | None:
        give_up_at = asyncio.get_running_loop().time() + PATIENCE_S
        while asyncio.get_running_loop().time() < give_up_at:
            answer = await client.post(path, json=body, headers={"Idempotency-Key": key})
            if answer.is_success:
                return str(answer.json().get("order_id"))
            # A key whose request is still under way is asked for again, too.
            if answer.status_code not in AGAIN and not answer.json().get("type", "").endswith("request-in-progress"):
                self.unexpected.append(f"{answer.status_code} {answer.text}")
                return None
            self.repeated += 1
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")) / 4)
        self.unexpected.append(f"{key} was not done within {PATIENCE_S:g} s")
        return None
