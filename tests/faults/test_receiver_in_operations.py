"""The receiver in docs/operations.md takes paid orders, and what was given up is sent again, as it stands there."""

import contextlib
import os
import re
import socket
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson

from api.commands.listening import free_port
from api.commands.processes import ChildProcess
from persistence.webhooks import Signer, make_secret
from tests.pasting import pasted
from tests.running_shop import HOST, ROOT, charge, eventually, place
from tests.servers import Databases
from tests.shop_servers import opened_shop

OLD, NEW = make_secret(), make_secret()


def blocks() -> list[str]:
    """The receiver and the commands that send again."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    return re.findall(
        rf"<!-- tests/faults/{Path(__file__).name} [^\n]*-->\n```(?:python|bash)\n(.*?)```", text, re.DOTALL
    )


def receiver(folder: Path, port: int) -> ChildProcess:
    text = blocks()[0]
    assert text.count("8081") == 1
    argv = [sys.executable, "-c", text.replace("8081", str(port))]
    env = {**os.environ, "PAID_ORDERS_SECRET": NEW}
    return ChildProcess("receiver", argv, folder / "receiver.log", env, cwd=folder)


def received(folder: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "paid-orders.db") as database:
        return database.execute("SELECT order_id, user_id, total FROM paid_order ORDER BY rowid").fetchall()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port)):
        return True
    return False


def signed(body: bytes, *secrets: str, ago: timedelta = timedelta()) -> dict[str, str]:
    return Signer(secrets).headers("msg_1", body, datetime.now(UTC) - ago)


def test_the_receiver_takes_each_paid_order_once_and_the_given_up_ones_when_they_are_sent_again(
    databases: Databases, tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://{HOST}:{port}/"
    process = receiver(tmp_path, port)
    # The secret is being changed over: the receiver knows the new one, and all is signed with both.
    with opened_shop(
        databases, data_platform_url=address, data_platform_secrets=f"{NEW} {OLD}", delivery_tries_max=1
    ) as shop:
        shop.put_product("cap", price=22_000)
        client = shop.client()
        orders: list[tuple[str, str, int]] = []
        for user in ("mina", "mina", "jun"):
            charge(client, user, 30_000)
            order = place(client, user, ("cap", "one", 1), at="checkout").json()
            orders.append((order["order_id"], user, order["total"]))

        def dead() -> int:
            return len(client.get("/admin/v1/deliveries?state=dead").json()["items"])

        eventually(lambda: dead() == len(orders), what="every order is given up, as nobody receives")
        try:
            process.start()
            eventually(lambda: listens(port), what="the receiver is there")
            shown = pasted(blocks()[1], tmp_path, shop=shop.url(), token="none")
            assert shown.count('"state":"pending"') == len(orders)
            eventually(lambda: len(received(tmp_path)) == len(orders), what="every order has arrived")
            taken = received(tmp_path)
            assert sorted(taken) == sorted(orders)
            assert [order for order in taken if order[1] == "mina"] == orders[:2]

            event = {"id": "9:1-1", "subject": "an order", "data": {"user_id": "sora", "total": 1}}
            body = orjson.dumps([event, event])
            for secret, ago, status in (
                (NEW, timedelta(), 204),
                (NEW, timedelta(), 204),
                (OLD, timedelta(), 401),
                (NEW, timedelta(minutes=6), 401),
            ):
                assert httpx.post(address, content=body, headers=signed(body, secret, ago=ago)).status_code == status
            assert httpx.post(address, content=body).status_code == 401
            assert received(tmp_path) == [*taken, ("an order", "sora", 1)]
        finally:
            process.kill()
