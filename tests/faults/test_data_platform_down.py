"""The data platform is away for a part of the time; it hears of every paid order all the same (R3.5)."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import orjson
import pytest

from api.commands.api import environment, program
from api.commands.listening import free_port
from api.commands.processes import ChildProcess
from api.schemas import OrderPaid
from persistence.webhooks import make_secret
from tests.running_shop import HOST, RunningShop, charge, eventually, place, put_campaign, put_product, take_coupon
from tests.servers import Databases
from tests.shop_servers import opened_shop

CUSTOMERS = 6
SECRET = make_secret()


class Platform:
    """The demo's receiver in a process of its own, which can be away; what it has taken outlives it."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://{HOST}:{port}/"
        self._file = folder / "received.jsonl"
        argv = [*program(), "receiver", "--port", str(port), "--file", str(self._file)]
        env = environment(FIRSTCOME_DATA_PLATFORM_SECRETS=SECRET)
        self.process = ChildProcess("receiver", argv, folder / "receiver.log", env, cwd=folder)

    def start(self) -> None:
        self.process.start()
        eventually(self._answers, what="the data platform answers")

    def events(self) -> list[dict[str, Any]]:
        """Every event that it took, in the order of their first arrival."""
        if not self._file.exists():
            return []
        return [
            orjson.loads(line) for line in self._file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")
        ]

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.url, verify=False).is_success
        return False


@pytest.fixture
def platform(data_folder: Path) -> Iterator[Platform]:
    platform = Platform(data_folder)
    yield platform
    platform.process.stop()


def sell(shop: RunningShop, bought: defaultdict[str, list[str]]) -> None:
    """Every customer buys twice, once in one step and once in two; a third of the orders is never paid."""
    client = shop.client()
    for number in range(CUSTOMERS):
        user = f"u{number}"
        bought[user].append(place(client, user, ("tea", "one", 1), ("cup", "S", 2), at="checkout").json()["order_id"])
        order = place(client, user, ("cup", "M", 1)).json()["order_id"]
        paid = number % 3
        assert client.post(f"/v1/users/{user}/orders/{order}/{'payment' if paid else 'cancellation'}").is_success
        if paid:
            bought[user].append(order)


@pytest.mark.requirement("R3.5")
def test_every_paid_order_arrives_though_the_platform_was_down_for_a_part(
    databases: Databases, platform: Platform
) -> None:
    settings: dict[str, Any] = {
        "data_platform_url": platform.url,
        "data_platform_secrets": SECRET,
        "delivery_backoff_ms": 50,
        "delivery_backoff_max_ms": 400,
        "delivery_timeout_ms": 2000,
    }
    with opened_shop(databases, worker_count=2, **settings) as shop:
        client = shop.client()
        put_product(client, "tea", price=100)
        put_product(client, "cup", price=30, S=1000, M=1000)
        put_campaign(client, "spring", discount={"kind": "percent", "value": 50})
        for number in range(CUSTOMERS):
            charge(client, f"u{number}")
        bought: defaultdict[str, list[str]] = defaultdict(list)

        sell(shop, bought)
        shop.settle()
        waiting = client.get("/admin/v1/deliveries", params={"state": "pending"}).json()["items"]
        assert waiting
        platform.start()
        sell(shop, bought)
        eventually(lambda: len(platform.events()) > CUSTOMERS, what="the first events arrive")
        platform.process.kill()
        sell(shop, bought)
        shop.workers[0].kill()
        coupon = take_coupon(client, "u0", "spring")
        bought["u0"].append(place(client, "u0", ("tea", "one", 2), coupon=coupon, at="checkout").json()["order_id"])
        platform.start()
        sell(shop, bought)

        wanted = {order for orders in bought.values() for order in orders}
        eventually(
            lambda: {event["subject"] for event in platform.events()} >= wanted, within_s=40, what="every order arrives"
        )
        events = platform.events()
        assert len(events) == len(wanted)
        assert len({event["id"] for event in events}) == len(wanted)
        for event in events:
            _assert_is_the_order(shop, event)
        arrived: defaultdict[str, list[str]] = defaultdict(list)
        for event in events:
            arrived[event["data"]["user_id"]].append(event["subject"])
        assert arrived == bought
        eventually(
            lambda: client.get("/admin/v1/deliveries", params={"state": "pending"}).json()["items"] == [],
            what="every delivery is on record as delivered",
        )
        shop.workers[0].start()
        shop.assert_conserved()


def _assert_is_the_order(shop: RunningShop, event: dict[str, Any]) -> None:
    """The event is as the specification has it, and its data is the order as the shop shows it."""
    msgspec.convert(event, OrderPaid)
    shop.specification.check_value({"$ref": "#/components/schemas/OrderPaid"}, event)
    order = event["data"]
    shown = shop.client().get(f"/v1/users/{order['user_id']}/orders/{order['order_id']}").json()
    assert order == {**shown, "durable": True}
