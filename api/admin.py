"""For operators: making and changing products, stock and campaigns. What they look at is in `api.operators`."""

from __future__ import annotations

from api import schemas
from api.answers import changed_campaign_answer, changed_product_answer
from api.asgi import Answer, Call, Handler, location
from api.idempotency import key_of
from api.shop import Shop
from api.times import parse_time
from engine.catalog import NewStockItem
from engine.coupons import Campaign, Discount
from engine.positions import position_text


def handlers(shop: Shop) -> dict[str, Handler]:
    """The operations of operators that change the shop."""

    async def put_product(call: Call[schemas.ProductRequest, schemas.NoQuery]) -> Answer:
        product_id, body = call.path_params["product_id"], call.body
        stock = [NewStockItem(item.stock_id, item.option, item.initial_quantity) for item in body.stock]
        created, positions = await shop.engine.catalog.put(product_id, body.name, body.price, stock)
        safety = await shop.safety(call, positions)
        product = await shop.engine.catalog.read(product_id)
        answer = changed_product_answer(product, shop.currency, positions, durable=safety.durable)
        return Answer(201 if created else 200, answer, (location(f"/v1/products/{product_id}"), *safety.headers))

    async def adjust_stock(call: Call[schemas.AdjustmentRequest, schemas.NoQuery]) -> Answer:
        product_id, stock_id = call.path_params["product_id"], call.path_params["stock_id"]
        item = await shop.engine.catalog.adjust(product_id, stock_id, call.body.delta, call.body.reason, key_of(call))
        safety = await shop.safety(call, item.positions, replayed=item.replayed)
        body = schemas.AdjustedStockItem(
            stock_id=item.stock_id,
            product_id=item.product_id,
            option=item.option,
            available=item.available,
            position=position_text(item.positions),
            durable=safety.durable,
        )
        return Answer(201, body, safety.headers)

    async def put_campaign(call: Call[schemas.CampaignRequest, schemas.NoQuery]) -> Answer:
        campaign_id, body = call.path_params["campaign_id"], call.body
        rule = body.discount
        wanted = Campaign(
            campaign_id,
            body.name,
            Discount(rule.kind, rule.value, rule.minimum_order, rule.maximum_discount),
            body.quantity,
            0,
            parse_time(body.opens_at),
            parse_time(body.closes_at),
            body.valid_days,
        )
        created, campaign, positions = await shop.engine.coupons.put_campaign(wanted)
        safety = await shop.safety(call, positions)
        answer = changed_campaign_answer(campaign, positions, durable=safety.durable)
        where = location(f"/v1/campaigns/{campaign_id}")
        return Answer(201 if created else 200, answer, (where, *safety.headers))

    return {"put_product": put_product, "adjust_stock": adjust_stock, "put_campaign": put_campaign}
