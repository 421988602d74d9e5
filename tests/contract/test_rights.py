"""Every route, with every token that is not good enough: refused by the same rules in the mock and the real API."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import httpx
import jwt
import msgspec
import pytest

from api.app import make_app
from api.mock import create_mock_app
from api.openapi import openapi_document
from api.operations import OPERATIONS, Operation
from api.settings import ApiSettings
from engine.settings import EngineSettings
from persistence.settings import HistorySettings
from tests.contract.specification import SpecValidator

SECRET: Final = "the-secret-of-these-tests-is-long-enough"
SETTINGS: Final = ApiSettings(token_secret=SECRET, user_rate=0, address_rate=0)
VALIDATOR: Final = SpecValidator(openapi_document())
HOUR_S: Final = 3600


def token(key: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    now = int(time.time())
    claims = {"iss": "firstcome", "aud": "firstcome", "sub": "mina", "iat": now, "exp": now + HOUR_S, **changes}
    return f"Bearer {jwt.encode(claims, key, algorithm)}"


def operator() -> str:
    return token(sub="the-operator", scope="admin")


NOT_GOOD: Final = {
    "no token": None,
    "an empty header": "",
    "another scheme": "Basic bWluYTpzZWNyZXQ=",
    "an expired token": token(exp=int(time.time()) - HOUR_S),
    "a wrong audience": token(aud="another-shop"),
    "another issuer": token(iss="another-issuer"),
    "another algorithm": token(SECRET * 2, "HS512"),
    "no signature": token("", "none"),
    "another secret": token("another-secret-of-these-tests-long-enough"),
    "an expired operator": token(scope="admin", exp=int(time.time()) - HOUR_S),
    "an operator with another secret": token("another-secret-of-these-tests-long-enough", scope="admin"),
}
FOR_SOMEBODY: Final = [operation for operation in OPERATIONS if operation.security != "none"]
OF_A_USER: Final = [operation for operation in OPERATIONS if operation.security == "user"]
OF_OPERATORS: Final = [operation for operation in OPERATIONS if operation.security == "admin"]
FOR_EVERYBODY: Final = [operation for operation in OPERATIONS if operation.security == "none"]


def each(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "operation", [pytest.param(operation, id=operation.operation_id) for operation in operations]
    )


@pytest.fixture(scope="module", params=["mock", "real"])
def app(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The mock, and the real API before it has reached any server: rights are looked at before anything else."""
    if request.param == "mock":
        yield create_mock_app(SETTINGS)
    else:
        yield make_app(EngineSettings(), SETTINGS, HistorySettings())


@pytest.fixture
async def client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        yield client


@pytest.fixture
async def mock() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_mock_app(SETTINGS))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client


async def ask(
    client: httpx.AsyncClient, operation: Operation, authorization: str | None, **arguments: Any
) -> httpx.Response:
    """The operation's first example, of the user `mina`, with this token."""
    example = operation.examples[0]
    headers = {} if authorization is None else {"Authorization": authorization}
    if example.body is not None:
        arguments.setdefault("content", msgspec.json.encode(example.body))
        headers["Content-Type"] = "application/json"
    path = operation.path.format(**{**example.path_params, **arguments.pop("path_params", {})})
    return await client.request(arguments.pop("method", operation.method), path, headers=headers, **arguments)


def problem(response: httpx.Response) -> str:
    return str(VALIDATOR.check(response)["type"].removeprefix("/problems/"))


def test_every_operation_of_a_user_is_under_the_users_id() -> None:
    assert [operation.path for operation in OF_A_USER if "/users/{user_id}/" not in operation.path] == []
    assert [operation.path for operation in OPERATIONS if "{user_id}" in operation.path] == [
        operation.path for operation in OF_A_USER
    ]
    assert {operation.path for operation in OPERATIONS if operation.path.startswith("/admin/")} == {
        operation.path for operation in OF_OPERATORS
    }


@each(FOR_SOMEBODY)
@pytest.mark.parametrize("authorization", NOT_GOOD.values(), ids=NOT_GOOD.keys())
async def test_without_a_good_token_nothing_is_answered(
    client: httpx.AsyncClient, operation: Operation, authorization: str | None
) -> None:
    answer = await ask(client, operation, authorization)
    assert (answer.status_code, problem(answer)) == (401, "not-authenticated")
    challenge = answer.headers["www-authenticate"]
    assert challenge == "Bearer" if authorization is None else 'error="invalid_token"' in challenge
    if authorization is None:
        told = answer.json()["detail"]
        assert "send `Authorization: Bearer <JWT>`" in told
        assert "`firstcome token` makes one" in told


@each(FOR_SOMEBODY)
async def test_a_token_in_the_query_is_none(client: httpx.AsyncClient, operation: Operation) -> None:
    answer = await ask(client, operation, None, params={"access_token": token(scope="admin").partition(" ")[2]})
    assert problem(answer) == "not-authenticated"


@each(OF_A_USER)
@pytest.mark.parametrize("other", ["jun", "mina2", "Mina", "min", "auth0%7Cmina", "no%20id", "%2E"])
async def test_what_is_another_users_is_not_there(client: httpx.AsyncClient, operation: Operation, other: str) -> None:
    answer = await ask(client, operation, token(), path_params={"user_id": other})
    assert (answer.status_code, problem(answer)) == (404, "not-found")


