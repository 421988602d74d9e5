"""What every answer keeps to: entity tags, methods, foreign origins, protective headers, and how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import msgspec
import pytest

from api.asgi import Answer, Application, Call, Surface
from api.documents import document_routes
from api.mock import create_mock_app
from api.openapi import openapi_document
from api.operations import OPERATIONS, Operation
from api.settings import ApiSettings
from tests.contract.specification import SpecValidator

VALIDATOR: Final = SpecValidator(openapi_document())
SHOP: Final = "https://shop.example"
EXPOSED: Final = "Location, ETag, Retry-After, Idempotent-Replayed, Preference-Applied"
POLLED: Final = ["list_products", "get_product", "list_best_sellers", "list_campaigns", "get_campaign"]


def path_of(operation: Operation) -> str:
    return operation.path.format(**operation.examples[0].path_params)


def named(operation_id: str) -> Operation:
    return next(operation for operation in OPERATIONS if operation.operation_id == operation_id)


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_mock_app(ApiSettings(cors_origins=SHOP))) as client:
        yield client


def test_what_is_polled_is_conditional_and_nothing_that_belongs_to_somebody() -> None:
    assert [operation.operation_id for operation in OPERATIONS if operation.conditional] == POLLED
    assert {named(operation_id).security for operation_id in POLLED} == {"none"}


@pytest.mark.parametrize("operation_id", POLLED)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_has_not_changed_is_not_sent_again(
    client: httpx.AsyncClient, operation_id: str, method: str
) -> None:
    path = path_of(named(operation_id))
    first = await client.request(method, path)
    VALIDATOR.check(first)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    for known in (tag, f'W/{tag}, "other"', "*"):
        again = await client.request(method, path, headers={"If-None-Match": known})
        assert again.status_code == 304
        assert VALIDATOR.check(again) is None
        assert (again.headers["etag"], again.headers["cache-control"]) == (tag, "no-cache")
        assert "content-length" not in again.headers
    changed = await client.request(method, path, headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200
    VALIDATOR.check(changed)


async def test_a_problem_has_no_entity_tag(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/products/x", headers={"If-None-Match": "*", "Prefer": "code=404"})
    assert answer.status_code == 404
    assert "etag" not in answer.headers


async def test_what_belongs_to_somebody_is_never_kept(client: httpx.AsyncClient) -> None:
    for operation in OPERATIONS:
        if not operation.conditional and operation.method == "GET":
            answer = await client.get(path_of(operation))
            assert answer.headers["cache-control"] == "no-store"
            assert "etag" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/v1/policies", "/nowhere", "/docs", "/problems", "/openapi.json", "/v1/products?x=1"]
)
async def test_every_answer_can_be_followed_and_says_what_it_is(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"X-Request-Id": "edge-1", "Origin": SHOP, "Accept": "*/*"})
    for name, value in (
        ("x-request-id", "edge-1"),
        ("x-content-type-options", "nosniff"),
        ("access-control-allow-origin", SHOP),
        ("access-control-expose-headers", EXPOSED),
    ):
        assert answer.headers.get_list(name) == [value]
    assert "Origin" in answer.headers["vary"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/users/mina/balance/charges", {}, 204),
        ("/admin/v1/status", {}, 204),
        ("/openapi.json", {}, 204),
        ("/v1/users/mina/balance", {"Origin": "https://elsewhere.example"}, 204),
        ("/nowhere", {}, 404),
    ],
)
async def test_a_browser_may_ask_before_it_asks_without_a_token(
    path: str, headers: dict[str, str], status: int
) -> None:
    key = "the-secret-of-these-tests-is-long-enough"
    async with client_of(create_mock_app(ApiSettings(cors_origins=SHOP, token_secret=key))) as client:
        asked = {"Origin": SHOP, "Access-Control-Request-Method": "POST", **headers}
        answer = await client.options(path, headers=asked)
        refused = await client.get("/v1/users/mina/balance", headers={"Origin": SHOP})
    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (SHOP if not headers else None)
    assert answer.headers.get_list("vary") == ["Origin"]
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == SHOP


async def test_an_origin_that_is_not_listed_reads_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/policies", headers={"Origin": "https://elsewhere.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("headers", [{}, {"Origin": SHOP}, {"Origin": SHOP, "Access-Control-Request-Method": "GET"}])
async def test_without_origins_options_is_a_method_like_others_that_are_not_there(headers: dict[str, str]) -> None:
    async with client_of(create_mock_app()) as client:
        answer = await client.options("/v1/policies", headers=headers)
    VALIDATOR.check(answer)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert "vary" not in answer.headers


async def test_past_the_limit_of_requests_under_way_the_next_is_refused_at_once() -> None:
    go_on = asyncio.Event()
    both_entered = asyncio.Barrier(3)

    async def wait(call: Call[Any, Any]) -> Answer:
        if not go_on.is_set() and call.operation.operation_id != "get_livez":
            await both_entered.wait()
        if call.operation.operation_id != "get_livez":
            await go_on.wait()
        return Answer(200, b'{"alive":true}')

    surface = Surface({operation.operation_id: wait for operation in OPERATIONS}, in_flight_max=2)
    async with client_of(Application(surface, routes=document_routes())) as client:
        under_way = [asyncio.create_task(client.get("/v1/policies")) for _ in range(2)]
        async with asyncio.timeout(20):
            await both_entered.wait()
            refused = await client.get("/v1/policies")
            alive = await client.get("/livez")
            go_on.set()
            assert [(await answer).status_code for answer in under_way] == [200, 200]
            assert (await client.get("/v1/policies")).status_code == 200
    VALIDATOR.check(refused)
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/overloaded")
    assert refused.headers["retry-after"] == "1"
    assert alive.status_code == 200


@pytest.mark.parametrize("text", ["{", "[", '{"a":[', '{"a\\"b":{'])
async def test_a_body_is_not_followed_deeper_than_anything_that_is_taken(client: httpx.AsyncClient, text: str) -> None:
    charge = named("charge_balance")
    for repeats in (40, 5_000):
        answer = await client.post(
            path_of(charge), content=text.encode() * repeats, headers={"Content-Type": "application/json"}
        )
        VALIDATOR.check(answer)
        assert answer.json()["type"] == "/problems/malformed-body"


@pytest.mark.parametrize("text", ["[" * 40, '"[[[[', '\\"[' * 20, "]" * 40])
async def test_brackets_in_a_text_are_no_depth(client: httpx.AsyncClient, text: str) -> None:
    body = msgspec.json.encode({"amount": text})
    charge = named("charge_balance")
    answer = await client.post(path_of(charge), content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["type"] == "/problems/invalid-request"


async def test_a_body_of_quotes_is_refused_without_long_thought(client: httpx.AsyncClient) -> None:
    charge = named("charge_balance")
    for text in ('["' + '\\"' * 30_000, "[" + '"\\' * 30_000, '["' * 30_000):
        answer = await client.post(path_of(charge), content=text.encode(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 400


@pytest.mark.parametrize("number", ["1e400", "-1E+400", "1" + 5_000 * "0", "-" + 400 * "9"])
async def test_a_number_too_large_for_anything_is_json_and_out_of_range(client: httpx.AsyncClient, number: str) -> None:
    charge = named("charge_balance")

    async def problem(body: str) -> dict[str, Any]:
        answer = await client.post(path_of(charge), content=body, headers={"Content-Type": "application/json"})
        VALIDATOR.check(answer)
        found: dict[str, Any] = answer.json()
        return found

    refused = await problem(f'{{"amount":{number}}}')
    assert (refused["type"], refused["errors"][0]["location"]) == ("/problems/invalid-request", "body.amount")
    for otherwise in (
        f'{{"amount":{number}',
        f'{{"amount":{number},"a":NaN}}',
        f'{{"amount":{number},"a":1,"a":1}}',
        f'{{"amount":{number},"a":{40 * "["}{40 * "]"}}}',
    ):
        assert (await problem(otherwise))["type"] == "/problems/malformed-body"
