"""The limits that hold here, and what became of a change (R0.8)."""

from __future__ import annotations

from api import schemas
from api.asgi import Answer, Call, Handler
from api.shop import Shop
from engine.errors import EngineError, NotFound
from engine.positions import Position


def handlers(shop: Shop) -> dict[str, Handler]:
    """The operations that belong to no subject."""

    async def get_policies(_: Call[None, schemas.NoQuery]) -> Answer:
        policy = shop.engine.policy
        body = schemas.Policies(
            currency=shop.currency,
            time_zone=shop.engine.days.time_zone,
            minimum_charge=policy.charge_min,
            maximum_charge=policy.charge_max,
            maximum_balance=policy.balance_max,
            maximum_payment=policy.payment_max,
            maximum_unit_price=policy.unit_price_max,
            maximum_quantity=policy.line_quantity_max,
            maximum_lines=policy.lines_max,
            minimum_discount=policy.discount_min,
            maximum_discount=policy.discount_max,
            payment_deadline_seconds=max(1, policy.payment_deadline_ms // 1000),
        )
        return Answer(200, body)

    async def get_position(call: Call[None, schemas.NoQuery]) -> Answer:
        text = call.path_params["position"]
        positions = shop.positions(text, "path.position")
        states = await shop.history.position_states(positions)
        for position, state in zip(positions, states, strict=True):
            never = position.epoch < 1 or position.seq < 1  # both are counted from 1
            if never or (state == "accepted" and not await made(position)):
                raise NotFound(f"there is no change with the position {text}")
        worst: schemas.PositionState = "accepted"
        if "lost" in states:
            worst = "lost"
        elif all(state == "durable" for state in states):
            worst = "durable"
        return Answer(200, schemas.PositionAnswer(position=text, state=worst))

    async def made(position: Position) -> bool:
        """Whether there is such a change, as far as Redis can be asked."""
        try:
            return await shop.engine.durability.made(position)
        except EngineError:
            return True

    return {"get_policies": get_policies, "get_position": get_position}
