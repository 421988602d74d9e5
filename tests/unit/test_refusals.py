import pytest

from api.refusals import translate
from engine import errors


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (errors.Unavailable("redis://10.0.0.7:6379: connection refused. Check FIRSTCOME_REDIS_URL."), "recovering"),
        (errors.Recovering("the partition is not trusted yet"), "recovering"),
        (errors.Overloaded(), "overloaded"),
        (errors.WriterBehind(), "overloaded"),
        (errors.TookTooLong(), "overloaded"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_cannot_be_decided_now_may_be_asked_again(error: Exception, name: str) -> None:
    problem = translate(error)
    assert problem is not None
    assert (problem.kind.name, problem.kind.status) == (name, 503)
    assert problem.retryable(repeatable=False)
    assert problem.headers["Retry-After"]


def test_clients_are_told_neither_addresses_nor_settings() -> None:
    problem = translate(errors.Unavailable("redis://10.0.0.7:6379: connection refused. Check FIRSTCOME_REDIS_URL."))
    assert problem is not None
    assert problem.detail == "Redis does not answer now."


def test_an_order_that_took_too_long_is_not_blamed_on_a_recovery() -> None:
    problem = translate(errors.TookTooLong())
    assert problem is not None
    assert "in time" in problem.detail


def test_what_nobody_foresaw_has_no_problem_of_its_own() -> None:
    assert translate(ZeroDivisionError()) is None
