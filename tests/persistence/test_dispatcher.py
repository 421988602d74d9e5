"""The dispatcher against a real HTTP server that is down for a part, answers 500 and closes connections (R3.5)."""

import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import orjson
import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from standardwebhooks import Webhook, WebhookVerificationError

from api.openapi import openapi_document
from api.schemas import OrderPaid
from engine.engine import Engine
from engine.orders import Order
from engine.positions import position_text
from engine.request_id import REQUEST_ID
from persistence import dispatcher
from persistence.database import DatabaseError, connect
from persistence.dispatcher import Dispatcher
from persistence.history import History
from persistence.oversight import Oversight
from persistence.settings import HistorySettings, WorkerSettings
from persistence.webhooks import make_secret
from tests.contract.specification import SpecValidator
from tests.persistence.shop import fill, line, rows, until, value, write_all

Connection = AsyncConnection[TupleRow]
SECRETS = (make_secret(), make_secret())
_OPEN_ALARMS = "SELECT array_agg(kind) FROM alarm WHERE cleared_at IS NULL"


class Platform:
    """A data platform on a port of its own: keeps what it takes, and can misbehave."""

    def __init__(self) -> None:
        self.secrets = SECRETS
        """Of which one must have signed; what each verified is what the reference library says."""
        self.taken: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        """Of every request, names in lower case."""
        self.verified: list[list[bool]] = []
        """Of every request: which of the secrets has signed it."""
        self.sizes: list[int] = []
        """Of every signed request: how many events it had."""
        self.seen: Counter[str] = Counter()
        self.answers: list[int] = []
        """What to answer next, before 204: a status, or 0 to close the connection without a word."""
        self.refused: set[str] = set()
        """Order ids that are always answered 500."""
        self.silent = False
        """Whether it reads and never answers."""
        self.taken_max = sys.maxsize
        """How many events it takes before it is silent."""
        self.never_ends = False
        """Whether it answers 200 and a body without an end."""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                pairs = (row.split(": ", 1) for row in head.decode().split("\r\n")[1:] if row)
                headers = {name.lower(): value for name, value in pairs}
                self.headers.append(headers)
                body = await reader.readexactly(int(headers["content-length"]))
                status = self._judge(body, headers)
                if self.silent:
                    await reader.read()  # until the other end has had enough
                    break
                if status == 0:
                    break
                if self.never_ends:
                    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    while not writer.is_closing():
                        writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
                        await writer.drain()
                writer.write(b"HTTP/1.1 %d Whatever\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    def _judge(self, body: bytes, headers: dict[str, str]) -> int:
        self.verified.append([is_signed(secret, body, headers) for secret in self.secrets])
        if not any(self.verified[-1]):
            return 401
        events = orjson.loads(body)
        self.sizes.append(len(events))
        self.seen.update(event["id"] for event in events)
        if any(event["subject"] in self.refused for event in events):
            return 500
        status = self.answers.pop(0) if self.answers else 204
        if status == 204 and not self.silent:
            self.taken += events
            self.silent = len(self.taken) >= self.taken_max
        return status


def is_signed(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    """A platform that is up."""
    platform = Platform()
    await platform.start()
    yield platform
    await platform.stop()


def _settings(database_url: str, platform: Platform, **options: Any) -> WorkerSettings:
    quick: dict[str, Any] = {
        "data_platform_secrets": SECRETS[0],
        "delivery_backoff_ms": 5,
        "delivery_backoff_max_ms": 20,
        **options,
    }
    return WorkerSettings(database_url=database_url, data_platform_url=platform.url, **quick)


@asynccontextmanager
async def _dispatching(settings: WorkerSettings) -> AsyncIterator[None]:
    async with await connect(settings.database_url, "test dispatcher") as own:
        task = asyncio.create_task(Dispatcher(settings, "KRW").run(own, lambda: range(4)))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _buy(engine: Engine, users: int, orders_each: int) -> list[Order]:
    """Several paid orders of several users, in each user's order."""
    await fill(engine, quantity=1_000)
    bought = []
    for number in range(users):
        await engine.wallets.charge(f"user{number}", 1_000_000)
    for _ in range(orders_each):
        for number in range(users):
            bought.append(await engine.orders.checkout(f"user{number}", [line()], None))
    return bought


async def _all_delivered(connection: Connection) -> None:
    async def is_done() -> bool:
        return bool(await value(connection, "SELECT count(*) = 0 FROM outbox WHERE state = 'pending'"))

    await until(is_done)


def _assert_in_order_per_user(platform: Platform, bought: list[Order]) -> None:
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    got: defaultdict[str, list[str]] = defaultdict(list)
    for order in bought:
        wanted[order.user_id].append(order.order_id)
    for event in platform.taken:
        if event["subject"] not in got[event["data"]["user_id"]]:
            got[event["data"]["user_id"]].append(event["subject"])
    assert got == wanted


@pytest.mark.requirement("R3.5")
async def test_a_paid_order_arrives_as_a_cloud_event(
    engine: Engine,
    platform: Platform,
    connection: Connection,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "firstcome.dispatcher")
    before = REQUEST_ID.set("of-this-purchase")
    (order,) = await _buy(engine, 1, 1)
    REQUEST_ID.reset(before)
    await write_all(engine, database_url)

    async with _dispatching(_settings(database_url, platform)):
        await _all_delivered(connection)

    (event,) = platform.taken
    told = [(vars(line)["position"], vars(line)["request_id"]) for line in caplog.records]
    assert told == [(event["id"], "of-this-purchase")]
    assert {name: event[name] for name in event if name not in {"time", "data"}} == {
        "specversion": "1.0",
        "id": position_text(order.positions[:1]),
        "source": "/firstcome",
        "type": "order.paid",
        "subject": order.order_id,
        "datacontenttype": "application/json",
        "requestid": "of-this-purchase",
    }
    data = event["data"]
    assert (data["user_id"], data["total"], data["currency"], data["status"]) == ("user0", 300, "KRW", "completed")
    assert data["lines"] == orjson.loads(order.lines_json)
    assert event["time"] == data["payment"]["paid_at"]
    assert data["payment"]["paid_at"].endswith("Z")
    assert await rows(connection, "SELECT state, tries FROM outbox") == [("delivered", 1)]


async def test_a_delivery_is_what_the_specification_says_of_the_webhook(
    engine: Engine, platform: Platform, connection: Connection, database_url: str
) -> None:
    await _buy(engine, 1, 1)
    await write_all(engine, database_url)
    async with _dispatching(_settings(database_url, platform)):
        await _all_delivered(connection)

    webhook = openapi_document()["webhooks"]["order.paid"]["post"]
    ((media_type, content),) = webhook["requestBody"]["content"].items()
    (headers,), (event,) = platform.headers, platform.taken
    assert headers["content-type"].partition(";")[0] == media_type == "application/cloudevents-batch+json"
    named = {parameter["name"] for parameter in webhook["parameters"]}
    assert named == {name for name in headers if name.startswith("webhook-")}
    SpecValidator(openapi_document()).check_value(content["schema"], [event])
    assert msgspec.to_builtins(msgspec.convert(event, OrderPaid)) == event


async def test_every_paid_order_arrives_though_the_platform_was_down_for_a_part(
    engine: Engine, platform: Platform, connection: Connection, database_url: str
) -> None:
    bought = await _buy(engine, 4, 5)
    await write_all(engine, database_url)
    await platform.stop()

    async with _dispatching(_settings(database_url, platform)):

        async def was_tried() -> bool:
            return bool(await value(connection, "SELECT max(tries) > 2 FROM outbox"))

        await until(was_tried)
        await platform.start()
        await _all_delivered(connection)

    assert {event["subject"] for event in platform.taken} == {order.order_id for order in bought}
    _assert_in_order_per_user(platform, bought)


async def test_every_paid_order_arrives_in_order_per_user_though_posts_fail(
    engine: Engine, platform: Platform, connection: Connection, database_url: str
) -> None:
    bought = await _buy(engine, 4, 5)
    await write_all(engine, database_url)
    platform.answers = [500, 0, 503, 204, 429, 0, 204, 204, 500, 500, 302]

    async with _dispatching(_settings(database_url, platform)):
        await _all_delivered(connection)

    assert len(platform.taken) == 20
    _assert_in_order_per_user(platform, bought)


async def test_a_delivery_refused_too_often_is_dead_with_an_alarm_and_frees_the_users_next(
    engine: Engine, platform: Platform, connection: Connection, database_url: str
) -> None:
    first, second = await _buy(engine, 1, 2)
    await write_all(engine, database_url)
    platform.refused = {first.order_id}

    async with _dispatching(_settings(database_url, platform, delivery_tries_max=3)):
        await until(lambda: _count(connection, _OPEN_ALARMS, ["delivery_dead"]))
        ((detail,),) = await rows(connection, "SELECT detail FROM alarm")
        assert detail.startswith("1 given up")
        assert detail.endswith("after 3 tries: answered 500")
        await _all_delivered(connection)

    assert [event["subject"] for event in platform.taken] == [second.order_id]
    found = await rows(connection, "SELECT order_id::text, state, tries, last_error FROM outbox ORDER BY id")
    assert found == [(first.order_id, "dead", 3, "answered 500"), (second.order_id, "delivered", 1, None)]


async def test_a_refused_batch_does_not_take_the_others_with_it(
    engine: Engine, platform: Platform, connection: Connection, database_url: str
) -> None:
    bought = await _buy(engine, 6, 1)
    await write_all(engine, database_url)
    platform.refused = {bought[2].order_id}

    async with _dispatching(_settings(database_url, platform, delivery_tries_max=1)):
        await _all_delivered(connection)

    assert platform.sizes[0] == 6
    assert max(platform.sizes[1:]) == 1
    assert {event["subject"] for event in platform.taken} == {order.order_id for order in bought} - platform.refused
    assert await value(connection, "SELECT array_agg(order_id::text) FROM outbox WHERE state = 'dead'") == [
        bought[2].order_id
    ]


async def test_a_replayed_delivery_arrives_and_ends_the_alarm(
    engine: Engine, platform: Platform, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (order,) = await _buy(engine, 1, 1)
    await write_all(engine, database_url)
    platform.refused = {order.order_id}
    monkeypatch.setattr(dispatcher, "WATCH_EVERY_S", 0.05)

    async with _dispatching(_settings(database_url, platform, delivery_tries_max=2)):
        await until(lambda: _count(connection, _OPEN_ALARMS, ["delivery_dead"]))
        platform.refused.clear()
        history = History(database_url, HistorySettings(database_url=database_url))
        await Oversight(history).replay_delivery(await value(connection, "SELECT id FROM outbox"))
        await history.close()
        await _all_delivered(connection)
        await until(lambda: _count(connection, _OPEN_ALARMS, None))

    assert [event["subject"] for event in platform.taken] == [order.order_id]
    assert max(platform.seen.values()) == 3


async def test_what_waits_too_long_for_a_silent_platform_raises_an_alarm_until_it_is_taken(
    engine: Engine, platform: Platform, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bought = await _buy(engine, 3, 2)
    await write_all(engine, database_url)
    platform.silent = True
    monkeypatch.setattr(dispatcher, "WATCH_EVERY_S", 0.05)

    async with _dispatching(_settings(database_url, platform, delivery_late_ms=1, delivery_timeout_ms=50)):
        await until(lambda: _count(connection, _OPEN_ALARMS, ["delivery_late"]))
        await until(lambda: _count(connection, "SELECT max(tries) > 0 FROM outbox", True))
        ((error,),) = await rows(connection, "SELECT DISTINCT last_error FROM outbox WHERE tries > 0")
        assert error == "no answer within 50 ms"
        platform.silent = False
        await _all_delivered(connection)
        await until(lambda: _count(connection, _OPEN_ALARMS, None))

    _assert_in_order_per_user(platform, bought)


async def test_while_the_secret_changes_each_delivery_is_signed_with_the_old_and_the_new_one(
    engine: Engine, platform: Platform, connection: Connection, database_url: str
) -> None:
    await _buy(engine, 2, 1)
    await write_all(engine, database_url)
    async with _dispatching(_settings(database_url, platform, data_platform_secrets=" ".join(SECRETS))):
        await _all_delivered(connection)

    assert platform.verified
    assert all(map(all, platform.verified))


async def test_a_platform_that_takes_nothing_is_asked_with_one_event_at_a_time_and_pauses(
    engine: Engine, platform: Platform, connection: Connection, database_url: str
) -> None:
    await _buy(engine, 20, 1)
    await write_all(engine, database_url)
    platform.answers = [503] * 6

    async with _dispatching(_settings(database_url, platform, delivery_batch_max=5, delivery_in_flight_max=2)):
        await _all_delivered(connection)

    assert platform.sizes[:6] == [5, 5, 1, 1, 1, 1]
    assert platform.sizes.count(5) > 2, "after the first that is taken they go in batches again"


async def test_two_dispatchers_do_not_send_what_the_other_sends(
    engine: Engine, platform: Platform, connection: Connection, database_url: str
) -> None:
    bought = await _buy(engine, 5, 4)
    await write_all(engine, database_url)
    settings = _settings(database_url, platform)

    async with _dispatching(settings), _dispatching(settings):
        await _all_delivered(connection)

    assert max(platform.seen.values()) == 1
    _assert_in_order_per_user(platform, bought)


async def test_a_dispatcher_that_ends_leaves_its_work_to_the_next(
    engine: Engine, platform: Platform, connection: Connection, database_url: str
) -> None:
    bought = await _buy(engine, 4, 5)
    await write_all(engine, database_url)
    settings = _settings(database_url, platform, delivery_in_flight_max=1)
    platform.taken_max = 3

    async with _dispatching(settings):

        async def has_some() -> bool:
            return platform.silent

        await until(has_some)
    assert len(platform.taken) < 20
    platform.taken_max, platform.silent = sys.maxsize, False
    async with _dispatching(settings):
        await _all_delivered(connection)

    assert {event["subject"] for event in platform.taken} == {order.order_id for order in bought}
    _assert_in_order_per_user(platform, bought)


async def test_an_answer_without_an_end_is_taken_by_its_status(
    engine: Engine, connection: Connection, database_url: str, platform: Platform
) -> None:
    platform.never_ends = True
    bought = await _buy(engine, users=3, orders_each=2)
    await write_all(engine, database_url)

    async def are_delivered() -> bool:
        return bool(await value(connection, "SELECT count(*) FROM outbox WHERE state = 'delivered'") == len(bought))

    async with _dispatching(_settings(database_url, platform)):
        await until(are_delivered)

    assert sorted(event["subject"] for event in platform.taken) == sorted(order.order_id for order in bought)


async def test_a_dispatcher_that_stands_still_gives_its_share_away(
    engine: Engine, connection: Connection, database_url: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    bought = await _buy(engine, users=2, orders_each=1)
    await write_all(engine, database_url)
    settings = _settings(database_url, platform)
    async with await connect(database_url, "stopped") as stopped:
        still = Dispatcher(settings, "KRW")
        with monkeypatch.context() as patch:
            patch.setattr(dispatcher, "SILENT_MAX_MS", 500)
            task = asyncio.create_task(still.run(stopped, lambda: range(4)))
            await until(lambda: _count(connection, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", 4))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        async with _dispatching(settings):
            await until(
                lambda: _count(connection, "SELECT count(*) FROM outbox WHERE state = 'delivered'", len(bought))
            )


async def test_a_dispatcher_whose_session_was_ended_goes_on_with_all_over_another_one(
    engine: Engine, connection: Connection, database_url: str, platform: Platform
) -> None:
    bought = await _buy(engine, users=3, orders_each=2)
    await write_all(engine, database_url)
    platform.silent = True
    one = Dispatcher(_settings(database_url, platform), "KRW")

    async def is_asked() -> bool:
        return platform.seen.total() > 0

    async with await connect(database_url, "first") as first:
        task = asyncio.create_task(one.run(first, lambda: range(4)))
        await until(is_asked)
        await connection.execute("SELECT pg_terminate_backend(%s)", (first.info.backend_pid,))
        with pytest.raises(DatabaseError):
            await task
    platform.silent = False
    async with await connect(database_url, "second") as second:
        task = asyncio.create_task(one.run(second, lambda: range(4)))
        await _all_delivered(connection)
        assert await _locks(connection, second) == 4
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    _assert_in_order_per_user(platform, bought)


async def test_a_share_that_is_taken_away_is_another_dispatchers_at_once(
    engine: Engine, connection: Connection, database_url: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "SHARE_EVERY_S", 0.02)
    settings, share = _settings(database_url, platform), set(range(4))
    async with await connect(database_url, "first") as first:
        task = asyncio.create_task(Dispatcher(settings, "KRW").run(first, lambda: share))

        async def holds(count: int) -> bool:
            return await _locks(connection, first) == count

        await until(lambda: holds(4))
        share.clear()
        await until(lambda: holds(0))
        bought = await _buy(engine, users=2, orders_each=2)
        await write_all(engine, database_url)
        async with _dispatching(settings):
            await _all_delivered(connection)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    _assert_in_order_per_user(platform, bought)


async def _locks(connection: Connection, of: Connection) -> int:
    """How many advisory locks the session of this connection has."""
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = %s"
    return int(await value(connection, query, of.info.backend_pid))


async def _count(connection: Connection, query: str, expected: object) -> bool:
    return bool(await value(connection, query) == expected)
