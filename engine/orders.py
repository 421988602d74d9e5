"""Orders: place, check out, cancel, expire, void, read. An order is the unit that holds stock (R3)."""

from collections.abc import Awaitable, Callable, Sequence

import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import (
    CouponNotValid,
    EngineError,
    InsufficientBalance,
    MayBeCold,
    NotFound,
    OrderInProgress,
    OrderNotCancellable,
    OutcomeUnknown,
    OutOfStock,
    PaymentLimit,
    Recovering,
    Refusal,
    StaleGeneration,
    TookTooLong,
    about_order,
)
from engine.hashes import hash_of
from engine.idempotency import KeyClaims, Replayed, RequestKey, check_key, key_arguments
from engine.order_ids import created_ms, make_order_id
from engine.policy import Policy
from engine.positions import Position, last_of_each, position_of, position_text
from engine.runner import Flow, Reply, ScriptRunner
from engine.statuses import Status
from engine.stock import Held, HeldLine, LineRequest, Stock
from engine.wallet import Wallets


class Order(Struct, frozen=True):
    """An order with its payment. Amounts in minor units, times in ms since 1970.

    ``status`` is ``awaiting_payment``, ``completed`` or ``failed``; ``failure`` says why it failed. ``lines_json`` is
    a JSON array of product_id, stock_id, name, option, unit_price, quantity, amount.
    """

    order_id: str
    user_id: str
    status: str
    failure: str | None
    lines_json: bytes
    subtotal: int
    discount: int
    total: int
    coupon_id: str | None
    ordered_at_ms: int
    pay_before_ms: int | None
    paid_at_ms: int | None
    positions: tuple[Position, ...]
    replayed: bool = False
    """Whether this is the answer of an earlier request of the same idempotency key."""
    found_so: bool = False
    """Whether an earlier request has made it so, and this one has changed nothing."""


class _Draft(Struct, frozen=True):
    """What place_order and checkout_order are given alike."""

    order_id: str
    user_id: str
    coupon_id: str
    lines_json: bytes
    subtotal: int
    held: Held
    key: RequestKey | None


_Decide = Callable[[Flow, _Draft], Awaitable[Order]]

_DECIDED = frozenset({Status.PLACED, Status.COMPLETED, Status.INSUFFICIENT_BALANCE, Status.EXISTS})
"""What place_order and checkout_order answer where the order is on record, or void."""