@each(OF_OPERATORS)
@pytest.mark.parametrize("scope", ["", "administrator", "users"])
async def test_a_users_token_is_not_enough_for_operators(
    client: httpx.AsyncClient, operation: Operation, scope: str
) -> None:
    answer = await ask(client, operation, token(scope=scope))
    assert (answer.status_code, problem(answer)) == (403, "not-allowed")
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@each(FOR_SOMEBODY)
async def test_rights_come_before_every_other_check(client: httpx.AsyncClient, operation: Operation) -> None:
    """Who may not ask learns nothing from how a bad request is refused."""
    for authorization, status in ((None, 401), (token(), 404 if operation.security == "user" else 403)):
        answer = await ask(
            client,
            operation,
            authorization,
            path_params={"user_id": "no id"},
            content=b"{" * 70_000,
            params={"colour": "red"},
        )
        assert answer.status_code == status
        assert VALIDATOR.check(answer)


@each([operation for operation in FOR_SOMEBODY if operation.method == "GET"])
async def test_head_is_no_way_around(client: httpx.AsyncClient, operation: Operation) -> None:
    answer = await ask(client, operation, None, method="HEAD")
    assert answer.status_code == 401
    VALIDATOR.check(answer)


@each(OF_A_USER)
async def test_a_user_has_what_is_the_users(mock: httpx.AsyncClient, operation: Operation) -> None:
    answer = await ask(mock, operation, token())
    assert answer.status_code == operation.examples[0].status
    VALIDATOR.check(answer)


@each(FOR_SOMEBODY)
async def test_an_operator_has_everything(mock: httpx.AsyncClient, operation: Operation) -> None:
    answer = await ask(mock, operation, operator())
    assert answer.status_code == operation.examples[0].status
    VALIDATOR.check(answer)


@each(FOR_EVERYBODY)
@pytest.mark.parametrize("authorization", NOT_GOOD.values(), ids=NOT_GOOD.keys())
async def test_what_is_for_everybody_asks_for_no_token(
    mock: httpx.AsyncClient, operation: Operation, authorization: str | None
) -> None:
    answer = await ask(mock, operation, authorization)
    assert answer.status_code == operation.examples[0].status
    VALIDATOR.check(answer)


async def test_the_documents_ask_for_no_token(client: httpx.AsyncClient) -> None:
    for path in ("/openapi.json", "/docs", "/problems", "/problems/not-found"):
        assert (await client.get(path)).status_code == 200


async def test_without_a_key_everybody_is_every_user_and_an_operator() -> None:
    transport = httpx.ASGITransport(create_mock_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        for operation in OPERATIONS:
            assert (await ask(client, operation, None)).status_code == operation.examples[0].status


def limited(**settings: Any) -> httpx.AsyncClient:
    app = create_mock_app(ApiSettings(token_secret=SECRET, **settings))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")


async def test_a_user_who_asks_too_often_is_told_to_wait() -> None:
    (balance,) = [operation for operation in OPERATIONS if operation.operation_id == "get_balance"]
    async with limited(user_rate=1, user_burst=3, address_rate=0) as client:
        statuses = [(await ask(client, balance, token())).status_code for _ in range(3)]
        refused = await ask(client, balance, token(exp=int(time.time()) + 2 * HOUR_S))
        assert statuses == [200] * 3
        assert problem(refused) == "too-many-requests"
        assert int(refused.headers["retry-after"]) >= 1
        assert (await ask(client, balance, operator())).status_code == 200
        jun = await ask(client, balance, token(sub="jun"), path_params={"user_id": "jun"})
        assert jun.status_code == 200


async def test_an_address_without_a_token_is_counted_and_its_users_are_not_held_liable() -> None:
    async with limited(user_rate=0, address_rate=1, address_burst=3) as client:
        assert [(await client.get("/v1/policies")).status_code for _ in range(4)] == [200, 200, 200, 429]
        for _ in range(5):
            # Whether this token is good is not looked at any more.
            unknown = await client.get("/v1/users/mina/balance", headers={"Authorization": token()})
            assert problem(unknown) == "too-many-requests"
        assert (await client.get("/livez")).status_code == 200
    async with limited(user_rate=0, address_rate=1, address_burst=3) as client:
        mina = {"Authorization": token()}
        assert (await client.get("/v1/users/mina/balance", headers=mina)).status_code == 200
        bad = {"Authorization": token("another-secret-of-these-tests-long-enough")}
        statuses = [(await client.get("/v1/users/mina/balance", headers=bad)).status_code for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        for path in ("/v1/users/mina/balance", "/v1/policies"):
            assert (await client.get(path, headers=mina)).status_code == 200


async def test_addresses_behind_a_trusted_proxy_are_told_apart() -> None:
    async with limited(user_rate=0, address_rate=1, address_burst=1, trusted_proxies="127.0.0.0/8") as client:
        for number in range(5):
            headers = {"X-Forwarded-For": f"1.2.3.4, 198.51.100.{number}"}
            assert (await client.get("/v1/policies", headers=headers)).status_code == 200
        spoofed = {"X-Forwarded-For": "9.9.9.9, 198.51.100.0"}
        assert (await client.get("/v1/policies", headers=spoofed)).status_code == 429
