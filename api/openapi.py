"""The OpenAPI 3.1 document, made from the route table: what is checked and answered, and what is not checked yet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec
import orjson

from api import schemas
from api.examples import ORDER_PAID
from api.idempotency import KEY_LENGTH_MAX
from api.operations import OPERATIONS, TAGS, Operation
from api.problem_examples import examples_of
from api.problems import (
    INVALID_REQUEST,
    LINE_LIMIT,
    NOT_FOUND,
    PROBLEM_MEDIA_TYPE,
    PROBLEMS,
    Problem,
    ProblemType,
    body_struct,
)
from api.request_bodies import BODY_BYTES_MAX

EXAMPLE_REQUEST_ID: Final = "3f2a9c0d71be-1a"
EVENT_MEDIA_TYPE: Final = "application/cloudevents-batch+json"
_JSON: Final = "application/json"
_JSON_TYPES: Final[Mapping[type, str]] = {str: "string", bool: "boolean", int: "integer"}
_REF: Final = "#/components/schemas/{name}"

_DESCRIPTION: Final = """\
Balances, stock, orders, payments and first-come coupons: exact, given back when they fail, and durable.

**Values.** Amounts are integers in the currency's minor unit (for won: won); no number passes 2^53. Times are RFC 3339
in UTC with milliseconds. Ids are strings. Absent values are `null`, never left out. Unknown fields, wrong types (`1.0`
is no integer) and unknown query parameters are refused with 422; what is not JSON, `NaN` included, with 400; a body
over {body_kib} KiB with 413.

**How safe an answer is.** A changing answer carries a `position` and whether it is `durable`, that is, in PostgreSQL.
With `Prefer: durable` the request waits for that. `GET /v1/positions/{{position}}` tells it later.

**Who asks.** `Authorization: Bearer <JWT>`, signed with HS256, or with RS256 or EdDSA: one of them per deployment.
`exp`, `iat`, `aud`, `iss` and `sub` are required. `sub` is the path's `user_id`, or the scope holds `admin`: what
belongs to another user is 404, what only operators may is 403. This is looked at before anything else of a request
whose address and method there are. A
deployment without a key serves its own machine only and asks for no token: there, whoever reaches it is every user and
an operator.

**How often.** A user, and an address without a valid token, may send so many requests a second, and some more at once
after a pause; past it 429 with `Retry-After`. Operators are not counted. When more requests are under way than a
process takes in, 503 `overloaded` comes at once. Headers or a body that arrive too slowly end in 408 and the
connection's end.

**Polling.** Where an answer carries `ETag`, send it back as `If-None-Match`: 304 says that nothing has changed.

**Repeating.** {repeating}

**Problems** are `application/problem+json` (RFC 9457). `type` leads to a page that says what it means and what to do,
`retryable` says whether the same request may do better; `x-problems` lists them all. An unknown address answers 404
`not-found`, a wrong method 405 `method-not-allowed` with `Allow`: OpenAPI describes answers by method, so the answer to
a method that is not there can stand in no operation. What is no request of HTTP/1.1, or has more than 32 KiB
of address and headers, belongs to no operation either: 400 or 431, whose `type` is `about:blank`. Each operation lists
its checks in their order.

**Reading.** `HEAD` answers as `GET` does, without the body. `Accept` may be left out; where it excludes JSON the answer
is 406. Lists come in pages: send `next_cursor` back as `cursor` until it is null. A cursor is opaque.

