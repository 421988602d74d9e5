"""The thin way from ASGI to a handler and back, shared by the real API and the mock.

A handler is `async def handler(call: Call[BodyType, QueryType]) -> Answer`. What reaches it is valid: ids, query,
headers and body have been checked against the operation. What it raises as `Problem` is answered as such; any other
exception goes through the application's one translation table, and is a plain 500 if that does not know it.

The order of the checks: address (404), method (405), too much under way (503), admission (401, 429, 403, 404), `Accept`
(406), headers, ids and query (422), the body's size and arrival (413, 408), its media type (415), JSON (400), its types
and limits (422), then the operation's own. An answer that the client has already (`If-None-Match`) is 304 in the end.

No Request or Response object is made, and routing is a walk along the path's segments: Starlette's own routing costs
more than the rest of a request here.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any, Final, Generic, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
from msgspec.inspect import IntType, Metadata, StructType, type_info
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.entity_tags import entity_tag, is_known
from api.guards.origins import CrossOrigin
from api.idempotency import KEY_LENGTH_MAX
from api.operations import HEALTH, OPERATIONS, Operation
from api.problems import (
    INTERNAL_ERROR,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    NOT_FOUND,
    OVERLOADED,
    PROBLEM_MEDIA_TYPE,
    Problem,
    ProblemType,
    invalid_request,
)
from api.request_bodies import BODY_BYTES_MAX, BODY_SECONDS_MAX, BodyReader, ClientGone
from api.request_faults import invalid_id, invalid_query, shortened
from api.request_headers import NO_PREFERENCES, accepts_json, headers_of, read_preferences
from api.whole_messages import FixedHeaders, Header, WholeSend
from engine.request_id import REQUEST_ID

IN_FLIGHT_MAX: Final = 4096
REQUEST_ID_LENGTH_MAX: Final = 128
QUERY_FIELDS_MAX: Final = 20

_VISIBLE: Final = bytes(range(0x21, 0x7F))
_REQUEST_ID_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~:-"
_COMMON: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""What every answer says: it is no page, and it is what it says it is."""
_NO_STORE: Final = (b"cache-control", b"no-store")
_REVALIDATE: Final = (b"cache-control", b"no-cache")
_JSON_TYPE: Final = (b"content-type", b"application/json")

_ANSWER: Final = FixedHeaders(*_COMMON, _NO_STORE, _JSON_TYPE)
_PROBLEM: Final = FixedHeaders(*_COMMON, _NO_STORE, (b"content-type", PROBLEM_MEDIA_TYPE.encode()))
_SHOWN: Final = FixedHeaders(*_COMMON, _REVALIDATE, _JSON_TYPE)
_SHOWN_BEFORE: Final = FixedHeaders(*_COMMON, _REVALIDATE)

_log: Final = logging.getLogger(__name__)

BodyT = TypeVar("BodyT")
QueryT = TypeVar("QueryT")


class Call(Generic[BodyT, QueryT]):
    """A valid request.

    `path_params` maps the names in the operation's path to ids of the right shape; `query` and `body` are the
    operation's structs (`body` is None where none was sent and none is needed); `headers` maps lower-case names to
    values, repeated ones joined by a comma; `peer` is the address at the other end of the connection, "" for a socket
    that has none.
    """

    __slots__ = (
        "body",
        "headers",
        "idempotency_key",
        "operation",
        "path_params",
        "peer",
        "prefer",
        "query",
        "request_id",
    )

    body: BodyT
    query: QueryT

    def __init__(
        self,
        operation: Operation,
        path_params: dict[str, str],
        headers: dict[bytes, bytes],
        request_id: str,
        peer: str = "",
    ) -> None:
        self.operation = operation
        self.path_params = path_params
        self.headers = headers
        self.request_id = request_id
        self.peer = peer
        self.prefer = NO_PREFERENCES
        self.idempotency_key: str | None = None

    @property
    def repeatable(self) -> bool:
        """Whether the same request sent again cannot act twice."""
        return self.operation.repeatable or self.idempotency_key is not None


