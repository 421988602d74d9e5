"""`firstcome up`, from an empty folder to nothing left running."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from api.commands.api import program
from api.commands.data_folder import Addresses
from api.commands.demo import CAMPAIGN_ID, PRODUCTS, first_purchase
from api.commands.processes import ChildProcess, command_line, wait_until
from api.commands.up import OPEN_TO_ALL, SECRET_FILE
from persistence.webhooks import read_secrets

OPEN_WITHIN_S = 60
STOPPED_WITHIN_S = 30
DURABLE_WITHIN_S = 10
ORDER = {"lines": [{"product_id": "t-shirt", "stock_id": "M", "quantity": 2}, {"product_id": "cap", "quantity": 1}]}


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FIRSTCOME_")}


@contextmanager
def shop(folder: Path, *arguments: str, **settings: str) -> Iterator[tuple[ChildProcess, Addresses]]:
    """A running `up` on `folder` and its addresses; ended if the test has not done so."""
    up = ChildProcess(
        "up",
        [*program(), "up", "--port", "0", "--data", str(folder), *arguments],
        folder.parent / f"{folder.name}.log",
        clean_environment() | settings,
        stop_timeout_s=STOPPED_WITHIN_S,
    )
    up.start()
    try:
        wait_until(lambda: is_open(folder, up) or not up.running, timeout_s=OPEN_WITHIN_S, what="the shop is open")
        addresses = Addresses.read(folder)
        assert addresses is not None, up.log_tail(lines=40)
        yield up, addresses
    finally:
        up.stop()


def is_open(folder: Path, up: ChildProcess) -> bool:
    addresses = Addresses.read(folder)
    return addresses is not None and addresses.pid == up.pid


def processes_of(folder: Path) -> list[str]:
    """The command lines of every process that has to do with a data folder, leashes included."""
    commands = {int(path.name): command_line(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    own = {pid: command for pid, command in commands.items() if str(folder) in command}
    return list(own.values())


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


def test_a_newcomer_runs_the_shop_and_buys_something(data_folder: Path) -> None:
    folder = data_folder / "shop"
    with shop(folder, "--api-workers", "2", "--workers", "2") as (up, addresses):
        with httpx.Client(base_url=addresses.api_url, trust_env=False) as client:
            products = client.get("/v1/products").json()["items"]
            assert {product["product_id"] for product in products} == set(PRODUCTS)
            user = "/v1/users/mina"
            assert client.post(f"{user}/balance/charges", json={"amount": 100_000}).status_code == httpx.codes.CREATED
            coupon = client.post(f"{user}/coupons", json={"campaign_id": CAMPAIGN_ID})
            assert coupon.status_code == httpx.codes.CREATED
            order = client.post(f"{user}/checkout", json={**ORDER, "coupon_id": coupon.json()["coupon_id"]})
            assert order.status_code == httpx.codes.CREATED, order.text
            assert order.json()["status"] == "completed"
            assert client.get(f"{user}/balance").json()["balance"] == 100_000 - order.json()["total"]
        order_id = order.json()["order_id"]
        assert_counted(addresses, up)
        wait_until(
            lambda: durable_status(addresses.database_url, order_id) == "completed",
            timeout_s=DURABLE_WITHIN_S,
            what="the order is in PostgreSQL",
        )
        wait_until(
            lambda: order_id in received(folder),
            timeout_s=DURABLE_WITHIN_S,
            what="the paid order is at the data platform",
        )
        children = children_of(up.pid)
        up.stop()
        assert up.exit_code == 0, up.log_tail(lines=40)
        assert "nothing is left running" in up.log_tail()
        assert not any(map(command_line, children))
        assert processes_of(folder) == []
        assert Addresses.read(folder) is None

    secret = folder / SECRET_FILE
    assert secret.stat().st_mode & 0o077 == 0
    made_at_first_start = secret.read_text()
    assert read_secrets(made_at_first_start)
    with shop(folder) as (up, addresses), httpx.Client(base_url=addresses.api_url, trust_env=False) as client:
        assert secret.read_text() == made_at_first_start
        assert client.get("/v1/users/mina/orders").json()["items"][0]["order_id"] == order_id
        assert client.get("/v1/users/mina/balance").json()["balance"] == 100_000 - order.json()["total"]
        up.signal(signal.SIGINT)
        wait_until(lambda: not up.running, timeout_s=STOPPED_WITHIN_S, what="up stopped on SIGINT")
        assert up.exit_code == 0


def assert_counted(addresses: Addresses, up: ChildProcess) -> None:
    """Whichever of the API's processes is asked, it shows what all of them did; each worker has a page of its own."""
    done = 'firstcome_requests_total{{operation="{}",outcome="done"}} 1.0'
    counted = {done.format(operation) for operation in ("charge_balance", "issue_coupon", "checkout")}

    def shown() -> set[str]:
        return set(httpx.get(f"{addresses.api_url}/metrics", trust_env=False).text.splitlines())

    # A process shows the others ten times a second what it has gathered.
    wait_until(lambda: counted <= shown(), timeout_s=DURABLE_WITHIN_S, what="every process shows what was done")
    assert "firstcome_api_processes 2.0" in shown()
    pages = re.findall(r"http://\S+/metrics", up.log_tail(lines=40))
    assert len(set(pages)) == 3
    for page in pages[1:]:
        assert 'firstcome_duty_running{duty="writer"} 1.0' in httpx.get(page, trust_env=False).text


