"""Products and the best sellers (R2, R5)."""

from __future__ import annotations

from api import schemas
from api.answers import product_answer, product_summary
from api.asgi import Answer, Call, Handler
from api.cursors import decode_cursor, encode_cursor
from api.shop import Shop


def handlers(shop: Shop) -> dict[str, Handler]:
    """The operations of products."""

    async def list_products(call: Call[None, schemas.PageQuery]) -> Answer:
        products, more = await shop.engine.catalog.page(decode_cursor(call.query.cursor), call.query.limit)
        body = schemas.ProductPage(
            items=[product_summary(product, shop.currency) for product in products],
            next_cursor=encode_cursor(products[-1].product_id) if more else None,
        )
        return Answer(200, body)

    async def get_product(call: Call[None, schemas.NoQuery]) -> Answer:
        product = await shop.engine.catalog.read(call.path_params["product_id"])
        return Answer(200, product_answer(product, shop.currency))

    async def list_best_sellers(call: Call[None, schemas.BestSellersQuery]) -> Answer:
        ranking = await shop.engine.bestsellers.top(call.query.days)
        body = schemas.BestSellers(
            from_=ranking.first.isoformat(),
            to=ranking.last.isoformat(),
            time_zone=shop.engine.days.time_zone,
            items=[
                schemas.BestSeller(
                    rank=item.rank,
                    product_id=item.product_id,
                    name=item.name,
                    price=item.price,
                    quantity_sold=item.quantity_sold,
                )
                for item in ranking.items[: call.query.limit]
            ],
        )
        return Answer(200, body)

    return {"list_products": list_products, "get_product": get_product, "list_best_sellers": list_best_sellers}
