"""The data platform is away for a part of the time; it hears of every paid order all the same (R3.5)."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import msgspec
import orjson
import pytest
from standardwebhooks import Webhook

from api.commands.api import environment, program
from api.commands.listening import free_port
from api.commands.processes import ChildProcess
from api.schemas import OrderPaid
from persistence.webhooks import make_secret
from tests.console_stream import watching
from tests.running_shop import HOST, RunningShop, charge, eventually, place, put_campaign, put_product, take_coupon
from tests.servers import Databases
from tests.shop_servers import opened_shop

CUSTOMERS = 6
SLOW_S = 3.0
"""How long a worker waits for an answer; the platform takes twice as long when it is slow."""
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


class Misbehaving(BaseHTTPRequestHandler):
    """A data platform that is well, or answers 500, or closes the connection, or answers too late."""

    how: ClassVar[str] = "well"
    taken: ClassVar[list[dict[str, Any]]] = []
    met: ClassVar[set[str]] = set()
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        # Raises, and so answers nothing, where the reference library does not accept the signature.
        Webhook(SECRET).verify(body, dict(self.headers))
        how = self.how
        self.met.add(how)
        if how == "closes":
            self.close_connection = True
            return
        if how == "slow":
            # Taken, and answered when nobody waits any more: what comes again must be the same event.
            time.sleep(2 * SLOW_S)
        if how != "answers 500":
            self.taken.extend(orjson.loads(body))
        self.send_response(500 if how == "answers 500" else 204)
        self.send_header("content-length", "0")
        with contextlib.suppress(OSError):
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.soak
@pytest.mark.requirement("R3.5")
def test_ordering_waits_for_no_platform_however_it_misbehaves(databases: Databases) -> None:
    with ThreadingHTTPServer((HOST, 0), Misbehaving) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings: dict[str, Any] = {
            "data_platform_url": f"http://{HOST}:{server.server_port}/",
            "data_platform_secrets": SECRET,
            "delivery_backoff_ms": 50,
            "delivery_backoff_max_ms": 400,
            "delivery_timeout_ms": int(1000 * SLOW_S),
        }
        with opened_shop(databases, **settings) as shop:
            client = shop.client()
            put_product(client, "tea", price=100, one=10_000)
            for number in range(CUSTOMERS):
                charge(client, f"u{number}")
            bought: defaultdict[str, list[str]] = defaultdict(list)
            for how in ("slow", "answers 500", "closes"):
                Misbehaving.how = how
                slowest_s = _buy(client, bought)
                eventually(partial(Misbehaving.met.__contains__, how), what=f"the platform {how}")
                # While it is at it too: no order takes as long as a single post does.
                assert max(slowest_s, _buy(client, bought)) < SLOW_S, how
                with watching(shop.url()) as sights:
                    assert any(sight["waiting"]["waiting"] and sight["waiting"]["oldest_ms"] for sight in sights)
            Misbehaving.how = "well"
            wanted = {order for orders in bought.values() for order in orders}
            eventually(
                lambda: {each["subject"] for each in Misbehaving.taken} >= wanted, within_s=60, what="all arrive"
            )
            first: dict[str, dict[str, Any]] = {}
            for event in list(Misbehaving.taken):
                assert first.setdefault(event["id"], event) == event
            arrived: defaultdict[str, list[str]] = defaultdict(list)
            for event in first.values():
                arrived[event["data"]["user_id"]].append(event["subject"])
            assert arrived == bought
            shop.assert_conserved()
        server.shutdown()


def _buy(client: httpx.Client, bought: defaultdict[str, list[str]]) -> float:
    """Every customer buys once; how long the slowest of them waited, in seconds."""
    slowest = 0.0
    for number in range(CUSTOMERS):
        began_s = time.monotonic()
        order = place(client, f"u{number}", ("tea", "one", 1), at="checkout")
        slowest = max(slowest, time.monotonic() - began_s)
        bought[f"u{number}"].append(order.json()["order_id"])
    return slowest