**Events.** Each paid order goes to the data platform as a CloudEvent: see the webhook `order.paid`.
"""

_KEYS_IN_GENERAL: Final = (
    "With an `Idempotency-Key` a POST may be sent again at will: it acts once, and the first answer comes again."
)
_KEY_MEANING: Final = (
    "The same key with the same request gives the first answer again; it is kept for 24 hours once the request took "
    "effect. A user's key is one for all of the user's requests; an operator's is one for all that concern the product "
    "or the delivery that the address names."
)
_HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "XRequestId": {
        "description": "The request's id: the client's own if that was sane.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "Where what was made can be read.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "RetryAfter": {
        "description": "Seconds to wait before sending the request again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0, "maximum": 86_400},
    },
    "WWWAuthenticate": {
        "description": "How to authenticate, and what is wrong with the token (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "Changes when the answer does: to be sent back as `If-None-Match`.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[!#-~]+"$'},
    },
    "PreferenceApplied": {
        "description": "`durable` when the answer waited until every change was in PostgreSQL.",
        "schema": {"type": "string"},
    },
    "IdempotentReplayed": {
        "description": "`true` when this is the first answer again, given for a repeated key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
_REFINED: Final[Mapping[str, Mapping[str, Any]]] = {
    "DiscountRequest": {
        # The other members are this schema's own affair, as linters want to be told.
        "if": {"properties": {"kind": {"const": "percent"}}, "required": ["kind"], "additionalProperties": True},
        "then": {"properties": {"value": {"maximum": 100}}, "additionalProperties": True},
    }
}
"""What a struct checks beyond the types of its members, as far as JSON Schema can say it."""
_FOLLOWING: Final[Mapping[str, tuple[str, ...]]] = {
    "charge_balance": ("get_balance", "get_position"),
    "place_order": ("get_order", "pay_order", "cancel_order", "get_position"),
    "pay_order": ("get_order", "get_position"),
    "checkout": ("get_order", "get_position"),
    "issue_coupon": ("get_coupon", "get_position"),
}
_CHECKED_TWICE: Final = {
    INVALID_REQUEST: ("headers, ids, query", "the body"),
    LINE_LIMIT: ("the number of lines", "their quantities"),
}
"""What a problem is about at its first and at its second place among the checks."""
_BY_ID: Final = {operation.operation_id: operation for operation in OPERATIONS}
_EFFECT_HEADERS: Final = {
    "Preference-Applied": "PreferenceApplied",
    "Idempotent-Replayed": "IdempotentReplayed",
}
"""Of an answer to what has changed something; of a refusal too where that is a change."""
_PROBLEM_HEADERS: Final = {"Retry-After": "RetryAfter", "WWW-Authenticate": "WWWAuthenticate"}

_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": f"1 to {KEY_LENGTH_MAX} visible characters. {_KEY_MEANING}",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH_MAX, "pattern": "^[!-~]+$"},
}
_PREFER: Final = {
    "name": "Prefer",
    "in": "header",
    "description": "RFC 7240. `durable` answers only when every change is in PostgreSQL, or after `wait` seconds (2 "
    "unless said, at most 10) with `durable: false`. `wait=0` does not wait where waiting is the default. What is not "
    "understood is ignored. At the mock, `code=409` and `example=<name>` choose the answer.",
    "schema": {"type": "string"},
    "examples": {"durable": {"value": "durable, wait=5"}},
}
_IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "description": "Entity tags that the client has the answers of; 304 when the answer is one of them.",
    "schema": {"type": "string"},
    "examples": {"known": {"value": '"9c56cc51b374c3ba189210d5"'}},
}


_SIGNATURE_HEADERS: Final = {
    "webhook-id": "The message's id: the same when the same events are sent together again.",
    "webhook-timestamp": "When it was sent, in seconds since 1970: refuse what is older than five minutes.",
    "webhook-signature": "`v1,` and the HMAC-SHA256 of `<webhook-id>.<webhook-timestamp>.<body>` in base64; two of "
    "them with a space between while the secret is changed over: one that matches is enough.",
}


@cache
def openapi_json() -> bytes:
    """The document as it is served."""
    return orjson.dumps(openapi_document())


def openapi_document() -> dict[str, Any]:
    """The document as plain values."""
    components = _schema_components()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Firstcome",
            "version": version("firstcome"),
            "summary": "A Redis-first commerce engine",
            "description": _DESCRIPTION.format(body_kib=BODY_BYTES_MAX // 1024, repeating=_KEYS_IN_GENERAL),
            "contact": {"name": "The operators of this shop"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This server"}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "paths": paths,
        "webhooks": {"order.paid": {"post": _order_paid()}},
        "x-problems": [_listed(kind) for kind in PROBLEMS.values()],
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "parameters": {"IdempotencyKey": _IDEMPOTENCY_KEY, "Prefer": _PREFER, "IfNoneMatch": _IF_NONE_MATCH},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "HS256, or RS256 or EdDSA, with `exp`, `iat`, `aud`, `iss` and `sub`. `sub` is the "
                    "path's user, or the scope holds `admin`. `firstcome token --user USER` makes one for development.",
                }
            },
        },
    }


@cache
def problem_structs() -> Mapping[str, type[msgspec.Struct]]:
    """The body of every problem, by its name."""
    return {name: body_struct(kind) for name, kind in PROBLEMS.items()}


def problem_value(problem: Problem, *, repeatable: bool) -> dict[str, Any]:
    """An example of a problem as plain values; `repeatable`: as the answer to a request that cannot act twice."""
    value: dict[str, Any] = msgspec.json.decode(problem.encode(request_id=EXAMPLE_REQUEST_ID, repeatable=repeatable))
    return value


def _listed(kind: ProblemType) -> dict[str, Any]:
    """A problem in the list of all, for programs that want to know beforehand."""
    return {
        "type": kind.uri,
        "status": kind.status,
        "title": kind.title,
        "retryable": kind.retry.value,
        "meaning": kind.meaning,
        "remedy": kind.remedy,
        "members": list(kind.members),
        "headers": [*kind.headers, *kind.headers_told],
    }


def _schema_components() -> dict[str, Any]:
    types: list[Any] = [schemas.OrderPaid]
    for operation in OPERATIONS:
        types.extend(operation.answers.values())
        types.extend(problem_structs()[kind.name] for kind in operation.problems)
        if operation.request is not None:
            types.append(operation.request)
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    return {name: {**_published(components[name]), **_REFINED.get(name, {})} for name in sorted(components)}


def _schema(annotation: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components((annotation,), ref_template=_REF)
    published: dict[str, Any] = _published(schema)
    return published


def _published(schema: Any) -> Any:
    """A schema as JSON Schema has it and its readers like it best.

    The end of a pattern is `$`, which Python spells `\\Z`; values to choose from say their type, and a single one is a
    constant: not every maker of clients finds that out for itself.
    """
    if isinstance(schema, list):
        return [_published(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    published = {
        key: value.replace(r"\Z", "$") if key == "pattern" and isinstance(value, str) else _published(value)
        for key, value in schema.items()
    }
    if isinstance(values := schema.get("enum"), list):
        del published["enum"]
        named = {"const": values[0]} if len(values) == 1 else {"enum": values}
        published = {"type": _JSON_TYPES[type(values[0])], **named, **published}
    return published


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.operation_id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": _description(operation),
        "parameters": _parameters(operation),
        "responses": _responses(operation),
        "security": [] if operation.security == "none" else [{"bearer": []}],
    }
    if operation.request is not None:
        described["requestBody"] = _request_body(operation, operation.request)
    return described


def _description(operation: Operation) -> str:
    lines = [operation.description] if operation.description else []
    if operation.security == "admin":
        lines.append("Needs the scope `admin`.")
    if operation.conditional:
        lines.append("`If-None-Match` with the `ETag` of an earlier answer: 304 while nothing has changed.")
    anywhere = [kind for kind in operation.problems if kind.status >= 500 or kind.status == 429]
    checks: list[str] = []
    for kind in operation.checks:
        of_what = ""
        if kind is NOT_FOUND and operation.security == "user" and len(checks) == 1:
            of_what = ": another user's"
        elif kind in _CHECKED_TWICE:
            first, second = _CHECKED_TWICE[kind]
            of_what = f": {second if any(_mention(kind) in check for check in checks) else first}"
        if kind not in anywhere:
            checks.append(f"{_mention(kind)}{of_what}")
    steps = "\n".join(f"{number}. {check}" for number, check in enumerate(checks, 1))
    lines.append(f"Checks, in this order:\n\n{steps}")
    lines.append(f"At any point: {', '.join(_mention(kind) for kind in anywhere)}.")
    return "\n\n".join(lines)


def _mention(kind: ProblemType) -> str:
    return f"{kind.status} [`{kind.name}`]({kind.uri})"


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters = [
        {"name": parameter.name, "in": "path", "required": True, **_with_description(_schema(parameter.type))}
        for parameter in operation.path_parameters
    ]
    _, components = msgspec.json.schema_components((operation.query,), ref_template=_REF)
    query = _published(components[operation.query.__name__])
    for name, schema in query["properties"].items():
        parameters.append({"name": name, "in": "query", **_with_description(_without_null(schema))})
    if operation.takes_key:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if operation.changing:
        parameters.append({"$ref": "#/components/parameters/Prefer"})
    if operation.conditional:
        parameters.append({"$ref": "#/components/parameters/IfNoneMatch"})
    return parameters


def _with_description(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's description and schema; the description moves to where readers of parameters look for it."""
    rest = dict(schema)
    described: dict[str, Any] = {}
    if "description" in rest:
        described["description"] = rest.pop("description")
    if "examples" in rest:
        described["example"] = rest.pop("examples")[0]
    return {**described, "schema": rest}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is absent, never null."""
    if "anyOf" not in schema:
        return schema
    (present,) = [option for option in schema["anyOf"] if option != {"type": "null"}]
    # The outer description is the more specific one.
    return {**present, **{key: value for key, value in schema.items() if key not in ("anyOf", "default")}}


def _request_body(operation: Operation, request: type[msgspec.Struct]) -> dict[str, Any]:
    examples: dict[str, Any] = {}
    for example in operation.examples:
        value = None if example.body is None else msgspec.to_builtins(example.body)
        if value is not None and value not in (given["value"] for given in examples.values()):
            examples[example.name] = {"summary": example.summary, "value": value}
    content: dict[str, Any] = {"schema": _schema(request)}
    if examples:
        content["examples"] = examples
    return {"required": not operation.request_optional, "content": {_JSON: content}}


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, body in operation.answers.items():
        responses[str(status)] = {
            "description": (body.__doc__ or "").partition("\n")[0],
            "headers": _answer_headers(operation, status),
            "content": {
                _JSON: {
                    "schema": _schema(body),
                    "examples": {
                        example.name: {"summary": example.summary, "value": msgspec.to_builtins(example.answer)}
                        for example in operation.examples
                        if example.status == status
                    },
                }
            },
        }
        if links := _links(operation):
            responses[str(status)]["links"] = links
    if operation.conditional:
        responses["304"] = {
            "description": "The client has this answer already.",
            "headers": {"X-Request-Id": _header("XRequestId"), "ETag": _header("ETag")},
        }
    for status in sorted({kind.status for kind in operation.problems}):
        kinds = [kind for kind in operation.problems if kind.status == status]
        responses[str(status)] = _problem_response(kinds, repeatable=operation.repeatable)
    return responses


def _links(operation: Operation) -> dict[str, Any]:
    """What can be asked next with what an answer holds: ids from its body, the user from the path."""
    return {
        following: {
            "operationId": following,
            "parameters": {
                parameter.name: f"$request.path.{parameter.name}"
                if parameter in operation.path_parameters
                else f"$response.body#/{parameter.name}"
                for parameter in _BY_ID[following].path_parameters
            },
        }
        for following in _FOLLOWING.get(operation.operation_id, ())
    }


def _answer_headers(operation: Operation, status: int) -> dict[str, Any]:
    headers = {"X-Request-Id": _header("XRequestId")}
    if operation.has_location:
        # What was there before is answered with its place too, which nobody needs.
        headers["Location"] = _header("Location") if status == 201 else _optional("Location")
    if operation.conditional:
        headers["ETag"] = _header("ETag")
    for name, component in _EFFECT_HEADERS.items():
        if operation.takes_key or (operation.changing and name == "Preference-Applied"):
            headers[name] = _header(component)
    return headers


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _optional(name: str, more: str = "") -> dict[str, Any]:
    """A header that is required elsewhere."""
    return {"description": f"{_HEADERS[name]['description']}{more}", "schema": _HEADERS[name]["schema"]}


def _problem_response(kinds: list[ProblemType], *, repeatable: bool) -> dict[str, Any]:
    headers = {"X-Request-Id": _header("XRequestId")}
    # A header is promised for a status only where every problem of that status has it.
    for name, component in _PROBLEM_HEADERS.items():
        if all(name in kind.headers for kind in kinds):
            headers[name] = _header(component)
        elif any(name in kind.headers for kind in kinds):
            of_whom = " and ".join(f"`{kind.name}`" for kind in kinds if name in kind.headers)
            headers[name] = _optional(component, f" Only with {of_whom}.")
    if any(kind.is_effect for kind in kinds):
        headers |= {name: _header(component) for name, component in _EFFECT_HEADERS.items()}
    options = [{"$ref": _REF.format(name=kind.struct_name)} for kind in kinds]
    return {
        "description": "\n\n".join(f"`{kind.name}`: {kind.meaning}" for kind in kinds),
        "headers": headers,
        "content": {
            PROBLEM_MEDIA_TYPE: {
                "schema": options[0] if len(options) == 1 else {"oneOf": options},
                "examples": {
                    example.name: {
                        "summary": example.summary,
                        "value": problem_value(example.problem, repeatable=repeatable),
                    }
                    for kind in kinds
                    for example in examples_of(kind.name)
                },
            }
        },
    }


def _order_paid() -> dict[str, Any]:
    return {
        "operationId": "order_paid",
        "summary": "Orders were paid",
        "description": "Posted to the data platform's address in batches (CloudEvents 1.0), at least once and in order "
        "per user. A 2xx takes the batch; all else is tried again, later and later, and in the end given up with an "
        "alarm; an operator may replay it. An event's `id` is the same in every repetition, whatever batch it comes "
        "in. Signed as [Standard Webhooks](https://www.standardwebhooks.com) has it: check the signature over the "
        "bytes of the body before anything else.",
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": meaning, "schema": {"type": "string"}}
            for name, meaning in _SIGNATURE_HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                EVENT_MEDIA_TYPE: {
                    "schema": {"type": "array", "minItems": 1, "items": _schema(schemas.OrderPaid)},
                    "examples": {"paid": {"summary": "A paid order", "value": [msgspec.to_builtins(ORDER_PAID)]}},
                }
            },
        },
        "responses": {"2XX": {"description": "It has arrived."}},
        "security": [],
    }
