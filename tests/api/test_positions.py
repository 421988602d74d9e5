"""What became of a change, by its position."""

import httpx
import pytest

from tests.running_shop import RunningShop, charge, place, problem, put_product


@pytest.mark.core
def test_a_position_is_durable_once_its_change_is_in_postgresql(
    shop: RunningShop, client: httpx.Client, user: str, product: str
) -> None:
    put_product(client, product)
    put_product(client, f"{product}-b")
    charge(client, user)
    position = place(client, user, (product, "one", 1), (f"{product}-b", "one", 1)).json()["position"]
    assert client.get(f"/v1/positions/{position}").json()["state"] in {"accepted", "durable"}
    shop.settle()
    assert client.get(f"/v1/positions/{position}").json() == {"position": position, "state": "durable"}


def test_a_position_is_accepted_while_no_worker_has_written_it(client: httpx.Client) -> None:
    for position in ("0:1-9007199254740991", "0:7-1", "0:1-0,0:1-9999999"):
        assert client.get(f"/v1/positions/{position}").json()["state"] == "accepted"


@pytest.mark.parametrize("position", ["1", "1:1", "1-1", "64:1-1", "0:1-", ":1-1", "0:1-1,", "0:1--1", "99999:1-1"])
def test_what_no_answer_held_is_no_position(client: httpx.Client, position: str) -> None:
    assert problem(client.get(f"/v1/positions/{position}"), 422, "invalid-request")
