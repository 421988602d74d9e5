"""Bad input for every operation: the right problem, and nothing changed (R0.8)."""

import itertools
from collections.abc import Iterator
from typing import Any, Final

import httpx
import msgspec
import pytest

from api.operations import OPERATIONS, Operation, PathParameter
from engine.keys import Keys, traffic_key
from engine.partitions import Partitions
from engine.policy import INTEGER_MAX
from engine.traffic import PARTITION as TRAFFIC_PARTITION
from tests.running_shop import PARTITIONS, RunningShop, charge, place, put_campaign, put_product, take_coupon
from tests.servers import Databases, redis_client
from tests.shop_servers import opened_shop

LARGEST: Final = 2**53 - 1
BAD_IDS: Final = [
    "%20",
    "a%20b",
    "%00",
    "a%0Ab",
    "%EA%B0%80",
    "a,b",
    "a:b",
    "%7B1%7D",
    "'--",
    "%22",
    "x" * 200,
    "a%5Cb",
]
BAD_QUERIES: Final = [
    "unknown=1",
    "limit=0",
    "limit=-1",
    "limit=101",
    "limit=1.5",
    "limit=1e1",
    "limit=",
    "limit=9999999999999999999",
    "limit=%EF%BC%91",
    "limit=1&limit=2",
    "cursor=%20",
    "cursor=",
    "cursor=" + "a" * 513,
    "state=sleeping",
    "days=8",
    "after=now",
    "after=0:1-1;DROP",
    "%FF=1",
    "&".join(f"a{number}=1" for number in range(30)),
]
NOT_JSON: Final = [
    b"{",
    b"nonsense",
    b"{'amount': 1}",
    b'{"amount": NaN}',
    b'{"amount": Infinity}',
    b'{"amount": 01}',
    b'{"amount": 1}}',
    b'{"amount": 1, "amount": 2}',
    b'{"a": "\xff"}',
    b'{"a": "\\ud800"}',
    b"\xef\xbb\xbf{}",
    b"[" * 10_000,
]
WRONG_SHAPES: Final[list[Any]] = [None, [], "text", 1, True, [{}], {"unknown": 1}]
WRONG_VALUES: Final[dict[str, list[Any]]] = {
    "integer": [None, "1", 1.5, True, [], {}, 2**53, -(2**53), 10**30],
    "string": [None, 1, True, [], {}, "", " ", "a b", "\u0000", "line\nfeed", "x" * 300],
}

USER, PRODUCT, STOCK, CAMPAIGN = "mina", "tea", "S", "spring"
BODIES: Final[dict[str, dict[str, Any]]] = {
    "charge_balance": {"amount": 5},
    "place_order": {"lines": [{"product_id": PRODUCT, "stock_id": STOCK, "quantity": 1}], "coupon_id": None},
    "checkout": {"lines": [{"product_id": PRODUCT, "stock_id": STOCK, "quantity": 1}], "coupon_id": None},
    "issue_coupon": {"campaign_id": CAMPAIGN},
    "put_product": {
        "name": "Tea",
        "price": 10,
        "stock": [{"stock_id": STOCK, "option": "small", "initial_quantity": 1}],
    },
    "adjust_stock": {"delta": 1, "reason": "count"},
    "put_campaign": {
        "name": "Spring",
        "discount": {"kind": "percent", "value": 10, "minimum_order": 1, "maximum_discount": 1},
        "quantity": 10,
        "opens_at": "2026-01-01T00:00:00.000Z",
        "closes_at": "2026-02-01T00:00:00.000Z",
        "valid_days": 7,
    },
    "pay_order": {},
    "cancel_order": {},
    "replay_delivery": {},
}
BEYOND: Final[dict[str, list[tuple[str, Any]]]] = {
    "charge_balance": [("amount", 0), ("amount", -5), ("amount", 10_000_001)],
    "place_order": [
        ("lines", []),
        ("lines.0.quantity", 0),
        ("lines.0.quantity", -1),
        ("lines.0.quantity", 100_001),
        ("lines.0.product_id", "nobody-knows"),
        ("lines.0.stock_id", "XXL"),
    ],
    "put_product": [("price", -1), ("price", 100_000_001), ("stock", []), ("stock.0.initial_quantity", -1)],
    "adjust_stock": [("delta", 0), ("delta", -LARGEST)],
    "put_campaign": [
        ("quantity", 0),
        ("quantity", -1),
        ("valid_days", 0),
        ("valid_days", 3651),
        ("discount.kind", "gift"),
        ("discount.value", 0),
        ("discount.value", 101),
        ("discount.maximum_discount", 0),
        ("opens_at", "2026-01-01"),
        ("opens_at", "2026-13-01T00:00:00.000Z"),
        ("opens_at", "2026-01-01T00:00:00.000+09:00"),
        ("opens_at", "0001-01-01T00:00:00.000Z"),
        ("closes_at", "2025-01-01T00:00:00.000Z"),
    ],
}
BEYOND["checkout"] = BEYOND["place_order"]
WITH_BODY: Final = [operation for operation in OPERATIONS if operation.request is not None]
WITH_PATH: Final = [operation for operation in OPERATIONS if operation.path_parameters]


