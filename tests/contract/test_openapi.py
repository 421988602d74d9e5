"""The specification: whole, valid, and true to its own examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.mock import create_mock_app
from api.openapi import openapi_document
from api.operations import OPERATIONS
from api.problem_examples import examples_of
from api.problems import PROBLEMS
from tests.contract.specification import SpecValidator

SURFACE: Final = """
GET /v1/users/{user_id}/balance
POST /v1/users/{user_id}/balance/charges
GET /v1/users/{user_id}/balance/entries
GET /v1/products
GET /v1/products/{product_id}
GET /v1/best-sellers
POST /v1/users/{user_id}/orders
GET /v1/users/{user_id}/orders/{order_id}
GET /v1/users/{user_id}/orders
POST /v1/users/{user_id}/orders/{order_id}/payment
POST /v1/users/{user_id}/orders/{order_id}/cancellation
POST /v1/users/{user_id}/checkout
POST /v1/users/{user_id}/coupons
GET /v1/users/{user_id}/coupons
GET /v1/users/{user_id}/coupons/{coupon_id}
GET /v1/campaigns
GET /v1/campaigns/{campaign_id}
GET /v1/policies
GET /v1/positions/{position}
PUT /admin/v1/products/{product_id}
POST /admin/v1/products/{product_id}/stock/{stock_id}/adjustments
PUT /admin/v1/campaigns/{campaign_id}
GET /admin/v1/status
GET /admin/v1/deliveries
POST /admin/v1/deliveries/{delivery_id}/replay
GET /admin/v1/alarms
GET /livez
GET /readyz
"""
PROBLEM_NAMES: Final = """
malformed-body not-authenticated not-allowed insufficient-balance not-found method-not-allowed not-acceptable
request-timeout balance-limit out-of-stock order-in-progress order-not-payable order-not-cancellable coupon-not-valid
campaign-not-open coupons-exhausted coupon-already-issued stock-limit quantity-below-issued request-in-progress
body-too-large unsupported-media-type invalid-request unknown-reference stock-id-required line-limit charge-limit
payment-limit idempotency-key-reused too-many-requests internal-error overloaded recovering history-unavailable
outcome-unknown
"""
DOCUMENT: Final = openapi_document()


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every content with a schema and examples: of requests, answers, problems and the webhook."""
    webhook = DOCUMENT["webhooks"]["order.paid"]["post"]
    for name, operation in [*operations(), ("order.paid", webhook)]:
        parts = [operation["requestBody"]] if "requestBody" in operation else []
        for part in [*parts, *operation["responses"].values()]:
            for content in part.get("content", {}).values():
                yield name, content


def test_the_specification_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


@pytest.mark.requirement("R0.1", "R0.6")
def test_the_specification_has_the_whole_surface_and_nothing_else() -> None:
    assert {name for name, _ in operations()} == set(SURFACE.split("\n")) - {""}


def test_every_problem_is_in_the_specification() -> None:
    assert set(PROBLEMS) == set(PROBLEM_NAMES.split())
    documented = {
        schema["properties"]["type"]["const"]
        for name, schema in DOCUMENT["components"]["schemas"].items()
        if name.endswith("Problem")
    }
    # That one is about methods that no operation has, so no operation answers it.
    assert documented == {f"/problems/{name}" for name in PROBLEM_NAMES.split()} - {"/problems/method-not-allowed"}
    assert [listed["type"] for listed in DOCUMENT["x-problems"]] == [kind.uri for kind in PROBLEMS.values()]


def test_every_link_has_all_that_the_next_operation_needs() -> None:
    """Its parameters come from the path that was asked and from members that the answer has."""
    linked = 0
    for name, operation in operations():
        for status, answer in operation["responses"].items():
            for link in answer.get("links", {}).values():
                linked += 1
                (path,) = [path for path, item in operations() if item["operationId"] == link["operationId"]]
                assert set(re.findall(r"{(\w+)}", path)) == set(link["parameters"])
                members = referred(answer["content"]["application/json"]["schema"]["$ref"])["properties"]
                for source in link["parameters"].values():
                    place, _, member = source.rpartition("/")
                    known = member in members if place else f"{{{source.rpartition('.')[2]}}}" in name
                    assert known, f"{name} {status}: {source}"
    assert linked > 10


