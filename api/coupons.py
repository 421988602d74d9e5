"""Coupons and campaigns, for users (R4)."""

from __future__ import annotations

from api import schemas
from api.answers import campaign_answer, coupon_answer, issued_coupon_answer
from api.asgi import Answer, Call, Handler, location
from api.cursors import decode_number_cursor, encode_number_cursor
from api.idempotency import key_of
from api.shop import Shop
from engine.coupons import Campaign

CAMPAIGNS_MAX = 1000


def handlers(shop: Shop) -> dict[str, Handler]:
    """The operations of coupons and campaigns."""

    async def issue_coupon(call: Call[schemas.CouponRequest, schemas.NoQuery]) -> Answer:
        user_id = call.path_params["user_id"]
        coupon = await shop.engine.coupons.issue(user_id, call.body.campaign_id, key_of(call))
        safety = await shop.safety(call, coupon.positions, replayed=coupon.replayed)
        body = issued_coupon_answer(coupon, now_ms(user_id), durable=safety.durable)
        where = location(f"/v1/users/{user_id}/coupons/{coupon.coupon_id}")
        return Answer(201, body, (where, *safety.headers))

    async def list_coupons(call: Call[None, schemas.CouponsQuery]) -> Answer:
        user_id, query = call.path_params["user_id"], call.query
        at_ms = now_ms(user_id)
        before = decode_number_cursor(query.cursor)
        listed = [
            (coupon.user_number, coupon_answer(coupon, at_ms))
            for coupon in await shop.engine.coupons.list_coupons(user_id)
            if before is None or coupon.user_number < before
        ]
        listed = [(number, coupon) for number, coupon in listed if query.state in {None, coupon.state}]
        page = listed[: query.limit]
        cursor = encode_number_cursor(page[-1][0]) if len(listed) > len(page) else None
        return Answer(200, schemas.CouponPage(items=[coupon for _, coupon in page], next_cursor=cursor))

    async def get_coupon(call: Call[None, schemas.NoQuery]) -> Answer:
        user_id = call.path_params["user_id"]
        coupon = await shop.engine.coupons.read_coupon(user_id, call.path_params["coupon_id"])
        return Answer(200, coupon_answer(coupon, now_ms(user_id)))

    async def list_campaigns(call: Call[None, schemas.CampaignsQuery]) -> Answer:
        at_ms = shop.engine.runner.now_ms(0)
        campaigns = await shop.engine.coupons.list_campaigns(CAMPAIGNS_MAX)
        wanted = [campaign for campaign in campaigns if call.query.state in {None, _state(campaign, at_ms)}]
        wanted.sort(key=lambda campaign: (campaign.opens_at_ms, campaign.campaign_id))
        return Answer(200, schemas.CampaignList(items=[campaign_answer(campaign) for campaign in wanted]))

    async def get_campaign(call: Call[None, schemas.NoQuery]) -> Answer:
        campaign = await shop.engine.coupons.read_campaign(call.path_params["campaign_id"])
        return Answer(200, campaign_answer(campaign))

    def now_ms(user_id: str) -> int:
        return shop.engine.runner.now_ms(shop.engine.partitions.of(user_id))

    return {
        "issue_coupon": issue_coupon,
        "list_coupons": list_coupons,
        "get_coupon": get_coupon,
        "list_campaigns": list_campaigns,
        "get_campaign": get_campaign,
    }


def _state(campaign: Campaign, at_ms: int) -> schemas.CampaignState:
    if at_ms < campaign.opens_at_ms:
        return "upcoming"
    return "open" if at_ms < campaign.closes_at_ms else "closed"