class Orders:
    """Flows over the partitions of the user and of the products."""

    def __init__(
        self,
        runner: ScriptRunner,
        key_claims: KeyClaims,
        stock: Stock,
        wallets: Wallets,
        policy: Policy,
        order_age_max_ms: int,
    ) -> None:
        self._runner = runner
        self._key_claims = key_claims
        self._wallets = wallets
        self._stock = stock
        self._policy = policy
        self._order_age_max_ms = order_age_max_ms

    async def place(
        self, user_id: str, lines: Sequence[LineRequest], coupon_id: str | None, key: RequestKey | None = None
    ) -> Order:
        """Reserve the lines and put the order on record, awaiting payment.

        Raises `LineLimit`, `UnknownReference`, `StockIdRequired`, `OutOfStock`, `OrderInProgress`, `CouponNotValid`,
        `PaymentLimit`, and with a key `IdempotencyKeyReused`, `RequestInProgress`; then nothing is held and nothing is
        on record.
        """
        return await self._once(user_id, lambda: self._order(user_id, lines, coupon_id, key, self._place))

    async def checkout(
        self, user_id: str, lines: Sequence[LineRequest], coupon_id: str | None, key: RequestKey | None = None
    ) -> Order:
        """Order and pay at once. Raises as `place`, and `InsufficientBalance`: the order is on record as failed."""
        return await self._once(user_id, lambda: self._order(user_id, lines, coupon_id, key, self._checkout))

    async def cancel(self, user_id: str, order_id: str, key: RequestKey | None = None) -> Order:
        """Cancel an order that awaits payment, and give back what it holds.

        Raises `NotFound`, `OrderNotCancellable`, and with a key `IdempotencyKeyReused`.
        """
        partition = self._runner.partitions.of(user_id)

        async def step(flow: Flow) -> Order:
            reply = await self.finish(flow, "cancel_order", user_id, order_id, key)
            try:
                check_key(reply, partition)
            except Replayed as earlier:
                cancelled = await self.read_within(flow, user_id, order_id)
                cancelled = await self.give_back(flow, replace(cancelled, positions=earlier.positions(1)))
                return replace(cancelled, replayed=not flow.sent_again)
            order = self.answered(order_id, reply)
            if order.failure != "cancelled":
                raise OrderNotCancellable(order_id, order.status, order.failure)
            given_back = await self.give_back(flow, order)
            return replace(given_back, found_so=reply.status is not Status.CANCELLED)

        with about_order(order_id):
            return await self._runner.alone(step)

    async def expire(self, user_id: str, order_id: str) -> tuple[Status, tuple[Position, ...]]:
        """Fail an order whose deadline has passed, and give back what it holds; where it was changed.

        Status `EXPIRED`, `COMPLETED`, `FAILED`, `NOT_DUE` or `UNKNOWN`; only the first changes anything. It is one
        flow: an expiry that a lost server has taken with it must not give back what the order then holds still.
        """

        async def step(flow: Flow) -> tuple[Status, tuple[Position, ...]]:
            reply = await self.finish(flow, "expire_order", user_id, order_id)
            if reply.status is not Status.EXPIRED:
                return reply.status, ()
            expired = await self.read_within(flow, user_id, order_id)
            return reply.status, (await self.give_back(flow, expired)).positions

        return await self._runner.alone(step)

    async def void(self, user_id: str, order_id: str, asked: str = "") -> str:
        """What became of an order: its status, or ``void`` when there is none and, from now on, never will be.

        Raises `MayBeCold`: ask PostgreSQL, and where it has no such order, call again with the error's ``asked``.
        """

        async def step(flow: Flow) -> str:
            reply = await self._void(flow, user_id, order_id, asked)
            if reply.status is Status.COLD:
                raise MayBeCold(reply.text(0))
            return "void" if reply.status is Status.VOIDED else reply.text(1)

        return await self._runner.alone(step)

    async def read(self, user_id: str, order_id: str) -> Order:
        """One order of this user. Raises `NotFound`."""
        return await self._runner.alone(lambda flow: self.read_within(flow, user_id, order_id))

    async def read_within(self, flow: Flow, user_id: str, order_id: str) -> Order:
        """The same, as a step of a flow."""
        partition = self._runner.partitions.of(user_id)
        keys = (self._runner.keys.meta(partition), self._runner.keys.order(partition, order_id))
        hashes = await self._runner.read(flow, partition, "read_hashes", keys)
        fields = hash_of(hashes[0])
        if fields.get("user") != user_id or fields["status"] == "void":
            raise NotFound(f"user {user_id} has no order {order_id}")
        return _order(order_id, fields, partition)

    async def finish(
        self, flow: Flow, script: str, user_id: str, order_id: str, key: RequestKey | None = None
    ) -> Reply:
        """Run one of the scripts that decide a placed order: pay_order, cancel_order or expire_order.

        Raises `NotFound` but for an expiry, to which that is one of its outcomes.
        """
        partition = self._runner.partitions.of(user_id)
        is_asked_for = script != "expire_order"
        reply = await self._runner.change(
            flow,
            partition,
            script,
            (*self._order_keys(partition, user_id, order_id), *self._key_claims.record(partition, key)),
            (order_id, user_id, *(key_arguments(key) if is_asked_for else ())),
            urgent=True,
        )
        if is_asked_for and reply.status is Status.UNKNOWN:
            raise NotFound(f"user {user_id} has no order {order_id}")
        return reply

    def answered(self, order_id: str, reply: Reply) -> Order:
        """The order in a reply of pay_order or cancel_order."""
        fields = hash_of(reply.values[1])
        return _order(order_id, fields, self._runner.partitions.of(fields["user"]))

    async def give_back(self, flow: Flow, order: Order) -> Order:
        """Release all that a failed order held; the same order, with the positions of the releases."""
        products = self._runner.partitions.group(line["product_id"] for line in orjson.loads(order.lines_json))
        released = await self._stock.give_back(flow, order.order_id, products)
        return replace(order, positions=order.positions + released)

    async def _once(self, user_id: str, order: Callable[[], Awaitable[Order]]) -> Order:
        """Order, or answer what the first request of the same idempotency key was answered."""
        try:
            return await self._after_overdue(user_id, order)
        except Replayed as earlier:
            made = await self.read(user_id, earlier.values[0])
            if earlier.status == Status.INSUFFICIENT_BALANCE:
                balance = int(earlier.values[1])
                positions = (await self._runner.alone(lambda flow: self.give_back(flow, made))).positions
                raise InsufficientBalance(
                    made.order_id, balance, made.total, positions=positions, replayed=True
                ) from None
            if earlier.status == Status.PLACED:
                made = replace(made, status="awaiting_payment", failure=None, paid_at_ms=None)
            return replace(made, positions=earlier.positions(1), replayed=True)

    async def _after_overdue(self, user_id: str, order: Callable[[], Awaitable[Order]]) -> Order:
        """Order; where an earlier order is in the way whose deadline has passed, expire that first.

        The worker expires it too, but perhaps not yet, and while PostgreSQL is away not at all.
        """
        try:
            return await order()
        except OrderInProgress as in_progress:
            if in_progress.pay_before_ms > self._runner.now_ms(self._runner.partitions.of(user_id)):
                raise
            status, given_back = await self.expire(user_id, in_progress.order_id)
            if status is Status.NOT_DUE:
                raise
        try:
            made = await order()
        except InsufficientBalance as error:
            error.positions = last_of_each((*error.positions, *given_back))
            raise
        return replace(made, positions=last_of_each((*made.positions, *given_back)))

    async def _order(
        self,
        user_id: str,
        lines: Sequence[LineRequest],
        coupon_id: str | None,
        key: RequestKey | None,
        decide: _Decide,
    ) -> Order:
        self._policy.check_line_count(len(lines))
        partition = self._runner.partitions.of(user_id)

        async def attempt(flow: Flow) -> Order:
            try:
                order_id, held = await self._stock.reserve(
                    flow, lambda: make_order_id(self._runner.now_ms(partition)), user_id, lines
                )
            except OutOfStock as short:
                if short.only_held_by_others:
                    await self._require_none_open(flow, user_id)
                raise
            subtotal = sum(line.unit_price * line.quantity for line in held.lines)
            draft = _Draft(order_id, user_id, coupon_id or "", _lines_json(held.lines), subtotal, held, key)
            # What was sent again so far was the reservation: it says nothing of the order.
            flow.sent_again = False
            try:
                return await decide(flow, draft)
            except OutcomeUnknown as error:
                error.order_id = order_id
                raise
            except StaleGeneration as error:
                # The reservation belongs to the time before the recovery: the worker finishes or undoes it.
                raise Recovering from error
            except InsufficientBalance:
                raise
            except (EngineError, Replayed) as error:
                await self._not_placed(flow, draft, isinstance(error, Refusal))
                raise

        async def step(flow: Flow) -> Order:
            if key is None:
                return await attempt(flow)
            # Before the stock is asked, not at the same time: of many alike, one that may not order could hold the
            # last unit just when the one that may looks for it.
            async with self._key_claims.held(flow, partition, key):
                return await attempt(flow)

        return await self._runner.alone(step)

    async def _require_none_open(self, flow: Flow, user_id: str) -> None:
        """Raise `OrderInProgress` where the user has an order that awaits payment: it may itself hold what is short."""
        wallet = await self._wallets.read_within(flow, user_id)
        if wallet.open_order is not None and wallet.open_pay_before_ms is not None:
            raise OrderInProgress(wallet.open_order, wallet.open_pay_before_ms)

    async def _not_placed(self, flow: Flow, draft: _Draft, refused: bool) -> None:
        """Give back after the user's partition said no; after an unknown outcome that is final only by void's word."""
        if flow.sent_again and refused:
            try:
                status = await self.void(draft.user_id, draft.order_id)
            except EngineError as error:
                unknown = OutcomeUnknown("the order may be on record")
                unknown.order_id = draft.order_id
                raise unknown from error
            if status not in {"void", "failed"}:
                unknown = OutcomeUnknown("the order is on record")
                unknown.order_id = draft.order_id
                raise unknown
        await self._stock.give_back(flow, draft.order_id, draft.held.products)

    async def _place(self, flow: Flow, draft: _Draft) -> Order:
        reply = await self._decide(flow, "place_order", draft, (self._policy.payment_deadline_ms,))
        if reply.status is not Status.PLACED:
            return await self._on_record(flow, reply, draft)
        return self._placed(draft, reply, "awaiting_payment", pay_before_ms=reply.integer(4))

    async def _checkout(self, flow: Flow, draft: _Draft) -> Order:
        reply = await self._decide(flow, "checkout_order", draft, ())
        if reply.status is Status.COMPLETED:
            return self._placed(draft, reply, "completed", paid_at_ms=reply.integer(3))
        if reply.status is not Status.INSUFFICIENT_BALANCE:
            return await self._on_record(flow, reply, draft)
        released = await self._stock.give_back(flow, draft.order_id, draft.held.products)
        positions = (position_of(self._runner.partitions.of(draft.user_id), reply.values[0]), *released)
        raise InsufficientBalance(draft.order_id, reply.integer(4), reply.integer(2), positions=positions)

    def _order_keys(self, partition: int, user_id: str, order_id: str) -> tuple[str, ...]:
        """What every script that decides an order is given."""
        keys = self._runner.keys
        return (
            keys.meta(partition),
            keys.events(partition),
            keys.wallet(partition, user_id),
            keys.coupons(partition, user_id),
            keys.order(partition, order_id),
        )

    async def _decide(self, flow: Flow, script: str, draft: _Draft, before_key: tuple[int, ...]) -> Reply:
        user_id, order_id = draft.user_id, draft.order_id
        partition = self._runner.partitions.of(user_id)
        policy = self._policy
        reply = await self._runner.change(
            flow,
            partition,
            script,
            (*self._order_keys(partition, user_id, order_id), *self._key_claims.record(partition, draft.key)),
            (
                order_id,
                created_ms(order_id),
                self._order_age_max_ms,
                user_id,
                draft.lines_json,
                draft.subtotal,
                draft.coupon_id,
                policy.payment_max,
                policy.discount_min,
                policy.discount_max,
                *before_key,
                *key_arguments(draft.key),
                *(("", "") if draft.key is None else (draft.key.claim, position_text(tuple(draft.held.positions)))),
            ),
        )
        if reply.status in _DECIDED:
            return reply
        check_key(reply, partition)
        match reply.status:
            case Status.ORDER_IN_PROGRESS:
                raise OrderInProgress(reply.text(0), reply.integer(1))
            case Status.COUPON_NOT_VALID:
                raise CouponNotValid(
                    draft.coupon_id, reply.text(0), subtotal=draft.subtotal, discount_min=policy.discount_min
                )
            case Status.PAYMENT_LIMIT:
                raise PaymentLimit(reply.integer(0), policy.payment_max)
            case Status.TOO_OLD:
                raise TookTooLong
        return reply

    async def _on_record(self, flow: Flow, reply: Reply, draft: _Draft) -> Order:
        """The answer when an earlier send of this very order had arrived (status `EXISTS`)."""
        if reply.text(1) == "void":
            raise TookTooLong
        try:
            order = await self.read(draft.user_id, draft.order_id)
        except EngineError as error:
            raise OutcomeUnknown("the order is on record and cannot be read") from error
        if order.failure == "insufficient_balance":
            released = await self._stock.give_back(flow, draft.order_id, draft.held.products)
            balance = await self._wallets.balance(draft.user_id)
            raise InsufficientBalance(draft.order_id, balance, order.total, positions=(*order.positions, *released))
        return replace(order, positions=order.positions + tuple(draft.held.positions))

    def _placed(
        self,
        draft: _Draft,
        reply: Reply,
        status: str,
        *,
        pay_before_ms: int | None = None,
        paid_at_ms: int | None = None,
    ) -> Order:
        partition = self._runner.partitions.of(draft.user_id)
        return Order(
            order_id=draft.order_id,
            user_id=draft.user_id,
            status=status,
            failure=None,
            lines_json=draft.lines_json,
            subtotal=draft.subtotal,
            discount=reply.integer(1),
            total=reply.integer(2),
            coupon_id=draft.coupon_id or None,
            ordered_at_ms=reply.integer(3),
            pay_before_ms=pay_before_ms,
            paid_at_ms=paid_at_ms,
            positions=(position_of(partition, reply.values[0]), *draft.held.positions),
        )

    async def _void(self, flow: Flow, user_id: str, order_id: str, asked: str) -> Reply:
        partition = self._runner.partitions.of(user_id)
        keys = self._runner.keys
        return await self._runner.change(
            flow,
            partition,
            "void_order",
            (keys.meta(partition), keys.events(partition), keys.order(partition, order_id), keys.cold(partition)),
            (order_id, user_id, created_ms(order_id), asked),
            urgent=True,
        )


def _lines_json(lines: Sequence[HeldLine]) -> bytes:
    return orjson.dumps(
        [
            {
                "product_id": line.product_id,
                "stock_id": line.stock_id,
                "name": line.name,
                "option": line.option,
                "unit_price": line.unit_price,
                "quantity": line.quantity,
                "amount": line.unit_price * line.quantity,
            }
            for line in lines
        ]
    )


def _order(order_id: str, fields: dict[str, str], partition: int) -> Order:
    return Order(
        order_id=order_id,
        user_id=fields["user"],
        status=fields["status"],
        failure=fields["failure"] or None,
        lines_json=fields["lines"].encode(),
        subtotal=int(fields["subtotal"]),
        discount=int(fields["discount"]),
        total=int(fields["total"]),
        coupon_id=fields["coupon"] or None,
        ordered_at_ms=int(fields["ordered_at"]),
        pay_before_ms=int(fields["pay_before"]) if fields["pay_before"] else None,
        paid_at_ms=int(fields["paid_at"]) if fields["paid_at"] else None,
        positions=(position_of(partition, fields["seq"]),),
    )
