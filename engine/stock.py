"""Holding stock for orders: reserve, release, confirm (R3.11, R3.16)."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from engine.errors import (
    EngineError,
    LineLimit,
    OutcomeUnknown,
    OutOfStock,
    Recovering,
    Refusal,
    ShortLine,
    StaleGeneration,
    StockIdRequired,
    TookTooLong,
    UnknownReference,
)
from engine.order_ids import created_ms
from engine.policy import Policy
from engine.positions import Position, position_of
from engine.runner import Flow, Reply, ScriptRunner
from engine.statuses import Status

LINE_REPLY_FIELDS = 6
SHORT_LINE_FIELDS = 5
CONFIRM_REPLY_FIELDS = 2

_REFUSALS_BEFORE_SHORTAGES = (UnknownReference, StockIdRequired, LineLimit)
PAUSES_S = (0.005, 0.01, 0.02)
"""Pauses between the tries of an order's second round: longer than a cart takes to give back its first."""

SOLD_OUT_MAX = 4096
"""How many stock items that were sold out are remembered, to be looked at before anything is held."""

GIVE_BACK_S = 1.5
"""How long a give-back may hold up an answer; past it the worker does it within a minute."""


class LineRequest(Struct, frozen=True):
    """A line as the client asks for it; the stock item may be left out where the product has one."""

    product_id: str
    stock_id: str | None
    quantity: int


class HeldLine(Struct, frozen=True):
    """Units of a stock item held for an order, at the price that holds (minor units)."""

    product_id: str
    stock_id: str
    name: str
    option: str
    unit_price: int
    quantity: int


class Held(Struct):
    """What an order holds, in the order the client gave; and the products by partition, to release it again."""

    lines: list[HeldLine] = []
    positions: list[Position] = []
    products: dict[int, list[str]] = {}


class _Refused(NamedTuple):
    """Why a try to reserve failed; nothing is held any more."""

    refusal: Refusal
    some_held: bool  # whether other partitions had held theirs, so that a second round may win

    @property
    def only_held_by_others(self) -> bool:
        """Whether all that is missing is held by orders that may give it back."""
        return isinstance(self.refusal, OutOfStock) and self.refusal.only_held_by_others


