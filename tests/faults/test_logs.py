"""What a shop in trouble writes into its logs: levels that mean something, and nobody's secrets or amounts."""

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec
import psycopg
import pytest
from psycopg import sql

from api.authentication import make_token, read_keys
from api.commands.embedded_valkey import EmbeddedValkey, Passwords
from api.operations import OPERATIONS
from api.settings import ApiSettings
from persistence.webhooks import make_secret
from tests.running_shop import READY_WITHIN_S, RunningShop, eventually, problem
from tests.servers import Databases, reachable_folder

SETTINGS: Final = ApiSettings(token_secret="a-planted-secret-that-signs-the-tokens-of-this-shop")
REDIS: Final = Passwords(administrator="planted-administrator", application="planted-application")
WEBHOOK_SECRET: Final = make_secret()
CHARGE, PRICE, QUANTITY = 7_654_321, 1_357_913, 2_468_024
AMOUNTS: Final = (CHARGE, PRICE, QUANTITY, 2 * PRICE, CHARGE - 2 * PRICE, QUANTITY - 2)
SECRETS: Final = (
    "planted",
    WEBHOOK_SECRET,
    WEBHOOK_SECRET.removeprefix("whsec_"),
    "Bearer ",
    "eyJ",  # how every JSON Web Token begins
)
FOLLOWED: Final = "a-request-to-be-followed"

Line = dict[str, Any]


def token(user: str, *, is_operator: bool = False) -> dict[str, str]:
    keys = read_keys(SETTINGS)
    assert keys is not None
    return {"Authorization": f"Bearer {make_token(keys, SETTINGS, user, is_operator=is_operator, valid_s=600)}"}


@pytest.fixture(scope="module")
def logged(databases: Databases) -> Iterator[dict[str, list[Line]]]:
    """What each process has logged at its most talkative: every route was asked, rightly and wrongly, with both stores
    there and with each away, and nobody takes the paid orders; `late-*` began while PostgreSQL was away."""
    folder = reachable_folder()
    database_url = databases.make_migrated()
    settings = {
        "FIRSTCOME_TOKEN_SECRET": SETTINGS.token_secret,
        "FIRSTCOME_LOG_LEVEL": "debug",
        "FIRSTCOME_LOG_FORMAT": "json",
        "FIRSTCOME_DATA_PLATFORM_URL": "http://platform:planted-for-the-platform@127.0.0.1:9/",
        "FIRSTCOME_DATA_PLATFORM_SECRETS": WEBHOOK_SECRET,
    }
    with (
        EmbeddedValkey(folder / "valkey", passwords=REDIS) as valkey,
        RunningShop(
            folder, valkey.url, database_url.replace("://firstcome@", "://firstcome:planted@"), settings=settings
        ) as shop,
    ):
        buy(shop)
        asyncio.run(ask_everything(shop.url()))
        shop.settle()
        begin_without_postgres(shop)
        lose_postgres(shop, databases)
        valkey.kill()
        asyncio.run(ask_everything(shop.url()))
    yield {
        file.stem: [
            json.loads(line) if line.startswith("{") else {"event": line, "level": "none", "logger": ""}
            for line in file.read_text().splitlines()
        ]
        for file in folder.glob("*.log")
    }
    databases.drop(database_url)
    shutil.rmtree(folder)


def buy(shop: RunningShop) -> None:
    """Mina buys two, which amounts are then known of."""
    with httpx.Client(base_url=shop.url(), headers=token("mina"), verify=False) as mina:
        stock = [{"stock_id": "one", "option": "one", "initial_quantity": QUANTITY}]
        product = {"name": "Tea", "price": PRICE, "stock": stock}
        operator = token("an-operator", is_operator=True)
        assert mina.put("/admin/v1/products/tea", json=product, headers=operator).is_success
        assert mina.post("/v1/users/mina/balance/charges", json={"amount": CHARGE}).is_success
        assert mina.post(
            "/v1/users/mina/checkout",
            json={"lines": [{"product_id": "tea", "quantity": 2}]},
            headers={"X-Request-Id": FOLLOWED, "Idempotency-Key": "planted-key"},
        ).is_success


def begin_without_postgres(shop: RunningShop) -> None:
    """An API and a worker that find no PostgreSQL: one begins, the other ends."""
    nowhere = "postgresql://firstcome:planted@127.0.0.1:9/shop"
    processes = [
        shop.process(f"late-{name}", arguments, FIRSTCOME_DATABASE_URL=nowhere)
        for name, arguments in (("api", ["api", "--port", "0"]), ("worker", ["worker"]))
    ]
    for process in processes:
        process.start()
    api, worker = processes
    try:
        eventually(lambda: "serving on" in api.log_tail(), within_s=READY_WITHIN_S, what="the API begins")
        eventually(lambda: not worker.running, within_s=READY_WITHIN_S, what="the worker ends")
        assert worker.exit_code == 1
    finally:
        for process in processes:
            process.stop()


