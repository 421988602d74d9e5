"""What operators look at: the state of the system, deliveries, alarms."""

from __future__ import annotations

import platform
from importlib.metadata import version

from api import schemas
from api.asgi import Answer, Call, Handler
from api.cursors import decode_number_cursor, encode_cursor
from api.idempotency import key_of, replayed_headers
from api.problems import NOT_FOUND, Problem
from api.runbook import address
from api.shop import Shop
from api.system import System
from api.times import format_moment, format_optional_moment
from engine.errors import EngineError
from engine.settings import without_password
from persistence.oversight import DeliveryFilter, Oversight, RecordedAlarm, RecordedDelivery


def handlers(shop: Shop) -> dict[str, Handler]:
    """The operations of operators that look, and the replay of a delivery."""
    oversight = Oversight(shop.history)
    system = System(shop, oversight)
    engine = shop.engine

    async def get_status(_: Call[None, schemas.NoQuery]) -> Answer:
        progress = await oversight.progress()
        sight = await system.look_beside(progress)
        identity = engine.lanes.identity(0)
        body = schemas.SystemStatus(
            generation=progress.generation,
            trusted=sight.trusted,
            backlog=sight.backlog,
            lag_ms=sight.lag_ms,
            workers=progress.workers,
            alarms_open=progress.alarms_open,
            deliveries=schemas.DeliveryStatus(
                waiting=progress.deliveries.waiting,
                lag_ms=progress.deliveries.oldest_ms,
                dead=progress.deliveries.dead,
            ),
            partitions=sight.partitions,
            servers=[
                schemas.ServerStatus(
                    kind="redis",
                    address=without_password(engine.settings.redis_url),
                    version=await redis_version(),
                    identity=None if identity is None else identity.decode(),
                    reachable=identity is not None,
                ),
                schemas.ServerStatus(
                    kind="postgresql",
                    address=without_password(shop.database_url),
                    version=progress.server_version,
                    identity=None,
                    reachable=True,
                ),
            ],
            versions=schemas.Versions(
                firstcome=version("firstcome"), python=platform.python_version(), schema=progress.schema_revision
            ),
        )
        return Answer(200, body)

    async def redis_version() -> str | None:
        try:
            return await engine.recovery.server_version(0)
        except EngineError:
            return None

    async def list_deliveries(call: Call[None, schemas.DeliveriesQuery]) -> Answer:
        query = call.query
        wanted = DeliveryFilter(query.state, query.user_id, query.order_id)
        page = await oversight.deliveries(wanted, query.limit, decode_number_cursor(query.cursor))
        cursor = None if page.next_cursor is None else encode_cursor(page.next_cursor)
        return Answer(
            200, schemas.DeliveryPage(items=[delivery_body(delivery) for delivery in page.items], next_cursor=cursor)
        )

    async def replay_delivery(call: Call[schemas.NothingRequest | None, schemas.NoQuery]) -> Answer:
        key = key_of(call)
        found = await oversight.replay_delivery(
            int(call.path_params["delivery_id"]), None if key is None else key.digest
        )
        if found is None:
            raise Problem(NOT_FOUND, f"There is no delivery {call.path_params['delivery_id']}.")
        delivery, replayed = found
        return Answer(200, delivery_body(delivery), replayed_headers(replayed))

    async def list_alarms(call: Call[None, schemas.AlarmsQuery]) -> Answer:
        page = await oversight.alarms(call.query.state, call.query.limit, decode_number_cursor(call.query.cursor))
        cursor = None if page.next_cursor is None else encode_cursor(page.next_cursor)
        return Answer(200, schemas.AlarmPage(items=[alarm_body(alarm) for alarm in page.items], next_cursor=cursor))

    return {
        "get_status": get_status,
        "list_deliveries": list_deliveries,
        "replay_delivery": replay_delivery,
        "list_alarms": list_alarms,
    }


def delivery_body(delivery: RecordedDelivery) -> schemas.Delivery:
    """A delivery as operators see it."""
    return schemas.Delivery(
        delivery_id=str(delivery.delivery_id),
        order_id=delivery.order_id,
        user_id=delivery.user_id,
        state=delivery.state,  # type: ignore[arg-type]
        tries=delivery.tries,
        created_at=format_moment(delivery.created_at),
        next_try_at=format_optional_moment(delivery.next_try_at),
        delivered_at=format_optional_moment(delivery.delivered_at),
        last_error=delivery.last_error,
    )


def alarm_body(alarm: RecordedAlarm) -> schemas.Alarm:
    """An alarm as operators see it."""
    return schemas.Alarm(
        alarm_id=str(alarm.alarm_id),
        kind=alarm.kind,
        partition=alarm.partition,
        subject=alarm.subject,
        detail=alarm.detail,
        remedy=alarm.remedy,
        runbook=address(alarm.kind),
        raised_at=format_moment(alarm.raised_at),
        cleared_at=format_optional_moment(alarm.cleared_at),
    )