class Stock:
    """Each call changes one partition in one step; an order over several is a flow of `Orders`."""

    def __init__(self, runner: ScriptRunner, policy: Policy, order_age_max_ms: int) -> None:
        self._runner = runner
        self._policy = policy
        self._order_age_max_ms = order_age_max_ms
        # Stock items as they were asked for, the latest last; a set that keeps its order.
        self._sold_out: dict[tuple[str, str | None], None] = {}

    async def reserve(
        self, flow: Flow, new_order_id: Callable[[], str], user_id: str, lines: Sequence[LineRequest]
    ) -> tuple[str, Held]:
        """Hold all lines or none: in every partition at once, then once more one after the other.

        Where a line was sold out a moment ago, all are looked at first: a cart of several partitions that is refused
        has then held nothing that it must give back. The second time is for two carts that each hold what the other
        lacks: in partition order one of them wins.
        It has an order id of its own, since a released reservation is never taken anew. Returns the order id.
        Raises `OutOfStock`, `UnknownReference`, `StockIdRequired`, `LineLimit`.
        """
        groups = self._group(lines)
        order_id = new_order_id()
        if self._sold_out and len(groups) > 1 and any(_asked(line) in self._sold_out for line in lines):
            await self._look(flow, order_id, user_id, groups, lines)
        found = await self._reserve_groups(flow, order_id, user_id, groups, lines)
        if isinstance(found, Held):
            return order_id, found
        if not (found.some_held and found.only_held_by_others):
            self._remember(found.refusal, lines)
            try:
                raise found.refusal
            finally:
                # Its traceback holds this frame; if this held it, only the garbage collector would end the two.
                del found
        order_id = new_order_id()
        return order_id, await self._reserve_in_turn(flow, order_id, user_id, groups, lines)

    async def _reserve_in_turn(
        self,
        flow: Flow,
        order_id: str,
        user_id: str,
        groups: dict[int, list[LineRequest]],
        lines: Sequence[LineRequest],
    ) -> Held:
        """The second round of `reserve`: one partition after the other, in their order, each with patience."""
        total = Held()
        for partition in sorted(groups):
            one = {partition: groups[partition]}
            try:
                found = await self._reserve_patiently(flow, order_id, user_id, one, lines)
            except EngineError as error:
                await self.give_back(flow, order_id, total.products)
                if isinstance(error, StaleGeneration) and total.products:
                    raise Recovering from error
                raise
            if isinstance(found, Held):
                total.lines += found.lines
                total.positions += found.positions
                total.products |= found.products
                continue
            await self.give_back(flow, order_id, total.products)
            raise found.refusal
        total.lines = _in_order(total.lines, lines)
        return total

    async def give_back(self, flow: Flow, order_id: str, products: dict[int, list[str]]) -> tuple[Position, ...]:
        """Release what the order holds in each partition, as far as Redis can be reached; the worker does the rest.

        It is a part of the flow: when a recovery came between, what failed the order may itself have been lost, and
        then the order is awaiting payment still. Only PostgreSQL knows that, so only the worker may release then.
        """
        last = self._runner.within(flow, GIVE_BACK_S)

        async def release(partition: int, product_ids: list[str]) -> Position | None:
            try:
                reply = await self._release(last, partition, order_id, product_ids)
            except EngineError:
                return None
            return position_of(partition, reply.values[0]) if reply.values else None

        released = await asyncio.gather(*(release(*group) for group in products.items()))
        return tuple(position for position in released if position is not None)

    async def release(self, partition: int, order_id: str, product_ids: Sequence[str]) -> Reply:
        """Give back what the order holds in one partition, once. ``product_ids``: those of its reservation there.

        Status `RELEASED` (place), `MISSING`, or `SOLD` (place). Only for an order that has failed in PostgreSQL, or
        that never was: see `give_back`.
        """
        return await self._runner.alone(
            lambda flow: self._release(flow, partition, order_id, product_ids), within_s=GIVE_BACK_S
        )

    async def _release(self, flow: Flow, partition: int, order_id: str, product_ids: Sequence[str]) -> Reply:
        return await self._runner.change(
            flow,
            partition,
            "release_stock",
            self._reservation_keys(partition, order_id, product_ids),
            (order_id, *product_ids),
            urgent=True,
        )

    async def confirm(
        self, partition: int, held: Mapping[str, Sequence[str]], day: str
    ) -> dict[str, tuple[str, Position | None]]:
        """Turn what completed orders hold in one partition into sold units, counted for ``day`` (yyyymmdd), once.

        ``held``: for each order id the product ids of its reservation there. Answers what each reservation is, and its
        place: ``confirmed``, or what calls for an alarm, ``missing``, ``released`` or ``mismatched``.
        """
        keys = self._runner.keys
        product_ids = list(dict.fromkeys(itertools.chain.from_iterable(held.values())))
        reply = await self._runner.alone(
            lambda flow: self._runner.change(
                flow,
                partition,
                "confirm_stock",
                (
                    keys.meta(partition),
                    keys.events(partition),
                    keys.sales(partition, day),
                    *(keys.reservation(partition, order_id) for order_id in held),
                    *(keys.product(partition, product_id) for product_id in product_ids),
                ),
                (day, len(held), *held, *product_ids),
                urgent=True,
            )
        )
        outcomes = _chunks(reply.values[0], CONFIRM_REPLY_FIELDS)
        return {
            order_id: (outcome.decode(), position_of(partition, place) if place else None)
            for order_id, (outcome, place) in zip(held, outcomes, strict=True)
        }

    def _group(self, lines: Sequence[LineRequest]) -> dict[int, list[LineRequest]]:
        groups: dict[int, list[LineRequest]] = {}
        for line in lines:
            groups.setdefault(self._runner.partitions.of(line.product_id), []).append(line)
        return groups

    async def _look(
        self,
        flow: Flow,
        order_id: str,
        user_id: str,
        groups: dict[int, list[LineRequest]],
        lines: Sequence[LineRequest],
    ) -> None:
        """Raise what to reserve would be refused with, unless it is worth trying: others may give theirs back."""
        calls = [
            self._send_reserve(flow, partition, order_id, user_id, group, _product_ids(group), hold=False)
            for partition, group in groups.items()
        ]
        refusals = []
        for call in calls:
            try:
                reply = await call
            except OutcomeUnknown as error:
                raise Recovering("the stock could not be looked at") from error
            if reply.status is Status.AVAILABLE:
                continue
            refusal = _reserve_refusal(reply, self._policy)
            if not isinstance(refusal, Refusal):
                raise refusal
            refusals.append(refusal)
        if not refusals:
            for line in lines:
                self._sold_out.pop(_asked(line), None)
            return
        first = _first_refusal(refusals)
        if not (isinstance(first, OutOfStock) and first.only_held_by_others):
            try:
                raise first
            finally:
                del first, refusal, refusals  # see `reserve`

    def _remember(self, refusal: Refusal, lines: Sequence[LineRequest]) -> None:
        """Note which lines asked for what is sold out."""
        if not isinstance(refusal, OutOfStock):
            return
        gone = {(each.product_id, each.stock_id) for each in refusal.lines if each.is_sold_out}
        products = {product_id for product_id, _ in gone}
        for line in lines:
            if _asked(line) in gone or (line.stock_id is None and line.product_id in products):
                self._sold_out[_asked(line)] = None
        while len(self._sold_out) > SOLD_OUT_MAX:
            del self._sold_out[next(iter(self._sold_out))]

    async def _reserve_groups(
        self,
        flow: Flow,
        order_id: str,
        user_id: str,
        groups: dict[int, list[LineRequest]],
        lines: Sequence[LineRequest],
    ) -> Held | _Refused:
        """Reserve in all these partitions at once. On a refusal everything is given back."""
        held = Held(products={partition: _product_ids(group) for partition, group in groups.items()})
        calls = {
            partition: self._send_reserve(flow, partition, order_id, user_id, group, held.products[partition])
            for partition, group in groups.items()
        }
        failures: list[Exception] = []
        refused = {}
        for partition, call in calls.items():
            try:
                reply = await call
            except Exception as error:  # whatever it was, what the others hold is given back
                failures.append(error)
                continue
            if reply.status is Status.RESERVED:
                held.positions.append(position_of(partition, reply.values[0]))
                held.lines += _held_lines(reply.values[1])
                continue
            refusal = _reserve_refusal(reply, self._policy)
            failures.append(refusal)
            if isinstance(refusal, Refusal):
                refused[partition] = refusal
        if not failures:
            if len(groups) < len(lines):
                held.lines = _in_order(held.lines, lines)
            return held
        may_hold = {partition: ids for partition, ids in held.products.items() if partition not in refused}
        unexpected = next((failure for failure in failures if not isinstance(failure, Refusal)), None)
        if all(isinstance(failure, StaleGeneration) for failure in failures) and len(failures) == len(groups):
            raise failures[0]
        await self.give_back(flow, order_id, may_hold)
        if isinstance(unexpected, StaleGeneration | OutcomeUnknown):
            # Nothing is on record; what is held all the same is given back by the worker.
            raise Recovering("the stock could not be reserved") from unexpected
        if unexpected is not None:
            raise unexpected
        return _Refused(_first_refusal(list(refused.values())), some_held=bool(may_hold))

    async def _reserve_patiently(
        self, flow: Flow, order_id: str, user_id: str, group: dict[int, list[LineRequest]], lines: Sequence[LineRequest]
    ) -> Held | _Refused:
        """Reserve in one partition, trying again while others hold what is missing: a cart may be giving it back."""
        for pause_s in PAUSES_S:
            found = await self._reserve_groups(flow, order_id, user_id, group, lines)
            if isinstance(found, Held) or not found.only_held_by_others:
                return found
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        return await self._reserve_groups(flow, order_id, user_id, group, lines)

    def _send_reserve(
        self,
        flow: Flow,
        partition: int,
        order_id: str,
        user_id: str,
        lines: Sequence[LineRequest],
        product_ids: Sequence[str],
        *,
        hold: bool = True,
    ) -> Awaitable[Reply]:
        number_of = {product_id: number for number, product_id in enumerate(product_ids, 1)}
        arguments: list[str | int] = [
            order_id,
            created_ms(order_id),
            self._order_age_max_ms,
            user_id,
            self._policy.line_quantity_max,
            int(hold),
        ]
        for line in lines:
            arguments += (number_of[line.product_id], line.product_id, line.stock_id or "", line.quantity)
        return self._runner.change(
            flow,
            partition,
            "reserve_stock",
            self._reservation_keys(partition, order_id, product_ids),
            arguments,
        )

    def _reservation_keys(self, partition: int, order_id: str, product_ids: Sequence[str]) -> tuple[str, ...]:
        """What a script is given that changes one order's reservation."""
        keys = self._runner.keys
        return (
            keys.meta(partition),
            keys.events(partition),
            keys.reservation(partition, order_id),
            *(keys.product(partition, product_id) for product_id in product_ids),
        )


