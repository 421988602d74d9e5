"""Orders whose lines live on three nodes: a process dies at every step of the flow, and nothing is left halfway."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from api.commands.embedded_cluster import EmbeddedCluster
from engine.partitions import Partitions
from tests.books import Books
from tests.cluster.moves import primaries, slots_of
from tests.faults.losses import HEALED_WITHIN_S, whole
from tests.running_shop import LOST, PARTITIONS, RunningShop, ended

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(300)]

CUSTOMERS, KINDS = 12, 4
ENOUGH, TOO_LITTLE = 100_000, 10
LIKELY = {201, 200, 402, 409}
"""What customers are told whose process lives; 503 besides."""

FINISHED = {"completed", "failed", "cancelled", "void"}
"""An order is void that nobody knew when its reservations were found."""

OF_API = ("reserve_stock", "place_order", "pay_order", "checkout_order", "release_stock", "cancel_order")
OF_WORKER = ("write_rows", "mark_durable", "confirm_stock", "void_order")


def far_products(cluster: EmbeddedCluster) -> list[str]:
    """Three products, each on a node of its own."""
    partitions = Partitions(PARTITIONS)
    owners = {slot: node for node in primaries(cluster) for slot in slots_of(cluster, node)}
    found: dict[int, str] = {}
    for number in range(100):
        found.setdefault(owners[partitions.slot(partitions.of(f"far-{number}"))], f"far-{number}")
    assert len(found) == 3
    return list(found.values())


@dataclass(slots=True)
class FarCustomers:
    """Each orders, pays, cancels, checks out, and checks out beyond the balance, one after the other."""

    shop: RunningShop
    name: str
    products: list[str]
    told: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> "FarCustomers":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    def begin(self) -> None:
        """All of them, round by round, until the context ends."""
        self._tasks += [asyncio.create_task(self._shop(number)) for number in range(CUSTOMERS)]

    async def _shop(self, number: int) -> None:
        for turn in itertools.count():
            await self._visit(f"{self.name}-{turn}-{number}", number)
            if self._stop.is_set():
                return

    def check(self, books: Books) -> None:
        """What a customer was told of an order is what became of it, or what may come of that."""
        assert not self.unexpected, self.unexpected[:5]
        for order_id, status in self.told.items():
            became = books.orders[order_id].status
            assert status in (became, "awaiting_payment"), (order_id, status, became)
        mine = [order for order in books.orders.values() if order.user.startswith(f"{self.name}-")]
        assert {order.status for order in mine} <= {*FINISHED, "awaiting_payment"}

    async def _visit(self, user: str, number: int) -> None:
        url = self.shop.url(number // KINDS % self.shop.api_count)  # each kind at each process
        async with httpx.AsyncClient(base_url=f"{url}/v1/users/{user}", timeout=30, verify=False) as client:
            body = {"lines": [{"product_id": product, "quantity": 1} for product in self.products]}
            await self._ask(client, "balance/charges", {"amount": TOO_LITTLE if number % KINDS == 3 else ENOUGH})
            if number % KINDS >= 2:
                await self._ask(client, "checkout", body)
                return
            order_id = await self._ask(client, "orders", body)
            if order_id is not None:
                await self._ask(client, f"orders/{order_id}/{'payment' if number % KINDS else 'cancellation'}", None)

    async def _ask(self, client: httpx.AsyncClient, path: str, body: object) -> str | None:
        try:
            answer = await client.post(path, json=body)
        except LOST:
            return None
        if answer.status_code not in LIKELY:
            if answer.status_code not in {503, 504}:
                self.unexpected.append(f"{answer.status_code} {answer.text}")
            return None
        order_id: str | None = answer.json().get("order_id")
        if answer.is_success and order_id is not None:
            self.told[order_id] = answer.json()["status"]
        return order_id


@pytest.fixture(scope="module")
def far(cluster: EmbeddedCluster, shop: RunningShop) -> list[str]:
    """The products, plenty of each."""
    products = far_products(cluster)
    for product in products:
        shop.put_product(product, price=100, one=100_000)
    return products


@asynccontextmanager
async def dying_api(shop: RunningShop, point: str) -> AsyncIterator[None]:
    """The first API process is one that dies at the point, which is waited for; then its successor serves."""
    successor = shop.apis[0]
    successor.stop()
    shop.apis[0] = dying = shop.dying("api-dying", shop.api_arguments(0), point)
    dying.start()
    try:
        await asyncio.to_thread(shop.wait_until_ready)
        yield
        await ended(dying, HEALED_WITHIN_S)
    finally:
        dying.stop()
        shop.apis[0] = successor
        successor.start()
    assert dying.exit_code == -signal.SIGKILL, dying.log_tail()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", OF_API)
async def test_an_api_process_that_dies_leaves_no_order_halfway(
    shop: RunningShop, far: list[str], step: str, when: str
) -> None:
    """With a call to each of three nodes, the fifth is the second of an order."""
    async with FarCustomers(shop, f"{when}-{step}", far) as customers, dying_api(shop, f"{when}:{step}:5"):
        customers.begin()
    customers.check(await asyncio.to_thread(whole, shop))
    await asyncio.to_thread(shop.audit)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", OF_WORKER)
async def test_a_worker_that_dies_leaves_no_order_halfway(
    shop: RunningShop, far: list[str], step: str, when: str
) -> None:
    """The only one; where it is to die over an order that nobody knows, an API process has died first."""
    async with FarCustomers(shop, f"{when}-{step}", far) as customers:
        async with dying_api(shop, "after:reserve_stock:5"):
            customers.begin()
        for worker in shop.workers:
            await asyncio.to_thread(worker.stop)
        dying = shop.dying("worker-dying", ["worker"], f"{when}:{step}:1")
        dying.start()
        try:
            await ended(dying, HEALED_WITHIN_S)
        finally:
            dying.stop()
            for worker in shop.workers:
                worker.start()
    assert dying.exit_code == -signal.SIGKILL, dying.log_tail()
    customers.check(await asyncio.to_thread(whole, shop))
    await asyncio.to_thread(shop.audit)
