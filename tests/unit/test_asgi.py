"""The ASGI adapter: what it lets through to a handler, and what it answers itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec
import pytest
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems, schemas
from api.asgi import Answer, Application, Call, Count, Surface, location
from api.operations import OPERATIONS, Operation
from api.problems import Problem, ProblemType
from api.request_headers import Preferences

CHARGES: Final = "/v1/users/mina/balance/charges"
PAYMENT: Final = "/v1/users/mina/orders/o1/payment"
JSON: Final = {"content-type": "application/json"}

Respond = Callable[[Call[Any, Any]], Awaitable[Answer]]


class Overdrawn(Exception):
    """An error of a layer below."""


@dataclass
class Recorder:
    """A surface whose every operation records its call and answers with what `respond` gives."""

    calls: list[Call[Any, Any]]
    observed: list[tuple[str, int]]
    app: Surface

    @property
    def call(self) -> Call[Any, Any]:
        return self.calls[-1]

    def client(self, app: ASGIApp | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=app or self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://shop")


def recorder(respond: Respond | None = None, **arguments: Any) -> Recorder:
    async def nothing(_: Call[Any, Any]) -> Answer:
        return Answer(200, b"{}")

    calls: list[Call[Any, Any]] = []
    observed: list[tuple[str, int]] = []

    async def handle(call: Call[Any, Any]) -> Answer:
        calls.append(call)
        return await (respond or nothing)(call)

    def counter_for(operation: Operation | None) -> Count:
        def count(status: int, kind: ProblemType | None, took_ns: int) -> None:
            assert took_ns >= 0
            observed.append(("none" if operation is None else operation.operation_id, status))

        return count

    def translate(error: Exception) -> Problem | None:
        return Problem(problems.OVERLOADED, "later") if isinstance(error, Overdrawn) else None

    app = Surface(
        {operation.operation_id: handle for operation in OPERATIONS},
        translate=translate,
        counter_for=counter_for,
        **arguments,
    )
    return Recorder(calls, observed, app)


def problem_name(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    return str(body["type"].removeprefix("/problems/"))


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_valid_request_reaches_its_handler_decoded() -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.post(
            "/v1/users/auth0%7C1/orders",
            json={"lines": [{"product_id": "shirt", "stock_id": "M", "quantity": 2}], "coupon_id": None},
            headers={"Idempotency-Key": "k-1", "Prefer": "durable, wait=3", "X-Trace": "a"},
        )
    assert response.status_code == 200
    call = shop.call
    assert call.operation.operation_id == "place_order"
    assert call.path_params == {"user_id": "auth0|1"}
    assert call.body == schemas.OrderRequest(
        lines=[schemas.OrderLineRequest(product_id="shirt", stock_id="M", quantity=2)]
    )
    assert call.query == schemas.NoQuery()
    assert call.idempotency_key == "k-1"
    assert call.prefer == Preferences(durable=True, wait_seconds=3)
    assert call.headers[b"x-trace"] == b"a"


async def test_an_answer_carries_its_body_length_and_headers() -> None:
    balance = schemas.Balance(user_id="mina", balance=5, currency="KRW")

    async def respond(_: Call[Any, Any]) -> Answer:
        return Answer(201, balance, (location("/v1/users/auth0|1/orders/7"),))

    shop = recorder(respond)
    async with shop.client() as client:
        response = await client.get("/v1/users/mina/balance")
    assert response.status_code == 201
    assert response.json() == {"user_id": "mina", "balance": 5, "currency": "KRW"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))
    assert response.headers["location"] == "/v1/users/auth0%7C1/orders/7"
    assert response.headers["cache-control"] == "no-store"


async def test_each_answer_has_a_request_id_of_its_own() -> None:
    shop = recorder()
    async with shop.client() as client:
        ids = {(await client.get("/v1/policies")).headers["x-request-id"] for _ in range(10)}
        ids.add((await client.get("/nowhere")).headers["x-request-id"])
    assert len(ids) == 11


async def test_a_sane_request_id_is_kept() -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.get("/v1/policies", headers={"X-Request-Id": "edge-42:a"})
    assert response.headers["x-request-id"] == "edge-42:a"
    assert shop.call.request_id == "edge-42:a"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"b', "a\tb"])
async def test_an_odd_request_id_is_replaced(given: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.get("/v1/policies", headers={"X-Request-Id": given})
    assert response.headers["x-request-id"] not in ("", given)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/users/mina", "/v1/products/", "/v1//balance", "/v2/products", "/v1/users//balance"]
)
async def test_an_unknown_address_is_not_found(path: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.get(path)
    assert problem_name(response) == "not-found"
    assert response.status_code == 404
    assert response.json()["detail"] == "There is nothing at this address. See /docs."
    assert not shop.calls


@pytest.mark.parametrize("segment", ["%2E", "%2E%2E"])
async def test_a_dot_segment_is_no_id(segment: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.get(f"/v1/users/{segment}/balance")
    assert problem_name(response) == "invalid-request"
    assert not shop.calls


async def test_a_wrong_method_is_told_the_right_ones() -> None:
    shop = recorder()
    async with shop.client() as client:
        read = await client.delete("/v1/products")
        both = await client.put("/v1/users/mina/orders")
    assert problem_name(read) == "method-not-allowed"
    assert read.headers["allow"] == "GET, HEAD"
    assert both.headers["allow"] == "GET, HEAD, POST"
    assert not shop.calls


async def test_head_answers_as_get_without_the_body() -> None:
    shop = recorder()
    async with shop.client() as client:
        head = await client.head("/v1/policies")
        missing = await client.head("/nowhere")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == "2"
    assert missing.status_code == 404
    assert missing.content == b""


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "text/html, application/*;q=0.1", "APPLICATION/JSON", ""]
)
async def test_json_is_acceptable(accept: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        assert (await client.get("/v1/policies", headers={"Accept": accept})).status_code == 200


@pytest.mark.parametrize(
    "accept", ["text/html", "application/xml, text/*", "application/json;q=0, */*", "*/*;q=0.000", "x" * 500]
)
async def test_what_is_not_json_is_not_acceptable(accept: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.get("/v1/policies", headers={"Accept": accept})
    assert problem_name(response) == "not-acceptable"
    assert not shop.calls


@pytest.mark.parametrize("user", ["a b", "a%2Cb", "%ED%95%9C", "x" * 65, "a%0A", "a:b", "%00"])
async def test_an_id_of_another_shape_is_an_invalid_request(user: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.get(f"/v1/users/{user}/balance")
    assert problem_name(response) == "invalid-request"
    assert response.json()["errors"][0]["location"] == "path.user_id"
    assert not shop.calls


async def test_query_parameters_reach_the_handler_with_their_defaults() -> None:
    shop = recorder()
    async with shop.client() as client:
        await client.get("/v1/best-sellers?limit=50")
        assert shop.call.query == schemas.BestSellersQuery(days=3, limit=50)
        await client.get("/v1/users/mina/orders?after=17:3-1042&cursor=abc_=-")
        assert shop.call.query == schemas.HistoryQuery(limit=20, cursor="abc_=-", after="17:3-1042")


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("limit=0", "query.limit"),
        ("limit=51", "query.limit"),
        ("limit=-1", "query.limit"),
        ("limit=", "query.limit"),
        ("limit=1.0", "query.limit"),
        ("limit=%D9%A1", "query.limit"),
        ("limit=" + "9" * 40, "query.limit"),
        ("days=8", "query.days"),
        ("days=3&days=3", "query.days"),
        ("colour=red", "query"),
        ("days=%ff", "query"),
        ("&".join(f"a{n}=1" for n in range(30)), "query"),
    ],
)
async def test_a_wrong_query_is_an_invalid_request(query: str, where: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.get(f"/v1/best-sellers?{query}")
    assert problem_name(response) == "invalid-request"
    assert response.json()["errors"][0]["location"] == where
    assert not shop.calls


@pytest.mark.parametrize("key", ["x" * 256, "two words", "tab\tbed"])
async def test_an_idempotency_key_that_is_not_visible_characters_is_refused(key: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.post(CHARGES, json={"amount": 1}, headers={"Idempotency-Key": key})
    assert problem_name(response) == "invalid-request"
    assert response.json()["errors"][0]["location"] == "header.Idempotency-Key"


async def test_two_idempotency_keys_are_refused() -> None:
    shop = recorder()
    async with shop.client() as client:
        headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        response = await client.post(CHARGES, json={"amount": 1}, headers=headers)
    assert problem_name(response) == "invalid-request"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("durable", Preferences(durable=True)),
        ("durable; wait=5", Preferences(durable=True, wait_seconds=5)),
        ("wait=99, durable", Preferences(durable=True, wait_seconds=10)),
        ("wait=0", Preferences(wait_seconds=0)),
        ("wait=-1, wait=4", Preferences()),
        ("respond-async, Durable", Preferences(durable=True)),
        ('code=409, example="sold-out"', Preferences(code=409, example="sold-out")),
        ("wait=abc, code=", Preferences()),
    ],
)
async def test_preferences_are_read_and_what_is_not_understood_is_ignored(header: str, expected: Preferences) -> None:
    shop = recorder()
    async with shop.client() as client:
        await client.get("/v1/policies", headers={"Prefer": header})
    assert shop.call.prefer == expected


async def test_a_body_in_pieces_is_put_together() -> None:
    shop = recorder()
    async with shop.client() as client:
        await client.post(CHARGES, content=chunks(b'{"am', b'ount":', b" 7}"), headers=JSON)
    assert shop.call.body == schemas.ChargeRequest(amount=7)


async def test_a_body_is_counted_as_it_comes() -> None:
    shop = recorder()
    received = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal received
        while True:
            received += 1
            yield b" " * 1024

    async with shop.client() as client:
        response = await client.post(CHARGES, content=endless(), headers=JSON)
    assert problem_name(response) == "body-too-large"
    assert response.status_code == 413
    assert response.json()["limit"] == 65_536
    assert response.headers["connection"] == "close"
    assert received <= 66
    assert not shop.calls


@pytest.mark.parametrize(("size", "status"), [(65_536, 200), (65_537, 413)])
async def test_a_body_may_have_64_kib(size: int, status: int) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.post(CHARGES, content=b'{"amount":1}'.ljust(size), headers=JSON)
    assert response.status_code == status


async def test_a_body_announced_as_too_large_is_not_read() -> None:
    async def receive() -> Message:
        raise AssertionError("nothing is to be read")

    sent = await exchange(recorder().app, receive, headers=[(b"content-length", b"65537")])
    assert sent[0]["status"] == 413


async def test_a_wrong_announcement_of_the_length_is_not_trusted() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b" " * 40_000, "more_body": True}

    sent = await exchange(recorder().app, receive, headers=[(b"content-length", b"10")])
    assert sent[0]["status"] == 413


async def test_a_body_that_does_not_arrive_is_a_timeout() -> None:
    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("it never comes")

    sent = await exchange(recorder(body_seconds_max=0.01).app, receive)
    assert sent[0]["status"] == 408
    assert msgspec.json.decode(sent[1]["body"])["retryable"] is True
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_body_that_trickles_is_a_timeout() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0.005)
        return {"type": "http.request", "body": b" ", "more_body": True}

    sent = await exchange(recorder(body_seconds_max=0.05).app, receive)
    assert sent[0]["status"] == 408


async def test_a_body_that_comes_later_is_waited_for() -> None:
    arrived = asyncio.Event()

    async def receive() -> Message:
        await arrived.wait()
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b'{"amount":3}', "more_body": False}

    shop = recorder()
    exchanging = asyncio.create_task(exchange(shop.app, receive, headers=[(b"content-type", b"application/json")]))
    await asyncio.sleep(0)
    arrived.set()
    assert (await exchanging)[0]["status"] == 200
    assert shop.call.body == schemas.ChargeRequest(amount=3)


async def test_a_receive_that_is_no_coroutine_is_awaited() -> None:
    def receive() -> Awaitable[Message]:
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        future.set_result({"type": "http.request", "body": b'{"amount":3}', "more_body": False})
        return future

    sent = await exchange(recorder().app, receive, headers=[(b"content-type", b"application/json")])
    assert sent[0]["status"] == 200


async def test_a_cancelled_request_is_cancelled_while_its_body_is_awaited() -> None:
    released = False

    async def receive() -> Message:
        nonlocal released
        try:
            await asyncio.Event().wait()
        finally:
            released = True
        raise AssertionError("it never comes")

    exchanging = asyncio.create_task(exchange(recorder().app, receive))
    await asyncio.sleep(0)
    exchanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchanging
    assert released


@pytest.mark.parametrize("after", [0, 1])
async def test_a_client_that_leaves_before_its_body_is_complete_is_not_answered(after: int) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    del messages[: 1 - after]

    async def receive() -> Message:
        return messages.pop(0)

    shop = recorder()
    assert await exchange(shop.app, receive) == []
    assert not shop.calls


async def test_a_client_that_leaves_before_its_answer_harms_nobody() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Message) -> None:
        raise OSError("the client has gone")

    shop = recorder()
    await shop.app(scope(PAYMENT), receive, send)
    assert len(shop.calls) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=euc-kr"},
        {"content-type": "application/jsonp"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_a_body_that_is_not_declared_as_json_is_unsupported(headers: dict[str, str]) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.post(CHARGES, content=b'{"amount":1}', headers=headers)
    assert problem_name(response) == "unsupported-media-type"
    assert response.status_code == 415
    assert not shop.calls


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
async def test_json_is_supported(content_type: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.post(CHARGES, content=b'{"amount":1}', headers={"content-type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize("content", [b"", b"{}", b" { } "])
async def test_an_optional_body_may_be_empty(content: bytes) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.post(PAYMENT, content=content, headers=JSON if content else {})
    assert response.status_code == 200
    assert shop.call.body == (schemas.NothingRequest() if content else None)
    assert shop.call.repeatable


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"amount=1",
        b'{"amount":NaN}',
        b'{"amount":Infinity}',
        b'{"amount":01}',
        b'{"amount":1}}',
        b"{'amount':1}",
        b'{"amount":1,}',
        b'{"amount":1,"amount":2}',
        b'{"amount":1,"\\u0061mount":2}',
        b'{"amount":"\xff"}',
        b'{"\xff":1}',
        b'\xef\xbb\xbf{"amount":1}',
        b'{"amount":"x", nonsense}',
        b'{"other":NaN}',
        b"[" * 60_000,
        b'{"amount":' * 6_000,
    ],
)
async def test_what_is_not_json_is_malformed(content: bytes) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.post(CHARGES, content=content, headers=JSON)
    assert problem_name(response) == "malformed-body"
    assert response.status_code == 400
    assert not shop.calls


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'{"amount":"1"}', "body.amount"),
        (b'{"amount":1.0}', "body.amount"),
        (b'{"amount":1e3}', "body.amount"),
        (b'{"amount":true}', "body.amount"),
        (b'{"amount":null}', "body.amount"),
        (b'{"amount":9007199254740992}', "body.amount"),
        (b'{"amount":-9007199254740992}', "body.amount"),
        (b'{"amount":1' + b"0" * 400 + b"}", "body.amount"),
        (b'{"amount":1,"note":"x"}', "body"),
        (b"{}", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b'{"amount":1,"' + b"x" * 5_000 + b'":1}', "body"),
    ],
)
async def test_json_of_other_types_is_an_invalid_request(content: bytes, where: str) -> None:
    shop = recorder()
    async with shop.client() as client:
        response = await client.post(CHARGES, content=content, headers=JSON)
    assert problem_name(response) == "invalid-request"
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["location"] == where
    assert len(error["message"]) < 400
    assert not shop.calls


async def test_an_error_deep_in_the_body_is_located() -> None:
    shop = recorder()
    body = {"lines": [{"product_id": "a", "quantity": 1}, {"product_id": "a b", "quantity": 1}]}
    async with shop.client() as client:
        response = await client.post("/v1/users/mina/orders", json=body)
    (error,) = response.json()["errors"]
    assert error["location"] == "body.lines[1].product_id"
    assert error["message"] == "Expected only the characters A-Z a-z 0-9 . _ ~ @ | -, not a space"


async def test_a_refusal_is_answered_as_its_problem() -> None:
    async def respond(_: Call[Any, Any]) -> Answer:
        raise Problem(problems.RECOVERING, "one moment", headers={"Retry-After": "7"})

    shop = recorder(respond)
    async with shop.client() as client:
        response = await client.get("/v1/policies")
    assert problem_name(response) == "recovering"
    assert response.headers["retry-after"] == "7"
    assert shop.observed == [("get_policies", 503)]


async def test_an_error_of_the_layers_below_is_translated() -> None:
    async def respond(_: Call[Any, Any]) -> Answer:
        raise Overdrawn

    shop = recorder(respond)
    async with shop.client() as client:
        assert problem_name(await client.get("/v1/policies")) == "overloaded"


async def test_an_unexpected_error_is_a_plain_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def respond(_: Call[Any, Any]) -> Answer:
        raise RuntimeError("a secret")

    shop = recorder(respond)
    async with shop.client() as client:
        with caplog.at_level(logging.ERROR):
            response = await client.post(CHARGES, json={"amount": 1}, headers={"X-Request-Id": "r-7"})
    assert problem_name(response) == "internal-error"
    assert "secret" not in response.text
    assert response.json()["retryable"] is False
    (record,) = caplog.records
    assert "r-7" in record.getMessage()
    assert record.exc_info is not None


async def test_an_answer_that_cannot_be_encoded_is_a_500() -> None:
    async def respond(_: Call[Any, Any]) -> Answer:
        return Answer(200, object())  # type: ignore[arg-type]

    shop = recorder(respond)
    async with shop.client() as client:
        assert problem_name(await client.get("/v1/policies")) == "internal-error"


@pytest.mark.parametrize(
    ("path", "headers", "retryable"),
    [(CHARGES, {}, False), (CHARGES, {"Idempotency-Key": "k"}, True), (PAYMENT, {}, True)],
)
async def test_an_unknown_outcome_is_retryable_where_a_repetition_cannot_act_twice(
    path: str, headers: dict[str, str], retryable: bool
) -> None:
    async def respond(_: Call[Any, Any]) -> Answer:
        raise Problem(problems.OUTCOME_UNKNOWN, "no answer", order_id=None)

    shop = recorder(respond)
    async with shop.client() as client:
        response = await client.post(path, headers=headers, json={"amount": 1} if path == CHARGES else {})
    assert response.json()["retryable"] is retryable
    assert response.json()["order_id"] is None


async def test_admission_comes_before_every_other_check() -> None:
    def admit(call: Call[Any, Any]) -> None:
        raise Problem(problems.NOT_AUTHENTICATED, f"not {call.path_params['user_id']}")

    shop = recorder(admit=admit)
    async with shop.client() as client:
        response = await client.post("/v1/users/a b/balance/charges", headers={"Accept": "text/html"})
    assert problem_name(response) == "not-authenticated"
    assert response.headers["www-authenticate"] == "Bearer"
    assert not shop.calls


async def test_the_path_below_a_root_is_served() -> None:
    shop = recorder()
    transport = httpx.ASGITransport(app=shop.app, root_path="/shop")
    async with httpx.AsyncClient(transport=transport, base_url="http://h") as client:
        assert (await client.get("/shop/v1/policies")).status_code == 200


def test_every_operation_needs_a_handler() -> None:
    async def handle(_: Call[Any, Any]) -> Answer:
        return Answer(200, b"{}")

    handlers = {operation.operation_id: handle for operation in OPERATIONS}
    del handlers["checkout"]
    handlers["dance"] = handle
    with pytest.raises(ValueError, match=r"without a handler: \['checkout'\].*without an operation: \['dance'\]"):
        Surface(handlers)


def test_an_address_stands_in_the_table_once() -> None:
    async def handle(_: Call[Any, Any]) -> Answer:
        return Answer(200, b"{}")

    twice = (OPERATIONS[0], OPERATIONS[0])
    with pytest.raises(ValueError, match="twice"):
        Surface({OPERATIONS[0].operation_id: handle}, operations=twice)


async def test_an_application_serves_other_routes_and_refuses_with_problems() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    class Page:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await page(scope, receive, send)

    shop = recorder()
    app = Application(shop.app, routes=[Route("/page", Page(), methods=["GET"])])
    async with shop.client(app) as client:
        assert (await client.get("/page")).text == "hello"
        assert (await client.get("/v1/policies")).status_code == 200
        nowhere = await client.get("/nowhere")
        refused = await client.post("/page")
    assert problem_name(nowhere) == "not-found"
    assert nowhere.json()["detail"] == "There is nothing at this address. See /docs."
    assert problem_name(refused) == "method-not-allowed"
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


def scope(path: str = CHARGES, headers: list[tuple[bytes, bytes]] | None = None) -> Scope:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": headers or [],
    }


async def exchange(
    app: ASGIApp, receive: Callable[[], Awaitable[Message]], headers: list[tuple[bytes, bytes]] | None = None
) -> list[Any]:
    """The messages that an application sends for one request."""
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope(headers=headers), receive, send)
    return sent