class Answer:
    """What a handler answers: a status, a body of the operation's type (or its JSON), and headers in lower case."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: msgspec.Struct | bytes, headers: Sequence[Header] = ()) -> None:
        self.status = status
        self.body = body
        self.headers = headers


Handler = Callable[[Call[Any, Any]], Awaitable[Answer]]
Translate = Callable[[Exception], Problem | None]
Admit = Callable[[Call[Any, Any]], None]
Count = Callable[[int, ProblemType | None, int], None]
CounterFor = Callable[[Operation | None], Count]


def location(path: str) -> Header:
    """A `Location` header. Of all characters that ids may have, only `|` may not stand in a path."""
    return b"location", path.replace("|", "%7C").encode("ascii")


def _nowhere() -> Problem:
    return Problem(NOT_FOUND, "There is nothing at this address. See /docs.")


class InFlight:
    """How many requests are being handled, and how many may be. Those whose body is still on its way do not count, so
    that slow clients take nobody's place."""

    __slots__ = ("count", "most")

    def __init__(self, most: int) -> None:
        self.count = 0
        self.most = most

    def require_room(self) -> None:
        """Raises the problem when no more may be under way."""
        if self.count >= self.most:
            raise Problem(OVERLOADED, "As many requests are under way as this process lets in. Nothing was changed.")


def _no_translation(_error: Exception) -> Problem | None:
    return None


