"""What explains the surface: the page of `/docs`, how to retry, and the requests to be sent from an editor."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

import httpx
import pytest

from api import retrying
from api.documents import page_in_one_file
from api.mock import create_mock_app
from api.openapi import openapi_document
from api.operations import OPERATIONS
from api.problems import PROBLEMS, ProblemType, Retry
from api.retrying import advice, markdown
from api.walkthrough import SHOP, STEPS
from tests.contract.http_requests import HttpRequest, read_http
from tests.contract.specification import SpecValidator
from tests.tidy.api_documents import http_file

VALIDATOR: Final = SpecValidator(openapi_document())
VARIABLES, REQUESTS = read_http(http_file())
KEPT: Final = {
    "coupon": {"coupon_id": "mina-20260302-1"},
    "order": {"order_id": "0195586e-9c40-7000-8000-4d1f3a2b5c6d"},
}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_mock_app()), base_url="http://mock") as client:
        yield client


@pytest.mark.parametrize("request_", [pytest.param(request, id=request.title) for request in REQUESTS])
async def test_every_request_of_the_file_is_as_specified(client: httpx.AsyncClient, request_: HttpRequest) -> None:
    asked = request_.resolved({**VARIABLES, "shop": ""}, KEPT)
    answer = await client.request(asked.method, asked.url, headers=asked.headers, content=asked.body or None)
    VALIDATOR.check(answer)
    assert answer.status_code < 300


def test_the_file_has_the_purchase_and_every_operation() -> None:
    assert [request.name for request in REQUESTS if request.name] == [step.name for step in STEPS]
    titles = [request.title.partition(":")[0] for request in REQUESTS if not request.name]
    assert list(dict.fromkeys(titles)) == [operation.summary for operation in OPERATIONS]


async def test_the_page_has_all_that_there_is(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    for operation in OPERATIONS:
        assert f'id="{operation.operation_id}"' in page
    for name in PROBLEMS:
        assert f'id="problem-{name}"' in page
    for schema in openapi_document()["components"]["schemas"].values():
        for member in schema.get("properties", {}):
            assert member in page
    for part in ("Buy something", "How to retry", "What holds everywhere", "Problems", "Events"):
        assert f"<h2>{part}</h2>" in page


async def test_the_page_names_the_headers_of_an_event_and_leads_to_their_standard(client: httpx.AsyncClient) -> None:
    events = (await client.get("/docs")).text.partition('<section id="events">')[2]
    for parameter in openapi_document()["webhooks"]["order.paid"]["post"]["parameters"]:
        assert f"<code>{parameter['name']}</code> <em>header</em>" in events
    assert "<code>application/cloudevents-batch+json</code>" in events
    assert '<a href="https://www.standardwebhooks.com" rel="noreferrer">Standard Webhooks</a>' in events


async def test_the_page_tells_how_to_buy_pay_and_retry_before_all_else(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert re.findall(r'<section id="(\w+)"', page)[:2] == ["buy", "retry"]
    assert [step for step in re.findall(r'id="step-(\w+)"', page)] == [step.name for step in STEPS]


async def test_the_page_allows_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    loaded_or_here = re.findall(r'(?:href|src)="(?!https://[^"]+" rel="noreferrer">)([^"#][^"]*)"', page.text)
    assert sorted(loaded_or_here) == [
        "docs/docs.css",
        "docs/docs.js",
        "openapi.json",
    ]


async def test_the_runbook_unfolds_its_contents_as_the_documentation_does(client: httpx.AsyncClient) -> None:
    page = (await client.get("/runbook")).text
    assert re.findall(r"<(?:title|h1)>([^<]*)<", page) == ["Runbook", "Runbook"]
    assert re.findall(r'<details id="contents">.*<script src="(docs/docs\.js)">', page) == ["docs/docs.js"]


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({"Host": "shop.example:8443", "X-Forwarded-Proto": "https"}, "https://shop.example:8443"),
        ({"Host": "127.0.0.1:18000"}, "http://127.0.0.1:18000"),
        ({"Host": "[::1]:8001", "X-Forwarded-Proto": "javascript"}, "http://[::1]:8001"),
        ({"Host": '"><script>alert(1)</script>'}, SHOP),
        ({"Host": "a" * 300}, SHOP),
    ],
)
async def test_what_the_page_says_to_type_goes_to_the_address_that_it_was_read_at(
    client: httpx.AsyncClient, headers: dict[str, str], address: str
) -> None:
    page = await client.get("/docs", headers=headers)
    assert re.findall(r"shop=(http[^\n]*)\n", page.text) == [address]
    samples = re.findall(r"curl -sS [^\n]*?(?:&#x27;|&quot;)(\w+://[^/]*)/", page.text)
    assert set(samples) == {address}
    assert len(samples) > len(OPERATIONS)  # cancelling needs an order that is not paid yet
    assert "alert(1)" not in page.text
    again = await client.get("/docs", headers={**headers, "If-None-Match": page.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(("path", "media_type"), [("/docs", "text/html"), ("/openapi.json", "application/json")])
async def test_what_explains_is_sent_once(client: httpx.AsyncClient, path: str, media_type: str) -> None:
    first = await client.get(path)
    assert first.headers["content-type"].startswith(media_type)
    again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).content == first.content
    head = await client.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", first.headers["etag"])


@pytest.mark.parametrize(("path", "where"), [("/", "docs"), ("/docs/", "../docs")])
async def test_whoever_opens_the_address_in_a_browser_is_led_to_the_documentation(
    client: httpx.AsyncClient, path: str, where: str
) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (307, where)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/problems", "/problems/not-found", "/docs/docs.css"])
async def test_what_explains_is_only_read(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path)
    VALIDATOR.check(answer)
    assert (answer.status_code, answer.json()["type"]) == (405, "/problems/method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.json()["detail"] == "This address takes GET, HEAD."


def test_the_page_is_whole_without_javascript() -> None:
    without = re.sub(r"<script>.*?</script>", "", page_in_one_file(), flags=re.DOTALL)
    assert "charge-limit" in without
    assert "<noscript" not in without


@pytest.mark.parametrize("kind", PROBLEMS.values(), ids=PROBLEMS)
def test_how_to_retry_says_of_every_problem_what_the_answer_says(kind: ProblemType) -> None:
    (row,) = [row for row in advice() if row.problem is kind]
    assert row.came == str(kind.status)
    assert row.again == {"no": "no", "yes": "yes"}.get(kind.retry.value, row.again)
    assert (row.again == "with a key") is (kind.retry is Retry.IF_REPEATABLE)
    assert (row.again == "if `retryable`") is (kind.retry is Retry.CASE)
    if kind.retry is Retry.YES:
        assert ("`Retry-After`" in row.do) is ("Retry-After" in kind.headers)
    else:
        assert kind.remedy in row.do
    assert f"| {kind.status} | `{kind.name}` | {row.again} | {row.do} |" in markdown()


def test_how_to_retry_is_by_status_and_has_no_other_problem() -> None:
    problems = [row.problem for row in advice() if row.problem is not None]
    assert len(problems) == len(PROBLEMS)
    assert [kind.status for kind in problems] == sorted(kind.status for kind in problems)


def test_the_rules_name_what_the_answers_carry() -> None:
    rules = " ".join(retrying.RULES)
    for named in ("`Idempotency-Key`", "`Idempotent-Replayed: true`", "`retryable`", "`Retry-After`", "24 hours"):
        assert named in rules
