"""A shop whose processes log in with the rights they need and no others: in Redis and in PostgreSQL."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from api.commands.embedded_valkey import EmbeddedValkey
from api.commands.redis_users import APPLICATION, APPLICATION_RULE
from persistence.accounts import READER, WRITER
from persistence.migrations import add_login, upgrade
from tests.running_shop import RunningShop, charge, eventually, place, put_campaign, put_product, take_coupon
from tests.servers import Databases, redis_client

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("accounts")) as server:
        yield server


@pytest.fixture(scope="module")
def shop(
    databases: Databases, valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningShop]:
    """The application's user in Redis; in PostgreSQL a worker that is a writer, and an API that is a reader."""
    owner = databases.make_migrated()
    upgrade(owner)
    urls = {}
    for role in (WRITER, READER):
        login = f"test_{role}"
        add_login(owner, login, role)
        urls[role] = owner.replace("://firstcome@", f"://{login}@")
        assert urls[role] != owner
    environment = {"FIRSTCOME_READER_DATABASE_URL": urls[READER]}
    folder = tmp_path_factory.mktemp("shop")
    with RunningShop(folder, valkey.application_url, urls[WRITER], 1, 1, environment) as shop:
        yield shop
        shop.assert_conserved()
    databases.drop(owner)


def test_a_shop_sells_recovers_and_is_audited_with_these_rights(shop: RunningShop, valkey: EmbeddedValkey) -> None:
    client = shop.client()
    put_product(client, "cup", price=100, S=5)
    put_campaign(client, "spring")
    charge(client, "ann", 1_000)
    coupon = take_coupon(client, "ann", "spring")
    order = place(client, "ann", ("cup", "S", 4), coupon=coupon).json()["order_id"]
    assert client.post(f"/v1/users/ann/orders/{order}/payment").json()["status"] == "completed"
    assert place(client, "ann", ("cup", "S", 1), at="checkout").status_code == 201
    shop.settle()
    with redis_client(valkey.url) as operator:
        operator.flushall()
    eventually(lambda: client.get("/v1/products/cup").status_code == 200, what="what was durable is back")
    assert [item["available"] for item in client.get("/v1/products/cup").json()["stock"]] == [0]
    assert len(client.get("/v1/users/ann/balance/entries").json()["items"]) == 3
    deliveries = client.get("/admin/v1/deliveries").json()["items"]
    replayed = client.post(f"/admin/v1/deliveries/{deliveries[0]['delivery_id']}/replay")
    assert replayed.status_code == 200
    shop.assert_conserved()


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "SET", "appendonly", "no"), ("CONFIG", "GET", "*"), ("KEYS", "*"),
        ("SLOWLOG", "GET"), ("SHUTDOWN",), ("GET", "fc:x"), ("HSET", "other", "a", "1"), ("ACL", "LIST"),
        ("EVAL", "return 1", "0"), ("SCRIPT", "FLUSH"), ("REPLICAOF", "NO", "ONE"), ("CLIENT", "KILL", "ID", "1"),
    ],
    ids=lambda command: " ".join(command[:2]),
)  # fmt: skip
def test_the_application_may_not(valkey: EmbeddedValkey, command: tuple[str, ...]) -> None:
    with redis_client(valkey.application_url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


def test_the_deployed_users_are_the_ones_that_are_tried() -> None:
    lines = (ROOT / "deploy" / "redis.acl").read_text(encoding="utf-8").splitlines()
    users = [line for line in lines if not line.startswith("#")]
    assert users[:2] == ["user default off", f"user {APPLICATION} on >change-me {APPLICATION_RULE}"]


@pytest.mark.parametrize("script", sorted((ROOT / "lua").rglob("*.lua")), ids=lambda path: path.stem)
def test_every_command_of_a_script_is_permitted(script: Path) -> None:
    used = re.findall(r"redis\.call\('(\w+)'", script.read_text(encoding="utf-8"))
    assert {f"+{command.lower()}" for command in used} <= set(APPLICATION_RULE.split())


def test_the_password_is_kept_between_starts_and_from_other_users(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "v") as server:
        first = server._password()
    with EmbeddedValkey(tmp_path / "v") as server, redis_client(server.application_url) as client:
        assert client.ping()
        assert server._password() == first
        for name in ("users.acl", "application-password"):
            assert (server.folder / name).stat().st_mode & 0o077 == 0