def test_no_component_is_unused() -> None:
    used = set(re.findall(r"#/components/(\w+/\w+)", str(DOCUMENT)))
    given = {
        f"{kind}/{name}"
        for kind, parts in DOCUMENT["components"].items()
        for name in parts
        if kind != "securitySchemes"
    }
    assert given == used


def test_everything_is_described() -> None:
    """What a linter with an opinion would warn of, and more: nobody has to guess what a member means."""
    silent = [
        f"{name}.{member}"
        for name, schema in DOCUMENT["components"]["schemas"].items()
        for member, described in [("", schema), *schema.get("properties", {}).items()]
        if not description_of(described)
    ]
    assert silent == []
    for name, operation in operations():
        assert operation["summary"], name
        assert not operation["description"].startswith("Checks"), f"{name} says nothing of itself"
        for parameter in operation["parameters"]:
            resolved = parameter if "$ref" not in parameter else referred(parameter["$ref"])
            assert description_of({**resolved["schema"], **resolved}), f"{name}: {parameter}"
    for tag in DOCUMENT["tags"]:
        assert tag["description"]
    assert {tag for _, operation in operations() for tag in operation["tags"]} == {
        tag["name"] for tag in DOCUMENT["tags"]
    }
    assert DOCUMENT["info"]["contact"]


def test_every_string_of_a_request_has_a_limit_or_is_one_of_a_few() -> None:
    limits = {"pattern", "maxLength", "enum", "const"}
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if name.endswith("Request"):
            for member, described in schema.get("properties", {}).items():
                for option in described.get("anyOf", [described]):
                    assert option.get("type") != "string" or limits & option.keys(), f"{name}.{member}"


def test_every_answer_and_every_request_has_examples_and_most_have_several() -> None:
    of_one_kind = set()
    for name, operation in operations():
        good = [
            example
            for status, answer in operation["responses"].items()
            if status < "300"
            for content in answer.get("content", {}).values()
            for example in content["examples"]
        ]
        assert good, name
        if len(good) == 1:
            of_one_kind.add(name)
    assert of_one_kind == {"GET /livez"}


def description_of(schema: dict[str, Any]) -> str:
    """A schema's description, or that of what it refers to."""
    if "description" in schema:
        return str(schema["description"])
    if "$ref" in schema:
        return description_of(referred(schema["$ref"]))
    parts = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *([schema["items"]] if "items" in schema else ())]
    return next((found for part in parts if (found := description_of(part))), "")


def referred(reference: str) -> Any:
    found: Any = DOCUMENT
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    return found


def test_every_problem_is_answered_by_some_operation() -> None:
    answered = {kind.name for operation in OPERATIONS for kind in operation.problems}
    # That one is about methods that no operation has.
    assert set(PROBLEMS) - answered == {"method-not-allowed"}


def test_what_a_key_does_is_promised() -> None:
    assert "the first answer comes again" in DOCUMENT["info"]["description"]
    assert "Idempotent-Replayed" in str(DOCUMENT)
    assert "with the same key" in PROBLEMS["outcome-unknown"].remedy


def test_a_charge_whose_outcome_is_unknown_is_not_called_retryable() -> None:
    for operation_id, retryable in (("charge_balance", False), ("pay_order", True)):
        (operation,) = [operation for _, operation in operations() if operation["operationId"] == operation_id]
        for status in ("500", "504"):
            examples = operation["responses"][status]["content"]["application/problem+json"]["examples"]
            assert [example["value"]["retryable"] for example in examples.values()] == [retryable]


def test_every_operation_says_in_which_order_it_checks() -> None:
    for name, operation in operations():
        assert "Checks, in this order:" in operation["description"], name


