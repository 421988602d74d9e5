"""The composition root of an API process: the engine, the history, every handler, as one ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from api import admin, balance, coupons, health, operators, orders, policies, products
from api.asgi import Application, Handler, Surface
from api.console import Console
from api.documents import document_routes
from api.guards.admission import make_admission
from api.guards.origins import CrossOrigin
from api.metrics import ApiMetrics
from api.refusals import translate
from api.request_counts import RequestCounts
from api.settings import ApiSettings
from api.shop import Shop
from api.tracing import TraceSettings, begin_traces, traced
from engine import garbage
from engine.engine import make_engine
from engine.settings import EngineSettings
from persistence.history import History
from persistence.installation import await_same
from persistence.settings import HistorySettings
from persistence.start_checks import StartRefused

SUBJECTS = (balance, products, orders, coupons, policies, admin, operators, health)


def create_app(counts: RequestCounts | None = None) -> ASGIApp:
    """The application with the settings of the environment: what uvicorn is told to run."""
    application = make_app(
        EngineSettings.from_environment(),
        ApiSettings.from_environment(),
        HistorySettings.from_environment(),
        counts,
    )
    if not TraceSettings.from_environment().traces:
        return application
    return traced(application, begin_traces("firstcome-api"))


def make_app(
    engine_settings: EngineSettings,
    api_settings: ApiSettings,
    history_settings: HistorySettings,
    counts: RequestCounts | None = None,
) -> Application:
    """The application with these settings; servers are reached when its lifespan begins.

    `counts` are shared with the other processes of the API, where there are some.
    """
    engine = make_engine(engine_settings)
    shop = Shop(engine, History(history_settings.url, history_settings), api_settings, history_settings.database_url)
    metrics = ApiMetrics(engine, counts or RequestCounts())
    console = Console(shop, metrics.counts)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await engine.start(patient=True)
        garbage.settle()
        try:
            async with (
                metrics.publishing(),
                console.telling(),
                _leaving_another_shop(application, shop.engine.settings, history_settings.url),
            ):
                yield
        finally:
            shop.stop()
            await engine.close()
            await shop.history.close()

    handlers: dict[str, Handler] = {}
    for subject in SUBJECTS:
        handlers |= subject.handlers(shop)
    surface = Surface(
        handlers,
        translate=translate,
        admit=make_admission(api_settings),
        counter_for=metrics.counts.counter_for,
        cross_origin=CrossOrigin(api_settings.cors_origins),
        in_flight_max=api_settings.requests_in_flight_max,
        body_seconds_max=api_settings.body_timeout_ms / 1000,
    )
    metrics.surface = surface
    routes = [Route("/metrics", metrics, methods=["GET"]), *console.routes(), *document_routes()]
    application = Application(surface, routes=routes, lifespan=lifespan)
    application.stop = shop.stop
    return application


@asynccontextmanager
async def _leaving_another_shop(
    application: Application, told: EngineSettings, database_url: str
) -> AsyncIterator[None]:
    """Within it this process ends once PostgreSQL says that the shop is another one than it was told.

    It was looked at before the start (`api.commands.first_look`), unless PostgreSQL was away or no worker had begun.
    """

    async def look() -> None:
        try:
            await await_same(database_url, told)
        except StartRefused as error:
            application.ended_by = str(error)
            application.stop()
            signal.raise_signal(signal.SIGTERM)

    task = asyncio.create_task(look(), name="installation")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
