"""`firstcome up --cluster`: the whole shop on six nodes with one command, and again on what it left."""

import subprocess
from pathlib import Path

import httpx
import pytest

from api.commands.api import program
from api.commands.data_folder import Addresses
from tests.api.test_replay import write_orders
from tests.api.test_up import ORDER, clean_environment, processes_of, shop

pytestmark = [pytest.mark.cluster, pytest.mark.soak]


def say(addresses: Addresses, *arguments: str) -> str:
    """What a command of `firstcome` says that is told where the servers are; it must succeed."""
    stores = {"FIRSTCOME_REDIS_URL": addresses.redis_url, "FIRSTCOME_DATABASE_URL": addresses.database_url}
    done = subprocess.run(
        [*program(), *arguments],
        env={**clean_environment(), **stores, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_does_its_work_on_a_cluster_too(data_folder: Path) -> None:
    folder = data_folder / "shop"
    orders = write_orders(data_folder / "orders.csv.gz", "C", invoices=20)
    with shop(folder, "--cluster") as (_, addresses):
        found = " ".join(say(addresses, "doctor", "--data", str(folder)).split())
        assert "3 primaries, 3 other nodes" in found
        assert "21, 22, 21" in found
        assert "The books agree." in say(addresses, "replay", str(orders), "--data", str(folder))
        assert "No partition is stopped." in say(addresses, "events", "--data", str(folder))
        assert "64 partitions rebuilt from " in say(addresses, "rebuild")
        assert "Nothing is wrong." in say(addresses, "audit", "--full", "--data", str(folder))


def test_up_sells_on_a_cluster_and_keeps_what_it_sold(data_folder: Path) -> None:
    folder = data_folder / "shop"
    user = "/v1/users/mina"
    with shop(folder, "--cluster") as (up, addresses):
        assert addresses.redis_url.startswith("redis+cluster://firstcome:")
        assert len([line for line in processes_of(folder) if "valkey.sock" in line]) >= 6
        with httpx.Client(base_url=addresses.api_url, trust_env=False, timeout=10) as client:
            assert client.post(f"{user}/balance/charges", json={"amount": 100_000}).status_code == 201
            paid = client.post(f"{user}/checkout", json=ORDER, headers={"Prefer": "durable"})
            assert (paid.status_code, paid.json()["durable"]) == (201, True), paid.text
        up.stop()
        assert up.exit_code == 0
    assert [line for line in processes_of(folder) if "-server" in line] == []

    with (
        shop(folder, "--cluster") as (_, addresses),
        httpx.Client(base_url=addresses.api_url, trust_env=False, timeout=10) as client,
    ):
        left = client.get(f"{user}/balance").json()["balance"]
        assert left == 100_000 - paid.json()["total"]
        assert client.get(f"{user}/orders/{paid.json()['order_id']}").json()["status"] == "completed"
