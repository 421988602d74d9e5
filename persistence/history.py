"""What the API reads from PostgreSQL: lists of entries and orders, what has left Redis, positions, alarms."""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import orjson
from sqlalchemy import BigInteger, ColumnElement, Row, Select, and_, cast, func, literal, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.coupons import Coupon, Discount
from engine.order_ids import is_order_id
from engine.positions import Position, position_of, position_text
from persistence.database import DatabaseError, translated
from persistence.settings import HistorySettings
from persistence.sqlalchemy_engines import history_engine
from persistence.tables import coupon, epoch_end, ledger_entry, order_line, orders, partition_cursor

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_coupon_number = cast(func.substring(coupon.c.coupon_id, "[0-9]+$"), BigInteger)
"""Counts its user's coupons; the id ends with it."""

SEQ_MAX = 2**63 - 1
"""Largest sequence that a column can hold."""

MARGIN_S = 1.0
"""For how much longer than its parts may take a whole read is waited for."""

_log = logging.getLogger("firstcome.history")


class HistoryUnavailable(Exception):
    """PostgreSQL cannot answer now; nothing is wrong with the request."""


class InvalidCursor(ValueError):
    """The cursor is not one that an answer of this list held."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list; ``next_cursor`` is None on the last one."""

    items: tuple[Item, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class BalanceEntry:
    """A change of a balance: ``kind`` is ``charge`` or ``payment``; ``amount`` is signed, ``balance`` the one after."""

    entry_id: str
    kind: str
    amount: int
    balance: int
    order_id: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class RecordedLine:
    """A line of an order on record; amounts in minor units."""

    product_id: str
    stock_id: str
    name: str
    option: str
    unit_price: int
    quantity: int
    amount: int


@dataclass(frozen=True, slots=True)
class RecordedOrder:
    """An order as PostgreSQL has it; times are aware, in UTC; ``position`` is that of its last change."""

    order_id: str
    user_id: str
    status: str
    failure: str | None
    lines: tuple[RecordedLine, ...]
    subtotal: int
    discount: int
    total: int
    coupon_id: str | None
    ordered_at: datetime
    pay_before: datetime | None
    paid_at: datetime | None
    position: str


class History:
    """Reads over a pool of its own; no connection is made before the first read."""

    def __init__(self, database_url: str, settings: HistorySettings) -> None:
        self._engine = history_engine(
            database_url,
            pool_size=settings.history_pool_size,
            wait_s=settings.history_wait_ms / 1000,
            statement_ms=settings.history_statement_ms,
        )
        self._within_s = (settings.history_wait_ms + settings.history_statement_ms) / 1000 + MARGIN_S
        self._reads = set[asyncio.Task[Any]]()

    async def close(self) -> None:
        """Close the pool."""
        await self._engine.dispose()

    async def balance_entries(self, user_id: str, limit: int, cursor: str | None = None) -> Page[BalanceEntry]:
        """A user's balance entries, newest first. Raises `InvalidCursor`, `HistoryUnavailable`."""
        where = [ledger_entry.c.user_id == user_id]
        if cursor is not None:
            (seq,) = _read_cursor(cursor, int)
            if not 0 <= seq <= SEQ_MAX:
                raise InvalidCursor
            where.append(ledger_entry.c.seq < seq)
        query = select(ledger_entry).where(and_(*where)).order_by(ledger_entry.c.seq.desc()).limit(limit + 1)
        rows = await self.rows(query)
        items = tuple(
            BalanceEntry(
                position_text((position_of(row.partition, f"{row.epoch}-{row.seq}"),)),
                row.kind,
                row.amount,
                row.balance,
                row.order_id,
                row.at,
            )
            for row in rows[:limit]
        )
        return Page(items, _make_cursor(rows[limit - 1].seq) if len(rows) > limit else None)

    async def orders(self, user_id: str, limit: int, cursor: str | None = None) -> Page[RecordedOrder]:
        """A user's orders, newest first. Raises `InvalidCursor`, `HistoryUnavailable`."""
        where = [orders.c.user_id == user_id, orders.c.status != "void"]
        if cursor is not None:
            ordered_at, order_id = _read_cursor(cursor, str, str)
            try:
                before = datetime.fromisoformat(ordered_at)
            except ValueError as error:
                raise InvalidCursor from error
            if not is_order_id(order_id):
                raise InvalidCursor
            last = (literal(before, orders.c.ordered_at.type), literal(order_id, orders.c.order_id.type))
            where.append(tuple_(orders.c.ordered_at, orders.c.order_id) < tuple_(*last))
        query = _orders(where).order_by(orders.c.ordered_at.desc(), orders.c.order_id.desc()).limit(limit + 1)

        async def read(connection: AsyncConnection) -> tuple[Sequence[Row[Any]], tuple[RecordedOrder, ...]]:
            rows = (await connection.execute(query)).all()
            return rows, await _with_lines(connection, rows[:limit])

        rows, items = await self.read(read)
        if len(rows) <= limit:
            return Page(items, None)
        return Page(items, _make_cursor(rows[limit - 1].ordered_at.isoformat(), rows[limit - 1].order_id))

    async def order(self, user_id: str, order_id: str) -> RecordedOrder | None:
        """One order of this user; None when there is none. Raises `HistoryUnavailable`."""
        if not is_order_id(order_id):
            return None
        where = [orders.c.order_id == order_id, orders.c.user_id == user_id, orders.c.status != "void"]

        async def read(connection: AsyncConnection) -> tuple[RecordedOrder, ...]:
            return await _with_lines(connection, (await connection.execute(_orders(where))).all())

        found = await self.read(read)
        return found[0] if found else None

    async def coupon(self, user_id: str, coupon_id: str) -> Coupon | None:
        """One coupon of this user; None when there is none. Raises `HistoryUnavailable`."""
        found = await self._coupons(coupon.c.user_id == user_id, coupon.c.coupon_id == coupon_id)
        return found[0] if found else None

    async def coupon_of(self, user_id: str, campaign_id: str) -> Coupon | None:
        """A user's coupon of this campaign; None when there is none. Raises `HistoryUnavailable`."""
        found = await self._coupons(coupon.c.user_id == user_id, coupon.c.campaign_id == campaign_id)
        return found[0] if found else None

    async def coupons(self, user_id: str, below: int, limit: int) -> list[Coupon]:
        """A user's coupons whose number is lower than ``below``, newest first. Raises `HistoryUnavailable`."""
        # A user has one of each campaign at most, so there are too few of them to be worth an index of their own.
        return await self._coupons(coupon.c.user_id == user_id, _coupon_number < below, limit=limit)

    async def _coupons(self, *where: ColumnElement[bool], limit: int = 1) -> list[Coupon]:
        query = select(coupon).where(and_(*where)).order_by(_coupon_number.desc()).limit(limit)
        return [_coupon(row) for row in await self.rows(query)]

    async def position_states(self, positions: Sequence[Position]) -> list[str]:
        """What became of each position: ``accepted`` (not in PostgreSQL yet), ``durable`` or ``lost``; in one look.

        Raises `HistoryUnavailable`.
        """
        query = (
            select(
                partition_cursor.c.partition,
                partition_cursor.c.epoch,
                partition_cursor.c.seq,
                epoch_end.c.epoch.label("ended_epoch"),
                epoch_end.c.last_seq,
            )
            .outerjoin(
                epoch_end,
                and_(
                    epoch_end.c.partition == partition_cursor.c.partition,
                    epoch_end.c.epoch.in_({position.epoch for position in positions}),
                ),
            )
            .where(partition_cursor.c.partition.in_({position.partition for position in positions}))
        )
        rows = await self.rows(query)
        reached = {row.partition: (row.epoch, row.seq) for row in rows}
        ended = {(row.partition, row.ended_epoch): row.last_seq for row in rows if row.ended_epoch is not None}

        def state(position: Position) -> str:
            epoch, seq = reached.get(position.partition, (-1, 0))
            if position.epoch >= epoch:
                return "durable" if position.epoch == epoch and position.seq <= seq else "accepted"
            return "durable" if position.seq <= ended.get((position.partition, position.epoch), -1) else "lost"

        return [state(position) for position in positions]

    async def rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """What one query finds. Raises `HistoryUnavailable`."""

        async def read(connection: AsyncConnection) -> Sequence[Row[Any]]:
            found: Sequence[Row[Any]] = (await connection.execute(query)).all()
            return found

        return await self.read(read)

    async def read(self, ask: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
        """What is asked on a connection of the pool. Raises `HistoryUnavailable`, soon if PostgreSQL is silent."""
        # A task of its own, since no cancelling ends it: the driver would wait for the silent server's word on that.
        task = asyncio.create_task(self._read(ask))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)
        done, _ = await asyncio.wait([task], timeout=self._within_s)
        if not done:
            task.add_done_callback(_note)
            raise HistoryUnavailable(f"PostgreSQL has been silent for {self._within_s:g} s")
        return task.result()

    async def _read(self, ask: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
        try:
            with translated():
                async with self._engine.connect() as connection:
                    return await ask(connection)
        except (DatabaseError, SQLAlchemyError) as error:
            raise HistoryUnavailable(str(error)) from error


def _note(late: asyncio.Task[Any]) -> None:
    """Nobody waits for it any more."""
    if not late.cancelled() and late.exception() is not None:
        _log.info("A read that nobody waited for any more failed: %s", late.exception())


def orders_cursor(ordered_at: datetime, order_id: str) -> str:
    """The cursor of the page of a user's orders that begins after this one."""
    return _make_cursor(ordered_at.isoformat(), order_id)


def _coupon(row: Row[Any]) -> Coupon:
    return Coupon(
        coupon_id=row.coupon_id,
        campaign_id=row.campaign_id,
        issue_number=row.issue_number,
        discount=Discount(row.kind, row.value, row.minimum_order, row.maximum_discount),
        state=row.state,
        order_id=row.order_id,
        issued_at_ms=_milliseconds(row.issued_at),
        valid_from_ms=_milliseconds(row.valid_from),
        valid_until_ms=_milliseconds(row.valid_until),
        used_at_ms=None if row.used_at is None else _milliseconds(row.used_at),
        positions=(position_of(row.partition, row.place),),
    )


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _orders(where: Iterable[ColumnElement[bool]]) -> Select[Any]:
    return select(orders).where(and_(*where))


async def _with_lines(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> tuple[RecordedOrder, ...]:
    """The orders with their lines, which are read in one go."""
    lines: dict[str, list[RecordedLine]] = {row.order_id: [] for row in rows}
    if rows:
        query = select(order_line).where(order_line.c.order_id.in_(lines)).order_by(order_line.c.line_no)
        for line in (await connection.execute(query)).all():
            lines[line.order_id].append(
                RecordedLine(
                    line.product_id, line.stock_id, line.name, line.option, line.unit_price, line.quantity, line.amount
                )
            )
    return tuple(
        RecordedOrder(
            order_id=row.order_id,
            user_id=row.user_id,
            status=row.status,
            failure=row.failure,
            lines=tuple(lines[row.order_id]),
            subtotal=row.subtotal,
            discount=row.discount,
            total=row.total,
            coupon_id=row.coupon_id,
            ordered_at=row.ordered_at,
            pay_before=row.pay_before,
            paid_at=row.paid_at,
            position=position_text((position_of(row.partition, row.place),)),
        )
        for row in rows
    )


def _make_cursor(*key: int | str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(key)).rstrip(b"=").decode()


def _read_cursor(cursor: str, *types: type) -> list[Any]:
    """The key in a cursor, of these types. Raises `InvalidCursor`."""
    try:
        key = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except ValueError as error:
        raise InvalidCursor from error
    if not isinstance(key, list) or [type(part) for part in key] != list(types):
        raise InvalidCursor
    return key