class Surface:
    """The operations as an ASGI application, with a handler bound to each; ValueError when one is missing or unknown.

    `translate` turns the engine's errors into problems; `admit` raises the problems of authentication and rate limits
    before anything else is looked at (ids are unchecked, `body` and `query` are not there yet); `counter_for`
    gives for each operation, and for None where there is none, what is told the status of each answer, its problem if
    it is one, and the nanoseconds it took; `cross_origin` says which web pages may ask.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        operations: Sequence[Operation] = OPERATIONS,
        translate: Translate = _no_translation,
        admit: Admit | None = None,
        counter_for: CounterFor | None = None,
        cross_origin: CrossOrigin | None = None,
        in_flight_max: int = IN_FLIGHT_MAX,
        body_bytes_max: int = BODY_BYTES_MAX,
        body_seconds_max: float = BODY_SECONDS_MAX,
    ) -> None:
        ids = {operation.operation_id for operation in operations}
        if handlers.keys() != ids:
            raise ValueError(
                f"operations without a handler: {sorted(ids - handlers.keys())}, "
                f"handlers without an operation: {sorted(handlers.keys() - ids)}"
            )
        self._translate = translate
        self._admit = admit
        self._count_refusal = None if counter_for is None else counter_for(None)
        self._request_id_prefix = f"{secrets.token_hex(6)}-"
        self._request_numbers = itertools.count(1)
        # Looked up once: a line for each change costs more than the change where nobody wants it.
        self._tells_changes = _log.isEnabledFor(logging.DEBUG)
        self._cross_origin = cross_origin if cross_origin is not None and cross_origin.allows_some else None
        self._root = _Segment()
        self.in_flight = InFlight(in_flight_max)
        for operation in operations:
            handler = handlers[operation.operation_id]
            endpoint = _Endpoint(operation, handler, admit, self.in_flight, body_bytes_max, body_seconds_max)
            endpoint.count = None if counter_for is None else counter_for(operation)
            self._root.add(operation, endpoint)

    def find(self, path: str) -> tuple[_Segment, list[str]] | None:
        """The place in the table that a path leads to, and its parameters' values; None where it leads nowhere."""
        segment = self._root
        values: list[str] = []
        for part in path.split("/")[1:]:
            following = segment.literals.get(part)
            if following is None:
                following = segment.parameter
                if following is None or not part:
                    return None
                values.append(part)
            segment = following
        return (segment, values) if segment.endpoints else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves any HTTP request, an unknown address included."""
        found = self.find(_path(scope))
        if found is None:
            await self.refuse(_nowhere(), scope, send)
        else:
            await self.serve(found, scope, receive, send)

    async def serve(self, found: tuple[_Segment, list[str]], scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request whose path `find` has found."""
        segment, values = found
        headers = headers_of(scope)
        request_id = self._request_id(headers)
        endpoint = segment.endpoints.get(scope["method"])
        if endpoint is None:
            await self._refuse_method(segment.allow, headers, request_id, scope, send)
            return
        count = endpoint.count
        started_ns = perf_counter_ns() if count is not None else 0
        peer = scope.get("client")
        call: Call[Any, Any] = Call(
            endpoint.operation,
            dict(zip(endpoint.parameter_names, values, strict=True)),
            headers,
            request_id,
            peer[0] if peer else "",
        )
        own = self._common_headers(headers, request_id)
        try:
            answer = await endpoint.answer(call, scope["query_string"], receive)
            status = answer.status
            body = answer.body if type(answer.body) is bytes else endpoint.encode(answer.body)
        except ClientGone:
            return
        except Exception as error:
            problem = self._problem(error, call)
            # Whoever has an answer finds it counted.
            if count is not None:
                count(problem.kind.status, problem.kind, perf_counter_ns() - started_ns)
            head = scope["method"] == "HEAD"
            await _send_problem(send, problem, request_id, own, repeatable=call.repeatable, head=head)
        else:
            if self._tells_changes and endpoint.operation.changing:
                _tell_change(call, body)
            own += answer.headers
            fixed = _ANSWER
            if status == 200 and endpoint.operation.conditional:
                fixed = _SHOWN
                tag = entity_tag(body)
                own.append((b"etag", tag))
                known = headers.get(b"if-none-match")
                if known is not None and is_known(tag, known):
                    status, fixed = 304, _SHOWN_BEFORE
            if count is not None:
                count(status, None, perf_counter_ns() - started_ns)
            if status == 304:
                await _send(send, status, fixed, own, b"")
            else:
                own.append((b"content-length", b"%d" % len(body)))
                await _send(send, status, fixed, own, b"" if scope["method"] == "HEAD" else body)

    def require_right(self, operation: Operation, scope: Scope) -> None:
        """Raises the problem of one who may not have what is served beside the operations, as if it were this one."""
        if self._admit is not None:
            peer = scope.get("client")
            self._admit(Call(operation, {}, headers_of(scope), "", peer[0] if peer else ""))

    async def refuse(self, problem: Problem, scope: Scope, send: Send) -> None:
        """Answers a problem to a request that no operation is concerned with."""
        headers = headers_of(scope)
        await self._refuse(problem, headers, self._request_id(headers), scope, send)

    def dressed(self, scope: Scope, send: Send) -> Send:
        """A `send` that gives every answer the headers that those of operations have, unless it has its own."""
        headers = headers_of(scope)
        request_id = self._request_id(headers)

        async def send_dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                given: list[Header] = list(message.get("headers", ()))
                names = {name for name, _ in given}
                # Different `Vary` add up; of every other header the answer's own is right.
                more = [
                    header
                    for header in (*_COMMON, *self._common_headers(headers, request_id))
                    if header[0] not in names or (header[0] == b"vary" and header not in given)
                ]
                message = {**message, "headers": given + more}
            await send(message)

        return send_dressed

    def _common_headers(self, headers: dict[bytes, bytes], request_id: str) -> list[Header]:
        """What every answer says beside `_COMMON`: whose it is, and which pages may read it."""
        common = [(b"x-request-id", request_id.encode("ascii"))]
        if self._cross_origin is not None:
            common += self._cross_origin.answer_headers(headers.get(b"origin"))
        return common

    async def refuse_method(self, allow: str, scope: Scope, send: Send) -> None:
        """Answers a method that a page does not take, as `serve` does for the address of an operation."""
        headers = headers_of(scope)
        await self._refuse_method(allow, headers, self._request_id(headers), scope, send)

    async def _refuse_method(
        self, allow: str, headers: dict[bytes, bytes], request_id: str, scope: Scope, send: Send
    ) -> None:
        """Answers a method that an address does not take, or a browser's question which it does take."""
        if scope["method"] == "OPTIONS" and self._cross_origin is not None:
            allowed = self._cross_origin.preflight_headers(headers, allow)
            if allowed is not None:
                await _send(send, 204, None, [(b"x-request-id", request_id.encode("ascii")), *allowed], b"")
                return
        problem = Problem(METHOD_NOT_ALLOWED, f"This address takes {allow}.", headers={"Allow": allow})
        await self._refuse(problem, headers, request_id, scope, send)

    async def _refuse(
        self, problem: Problem, headers: dict[bytes, bytes], request_id: str, scope: Scope, send: Send
    ) -> None:
        if self._count_refusal is not None:
            self._count_refusal(problem.kind.status, problem.kind, 0)
        own = self._common_headers(headers, request_id)
        await _send_problem(send, problem, request_id, own, repeatable=True, head=scope["method"] == "HEAD")

    def _problem(self, error: Exception, call: Call[Any, Any]) -> Problem:
        problem = error if isinstance(error, Problem) else self._translate(error)
        if problem is None:
            _log.error(
                "%s failed; request %s",
                call.operation.operation_id,
                call.request_id,
                exc_info=error,
                extra={"request_id": call.request_id},
            )
            problem = Problem(INTERNAL_ERROR, "The server failed; its log has the reason under this request's id.")
        return problem

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given and len(given) <= REQUEST_ID_LENGTH_MAX and not given.strip(_REQUEST_ID_CHARACTERS):
            return given.decode("ascii")
        return f"{self._request_id_prefix}{next(self._request_numbers):x}"