def _reserve_refusal(reply: Reply, policy: Policy) -> EngineError:
    match reply.status:
        case Status.OUT_OF_STOCK:
            return OutOfStock(
                tuple(
                    ShortLine(product.decode(), stock.decode(), int(requested), int(available), int(reserved))
                    for product, stock, requested, available, reserved in _chunks(reply.values[0], SHORT_LINE_FIELDS)
                )
            )
        case Status.UNKNOWN_REFERENCE:
            return UnknownReference(reply.text(0), reply.text(1) or None)
        case Status.STOCK_ID_REQUIRED:
            return StockIdRequired(reply.text(0))
        case Status.QUANTITY_LIMIT:
            return LineLimit(
                reply.integer(2), policy.line_quantity_max, product_id=reply.text(0), stock_id=reply.text(1)
            )
        case Status.TOO_OLD | Status.FINISHED:
            return TookTooLong()
        case _:
            raise AssertionError(f"reserve_stock does not answer {reply.status}")


def _first_refusal(refusals: list[Refusal]) -> Refusal:
    """Of several partitions' refusals the one to answer: the first in the script's own order, wherever the products
    happen to lie; all short lines."""
    for kind in _REFUSALS_BEFORE_SHORTAGES:
        for refusal in refusals:
            if isinstance(refusal, kind):
                return refusal
    return OutOfStock(tuple(line for refusal in refusals if isinstance(refusal, OutOfStock) for line in refusal.lines))


def _asked(line: LineRequest) -> tuple[str, str | None]:
    return line.product_id, line.stock_id


def _product_ids(lines: Sequence[LineRequest]) -> list[str]:
    return list(dict.fromkeys(line.product_id for line in lines))


def _held_lines(flat: list[bytes]) -> list[HeldLine]:
    return [
        HeldLine(product.decode(), stock.decode(), name.decode(), option.decode(), int(price), int(quantity))
        for product, stock, quantity, name, option, price in _chunks(flat, LINE_REPLY_FIELDS)
    ]


def _chunks(flat: list[bytes], size: int) -> list[tuple[bytes, ...]]:
    return list(zip(*[iter(flat)] * size, strict=True))  # one iterator, from which each place of a chunk takes in turn


def _in_order(held: list[HeldLine], lines: Sequence[LineRequest]) -> list[HeldLine]:
    """The held lines in the order in which the client first asked for each."""
    first: dict[tuple[str, str | None], int] = {}
    for index, line in enumerate(lines):
        first.setdefault((line.product_id, line.stock_id), index)

    def place(line: HeldLine) -> int:
        named = first.get((line.product_id, line.stock_id), len(lines))
        return min(named, first.get((line.product_id, None), len(lines)))

    return sorted(held, key=place)
