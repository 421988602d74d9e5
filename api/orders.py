"""Orders, payment, cancellation, checkout (R3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from api import schemas
from api.answers import order_answer, recorded_order_answer
from api.asgi import Answer, Call, Handler, location
from api.coupons import recorded_coupon
from api.idempotency import key_of
from api.problems import Problem
from api.refusals import translate
from api.shop import Shop
from engine.errors import CouponNotValid, InsufficientBalance, NotFound, OrderNotCancellable, OrderNotPayable
from engine.idempotency import RequestKey
from engine.order_ids import is_order_id
from engine.orders import Order
from engine.stock import LineRequest
from persistence.history import RecordedOrder, orders_cursor

_Order = Callable[[str, list[LineRequest], str | None, RequestKey | None], Awaitable[Order]]


def handlers(shop: Shop) -> dict[str, Handler]:
    """The operations of orders."""

    async def place_order(call: Call[schemas.OrderRequest, schemas.NoQuery]) -> Answer:
        return await _created(shop, call, await _ordered(shop, call, shop.engine.orders.place))

    async def checkout(call: Call[schemas.OrderRequest, schemas.NoQuery]) -> Answer:
        return await _created(shop, call, await _ordered(shop, call, shop.engine.orders.checkout))

    async def pay_order(call: Call[schemas.NothingRequest | None, schemas.NoQuery]) -> Answer:
        try:
            order = await shop.engine.payments.pay(call.path_params["user_id"], _order_id(call), key_of(call))
        except NotFound as error:
            return await _paid_before(shop, call, error)
        except (InsufficientBalance, OrderNotPayable) as error:
            raise await _failed(shop, call, error) from error
        return await _changed(shop, call, order)

    async def cancel_order(call: Call[schemas.NothingRequest | None, schemas.NoQuery]) -> Answer:
        try:
            order = await shop.engine.orders.cancel(call.path_params["user_id"], _order_id(call), key_of(call))
        except NotFound as error:
            return await _cancelled_before(shop, call, error)
        return await _changed(shop, call, order)

    async def get_order(call: Call[None, schemas.NoQuery]) -> Answer:
        user_id, order_id = call.path_params["user_id"], _order_id(call)
        try:
            order = await shop.engine.orders.read(user_id, order_id)
        except NotFound:
            recorded = await shop.history.order(user_id, order_id)
            if recorded is None:
                raise
            return Answer(200, recorded_order_answer(recorded, shop.currency))
        durable = await shop.engine.durability.check(order.positions)
        return Answer(200, order_answer(order, shop.currency, durable=durable))

    async def list_orders(call: Call[None, schemas.HistoryQuery]) -> Answer:
        user_id, query = call.path_params["user_id"], call.query
        await shop.await_history(user_id, query.after)
        latest = await latest_orders(user_id) if query.cursor is None else []
        page = await shop.history.orders(user_id, query.limit, query.cursor)
        items = {order.order_id: recorded_order_answer(order, shop.currency) for order in page.items}
        items |= {order.order_id: order for order in latest}
        newest_first = sorted(items.values(), key=lambda order: (order.ordered_at, order.order_id), reverse=True)
        shown = newest_first[: query.limit]
        next_cursor = page.next_cursor
        if len(shown) < len(newest_first):
            next_cursor = orders_cursor(datetime.fromisoformat(shown[-1].ordered_at), shown[-1].order_id)
        return Answer(200, schemas.OrderPage(items=shown, next_cursor=next_cursor))

    async def latest_orders(user_id: str) -> list[schemas.Order]:
        """The open and the last order, which a list's first page holds however far the writer has come."""
        wallet = await shop.engine.wallets.read(user_id)
        found = []
        for order_id in {wallet.open_order, wallet.last_order} - {None}:
            try:
                order = await shop.engine.orders.read(user_id, str(order_id))
            except NotFound:
                continue  # it has left Redis, so it is in PostgreSQL
            durable = await shop.engine.durability.check(order.positions)
            found.append(order_answer(order, shop.currency, durable=durable))
        return found

    return {
        "place_order": place_order,
        "checkout": checkout,
        "pay_order": pay_order,
        "cancel_order": cancel_order,
        "get_order": get_order,
        "list_orders": list_orders,
    }