@pytest.fixture(scope="module")
def shop(databases: Databases) -> Iterator[RunningShop]:
    """A small shop in which something of every kind exists, and in which nothing happens by itself."""
    with opened_shop(databases) as shop:
        client = shop.client()
        put_product(client, PRODUCT, S=10, M=10)
        put_campaign(client, CAMPAIGN)
        charge(client, USER)
        take_coupon(client, USER, CAMPAIGN)
        place(client, USER, (PRODUCT, STOCK, 1), at="checkout")
        place(client, USER, (PRODUCT, STOCK, 1))
        shop.settle()
        yield shop
        shop.assert_conserved()
        assert shop.errors_logged() == []


@pytest.fixture
def unchanged(shop: RunningShop) -> Iterator[httpx.Client]:
    """A client; after the test every key of Redis is, to the byte, what it was."""
    before = dump(shop.redis_url)
    yield shop.client()
    assert dump(shop.redis_url) == before


def dump(url: str) -> dict[bytes, bytes]:
    """Every key with its serialised value, but for what API processes tell each other each second, asked or not."""
    told = traffic_key(Keys(Partitions(PARTITIONS)), TRAFFIC_PARTITION).encode()
    with redis_client(url) as client:
        keys: list[bytes] = sorted(key for key in client.scan_iter(count=1000) if key != told)
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.dump(key)
        return dict(zip(keys, pipeline.execute(), strict=True))


def path_of(operation: Operation, **ids: str) -> str:
    """The operation's path; what is not given is somebody or something that there is."""
    known = {
        "user_id": USER,
        "product_id": PRODUCT,
        "stock_id": STOCK,
        "campaign_id": CAMPAIGN,
        "order_id": "0193b3f0-0000-7000-8000-000000000000",
        "coupon_id": f"{USER}-20260101-1",
        "position": "0:1-1",
        "delivery_id": "1",
    }
    return operation.path.format(**{**known, **ids})


def refused(client: httpx.Client, method: str, path: str, *expected: tuple[int, str], **request: Any) -> dict[str, Any]:
    """The problem, which must be one of these; the client has held it to the specification."""
    answer = client.request(method, path, **request)
    found = (answer.status_code, answer.json().get("type", "").removeprefix("/problems/"))
    assert found in expected, f"{method} {path[:200]} {str(request)[:300]}: {answer.text}"
    assert "regex" not in answer.text, "nobody is shown a pattern"
    return dict(answer.json())


