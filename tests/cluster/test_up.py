"""`firstcome up --cluster`: the whole shop on six nodes with one command, and again on what it left."""

from pathlib import Path

import httpx
import pytest

from tests.api.test_up import ORDER, processes_of, shop

pytestmark = [pytest.mark.cluster, pytest.mark.soak]


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