def test_every_changing_operation_takes_preferences_and_every_post_takes_a_key() -> None:
    for name, operation in operations():
        references = {parameter.get("$ref", "") for parameter in operation["parameters"]}
        assert ("#/components/parameters/Prefer" in references) is not name.startswith("GET"), name
        assert ("#/components/parameters/IdempotencyKey" in references) is name.startswith("POST"), name


def test_every_answer_and_every_problem_has_an_example() -> None:
    for name, content in contents():
        if content["schema"] != {"$ref": "#/components/schemas/NothingRequest"}:
            assert content.get("examples"), (name, content["schema"])


def test_no_two_examples_of_an_operation_have_the_same_name() -> None:
    for operation in OPERATIONS:
        names = [example.name for example in operation.examples]
        names += [example.name for kind in operation.problems for example in examples_of(kind.name)]
        assert len(set(names)) == len(names), operation.operation_id


def test_every_example_fits_its_schema() -> None:
    validator = SpecValidator(DOCUMENT)
    checked = 0
    for name, content in contents():
        for example_name, example in content.get("examples", {}).items():
            validator.check_value(content["schema"], example["value"], f"{name}: {example_name}")
            checked += 1
    assert checked > 300


def test_every_answers_members_are_always_there() -> None:
    """But for one: an attribute of a CloudEvent is never null, and what paid an order before an upgrade is unknown."""
    optional = {
        (name, member)
        for name, schema in DOCUMENT["components"]["schemas"].items()
        if not name.endswith("Request") and "properties" in schema
        for member in set(schema["properties"]) - set(schema["required"])
    }
    assert optional == {("OrderPaid", "requestid")}


def test_requests_refuse_unknown_members() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if name.endswith("Request"):
            assert schema["additionalProperties"] is False, name


def test_every_number_is_exact_in_json() -> None:
    def numbers(part: Any) -> Iterator[dict[str, Any]]:
        if isinstance(part, dict):
            if part.get("type") in ("integer", "number") and "const" not in part:
                yield part
            for value in part.values():
                yield from numbers(value)
        elif isinstance(part, list):
            for value in part:
                yield from numbers(value)

    found = list(numbers({"schemas": DOCUMENT["components"]["schemas"], "paths": DOCUMENT["paths"]}))
    assert found
    for number in found:
        assert number["type"] == "integer"
        assert number["maximum"] < 2**53
        assert number["minimum"] > -(2**53)


def test_every_pattern_means_the_same_in_javascript() -> None:
    text = str(DOCUMENT)
    assert r"\\Z" not in text
    assert "(?P<" not in text


async def test_the_specification_and_its_pages_are_served() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_mock_app()), base_url="http://mock") as client:
        assert (await client.get("/openapi.json")).json() == DOCUMENT
        page = await client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        for file, media_type in (("docs.css", "text/css"), ("docs.js", "text/javascript")):
            part = await client.get(f"/docs/{file}")
            assert part.status_code == 200
            assert part.headers["content-type"].startswith(media_type)
        for missing in ("/docs/docs.html", "/docs/..%2Fschemas.py", "/problems/nothing"):
            assert (await client.get(missing)).json()["type"] == "/problems/not-found"


def test_the_pages_ask_no_other_address_for_anything() -> None:
    static = files("api") / "static"
    for file in static.iterdir():
        assert not re.search(r"https?:|//[a-z]", file.read_text().replace("// ", "")), file.name


@pytest.mark.parametrize("name", PROBLEM_NAMES.split())
async def test_every_problem_has_a_page_for_people_and_for_programs(name: str) -> None:
    kind = PROBLEMS[name]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_mock_app()), base_url="http://mock") as client:
        page = await client.get(kind.uri, headers={"Accept": "text/html"})
        text = await client.get(kind.uri)
        assert kind.uri in (await client.get("/problems")).text
        overview = await client.get("/problems", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert text.headers["content-type"].startswith("text/plain")
    assert "What to do" in page.text
    assert kind.remedy in text.text
    assert kind.meaning in text.text
    assert f'href="problems/{name}"' in overview.text