def by_id(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("operation", operations, ids=lambda operation: operation.operation_id)


def replaced(body: Any, place: str, value: Any) -> Any:
    """The body with another value at a place such as `lines.0.quantity`."""
    head, _, rest = place.partition(".")
    key: Any = int(head) if isinstance(body, list) else head
    changed = list(body) if isinstance(body, list) else dict(body)
    changed[key] = replaced(changed[key], rest, value) if rest else value
    return changed


def places(body: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every place in a body, with the value there."""
    for key, value in body.items() if isinstance(body, dict) else enumerate(body):
        yield f"{prefix}{key}", value
        if isinstance(value, dict | list):
            yield from places(value, f"{prefix}{key}.")


def test_every_operation_with_a_body_has_a_good_one_here() -> None:
    assert BODIES.keys() == {operation.operation_id for operation in WITH_BODY}
    for operation in WITH_BODY:
        msgspec.convert(BODIES[operation.operation_id], operation.request)


@pytest.mark.requirement("R1.1", "R0.8")
@by_id(WITH_PATH)
def test_an_id_that_cannot_be_one_is_refused_before_anything_is_read(
    unchanged: httpx.Client, operation: Operation
) -> None:
    body = BODIES.get(operation.operation_id)
    parameters: tuple[PathParameter, ...] = operation.path_parameters
    for parameter, bad in itertools.product(parameters, BAD_IDS):
        if parameter.name == "position" and bad in {"a:b", "a,b"}:
            continue
        path = path_of(operation, **{parameter.name: bad})
        problem = refused(unchanged, operation.method, path, (422, "invalid-request"), json=body)
        assert problem["errors"][0]["location"] == f"path.{parameter.name}"
    for parameter in parameters:
        for bad in ("a%2Fb", ""):
            answer = unchanged.request(operation.method, path_of(operation, **{parameter.name: bad}), json=body)
            assert answer.status_code in {404, 405}, answer.text


@by_id(list(OPERATIONS))
def test_a_query_that_the_operation_does_not_have_is_refused(unchanged: httpx.Client, operation: Operation) -> None:
    known = {field.encode_name for field in msgspec.structs.fields(operation.query)}
    for query in BAD_QUERIES:
        problem = refused(
            unchanged,
            operation.method,
            f"{path_of(operation)}?{query}",
            (422, "invalid-request"),
            json=BODIES.get(operation.operation_id),
        )
        assert problem["errors"][0]["location"].startswith("query")
        name = query.partition("=")[0]
        assert name not in known or problem["errors"][0]["location"] == f"query.{name}"


@by_id(list(OPERATIONS))
def test_who_takes_no_json_is_told_so(unchanged: httpx.Client, operation: Operation) -> None:
    for accept in ("text/html", "application/xml;q=1, application/json;q=0", "image/*"):
        refused(
            unchanged,
            operation.method,
            path_of(operation),
            (406, "not-acceptable"),
            headers={"Accept": accept},
            json=BODIES.get(operation.operation_id),
        )


@by_id(list(OPERATIONS))
def test_another_method_is_refused_with_those_there_are(unchanged: httpx.Client, operation: Operation) -> None:
    here = {other.method for other in OPERATIONS if other.path == operation.path}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - here:
        answer = unchanged.request(method, path_of(operation), json={})
        assert (answer.status_code, answer.json()["type"]) == (405, "/problems/method-not-allowed")
        assert here <= set(answer.headers["allow"].split(", "))


@by_id(WITH_BODY)
def test_what_is_not_json_is_refused(unchanged: httpx.Client, operation: Operation) -> None:
    for body in NOT_JSON:
        refused(
            unchanged,
            operation.method,
            path_of(operation),
            (400, "malformed-body"),
            content=body,
            headers={"Content-Type": "application/json"},
        )


@by_id(WITH_BODY)
def test_another_media_type_is_refused(unchanged: httpx.Client, operation: Operation) -> None:
    content = msgspec.json.encode(BODIES[operation.operation_id])
    for media_type in ("text/plain", "application/xml", "application/json; charset=utf-16", "", "json"):
        refused(
            unchanged,
            operation.method,
            path_of(operation),
            (415, "unsupported-media-type"),
            content=content,
            headers={"Content-Type": media_type},
        )


@by_id(WITH_BODY)
def test_a_body_that_is_too_large_is_refused(unchanged: httpx.Client, operation: Operation) -> None:
    body = b'{"x": "' + b"x" * 65_536 + b'"}'
    headers = {"Content-Type": "application/json"}
    path = path_of(operation)
    problem = refused(unchanged, operation.method, path, (413, "body-too-large"), content=body, headers=headers)
    assert problem["limit"] == 65_536
    chunks = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    refused(unchanged, operation.method, path, (413, "body-too-large"), content=chunks, headers=headers)


@by_id(WITH_BODY)
def test_a_body_of_another_shape_is_refused(unchanged: httpx.Client, operation: Operation) -> None:
    for body in WRONG_SHAPES:
        refused(
            unchanged,
            operation.method,
            path_of(operation),
            (422, "invalid-request"),
            content=msgspec.json.encode(body),
            headers={"Content-Type": "application/json"},
        )


@pytest.mark.requirement("R0.8")
@by_id(WITH_BODY)
def test_a_member_of_another_type_left_out_or_too_many_is_refused(
    unchanged: httpx.Client, operation: Operation
) -> None:
    good = BODIES[operation.operation_id]
    headers = {"Content-Type": "application/json"}
    path = path_of(operation)

    def expect(body: Any) -> None:
        refused(
            unchanged,
            operation.method,
            path,
            (422, "invalid-request"),
            content=msgspec.json.encode(body),
            headers=headers,
        )

    expect({**good, "unknown": 1})
    for place_, value in places(good):
        if value is None:
            continue
        kind = "integer" if isinstance(value, int) else "string"
        wrong = WRONG_VALUES[kind] if isinstance(value, int | str) else ["text", 1, {"unknown": 1}, [1]]
        for bad in wrong:
            is_nullable = place_.endswith(("stock_id", "minimum_order", "maximum_discount")) and "lines" in place_
            if bad is None and (is_nullable or place_.endswith(("minimum_order", "maximum_discount"))):
                continue
            if bad == "a b" and place_.endswith(("name", "option", "reason")):
                continue
            expect(replaced(good, place_, bad))
    for name in good:
        if good[name] is not None:
            expect({key: value for key, value in good.items() if key != name})


@pytest.mark.requirement("R0.8")
@pytest.mark.parametrize(
    ("operation_id", "place_", "value"),
    [(operation_id, place_, value) for operation_id, cases in BEYOND.items() for place_, value in cases],
)
def test_a_value_beyond_what_the_policy_or_the_shop_has_is_refused(
    unchanged: httpx.Client, operation_id: str, place_: str, value: Any
) -> None:
    (operation,) = [each for each in OPERATIONS if each.operation_id == operation_id]
    user = "nobody"  # who has no order in progress
    answer = unchanged.request(
        operation.method, path_of(operation, user_id=user), json=replaced(BODIES[operation_id], place_, value)
    )
    assert answer.status_code in {409, 422}, answer.text


@by_id([operation for operation in OPERATIONS if operation.takes_key])
def test_a_key_that_cannot_be_one_is_refused(unchanged: httpx.Client, operation: Operation) -> None:
    for key in ("", "a b", "x" * 256, "caf\u00e9".encode()):
        problem = refused(
            unchanged,
            operation.method,
            path_of(operation),
            (422, "invalid-request"),
            headers={"Idempotency-Key": key},
            json=BODIES[operation.operation_id],
        )
        assert problem["errors"][0]["location"] == "header.Idempotency-Key"


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/users", "/admin", "/V1/products", "/v1/products/", "/v1//users", "/v2"]
)
def test_there_is_nothing_at_other_addresses(unchanged: httpx.Client, path: str) -> None:
    for method in ("GET", "POST"):
        refused(unchanged, method, path, (404, "not-found"))


def test_the_schemas_say_the_same_largest_number_as_this_test() -> None:
    assert INTEGER_MAX == LARGEST
