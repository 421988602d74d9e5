"""What is wrong with a request, in words: each text names the fault, and what is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
from msgspec.inspect import ListType, Metadata, StrType, StructType, UnionType, type_info

from api.asgi import Answer, Call, Surface
from api.operations import OPERATIONS
from api.problems import INVALID_REQUEST
from api.request_faults import wrong_form
from api.retrying import what_to_do

CHARGES: Final = "/v1/users/mina/balance/charges"
ORDERS: Final = "/v1/users/mina/orders"
CANCELLATION: Final = f"{ORDERS}/o-1/cancellation"
COUPONS: Final = "/v1/users/mina/coupons"
PRODUCT: Final = "/admin/v1/products/tea"
CAMPAIGN: Final = "/admin/v1/campaigns/spring"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a surface on which whatever is valid succeeds."""

    async def nothing(_: Call[Any, Any]) -> Answer:
        return Answer(200, b"{}")

    surface = Surface({operation.operation_id: nothing for operation in OPERATIONS})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=surface), base_url="http://shop") as client:
        yield client


def told(response: httpx.Response, status: int) -> str:
    """The detail of a refusal with this status; what `errors` say is the same."""
    problem = response.json()
    assert response.status_code == status, problem
    for error in problem.get("errors", ()):
        assert problem["detail"] == f"{error['location']}: {error['message']}"
    return str(problem["detail"])


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "The header Content-Type is missing; send `application/json`."),
        ({"Content-Type": "  "}, "The header Content-Type is missing; send `application/json`."),
        ({"Content-Type": "text/plain"}, "The header Content-Type is `text/plain`; send `application/json`."),
        (
            {"Content-Type": "application/json; charset=utf-16"},
            "The header Content-Type is `application/json; charset=utf-16`; "
            "send the body in UTF-8, and `application/json` alone.",
        ),
        (
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
            "The header Content-Encoding is `gzip`; send the body as it is, without it.",
        ),
        (
            {"Content-Type": "text/plain", "Content-Encoding": "br"},
            "The header Content-Type is `text/plain`; send `application/json`. "
            "The header Content-Encoding is `br`; send the body as it is, without it.",
        ),
        ({"Content-Type": b"te`xt\xff\x1b"}, "The header Content-Type is `te?xt??`; send `application/json`."),
        (
            {"Content-Type": "x" * 5_000},
            f"The header Content-Type is `{'x' * 100}...`; send `application/json`.",
        ),
    ],
)
async def test_a_body_that_is_not_declared_as_json_is_told_which_header_is_wrong(
    client: httpx.AsyncClient, headers: dict[str, Any], detail: str
) -> None:
    assert told(await client.post(CHARGES, content=b'{"amount":1}', headers=headers), 415) == detail


@pytest.mark.parametrize(
    ("content", "byte", "value"),
    [
        (b'{"\xff":1}', 2, "0xff"),
        (b'{"amount":"\xff"}', 11, "0xff"),
        ('{"한":"'.encode() + b'\xed\xa0\x80"}', 8, "0xed"),
        (b'{"amount":1,"note":"abc\xc3"}', 23, "0xc3"),
    ],
)
async def test_what_is_not_utf8_is_told_the_byte_of_the_whole_body(
    client: httpx.AsyncClient, content: bytes, byte: int, value: str
) -> None:
    response = await client.post(CHARGES, content=content, headers={"Content-Type": "application/json"})
    assert told(response, 400) == f"The body is not JSON: it is not UTF-8 (byte {byte} is {value})."


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("POST", CHARGES, {"amount": "1"}, "body.amount: Expected `integer`, got `string`"),
        ("POST", CHARGES, {"amount": 1.5}, "body.amount: Expected `integer`, got `number`"),
        ("POST", CHARGES, {"amount": True}, "body.amount: Expected `integer`, got `boolean`"),
        ("POST", CHARGES, {"amount": None}, "body.amount: Expected `integer`, got `null`"),
        ("POST", CHARGES, {"amount": []}, "body.amount: Expected `integer`, got `array`"),
        ("POST", CHARGES, 1, "body: Expected `object`, got `integer`"),
        ("PUT", PRODUCT, {"name": ""}, "body.name: Expected `string` of length >= 1"),
        ("PUT", PRODUCT, {"price": -1}, "body.price: Expected `integer` >= 0"),
        (
            "PUT",
            CAMPAIGN,
            {"discount": {"kind": "percent", "value": 1, "minimum_order": "1"}},
            "body.discount.minimum_order: Expected `integer | null`, got `string`",
        ),
        # What the client sent is quoted as it came.
        ("POST", CHARGES, {"int": 1}, "body: Unknown member `int`; this object takes `amount`"),
    ],
)
async def test_types_are_called_as_json_calls_them(
    client: httpx.AsyncClient, method: str, path: str, body: Any, detail: str
) -> None:
    assert told(await client.request(method, path, json=body), 422) == detail