class _Positioned(msgspec.Struct):
    position: str = ""


def _tell_change(call: Call[Any, Any], body: bytes) -> None:
    """By its id and its position it is found again: in Redis' streams, in the workers' logs, in what is delivered."""
    position = msgspec.json.decode(body, type=_Positioned).position
    _log.debug("%s", call.operation.operation_id, extra={"request_id": call.request_id, "position": position})


class Application(Starlette):
    """A Starlette application whose operations a `Surface` serves, ahead of Starlette's routing and middleware.

    Starlette does all else: the lifespan, pages, metrics. What it refuses is answered as a problem, too.
    """

    def __init__(self, surface: Surface, **starlette_arguments: Any) -> None:
        self.surface = surface
        self.stop: Callable[[], None] = lambda: None
        """What is called before the server waits for its connections: it ends what would never end by itself."""
        self.ended_by = ""
        """Why it has ended itself, where it has."""
        super().__init__(**starlette_arguments, exception_handlers={HTTPException: _answer_http_exception})
        # A redirect would be an answer outside of the specification; an address is one or it is not.
        self.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (found := self.surface.find(_path(scope))) is not None:
            await self.surface.serve(found, scope, receive, send)
        else:
            scope["surface"] = self.surface
            dressed = self.surface.dressed(scope, send) if scope["type"] == "http" else send
            await super().__call__(scope, receive, dressed)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette's own routing refuses, as a problem."""
    refusal = cast("HTTPException", error)
    methods = (refusal.headers or {}).get("Allow") if refusal.status_code == METHOD_NOT_ALLOWED.status else None
    return _Refusal(request.scope["surface"], methods)


