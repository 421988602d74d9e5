"""Coupons and campaigns, for users (R4)."""

from __future__ import annotations

from collections.abc import Sequence

from api import schemas
from api.answers import campaign_answer, coupon_answer, issued_coupon_answer
from api.asgi import Answer, Call, Handler, location
from api.cursors import decode_number_cursor, encode_number_cursor
from api.idempotency import key_of
from api.shop import Shop
from engine.coupons import Campaign, Coupon
from engine.errors import CouponAlreadyIssued, MayBeCold, NotFound, OutcomeUnknown

CAMPAIGNS_MAX = 1000
NUMBER_MAX = 2**53


def handlers(shop: Shop) -> dict[str, Handler]:
    """The operations of coupons and campaigns."""

    async def issue_coupon(call: Call[schemas.CouponRequest, schemas.NoQuery]) -> Answer:
        user_id = call.path_params["user_id"]
        try:
            coupon = await shop.engine.coupons.issue(user_id, call.body.campaign_id, key_of(call))
        except MayBeCold as error:
            earlier = await shop.history.coupon_of(user_id, call.body.campaign_id)
            if earlier is None:
                raise OutcomeUnknown("the coupon is issued and not yet among the user's coupons") from error
            raise CouponAlreadyIssued(earlier.coupon_id) from error
        safety = await shop.safety(call, coupon.positions, replayed=coupon.replayed)
        body = issued_coupon_answer(coupon, now_ms(user_id), durable=safety.durable)
        where = location(f"/v1/users/{user_id}/coupons/{coupon.coupon_id}")
        return Answer(201, body, (where, *safety.headers))

    async def list_coupons(call: Call[None, schemas.CouponsQuery]) -> Answer:
        user_id, query = call.path_params["user_id"], call.query
        at_ms = now_ms(user_id)
        holding = await shop.engine.coupons.holding(user_id)
        below = min(decode_number_cursor(query.cursor) or NUMBER_MAX, holding.granted + 1)

        def wanted(coupons: Sequence[Coupon]) -> list[tuple[int, schemas.Coupon]]:
            answers = [(each.user_number, coupon_answer(each, at_ms)) for each in coupons if each.user_number < below]
            return [(number, answer) for number, answer in answers if query.state in {None, answer.state}]

        listed = wanted(holding.coupons)
        lacking = holding.lacks_below(below)
        is_whole = len(listed) > query.limit and listed[query.limit][0] > lacking
        # What has left Redis is used or expired: none of it is valid.
        if lacking and query.state != "valid" and not is_whole:
            here = {each.coupon_id for each in holding.coupons}
            recorded = await shop.history.coupons(user_id, lacking + 1, query.limit + 1 + len(here))
            listed += wanted([each for each in recorded if each.coupon_id not in here])
            listed.sort(key=lambda each: -each[0])
        page = listed[: query.limit]
        cursor = encode_number_cursor(page[-1][0]) if len(listed) > len(page) else None
        return Answer(200, schemas.CouponPage(items=[coupon for _, coupon in page], next_cursor=cursor))

    async def get_coupon(call: Call[None, schemas.NoQuery]) -> Answer:
        user_id, coupon_id = call.path_params["user_id"], call.path_params["coupon_id"]
        try:
            coupon = await shop.engine.coupons.read_coupon(user_id, coupon_id)
        except NotFound:
            recorded = await recorded_coupon(shop, user_id, coupon_id)
            if recorded is None:
                raise
            coupon = recorded
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


async def recorded_coupon(shop: Shop, user_id: str, coupon_id: str) -> Coupon | None:
    """A coupon that is not in Redis, as PostgreSQL has it; None when there is none. Raises `HistoryUnavailable`."""
    # An id that cannot be of this user's coupons is not worth a question.
    return await shop.history.coupon(user_id, coupon_id) if coupon_id.startswith(f"{user_id}-") else None


def _state(campaign: Campaign, at_ms: int) -> schemas.CampaignState:
    if at_ms < campaign.opens_at_ms:
        return "upcoming"
    return "open" if at_ms < campaign.closes_at_ms else "closed"