@pytest.mark.parametrize(
    ("address", "detail"),
    [
        ("/v1/best-sellers?colour=red", "query: Unknown parameter `colour`; this address takes `days`, `limit`"),
        ("/v1/policies?colour=red", "query: Unknown parameter `colour`; this address takes none"),
        (
            f"/v1/products?{'x' * 200}=1",
            f"query: Unknown parameter `{'x' * 100}...`; this address takes `limit`, `cursor`",
        ),
        ("/v1/products?limit=many", "query.limit: Expected `integer`, got `string`"),
        ("/v1/products?limit=0&colour=red", "query.limit: Expected `integer` >= 1"),
    ],
)
async def test_a_wrong_query_is_told_what_the_address_takes(
    client: httpx.AsyncClient, address: str, detail: str
) -> None:
    assert told(await client.get(address), 422) == detail


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("POST", CANCELLATION, {"why": 1}, "body: Unknown member `why`; this object takes none"),
        (
            "POST",
            ORDERS,
            {"lines": [{"product_id": "tea", "quantity": 1}, {"sku": "tea"}]},
            "body.lines[1]: Unknown member `sku`; this object takes `product_id`, `stock_id`, `quantity`",
        ),
        (
            "PUT",
            CAMPAIGN,
            {"discount": {"kid": "percent"}},
            "body.discount: Unknown member `kid`; this object takes `kind`, `value`, `minimum_order`, "
            "`maximum_discount`",
        ),
        ("POST", CHARGES, {"x" * 200: 1}, f"body: Unknown member `{'x' * 100}...`; this object takes `amount`"),
        # A name that reads like the decoder's own words for a place leads nowhere.
        ("POST", ORDERS, {"a - at `$.b": 1}, "body.b: Object contains unknown field `a"),
        (
            "POST",
            ORDERS,
            {f"a` - at `$[{'1' * 5_000}]": 1},
            f"body: Unknown member `a` - at `$[{'1' * 89}...`; this object takes `lines`, `coupon_id`",
        ),
    ],
)
async def test_an_unknown_member_is_told_where_it_stands_and_what_is_taken_there(
    client: httpx.AsyncClient, method: str, path: str, body: Any, detail: str
) -> None:
    assert told(await client.request(method, path, json=body), 422) == detail


@pytest.mark.parametrize(
    ("method", "address", "body", "detail"),
    [
        ("GET", "/v1/campaigns?state=nope", None, "query.state: Expected `closed`, `open` or `upcoming`, got `nope`"),
        ("GET", "/v1/users/mina/coupons?state=1", None, "query.state: Expected `invalid` or `valid`, got `1`"),
        (
            "GET",
            "/admin/v1/deliveries?state=",
            None,
            "query.state: Expected `dead`, `delivered` or `pending`, got ``",
        ),
        ("GET", "/admin/v1/alarms?state=new", None, "query.state: Expected `cleared` or `open`, got `new`"),
        (
            "PUT",
            CAMPAIGN,
            {"discount": {"kind": "gift"}},
            "body.discount.kind: Expected `amount` or `percent`, got `gift`",
        ),
        (
            "PUT",
            CAMPAIGN,
            {"discount": {"kind": "x" * 200}},
            f"body.discount.kind: Expected `amount` or `percent`, got `{'x' * 100}...`",
        ),
    ],
)
async def test_a_value_that_is_none_of_those_there_are_is_told_them(
    client: httpx.AsyncClient, method: str, address: str, body: Any, detail: str
) -> None:
    assert told(await client.request(method, address, json=body), 422) == detail


LETTERS: Final = "Expected only the characters A-Z a-z 0-9 . _ ~ @ | -, not "
TIME: Final = "Expected a time in UTC such as 2026-12-01T00:00:00Z or 2026-12-01T00:00:00.000Z, from 1970 on"


