"""The registry of problems and the one way to refuse."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from api import problems
from api.problems import PROBLEMS, Problem, ProblemType, Retry, StockShortage, body_struct, invalid_request


def decoded(problem: Problem, *, repeatable: bool = False) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.json.decode(problem.encode(request_id="r-1", repeatable=repeatable))
    return value


def test_a_problem_says_what_rfc_9457_asks_and_what_a_program_needs() -> None:
    shortage = StockShortage(product_id="shirt", stock_id="M", requested=2, available=1)
    assert decoded(Problem(problems.OUT_OF_STOCK, "one is missing", retryable=True, lines=[shortage])) == {
        "type": "/problems/out-of-stock",
        "title": "Not enough is left",
        "status": 409,
        "detail": "one is missing",
        "retryable": True,
        "request_id": "r-1",
        "lines": [{"product_id": "shirt", "stock_id": "M", "requested": 2, "available": 1}],
    }


@pytest.mark.parametrize("members", [{}, {"quantity": 1, "rest": 2}, {"amount": 1}])
def test_a_problem_takes_exactly_its_members(members: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="takes the members"):
        Problem(problems.COUPONS_EXHAUSTED, "gone", **members)


def test_whether_to_retry_is_said_exactly_where_the_registry_leaves_it_open() -> None:
    with pytest.raises(ValueError, match="is retryable"):
        Problem(problems.OUT_OF_STOCK, "gone", lines=[])
    with pytest.raises(ValueError, match="is retryable"):
        Problem(problems.NOT_FOUND, "gone", retryable=True)


@pytest.mark.parametrize("kind", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("repeatable", [True, False])
def test_the_retry_rule_of_each_problem_is_kept(kind: ProblemType, repeatable: bool) -> None:
    for given in (True, False) if kind.retry is Retry.CASE else (None,):
        problem = Problem(kind, "so it is", retryable=given, **dict.fromkeys(kind.members))
        expected = {Retry.NO: False, Retry.YES: True, Retry.IF_REPEATABLE: repeatable, Retry.CASE: given}[kind.retry]
        assert decoded(problem, repeatable=repeatable)["retryable"] is expected


@pytest.mark.parametrize(
    ("repeatable", "remedy"),
    [
        (True, "Send it again, with the same Idempotency-Key if it had one."),
        (False, "Sent again without an Idempotency-Key it may act twice: first read what it would have changed."),
    ],
)
def test_what_nobody_knows_the_outcome_of_says_how_to_find_out(repeatable: bool, remedy: str) -> None:
    unknown = Problem(problems.OUTCOME_UNKNOWN, "No answer came.", order_id=None)
    assert decoded(unknown, repeatable=repeatable)["detail"] == f"No answer came. {remedy}"
    failed = Problem(problems.INTERNAL_ERROR, "The server failed.")
    assert decoded(failed, repeatable=repeatable)["detail"] == f"The server failed. {remedy}"
    refused = Problem(problems.NOT_FOUND, "There is no such thing.")
    assert decoded(refused, repeatable=repeatable)["detail"] == "There is no such thing."


@pytest.mark.parametrize("kind", PROBLEMS.values(), ids=PROBLEMS)
def test_a_title_states_what_is_so_and_asks_nothing(kind: ProblemType) -> None:
    assert re.fullmatch(r"[A-Z][^?!.]+", kind.title)


def test_what_asks_for_patience_says_how_long() -> None:
    patient = {name for name, kind in PROBLEMS.items() if "Retry-After" in kind.headers}
    assert patient == {
        "request-in-progress",
        "too-many-requests",
        "overloaded",
        "recovering",
        "history-unavailable",
    }


def test_a_refusal_may_know_better_how_long_to_wait() -> None:
    assert Problem(problems.OVERLOADED, "busy").headers == {"Retry-After": "1"}
    assert Problem(problems.OVERLOADED, "busy", headers={"Retry-After": "9"}).headers == {"Retry-After": "9"}


def test_another_header_makes_a_refusal_of_its_own() -> None:
    first = Problem(problems.CAMPAIGN_NOT_OPEN, "not yet", retryable=True, opens_at="a", closes_at="b")
    second = first.with_header("Preference-Applied", "code=409")
    assert second is not first
    assert "Preference-Applied" not in first.headers
    assert second.headers["Preference-Applied"] == "code=409"
    assert decoded(second) == decoded(first)


def test_an_invalid_request_says_where() -> None:
    problem = decoded(invalid_request("query.limit", "Expected less"))
    assert problem["errors"] == [{"location": "query.limit", "message": "Expected less"}]
    assert problem["status"] == 422


def test_a_member_may_not_take_a_name_that_every_problem_has() -> None:
    with pytest.raises(ValueError, match="'status'"):
        ProblemType("odd", "Odd", 409, Retry.NO, "It is odd.", "Nothing.", {"status": str})


@pytest.mark.parametrize("kind", PROBLEMS.values(), ids=PROBLEMS)
def test_the_schema_of_a_problem_names_it_and_its_members(kind: ProblemType) -> None:
    _, components = msgspec.json.schema_components((body_struct(kind),))
    schema = components[kind.struct_name]
    assert schema["properties"]["type"]["enum"] == [f"/problems/{kind.name}"]
    assert schema["properties"]["status"]["enum"] == [kind.status]
    assert set(schema["required"]) >= {"title", "detail", "retryable", "request_id", *kind.members}