class _Refusal(Response):
    """`methods` are those that the address takes; None where there is nothing."""

    def __init__(self, surface: Surface, methods: str | None) -> None:
        super().__init__()
        self._surface = surface
        self._allow = None if methods is None else ", ".join(sorted(methods.split(", ")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._allow is None:
            await self._surface.refuse(_nowhere(), scope, send)
        else:
            await self._surface.refuse_method(self._allow, scope, send)


class _Segment:
    """A node of the table: where a path's next segment leads, and what is served where a path ends here."""

    __slots__ = ("allow", "endpoints", "literals", "parameter")

    def __init__(self) -> None:
        self.literals: dict[str, _Segment] = {}
        self.parameter: _Segment | None = None
        self.endpoints: dict[str, _Endpoint] = {}
        self.allow = ""

    def add(self, operation: Operation, endpoint: _Endpoint) -> None:
        segment = self
        for part in operation.path.split("/")[1:]:
            if part.startswith("{"):
                segment.parameter = segment.parameter or _Segment()
                segment = segment.parameter
            else:
                segment = segment.literals.setdefault(part, _Segment())
        if operation.method in segment.endpoints:
            raise ValueError(f"{operation.method} {operation.path} is in the table twice")
        segment.endpoints[operation.method] = endpoint
        if operation.method == "GET":
            segment.endpoints["HEAD"] = endpoint
        segment.allow = ", ".join(sorted(segment.endpoints))


class _Endpoint:
    """An operation with its handler, and all that can be prepared once for every call of it."""

    __slots__ = (
        "_admit",
        "_handler",
        "_in_flight",
        "_parameters",
        "_query_default",
        "_query_integers",
        "_query_type",
        "_read_body",
        "_takes_key",
        "count",
        "encode",
        "operation",
        "parameter_names",
    )

    def __init__(
        self,
        operation: Operation,
        handler: Handler,
        admit: Admit | None,
        in_flight: InFlight,
        body_bytes_max: int,
        body_seconds_max: float,
    ) -> None:
        self.operation = operation
        self.count: Count | None = None
        self.parameter_names = tuple(parameter.name for parameter in operation.path_parameters)
        self.encode = msgspec.json.Encoder().encode
        self._handler = handler
        self._admit = admit
        # A process that has too much to do is alive nevertheless, and is to be asked for that.
        self._in_flight = in_flight if operation.tag != HEALTH else InFlight(sys.maxsize)
        self._read_body = None
        if operation.request is not None:
            body = BodyReader(operation.request, operation.request_optional, body_bytes_max, body_seconds_max)
            self._read_body = body.read
        self._parameters = operation.path_parameters
        self._takes_key = operation.takes_key
        self._query_type = operation.query
        self._query_default = operation.query()
        self._query_integers = _integer_fields(operation.query)

    async def answer(self, call: Call[Any, Any], query_string: bytes, receive: Receive) -> Answer:
        """Checks what is common to operations, in the order that the module's head tells, then calls the handler."""
        in_flight = self._in_flight
        in_flight.require_room()
        if self._admit is not None:
            self._admit(call)
        headers = call.headers
        accept = headers.get(b"accept")
        if accept is not None and accept != b"*/*" and not accepts_json(accept):
            raise Problem(NOT_ACCEPTABLE, "This address answers application/json only.")
        if (prefer := headers.get(b"prefer")) is not None:
            call.prefer = read_preferences(prefer)
        if self._takes_key and (key := headers.get(b"idempotency-key")) is not None:
            if not 0 < len(key) <= KEY_LENGTH_MAX or key.strip(_VISIBLE):
                raise invalid_request(
                    "header.Idempotency-Key", f"Expected 1 to {KEY_LENGTH_MAX} visible ASCII characters"
                )
            call.idempotency_key = key.decode("ascii")
        path_params = call.path_params
        for parameter in self._parameters:
            if not parameter.allows(path_params[parameter.name]):
                raise invalid_id(parameter, path_params[parameter.name])
        call.query = self._read_query(query_string) if query_string else self._query_default
        call.body = None if self._read_body is None else await self._read_body(headers, receive)
        in_flight.require_room()
        in_flight.count += 1
        REQUEST_ID.set(call.request_id)
        try:
            return await self._handler(call)
        finally:
            in_flight.count -= 1

    def _read_query(self, query_string: bytes) -> msgspec.Struct:
        try:
            pairs = parse_qsl(
                query_string.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=QUERY_FIELDS_MAX,
            )
        except ValueError:
            raise invalid_request(
                "query", f"Expected at most {QUERY_FIELDS_MAX} parameters, percent-encoded UTF-8"
            ) from None
        values: dict[str, str | int] = {}
        for name, value in pairs:
            if name in values:
                raise invalid_request(f"query.{shortened(name)}", "Expected this parameter once")
            whole = name in self._query_integers and value.isascii() and value.removeprefix("-").isdigit()
            values[name] = int(value) if whole and len(value) <= 17 else value
        try:
            return msgspec.convert(values, self._query_type)
        except msgspec.ValidationError as error:
            raise invalid_query(self._query_type, values, error) from None


def _integer_fields(query: type[msgspec.Struct]) -> frozenset[str]:
    described = cast("StructType", type_info(query))
    return frozenset(
        field.encode_name
        for field in described.fields
        if isinstance(field.type.type if isinstance(field.type, Metadata) else field.type, IntType)
    )


def _path(scope: Scope) -> str:
    """The path below what the server was told is its root."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root else path


async def _send(send: Send, status: int, fixed: FixedHeaders | None, own: list[Header], body: bytes) -> None:
    if fixed is not None and type(send) is WholeSend and send.whole(status, fixed, own, body):
        return
    headers = own if fixed is None else [*fixed.headers, *own]
    try:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    except OSError:
        # The client has gone; what was done stays done.
        _log.debug("the client left before its answer")


async def _send_problem(
    send: Send, problem: Problem, request_id: str, common: list[Header], *, repeatable: bool, head: bool
) -> None:
    body = problem.encode(request_id=request_id, repeatable=repeatable)
    headers = [
        *common,
        (b"content-length", b"%d" % len(body)),
        *((name.lower().encode("ascii"), value.encode("latin-1")) for name, value in problem.headers.items()),
    ]
    await _send(send, problem.kind.status, _PROBLEM, headers, b"" if head else body)