@pytest.mark.parametrize(
    ("method", "address", "body", "detail"),
    [
        ("PUT", CAMPAIGN, {"opens_at": "2026-12-01T09:00:00+09:00"}, f"body.opens_at: {TIME}"),
        ("PUT", CAMPAIGN, {"closes_at": "tomorrow"}, f"body.closes_at: {TIME}"),
        ("PUT", CAMPAIGN, {"opens_at": ""}, f"body.opens_at: {TIME}"),
        ("POST", COUPONS, {"campaign_id": "fl ash"}, f"body.campaign_id: {LETTERS}a space"),
        ("POST", COUPONS, {"campaign_id": ".."}, "body.campaign_id: Expected an id, not `.` or `..`"),
        ("POST", ORDERS, {"coupon_id": ""}, "body.coupon_id: Expected 1 to 128 characters, got none"),
        ("POST", ORDERS, {"coupon_id": "x" * 129}, "body.coupon_id: Expected at most 128 characters, got 129"),
        (
            "POST",
            ORDERS,
            {"lines": [{"product_id": "tea", "stock_id": "S,M"}]},
            f"body.lines[0].stock_id: {LETTERS}`,`",
        ),
        ("PUT", PRODUCT, {"name": "Tea\n"}, "body.name: Expected no control character, got U+000A"),
        ("PUT", PRODUCT, {"name": "  "}, "body.name: Expected more than spaces"),
        (
            "GET",
            "/v1/users/mina/orders?after=zzz",
            None,
            "query.after: Expected only the characters 0-9 : , -, not `z`",
        ),
        ("GET", "/v1/products?cursor=%20", None, "query.cursor: Expected the `next_cursor` of the page before"),
        ("GET", "/admin/v1/deliveries?user_id=a%20b", None, f"query.user_id: {LETTERS}a space"),
        ("GET", "/admin/v1/deliveries?order_id=", None, "query.order_id: Expected 1 to 128 characters, got none"),
    ],
)
async def test_a_text_of_another_form_is_told_in_words(
    client: httpx.AsyncClient, method: str, address: str, body: Any, detail: str
) -> None:
    assert told(await client.request(method, address, json=body), 422) == detail


async def test_of_two_faults_the_first_is_told_and_how_to_retry_says_so(client: httpx.AsyncClient) -> None:
    twice = {"lines": [{"product_id": "a b", "quantity": 0}]}
    response = await client.post(ORDERS, json=twice)
    assert told(response, 422).startswith("body.lines[0].product_id: ")
    assert len(response.json()["errors"]) == 1
    assert "the first fault that was found, and more may follow" in what_to_do(INVALID_REQUEST)


def patterns(described: Any) -> set[str]:
    """Every pattern within a type of a request."""
    match described:
        case Metadata(type=inner) | ListType(item_type=inner):
            return patterns(inner)
        case UnionType(types=inner):
            return set().union(*map(patterns, inner))
        case StructType(fields=fields):
            return set().union(*(patterns(field.type) for field in fields))
        case StrType(pattern=str(pattern)):
            return {pattern}
        case _:
            return set()


def test_there_are_words_for_every_pattern_that_a_request_may_fail() -> None:
    requests = {kind for operation in OPERATIONS for kind in (operation.request, operation.query) if kind is not None}
    found = set().union(*(patterns(type_info(kind)) for kind in requests))
    assert len(found) > 4
    assert {pattern for pattern in found if "/openapi.json" in wrong_form(pattern, "a\nb")} == set()


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/v1/users/a%20b/balance", f"path.user_id: {LETTERS}a space"),
        ("/v1/users/a,b/balance", f"path.user_id: {LETTERS}`,`"),
        ("/v1/users/%EA%B0%80/balance", f"path.user_id: {LETTERS}U+AC00"),
        ("/v1/users/a%0A/balance", f"path.user_id: {LETTERS}U+000A"),
        (f"/v1/users/{'x' * 65}/balance", "path.user_id: Expected at most 64 characters, got 65"),
        ("/v1/users/%2E%2E/balance", "path.user_id: Expected an id, not `.` or `..`"),
        ("/v1/positions/now", "path.position: Expected only the characters 0-9 : , -, not `n`"),
    ],
)
async def test_an_id_of_another_shape_is_told_which_rule_it_breaks(
    client: httpx.AsyncClient, path: str, detail: str
) -> None:
    assert told(await client.get(path), 422) == detail
