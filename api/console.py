"""The operator's console: a page, and the stream of what it shows, which is of all API processes together.

While somebody looks, one task of the process looks at the shop each second; every page that is open is told the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final

import msgspec
import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.asgi import Surface
from api.operations import HEALTH, OPERATIONS, OPERATORS, Operation
from api.operators import alarm_body, delivery_body
from api.problems import OVERLOADED, Problem
from api.request_counts import RequestCounts
from api.runbook import address
from api.shop import Shop
from api.system import ShopSnapshot, System
from api.times import format_time
from engine.errors import EngineError
from engine.traffic import Traffic
from persistence.history import HistoryUnavailable
from persistence.oversight import Oversight

LOOK_EVERY_S: Final = 1.0
_log: Final = logging.getLogger("firstcome.console")
CAMPAIGNS_READ: Final = 200
CAMPAIGNS_SHOWN: Final = 8
SELLERS_SHOWN: Final = 5
DELIVERIES_SHOWN: Final = 6
REFUSALS_SHOWN: Final = 5
PAGES_MAX: Final = 32

EVENTS: Final = Operation(
    operation_id="watch_console",
    method="GET",
    path="/admin/v1/console/events",
    tag=OPERATORS,
    summary="Follow what the console shows",
    security="admin",
    answers={},
)
"""Whose right the stream needs. It is no JSON document, so the specification has nothing of it."""

_NAMED: Final[Mapping[str, str]] = {
    "checkout": "orders",
    "pay_order": "orders",
    "issue_coupon": "coupons",
    "charge_balance": "charges",
}
_MEDIA_TYPES: Final = {
    "console.css": "text/css",
    "console.js": "text/javascript",
}
_OWN_ONLY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def traffic_of(counts: RequestCounts) -> dict[str, Any]:
    """What one process has answered since it began: to what changes something, to reads, and why it refused."""
    row, blocks = counts.own(), counts.layout.blocks
    sums = dict.fromkeys(("accepted", "refused", "failed", "read", "orders", "coupons", "charges"), 0)
    refusals: dict[str, int] = {}
    for operation in OPERATIONS:
        if operation.tag == HEALTH:
            continue
        block = blocks[operation.operation_id]
        done, refused, failed = row[block.outcomes : block.outcomes + 3]
        sums["accepted" if operation.changing else "read"] += done
        sums["refused"] += refused
        sums["failed"] += failed
        if operation.operation_id in _NAMED:
            sums[_NAMED[operation.operation_id]] += done
        for name, index in block.problems.items():
            if row[index]:
                refusals[name] = refusals.get(name, 0) + row[index]
    return {**sums, "refusals": refusals}


class Rates:
    """Turns sums that only grow into rates. What begins or goes between two looks counts from its first look on."""

    def __init__(self) -> None:
        self._before: dict[str, Mapping[str, int]] = {}
        self._at_s = 0.0

    def of(self, sums: Mapping[str, Mapping[str, int]], at_s: float) -> dict[str, float]:
        """Per second since the last look, added up over all sources; empty at the first."""
        took_s = at_s - self._at_s
        rates: dict[str, float] = {}
        for source, now in sums.items():
            before = self._before.get(source)
            if before is not None and took_s > 0:
                for name, value in now.items():
                    grown = max(0, value - before.get(name, 0))
                    rates[name] = rates.get(name, 0.0) + grown / took_s
        self._before, self._at_s = dict(sums), at_s
        return {name: round(rate, 1) for name, rate in rates.items()}


class Console:
    """One API process's part in it: it tells its counts, and streams what all of them together show."""

    def __init__(self, shop: Shop, counts: RequestCounts) -> None:
        self._shop = shop
        self._counts = counts
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._oversight = Oversight(shop.history)
        self._traffic = Traffic(shop.engine.lanes, shop.engine.keys)
        self._system = System(shop, self._oversight)
        self._pages = 0
        self._looking: asyncio.Task[None] | None = None
        self._next: asyncio.Future[bytes] | None = None
        self._latest: bytes | None = None

    def routes(self) -> list[Route]:
        """The page, its files, and its stream."""
        return [
            Route("/console", _page),
            Route("/console/{file}", _file),
            Route(EVENTS.path, self, methods=["GET"]),
        ]

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Within it the other processes hear what this one has answered."""
        task = asyncio.create_task(self._keep_telling(), name="traffic")
        try:
            yield
        finally:
            for running in (task, self._looking):
                if running is not None:
                    running.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await running

    async def _keep_telling(self) -> None:
        while True:
            # Nobody is the worse for it when Redis is away: then there is nothing to tell.
            with contextlib.suppress(EngineError):
                await self._traffic.tell(self._name, traffic_of(self._counts))
            await asyncio.sleep(LOOK_EVERY_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the stream to those who may see it, until they leave or this process stops."""
        surface: Surface = scope["surface"]
        try:
            surface.require_right(EVENTS, scope)
            if self._pages >= PAGES_MAX:
                raise Problem(OVERLOADED, "As many consoles are open at this process as it lets in.")
        except Problem as problem:
            await surface.refuse(problem, scope, send)
            return
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._pages += 1
        left = asyncio.create_task(_left(receive))
        stopping = asyncio.create_task(self._shop.stopping.wait())
        try:
            await self._stream(send, left, stopping)
        except OSError:
            pass  # the page was closed
        finally:
            self._pages -= 1
            left.cancel()
            stopping.cancel()
            await asyncio.gather(left, stopping, return_exceptions=True)

    async def _stream(self, send: Send, left: asyncio.Task[None], stopping: asyncio.Task[Any]) -> None:
        if self._latest is not None and self._looking is not None and not self._looking.done():
            await send({"type": "http.response.body", "body": self._latest, "more_body": True})
        while True:
            look = self._await_next()
            ends: list[asyncio.Future[Any]] = [look, left, stopping]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                return
            if stopping.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await send({"type": "http.response.body", "body": look.result(), "more_body": True})

    def _await_next(self) -> asyncio.Future[bytes]:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._keep_looking(), name="console")
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    async def _keep_looking(self) -> None:
        """Looks while a page is open."""
        durable, traffic = Rates(), Rates()
        while self._pages:
            began_s = time.monotonic()
            try:
                sight = await self._look(durable, traffic)
            except Exception:
                # The page says that it hears nothing; the next look may do better.
                _log.exception("The console cannot look at the shop")
            else:
                self._latest = b"data: " + orjson.dumps(sight, default=msgspec.to_builtins) + b"\n\n"
                waiting, self._next = self._next, None
                if waiting is not None and not waiting.done():
                    waiting.set_result(self._latest)
            await asyncio.sleep(max(0.1, LOOK_EVERY_S - (time.monotonic() - began_s)))

    async def _look(self, durable: Rates, traffic: Rates) -> dict[str, Any]:
        sight = await self._system.look()
        seen_s = time.monotonic()
        changes = {
            str(partition.partition): {"decided": partition.sequence, "durable": partition.durable_sequence}
            for partition in sight.partitions
            if partition.sequence is not None and partition.durable_sequence is not None
        }
        rates = durable.of(changes, seen_s)
        try:
            told = await self._traffic.processes()
        except EngineError:
            told = {}
        flat = {name: _flat(counts) for name, counts in told.items()}
        rates |= traffic.of(flat, time.monotonic())
        refusals = {name[2:]: rate for name, rate in rates.items() if name.startswith("p:") and rate}
        return {
            "at": format_time(int(time.time() * 1000)),
            "version": version("firstcome"),
            "rates": {name: rate for name, rate in rates.items() if not name.startswith("p:")},
            "refusals": sorted(refusals.items(), key=lambda item: -item[1])[:REFUSALS_SHOWN],
            "processes": len(told),
            **_sight_body(sight),
            **await self._subjects(sight),
        }

    async def _subjects(self, sight: ShopSnapshot) -> dict[str, Any]:
        shop = self._shop
        shown: dict[str, Any] = {"campaigns": [], "best_sellers": [], "alarms": conditions(sight)}
        shown |= {"waiting": None, "deliveries": []}
        if sight.redis_is_there:
            with contextlib.suppress(EngineError, TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    shown["campaigns"] = await self._campaigns()
                    ranking = await shop.engine.bestsellers.top(3)
                    shown["best_sellers"] = [
                        {"name": item.name, "product_id": item.product_id, "sold": item.quantity_sold}
                        for item in ranking.items[:SELLERS_SHOWN]
                    ]
        if sight.progress is not None:
            with contextlib.suppress(HistoryUnavailable):
                shown["alarms"] += [
                    msgspec.to_builtins(alarm_body(alarm)) | {"count": count}
                    for alarm, count in await self._oversight.open_kinds()
                ]
                backlog, deliveries = await self._oversight.deliveries_now(DELIVERIES_SHOWN)
                shown["waiting"] = msgspec.to_builtins(backlog)
                shown["deliveries"] = [msgspec.to_builtins(delivery_body(delivery)) for delivery in deliveries]
        return shown

    async def _campaigns(self) -> list[dict[str, Any]]:
        """Those that are open, the one with the smallest share left first."""
        now_ms = self._shop.engine.runner.now_ms(0)
        campaigns = [
            campaign
            for campaign in await self._shop.engine.coupons.list_campaigns(CAMPAIGNS_READ)
            if campaign.opens_at_ms <= now_ms < campaign.closes_at_ms
        ]
        campaigns.sort(key=lambda campaign: (campaign.remaining == 0, campaign.remaining / campaign.quantity))
        return [
            {
                "campaign_id": campaign.campaign_id,
                "name": campaign.name,
                "quantity": campaign.quantity,
                "remaining": campaign.remaining,
                "closes_at": format_time(campaign.closes_at_ms),
            }
            for campaign in campaigns[:CAMPAIGNS_SHOWN]
        ]


def conditions(sight: ShopSnapshot) -> list[dict[str, Any]]:
    """What nobody can put on record as an alarm, because who would do so is what is missing."""
    found = []
    if not sight.redis_is_there:
        detail = "Redis does not answer: nothing can be sold."
        found.append(("redis_unreachable", detail, "Start Redis, or reach it.", "FirstcomeUntrusted"))
    if sight.progress is None:
        detail = "PostgreSQL does not answer: what is sold stays in Redis until it does, within the backlog limit."
        remedy = "Start PostgreSQL, or reach it; the worker goes on by itself."
        found.append(("postgres_unreachable", detail, remedy, "FirstcomeBlind"))
    elif not sight.progress.workers:
        detail = "No worker is there: nothing becomes durable, and after a restart of Redis nothing is sold."
        found.append(("no_worker", detail, "Start one: firstcome worker.", "FirstcomeNoWorker"))
    return [
        {
            "kind": kind,
            "subject": "",
            "detail": detail,
            "remedy": remedy,
            "runbook": address(entry),
            "partition": None,
            "count": 1,
        }
        for kind, detail, remedy, entry in found
    ]


def _flat(counts: Mapping[str, Any]) -> dict[str, int]:
    refusals = {f"p:{name}": count for name, count in counts["refusals"].items()}
    return {name: value for name, value in counts.items() if name not in ("refusals", "at")} | refusals


def _sight_body(sight: ShopSnapshot) -> dict[str, Any]:
    progress = sight.progress
    return {
        "redis": sight.redis_is_there,
        "postgres": progress is not None,
        "workers": None if progress is None else progress.workers,
        "alarms_open": None if progress is None else progress.alarms_open,
        "trusted": sight.trusted,
        "backlog": sight.backlog,
        "lag_ms": sight.lag_ms,
        "partitions": [[p.partition, p.state, p.backlog, p.lag_ms] for p in sight.partitions],
    }


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _page(_: Request) -> Response:
    return Response(_static("console.html"), media_type="text/html", headers=_OWN_ONLY)


async def _file(request: Request) -> Response:
    file = request.path_params["file"]
    if file not in _MEDIA_TYPES:
        raise HTTPException(404)
    return Response(_static(file), media_type=_MEDIA_TYPES[file], headers={"Cache-Control": "no-cache"})


def _static(file: str) -> bytes:
    return (files("api") / "static" / file).read_bytes()
