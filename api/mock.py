"""The mock API: the whole surface, answered from the specification's examples.

It checks requests as the real API does, with the same code, tokens included where a key is configured, and changes
nothing. `Prefer: example=<name>` chooses an answer by its name, `Prefer: code=<status>` the first with that status,
for a request without a key the first that needs none where there is one; both may name problems.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from api.asgi import Answer, Application, Call, Handler, Surface
from api.documents import document_routes
from api.examples import Example
from api.guards.admission import make_admission
from api.guards.origins import CrossOrigin
from api.operations import OPERATIONS, Operation
from api.problem_examples import ProblemExample, examples_of
from api.problems import IDEMPOTENCY_KEY_REUSED, REQUEST_IN_PROGRESS, invalid_request
from api.request_faults import one_of
from api.settings import ApiSettings
from api.whole_messages import Header

_OF_KEYS: Final = (IDEMPOTENCY_KEY_REUSED, REQUEST_IN_PROGRESS)


def create_mock_app(settings: ApiSettings | None = None) -> Application:
    """The mock as an ASGI application; every call makes one of its own. Raises SettingError for keys it cannot use."""
    settings = settings or ApiSettings()
    surface = Surface(
        {operation.operation_id: _handler(operation) for operation in OPERATIONS},
        admit=make_admission(settings),
        cross_origin=CrossOrigin(settings.cors_origins),
        in_flight_max=settings.requests_in_flight_max,
        body_seconds_max=settings.body_timeout_ms / 1000,
    )
    return Application(surface, routes=document_routes())


def _handler(operation: Operation) -> Handler:
    async def answer(call: Call[Any, Any]) -> Answer:
        example, applied = _choose(operation, call)
        if isinstance(example, ProblemExample):
            raise example.problem.with_header("Preference-Applied", applied)
        headers = {**example.headers, "Preference-Applied": applied} if applied else example.headers
        return Answer(example.status, example.answer, tuple(_raw(name, value) for name, value in headers.items()))

    return answer


def _choose(operation: Operation, call: Call[Any, Any]) -> tuple[Example | ProblemExample, str]:
    """The example that was asked for and what `Preference-Applied` says about it; 422 when there is no such example."""
    name, code = call.prefer.example, call.prefer.code
    if name is not None:
        for example in _examples(operation):
            if example.name == name:
                return example, f"example={name}"
        names = one_of(example.name for example in _examples(operation))
        raise invalid_request("header.Prefer", f"Expected as `example` {names}")
    if code is not None:
        found = [example for example in _examples(operation) if _status(example) == code]
        if call.idempotency_key is None:
            found.sort(key=_is_about_key)
        if found:
            return found[0], f"code={code}"
        codes = one_of(sorted({_status(example) for example in _examples(operation)}))
        raise invalid_request("header.Prefer", f"Expected as `code` {codes}")
    return operation.examples[0], ""


def _examples(operation: Operation) -> Iterator[Example | ProblemExample]:
    yield from operation.examples
    for kind in operation.problems:
        yield from examples_of(kind.name)


def _is_about_key(example: Example | ProblemExample) -> bool:
    """Whether only a request with an idempotency key is refused like that."""
    return isinstance(example, ProblemExample) and example.problem.kind in _OF_KEYS


def _status(example: Example | ProblemExample) -> int:
    return example.status if isinstance(example, Example) else example.problem.kind.status


def _raw(name: str, value: str) -> Header:
    return name.lower().encode("ascii"), value.encode("ascii")