def received(folder: Path) -> str:
    file = folder / "received.jsonl"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def durable_status(database_url: str, order_id: str) -> str | None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT status FROM orders WHERE order_id::text = %s", [order_id]).fetchone()
        return None if row is None else str(row[0])


def addresses_of_parts(up: ChildProcess) -> list[str]:
    """Where the receiver and the worker's metrics are, as it is printed."""
    return re.findall(r"(?:orders received +|/metrics )(http://\S+)", up.log_tail(lines=40))


def test_the_printed_purchase_works_as_it_is_printed_as_often_as_it_is_pasted(data_folder: Path) -> None:
    with shop(data_folder / "shop") as (up, addresses):
        shown = up.log_tail(lines=40).split("A first purchase, from another terminal:")[1]
        printed = [line.strip() for line in shown.splitlines() if line.startswith("  ")]
        assert printed == first_purchase(addresses.api_url)
        for _ in range(2):
            pasted = ["/bin/sh", "-ec", "\n".join(printed)]
            answers = subprocess.run(pasted, capture_output=True, text=True, check=True).stdout
            assert "problems" not in answers, answers
            assert '"status":"completed"' in answers
            assert '"discount":6000' in answers
            assert '"balance":46000' in answers


def test_a_shop_says_that_everybody_may_be_anybody_just_where_it_is_so(data_folder: Path) -> None:
    orders = "/v1/users/mina/orders"
    with shop(data_folder / "open") as (up, addresses):
        assert httpx.get(addresses.api_url + orders, trust_env=False).status_code == httpx.codes.OK
        assert OPEN_TO_ALL in up.log_tail(lines=40)
    with shop(data_folder / "closed", FIRSTCOME_TOKEN_SECRET="s" * 32) as (up, addresses):
        assert httpx.get(addresses.api_url + orders, trust_env=False).status_code == httpx.codes.UNAUTHORIZED
        printed = up.log_tail(lines=40)
        assert "The shop is open" in printed
        assert OPEN_TO_ALL not in printed


def test_two_shops_run_side_by_side_and_one_folder_serves_one(data_folder: Path) -> None:
    with shop(data_folder / "one") as (_, one), shop(data_folder / "two") as (_, two):
        for addresses in (one, two):
            assert httpx.get(f"{addresses.api_url}/readyz", trust_env=False).status_code == httpx.codes.OK
        again = subprocess.run(
            [*program(), "up", "--port", "0", "--data", str(data_folder / "one")],
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment(),
        )
        assert again.returncode == 1
        assert re.search(r"in use by process \d+: stop that one first, or choose another --data", again.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_up_leaves_nothing_running_and_starts_again(data_folder: Path) -> None:
    folder = data_folder / "shop"
    with shop(folder) as (up, addresses):
        httpx.post(f"{addresses.api_url}/v1/users/mina/balance/charges", json={"amount": 5_000}, trust_env=False)
        children = children_of(up.pid)
        assert len(children) >= 5
        parts = addresses_of_parts(up)
        assert len(parts) == 2
        up.signal(signal.SIGKILL)
        wait_until(lambda: not up.running, timeout_s=5, what="up is gone")
        wait_until(
            lambda: not any(map(command_line, children)) and processes_of(folder) == [],
            timeout_s=STOPPED_WITHIN_S,
            what="its children are gone",
        )
    with shop(folder) as (up, addresses):
        answer = httpx.get(f"{addresses.api_url}/v1/users/mina/balance", trust_env=False)
        assert answer.json()["balance"] == 5_000
        assert addresses_of_parts(up) == parts


def test_a_killed_child_is_started_again(data_folder: Path) -> None:
    with shop(data_folder / "shop") as (up, addresses):
        for child in children_of(up.pid):
            if re.search(r"api\.commands (api|worker)", command_line(child)):
                os.kill(child, signal.SIGKILL)

        def serves_durably() -> bool:
            try:
                answer = httpx.post(
                    f"{addresses.api_url}/v1/users/mina/balance/charges",
                    json={"amount": 1_000},
                    headers={"Prefer": "durable, wait=1"},
                    trust_env=False,
                )
            except httpx.TransportError:
                return False
            return answer.status_code == httpx.codes.CREATED and answer.json()["durable"] is True

        wait_until(serves_durably, timeout_s=OPEN_WITHIN_S, what="the shop serves again")
        assert "starts again" in up.log_tail(lines=60)
