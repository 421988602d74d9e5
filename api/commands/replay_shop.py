"""The shop as a client on the network sees it: typed answers, refusals by name, repeated only what cannot act twice."""

import asyncio
import itertools
import random
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import httpx
import msgspec

from api import schemas

TRIES_MAX = 12
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.05, 3.0
TIMEOUT_S = 30.0
# The server closes a connection that is idle for a few seconds; one must not be used at that very moment.
KEEP_ALIVE_S = 2.0
PAGE_LIMIT = 100

Answer = TypeVar("Answer")


class ShopError(Exception):
    """A request did not lead to the answer that it asked for."""


class Refused(ShopError):
    """The shop said no: `name` is the problem's, `body` all of its members."""

    def __init__(self, name: str, body: Mapping[str, Any]) -> None:
        super().__init__(f"{name}: {body.get('detail', '')}")
        self.name, self.body = name, body


class OutcomeUnknown(ShopError):
    """The request may have taken effect, now or a little later; `order_id` names the order where the shop knows it."""

    def __init__(self, why: str, order_id: str | None = None) -> None:
        super().__init__(why)
        self.order_id = order_id


class Unreachable(ShopError):
    """The shop does not answer, or asks to wait for longer than is waited here."""


class UnexpectedAnswer(ShopError):
    """The answer is not what the specification says: another version of the shop, or no shop at all."""


class Shop:
    """Calls the HTTP surface, a client for one request at a time. Raises ShopError; OutcomeUnknown by `post` only."""

    def __init__(self, clients: Iterable[httpx.AsyncClient]) -> None:
        self._idle: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
        for client in clients:
            self._idle.put_nowait(client)

    async def get(self, path: str, answer: type[Answer], **query: str | int) -> Answer:
        return _decode(await self._send("GET", path, repeatable=True, query=query), answer)

    async def put(self, path: str, body: msgspec.Struct, answer: type[Answer]) -> Answer:
        return _decode(await self._send("PUT", path, repeatable=True, body=body), answer)

    async def post(self, path: str, body: msgspec.Struct, answer: type[Answer]) -> Answer:
        """Sent again only after an answer that says that nothing was changed."""
        return _decode(await self._send("POST", path, repeatable=False, body=body), answer)

    async def products(self) -> AsyncIterator[schemas.ProductSummary]:
        """All products, page by page."""
        cursor: dict[str, str] = {}
        while True:
            page = await self.get("/v1/products", schemas.ProductPage, limit=PAGE_LIMIT, **cursor)
            for product in page.items:
                yield product
            if page.next_cursor is None:
                return
            cursor = {"cursor": page.next_cursor}

    async def _send(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        query: Mapping[str, str | int] | None = None,
        body: msgspec.Struct | None = None,
    ) -> bytes:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        why = ""
        for failed_tries in range(TRIES_MAX):
            wait_s = 0.0
            try:
                answer = await self._request(method, path, params=query, content=content, headers=headers)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                why = f"{type(error).__name__}: {error}"
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
                if not repeatable:
                    raise OutcomeUnknown(why) from error
            else:
                if answer.is_success:
                    return answer.content
                refusal = _refusal(answer)
                why = str(refusal)
                if answer.status_code >= 500 and not repeatable and refusal.name != "overloaded":
                    raise OutcomeUnknown(why, refusal.body.get("order_id"))
                if answer.status_code < 500 and answer.status_code != 429:
                    raise refusal
                wait_s = _retry_after_s(answer)
            await asyncio.sleep(max(wait_s, _backoff_s(failed_tries)))
        raise Unreachable(f"{method} {path}: no answer after {TRIES_MAX} tries; the last one: {why}")

    async def _request(self, method: str, path: str, **parts: Any) -> httpx.Response:
        client = await self._idle.get()
        try:
            return await client.request(method, path, **parts)
        finally:
            self._idle.put_nowait(client)


@asynccontextmanager
async def open_shop(urls: Sequence[str], concurrency: int, auth: httpx.Auth | None = None) -> AsyncIterator[Shop]:
    """The shop that serves at `urls`, over so many connections, spread evenly; `auth` signs every request.

    Each connection is a client of its own: the HTTP library's pool looks at all of its connections for every request,
    which costs more than the request itself.
    """
    limits = httpx.Limits(max_connections=1, keepalive_expiry=KEEP_ALIVE_S)
    certificates = ssl.create_default_context()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits, verify=certificates, auth=auth)
            )
            for url in itertools.islice(itertools.cycle(urls), concurrency)
        ]
        yield Shop(clients)


def _decode(content: bytes, answer: type[Answer]) -> Answer:
    try:
        return msgspec.json.decode(content, type=answer)
    except msgspec.DecodeError as error:
        raise UnexpectedAnswer(f"no {answer.__name__}: {error}: {content[:200]!r}") from error


def _refusal(answer: httpx.Response) -> Refused:
    try:
        body = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        body = {"detail": answer.text[:200]}
    return Refused(str(body.get("type", f"status-{answer.status_code}")).rpartition("/")[2], body)


def _retry_after_s(answer: httpx.Response) -> float:
    """What the server asks for, up to what is waited here; without it, nothing."""
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), BACKOFF_S_MAX) if asked.isdecimal() else 0.0


def _backoff_s(failed_tries: int) -> float:
    return random.uniform(0.5, 1) * min(BACKOFF_S_MAX, BACKOFF_S_MIN * float(2**failed_tries))
