"""The mock: every example served, every choice honoured, every bad request refused as the real API does."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import msgspec
import pytest

from api.examples import Example
from api.mock import create_mock_app
from api.openapi import openapi_document
from api.operations import OPERATIONS, Operation
from api.problem_examples import ProblemExample, examples_of
from tests.contract.specification import SpecValidator

VALIDATOR: Final = SpecValidator(openapi_document())
EXCHANGES: Final = [
    pytest.param(operation, example, id=f"{operation.operation_id}-{example.name}")
    for operation in OPERATIONS
    for example in operation.examples
]
PROBLEM_CHOICES: Final = [
    pytest.param(operation, example, id=f"{operation.operation_id}-{example.name}")
    for operation in OPERATIONS
    for kind in operation.problems
    for example in examples_of(kind.name)
]
EACH: Final = pytest.mark.parametrize(
    "operation", [pytest.param(operation, id=operation.operation_id) for operation in OPERATIONS]
)
WITH_BODY: Final = pytest.mark.parametrize(
    "operation",
    [pytest.param(operation, id=operation.operation_id) for operation in OPERATIONS if operation.request is not None],
)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_mock_app()), base_url="http://mock") as client:
        yield client


def path_of(operation: Operation, example: Example) -> str:
    path = operation.path.format(**example.path_params)
    return f"{path}?{example.query}" if example.query else path


async def ask(
    client: httpx.AsyncClient, operation: Operation, example: Example | None = None, **arguments: Any
) -> httpx.Response:
    """The request of an example (the first unless one is given), with what `arguments` replace of it."""
    example = example or operation.examples[0]
    if "content" not in arguments and operation.request is not None and example.body is not None:
        arguments["content"] = msgspec.json.encode(example.body)
    if "content" in arguments:
        arguments["headers"] = {"Content-Type": "application/json", **arguments.get("headers", {})}
    return await client.request(
        arguments.pop("method", operation.method), arguments.pop("url", path_of(operation, example)), **arguments
    )


def problem(response: httpx.Response) -> str:
    """The problem's name, once the answer fits the specification."""
    return str(VALIDATOR.check(response)["type"].removeprefix("/problems/"))


@EACH
async def test_the_first_example_is_the_answer_to_a_valid_request(
    client: httpx.AsyncClient, operation: Operation
) -> None:
    response = await ask(client, operation)
    assert VALIDATOR.check(response) == msgspec.to_builtins(operation.examples[0].answer)
    assert response.status_code == operation.examples[0].status


@pytest.mark.parametrize(("operation", "example"), EXCHANGES)
async def test_an_example_is_served_by_its_name(
    client: httpx.AsyncClient, operation: Operation, example: Example
) -> None:
    response = await ask(client, operation, example, headers={"Prefer": f"example={example.name}"})
    assert response.status_code == example.status
    assert VALIDATOR.check(response) == msgspec.to_builtins(example.answer)
    assert response.headers["preference-applied"] == f"example={example.name}"


@pytest.mark.parametrize(("operation", "example"), PROBLEM_CHOICES)
async def test_a_problem_is_served_by_its_name(
    client: httpx.AsyncClient, operation: Operation, example: ProblemExample
) -> None:
    response = await ask(client, operation, headers={"Prefer": f"example={example.name}"})
    assert problem(response) == example.problem.kind.name
    assert response.headers["preference-applied"] == f"example={example.name}"


@EACH
async def test_every_status_is_served_by_its_code(client: httpx.AsyncClient, operation: Operation) -> None:
    statuses = {*operation.answers, *(kind.status for kind in operation.problems)}
    for status in statuses:
        response = await ask(client, operation, headers={"Prefer": f"code={status}"})
        VALIDATOR.check(response)
        assert response.status_code == status
        assert response.headers["preference-applied"] == f"code={status}"


@pytest.mark.parametrize(
    ("operation_id", "headers", "expected"),
    [
        ("checkout", {}, "out-of-stock"),
        ("checkout", {"Idempotency-Key": "a-key"}, "request-in-progress"),
        ("replay_delivery", {}, "request-in-progress"),
    ],
)
async def test_a_request_without_a_key_is_not_refused_for_its_key_where_its_code_has_another_problem(
    client: httpx.AsyncClient, operation_id: str, headers: dict[str, str], expected: str
) -> None:
    (operation,) = (operation for operation in OPERATIONS if operation.operation_id == operation_id)
    assert problem(await ask(client, operation, headers={"Prefer": "code=409", **headers})) == expected


@EACH
@pytest.mark.parametrize("choice", ["example=nothing-like-it", "code=299"])
async def test_a_choice_that_is_not_there_is_refused(
    client: httpx.AsyncClient, operation: Operation, choice: str
) -> None:
    assert problem(await ask(client, operation, headers={"Prefer": choice})) == "invalid-request"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (
            "example=nope",
            r"header\.Prefer: Expected as `example` `changed`, (`[a-z-]+`, )+`outcome-unknown` or `internal-error`",
        ),
        ("code=418", r"header\.Prefer: Expected as `code` `200`, (`\d{3}`, )+`503` or `504`"),
    ],
)
async def test_a_choice_that_is_not_there_is_told_those_that_are(
    client: httpx.AsyncClient, choice: str, expected: str
) -> None:
    (put_product,) = (operation for operation in OPERATIONS if operation.operation_id == "put_product")
    answer = await ask(client, put_product, headers={"Prefer": choice})
    assert re.fullmatch(expected, answer.json()["detail"]), answer.text