async def _created(shop: Shop, call: Call[schemas.OrderRequest, schemas.NoQuery], order: Order) -> Answer:
    safety = await shop.safety(call, order.positions, replayed=order.replayed)
    where = location(f"/v1/users/{order.user_id}/orders/{order.order_id}")
    return Answer(201, order_answer(order, shop.currency, durable=safety.durable), (where, *safety.headers))


async def _changed(shop: Shop, call: Call[Any, schemas.NoQuery], order: Order) -> Answer:
    safety = await shop.safety(call, order.positions, replayed=order.replayed, found_so=order.found_so)
    return Answer(200, order_answer(order, shop.currency, durable=safety.durable), safety.headers)


async def _failed(shop: Shop, call: Call[Any, Any], error: InsufficientBalance | OrderNotPayable) -> Problem:
    """The refusal of what has failed an order: that is a change, and made durable before the answer where asked for."""
    problem = translate(error)
    assert problem is not None, "both are in the table"
    if not error.positions:
        return problem
    safety = await shop.safety(call, error.positions, replayed=error.replayed)
    return problem.with_header("Preference-Applied", "durable") if safety.applied else problem


# What is not in Redis any more is finished, used or expired, and PostgreSQL answers what Redis would have.


async def _ordered(shop: Shop, call: Call[schemas.OrderRequest, schemas.NoQuery], order: _Order) -> Order:
    user_id = call.path_params["user_id"]
    try:
        return await order(user_id, _lines(call.body), call.body.coupon_id, key_of(call))
    except InsufficientBalance as error:
        raise await _failed(shop, call, error) from error
    except CouponNotValid as error:
        coupon = await recorded_coupon(shop, user_id, error.coupon_id) if error.why == "unknown" else None
        at_ms = shop.engine.runner.now_ms(shop.engine.partitions.of(user_id))
        reason = coupon.reason_invalid(at_ms) if coupon else None
        if reason is None:
            raise
        raise CouponNotValid(
            error.coupon_id, reason, subtotal=error.subtotal, discount_min=error.discount_min
        ) from error


async def _paid_before(shop: Shop, call: Call[Any, schemas.NoQuery], error: NotFound) -> Answer:
    order = await _finished_order(shop, call, error)
    if order.status != "completed":
        raise OrderNotPayable(order.order_id, order.status, order.failure) from error
    return await _unchanged(shop, call, order)


async def _cancelled_before(shop: Shop, call: Call[Any, schemas.NoQuery], error: NotFound) -> Answer:
    order = await _finished_order(shop, call, error)
    if order.failure != "cancelled":
        raise OrderNotCancellable(order.order_id, order.status, order.failure) from error
    return await _unchanged(shop, call, order)


async def _finished_order(shop: Shop, call: Call[Any, schemas.NoQuery], error: NotFound) -> RecordedOrder:
    order = await shop.history.order(call.path_params["user_id"], _order_id(call))
    if order is None or order.status == "awaiting_payment":
        raise error
    return order


async def _unchanged(shop: Shop, call: Call[Any, schemas.NoQuery], order: RecordedOrder) -> Answer:
    safety = await shop.safety(call, ())
    return Answer(200, recorded_order_answer(order, shop.currency), safety.headers)


def _lines(request: schemas.OrderRequest) -> list[LineRequest]:
    return [LineRequest(line.product_id, line.stock_id, line.quantity) for line in request.lines]


def _order_id(call: Call[Any, schemas.NoQuery]) -> str:
    """The order id in the path; what is written otherwise than ours are belongs to no order."""
    order_id = call.path_params["order_id"]
    if not is_order_id(order_id):
        raise NotFound(f"user {call.path_params['user_id']} has no order {order_id}")
    return order_id
