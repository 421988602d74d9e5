"""Balance: charge, read, entries (R1)."""

from __future__ import annotations

from api import schemas
from api.asgi import Answer, Call, Handler
from api.idempotency import key_of
from api.shop import Shop
from api.times import format_moment, format_time
from engine.positions import position_text
from persistence.history import BalanceEntry


def handlers(shop: Shop) -> dict[str, Handler]:
    """The operations of balances."""

    async def get_balance(call: Call[None, schemas.NoQuery]) -> Answer:
        user_id = call.path_params["user_id"]
        balance = await shop.engine.wallets.balance(user_id)
        return Answer(200, schemas.Balance(user_id=user_id, balance=balance, currency=shop.currency))

    async def charge_balance(call: Call[schemas.ChargeRequest, schemas.NoQuery]) -> Answer:
        charge = await shop.engine.wallets.charge(call.path_params["user_id"], call.body.amount, key_of(call))
        safety = await shop.safety(call, charge.positions, replayed=charge.replayed)
        body = schemas.Charge(
            user_id=charge.user_id,
            amount=charge.amount,
            balance=charge.balance,
            currency=shop.currency,
            charged_at=format_time(charge.charged_at_ms),
            position=position_text(charge.positions),
            durable=safety.durable,
        )
        return Answer(201, body, safety.headers)

    async def list_balance_entries(call: Call[None, schemas.HistoryQuery]) -> Answer:
        await shop.await_history(call.path_params["user_id"], call.query.after)
        page = await shop.history.balance_entries(call.path_params["user_id"], call.query.limit, call.query.cursor)
        return Answer(
            200, schemas.LedgerPage(items=[_entry(entry) for entry in page.items], next_cursor=page.next_cursor)
        )

    return {
        "get_balance": get_balance,
        "charge_balance": charge_balance,
        "list_balance_entries": list_balance_entries,
    }


def _entry(entry: BalanceEntry) -> schemas.LedgerEntry:
    return schemas.LedgerEntry(
        entry_id=entry.entry_id,
        kind=entry.kind,  # type: ignore[arg-type]
        amount=entry.amount,
        balance=entry.balance,
        order_id=entry.order_id,
        at=format_moment(entry.at),
    )