@EACH
async def test_head_is_served_for_what_can_be_read(client: httpx.AsyncClient, operation: Operation) -> None:
    response = await ask(client, operation, method="HEAD")
    if operation.method == "GET":
        assert VALIDATOR.check(response) is None
        assert response.status_code == 200
    elif "GET" not in response.headers.get("allow", "GET"):
        assert response.status_code == 405


@EACH
async def test_another_method_is_refused(client: httpx.AsyncClient, operation: Operation) -> None:
    response = await ask(client, operation, method="DELETE")
    assert problem(response) == "method-not-allowed"
    assert operation.method in response.headers["allow"].split(", ")


async def test_an_unknown_address_is_refused(client: httpx.AsyncClient) -> None:
    assert problem(await client.get("/v1/nothing")) == "not-found"
    assert problem(await client.get("/nothing")) == "not-found"


@EACH
async def test_an_answer_in_html_is_refused(client: httpx.AsyncClient, operation: Operation) -> None:
    assert problem(await ask(client, operation, headers={"Accept": "text/html"})) == "not-acceptable"


@EACH
async def test_an_unknown_query_parameter_is_refused(client: httpx.AsyncClient, operation: Operation) -> None:
    response = await ask(client, operation, params={"colour": "red"})
    assert problem(response) == "invalid-request"


@EACH
async def test_an_id_of_another_shape_is_refused(client: httpx.AsyncClient, operation: Operation) -> None:
    example = operation.examples[0]
    for name in example.path_params:
        url = operation.path.format(**{**example.path_params, name: "no%20id"})
        response = await ask(client, operation, url=url)
        assert problem(response) == "invalid-request"
        assert response.json()["errors"][0]["location"] == f"path.{name}"


@EACH
async def test_a_limit_outside_its_bounds_is_refused(client: httpx.AsyncClient, operation: Operation) -> None:
    if "limit" in operation.query.__struct_fields__:
        for limit in ("0", "101", "many", "-1", "1.0"):
            response = await ask(
                client,
                operation,
                url=operation.path.format(**operation.examples[0].path_params),
                params={"limit": limit},
            )
            assert problem(response) == "invalid-request"
            assert response.json()["errors"][0]["location"] == "query.limit"


@WITH_BODY
@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"{", "malformed-body"),
        (b'{"amount": NaN}', "malformed-body"),
        (b"\xff", "malformed-body"),
        (b"[" * 60_000, "malformed-body"),
        (b"[]", "invalid-request"),
        (b"null", "invalid-request"),
        (b'"text"', "invalid-request"),
        (b'{"unheard_of": 1}', "invalid-request"),
        (b" " * 65_537, "body-too-large"),
    ],
    ids=["cut-off", "nan", "not-utf-8", "deep", "array", "null", "text", "unknown-member", "too-large"],
)
async def test_a_bad_body_is_refused(
    client: httpx.AsyncClient, operation: Operation, content: bytes, name: str
) -> None:
    assert problem(await ask(client, operation, content=content)) == name


@WITH_BODY
async def test_a_body_that_is_no_json_by_its_type_is_refused(client: httpx.AsyncClient, operation: Operation) -> None:
    response = await ask(client, operation, content=b"{}", headers={"Content-Type": "text/plain"})
    assert problem(response) == "unsupported-media-type"


@WITH_BODY
async def test_every_member_of_another_type_is_refused(client: httpx.AsyncClient, operation: Operation) -> None:
    """Each member of the example's body in turn, however deep, becomes something that it cannot be."""
    body = msgspec.to_builtins(operation.examples[0].body)
    for spoilt, where in spoil(body, "body"):
        response = await ask(client, operation, content=msgspec.json.encode(spoilt))
        assert problem(response) == "invalid-request", where
        assert response.json()["errors"][0]["location"].startswith(where.partition("[")[0]), where


@WITH_BODY
async def test_an_empty_body_is_taken_only_where_nothing_is_asked(
    client: httpx.AsyncClient, operation: Operation
) -> None:
    response = await ask(client, operation, content=b"")
    if operation.request_optional:
        assert response.status_code == 200
    else:
        assert problem(response) == "malformed-body"


@EACH
async def test_a_key_with_a_space_is_refused(client: httpx.AsyncClient, operation: Operation) -> None:
    if operation.takes_key:
        response = await ask(client, operation, headers={"Idempotency-Key": "two words"})
        assert problem(response) == "invalid-request"


def spoil(value: Any, where: str) -> list[tuple[Any, str]]:
    """Copies of a JSON value, each with one member or item replaced by `{"odd": [1.5]}`, and where that is."""
    if isinstance(value, dict):
        children: Any = value.items()
        places = {name: f"{where}.{name}" for name in value}
    elif isinstance(value, list):
        children = enumerate(value)
        places = {index: f"{where}[{index}]" for index in range(len(value))}
    else:
        return []
    spoilt: list[tuple[Any, str]] = []
    for key, child in children:
        for replacement, place in [({"odd": [1.5]}, places[key]), *spoil(child, places[key])]:
            copy = value.copy()
            copy[key] = replacement
            spoilt.append((copy, place))
    return spoilt


@pytest.mark.parametrize("path", ["/problems/..%2f", "/problems/"])
async def test_an_address_with_a_slash_too_many_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