def lose_postgres(shop: RunningShop, databases: Databases) -> None:
    """PostgreSQL lets nobody in, and whoever was in is out, until both kinds of process have met with it."""
    name = urlsplit(shop.database_url).path.lstrip("/")
    worker = shop.folder / "worker-0.log"
    with psycopg.connect(databases.server.database_url("postgres"), autocommit=True) as connection:
        let_in = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        connection.execute(let_in.format(sql.Identifier(name), sql.SQL("false")))
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            answer = httpx.get(f"{shop.url()}/v1/users/mina/orders", headers=token("mina"), verify=False)
            problem(answer, 503, "history-unavailable")
            eventually(
                lambda: worker.read_text().count("waits for PostgreSQL") >= 3,
                within_s=READY_WITHIN_S,
                what="several duties of the worker miss it",
            )
        finally:
            connection.execute(let_in.format(sql.Identifier(name), sql.SQL("true")))
    eventually(
        lambda: "PostgreSQL answers again" in worker.read_text(),
        within_s=READY_WITHIN_S,
        what="every duty has its connection again",
    )


async def ask_everything(url: str) -> None:
    """Every operation at once, by its first example: as its user, as somebody else, and with what is no request."""
    async with httpx.AsyncClient(base_url=url, verify=False, timeout=60) as client, asyncio.TaskGroup() as group:
        for operation in OPERATIONS:
            example = operation.examples[0]
            path = operation.path.format(**example.path_params) + (f"?{example.query}" if example.query else "")
            user = example.path_params.get("user_id", "an-operator")
            right = token(user, is_operator=operation.security == "admin")
            body = None if example.body is None else msgspec.json.encode(example.body)
            broken = b'{"amount": %d, "planted":' % CHARGE
            for headers, content in (
                (right, body),
                (right, broken),
                (token("somebody-else"), body),
                ({"Authorization": "Bearer eyJplanted.planted.planted"}, body),
            ):
                group.create_task(client.request(operation.method, path, headers=headers, content=content))


def test_no_secret_is_logged(logged: dict[str, list[Line]]) -> None:
    assert {"api-0", "worker-0"} <= logged.keys()
    assert logged["api-0"]
    assert logged["worker-0"]
    found = [line for lines in logged.values() for line in lines for secret in SECRETS if secret in json.dumps(line)]
    assert found == []


def test_no_amount_is_logged(logged: dict[str, list[Line]]) -> None:
    amounts = re.compile("|".join(rf"(?<!\d){amount}(?!\d)" for amount in AMOUNTS))
    found = [line for lines in logged.values() for line in lines if amounts.search(json.dumps(line))]
    assert found == []


def test_what_clients_do_wrong_is_nobodys_alarm_and_a_server_that_is_away_is_a_warning(
    logged: dict[str, list[Line]],
) -> None:
    levels = {
        level: [line for lines in logged.values() for line in lines if line["level"] == level]
        for level in ("debug", "warning", "error", "critical")
    }
    assert levels["error"] == levels["critical"] == []
    assert {line["logger"] for line in levels["warning"]} >= {
        "firstcome.lane",
        "firstcome.dispatcher",
        "firstcome.worker",
    }
    assert {line["logger"] for line in levels["debug"]} >= {"api.asgi", "firstcome.writer"}


def test_a_postgres_that_is_away_is_told_of_once_and_that_it_is_back_once(logged: dict[str, list[Line]]) -> None:
    """However many duties wait for it, and however often each of them tries."""
    told = [line for line in logged["worker-0"] if re.search("waits for PostgreSQL|PostgreSQL answers", line["event"])]
    assert any(line["level"] == "debug" for line in told), "other duties have missed it too"
    lost, back = [line["event"] for line in told if line["level"] == "warning"]
    assert "waits for PostgreSQL: PostgreSQL cannot be reached" in lost
    assert back == "PostgreSQL answers again"


def test_who_begins_without_postgres_says_what_is_missing_and_what_to_do(logged: dict[str, list[Line]]) -> None:
    started = [line for line in logged["late-api"] if line["logger"] == "firstcome.start"]
    (warning,) = [line for line in started if line["event"].startswith("PostgreSQL:")]
    assert warning["level"] == "warning"
    assert re.search(
        r"(?s)PostgreSQL: postgresql://firstcome:\*\*\*@127\.0\.0\.1:9/shop: .*Remedy: start it", warning["event"]
    )
    last = " ".join(line["event"] for line in logged["late-worker"] if line["level"] == "none")
    assert last.startswith("Error: PostgreSQL cannot be reached")
    assert "Connection refused. Check that PostgreSQL runs" in last
    assert "127.0.0.1" in last


def test_a_request_is_followed_by_its_id_and_its_position(logged: dict[str, list[Line]]) -> None:
    (line,) = [line for line in logged["api-0"] if line.get("request_id") == FOLLOWED]
    assert line["event"] == "checkout"
    durable = {
        each["position"]: each["event"].removeprefix("Durable: ")
        for each in logged["worker-0"]
        if each.get("request_id") == FOLLOWED
    }
    assert set(durable.values()) == {"stock.reserved", "order.checked_out"}
    assert durable.keys() >= set(line["position"].split(","))
