"""What became of a change, by its position."""

import httpx
import psycopg
import pytest

from engine.partitions import Partitions
from tests.running_shop import PARTITIONS, RunningShop, charge, eventually, place, problem, put_product
from tests.servers import Databases, empty_redis
from tests.shop_servers import opened_shop


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


def test_a_position_is_accepted_while_no_worker_has_written_it(databases: Databases) -> None:
    with opened_shop(databases) as shop:
        shop.workers[0].stop()
        position = shop.client().post("/v1/users/mina/balance/charges", json={"amount": 5}).json()["position"]
        assert shop.client().get(f"/v1/positions/{position}").json() == {"position": position, "state": "accepted"}


def test_a_change_of_two_partitions_is_durable_only_when_both_are(databases: Databases) -> None:
    partition_of = Partitions(PARTITIONS).of
    product = next(f"p{n}" for n in range(100) if partition_of(f"p{n}") != partition_of("mina"))
    with opened_shop(databases) as shop:
        client = shop.client()
        put_product(client, product)
        with psycopg.connect(shop.database_url, autocommit=True) as connection:
            connection.execute(
                "UPDATE partition_cursor SET stopped = 'test' WHERE partition = %s", (partition_of("mina"),)
            )
            position = place(client, "mina", (product, "one", 1)).json()["position"]
            states = {one.partition(":")[0]: f"/v1/positions/{one}" for one in position.split(",")}
            assert set(states) == {str(partition_of("mina")), str(partition_of(product))}
            written = states[str(partition_of(product))]
            eventually(lambda: client.get(written).json()["state"] == "durable")

            assert client.get(f"/v1/positions/{position}").json()["state"] == "accepted"


@pytest.mark.parametrize("position", ["0:1-9007199254740991", "0:7-1", "0:1-0,0:1-9999999", "0:1-1,1:9-9"])
def test_a_position_that_no_change_has_had_yet_is_not_found(client: httpx.Client, user: str, position: str) -> None:
    """Who invents one, or takes it from another shop, is not told that it is accepted."""
    charge(client, user)
    assert position in problem(client.get(f"/v1/positions/{position}"), 404, "not-found")["detail"]


def test_what_became_of_a_position_is_not_denied_while_redis_cannot_be_trusted(databases: Databases) -> None:
    with opened_shop(databases) as shop:
        shop.workers[0].stop()
        position = shop.client().post("/v1/users/mina/balance/charges", json={"amount": 5}).json()["position"]
        empty_redis(shop.redis_url)
        assert shop.client().get(f"/v1/positions/{position}").json()["state"] == "accepted"


@pytest.mark.parametrize("position", ["1", "1:1", "1-1", "64:1-1", "0:1-", ":1-1", "0:1-1,", "0:1--1", "99999:1-1"])
def test_what_no_answer_held_is_no_position(client: httpx.Client, position: str) -> None:
    assert problem(client.get(f"/v1/positions/{position}"), 422, "invalid-request")
