"""First-come coupons: campaigns, issue, grant, and what a user holds (R4)."""

import asyncio

from msgspec import Struct
from msgspec.structs import replace

from engine.business_days import BusinessDays
from engine.catalog import list_ids
from engine.coupon_queue import CouponQueue
from engine.errors import (
    CampaignNotOpen,
    CouponAlreadyIssued,
    CouponsExhausted,
    EngineError,
    MayBeCold,
    NotFound,
    OutcomeUnknown,
    QuantityBelowIssued,
    StaleGeneration,
    UnknownCampaign,
)
from engine.hashes import hash_of
from engine.idempotency import KeyClaims, Replayed, RequestKey, key_arguments
from engine.positions import Position, position_of, position_text
from engine.runner import Flow, Reply, ScriptRunner
from engine.statuses import Status

DAY_MS = 86_400_000


class Discount(Struct, frozen=True):
    """A coupon's rule: ``kind`` is ``amount`` (``value`` in minor units) or ``percent``."""

    kind: str
    value: int
    minimum_order: int | None
    maximum_discount: int | None


class Campaign(Struct, frozen=True):
    """A coupon campaign; times in ms since 1970."""

    campaign_id: str
    name: str
    discount: Discount
    quantity: int
    issued: int
    opens_at_ms: int
    closes_at_ms: int
    valid_days: int

    @property
    def remaining(self) -> int:
        """Coupons that are not issued."""
        return self.quantity - self.issued


class Issue(Struct, frozen=True):
    """A user's place in the line of a campaign, with the campaign's rule of that moment."""

    user_id: str
    campaign_id: str
    number: int
    issued_at_ms: int
    discount: Discount
    valid_days: int


class Coupon(Struct, frozen=True):
    """A user's coupon. ``state`` is ``free``, ``taken`` (by ``order_id``, in progress) or ``used`` (by it)."""

    coupon_id: str
    campaign_id: str
    issue_number: int
    discount: Discount
    state: str
    order_id: str | None
    issued_at_ms: int
    valid_from_ms: int
    valid_until_ms: int
    used_at_ms: int | None
    positions: tuple[Position, ...]
    replayed: bool = False
    """Whether this is the answer of an earlier request of the same idempotency key."""

    @property
    def user_number(self) -> int:
        """Counts its user's coupons, the first one 1; the id ends with it."""
        return int(self.coupon_id.rpartition("-")[2])

    def reason_invalid(self, at_ms: int) -> str | None:
        """Why a new order could not take it at that moment; ``None`` when it could."""
        if self.state != "free":
            return self.state
        if at_ms >= self.valid_until_ms:
            return "expired"
        if at_ms < self.valid_from_ms:
            return "not_started"
        return None


class Holding(Struct, frozen=True):
    """A user's coupons as Redis has them, newest first, and how many were ever granted.

    Whichever of the numbers 1 to ``granted`` is not among them is used or expired, and in PostgreSQL.
    """

    coupons: tuple[Coupon, ...]
    granted: int

    def lacks_below(self, number: int) -> int:
        """The highest number below this one that is not among them; 0 when all are."""
        here = {coupon.user_number for coupon in self.coupons}
        return next((each for each in range(min(self.granted, number - 1), 0, -1) if each not in here), 0)


class _Terms(Struct, frozen=True):
    """What an issue makes of the coupon; ``text`` as `grant_coupon` takes it, for what is not calculated with here."""

    issued_at_ms: int
    text: str


class Coupons:
    """A campaign lives in one partition and decides who gets a coupon; the coupon lives in its user's."""

    def __init__(self, runner: ScriptRunner, key_claims: KeyClaims, days: BusinessDays) -> None:
        self._runner = runner
        self._key_claims = key_claims
        self._days = days
        self._queue = CouponQueue(runner)

    async def put_campaign(self, campaign: Campaign) -> tuple[bool, Campaign, tuple[Position, ...]]:
        """Make a campaign or change it (``issued`` is ignored); whether it is new, as it stands now, and where.

        Raises `QuantityBelowIssued`.
        """
        partition = self._runner.partitions.of(campaign.campaign_id)
        keys = self._runner.keys
        rule = campaign.discount

        async def step(flow: Flow) -> tuple[bool, Campaign, tuple[Position, ...]]:
            reply = await self._runner.change(
                flow,
                partition,
                "put_campaign",
                (
                    keys.meta(partition),
                    keys.events(partition),
                    keys.campaigns(partition),
                    keys.campaign(partition, campaign.campaign_id),
                ),
                (
                    campaign.campaign_id,
                    campaign.name,
                    rule.kind,
                    rule.value,
                    _optional(rule.minimum_order),
                    _optional(rule.maximum_discount),
                    campaign.quantity,
                    campaign.opens_at_ms,
                    campaign.closes_at_ms,
                    campaign.valid_days,
                ),
            )
            if reply.status is Status.QUANTITY_BELOW_ISSUED:
                raise QuantityBelowIssued(reply.integer(0))
            now = replace(campaign, issued=reply.integer(1))
            return reply.status is Status.CREATED, now, (position_of(partition, reply.values[0]),)

        return await self._runner.alone(step)

    async def read_campaign(self, campaign_id: str) -> Campaign:
        """One campaign. Raises `NotFound`."""
        partition = self._runner.partitions.of(campaign_id)
        keys = (self._runner.keys.meta(partition), self._runner.keys.campaign(partition, campaign_id))
        hashes = await self._runner.alone(lambda flow: self._runner.read(flow, partition, "read_hashes", keys))
        if not hashes[0]:
            raise NotFound(f"there is no campaign {campaign_id}")
        return _campaign(campaign_id, hash_of(hashes[0]))

    async def list_campaigns(self, count_max: int) -> list[Campaign]:
        """The campaigns in the order of their ids, at most ``count_max``."""
        sets = [self._runner.keys.campaigns(partition) for partition in range(self._runner.partitions.count)]
        ids = await list_ids(self._runner, sets, "", count_max)
        return list(await asyncio.gather(*(self.read_campaign(campaign_id) for campaign_id in ids)))

    async def issue(self, user_id: str, campaign_id: str, key: RequestKey | None = None) -> Coupon:
        """Take the next coupon of a campaign for a user.

        Raises `UnknownCampaign`, `CouponAlreadyIssued`, `CampaignNotOpen`, `CouponsExhausted`; `OutcomeUnknown` when
        the coupon is issued and cannot be shown yet (the worker puts it among the user's coupons), or when a recovery
        came between and it may be issued or not. `MayBeCold`: it was issued long ago, and only PostgreSQL may have it
        now. With a key also `IdempotencyKeyReused`, `RequestInProgress`.
        """
        if key is None:
            return await self._runner.alone(lambda flow: self._issue(flow, user_id, campaign_id, None, False))
        home = self._runner.partitions.of(user_id)

        async def step(flow: Flow) -> Coupon:
            # The key lives with the user, the campaign elsewhere: the claim has to come before the issue.
            async with self._key_claims.held(flow, home, key) as resumed:
                return await self._issue(flow, user_id, campaign_id, key, resumed)

        try:
            return await self._runner.alone(step)
        except Replayed as earlier:
            coupon = await self.read_coupon(user_id, earlier.values[0])
            as_issued = replace(coupon, state="free", order_id=None, used_at_ms=None)
            return replace(as_issued, positions=earlier.positions(1), replayed=True)

    async def _issue(self, flow: Flow, user_id: str, campaign_id: str, key: RequestKey | None, resumed: bool) -> Coupon:
        """``resumed``: an earlier request of the key may have been issued what this one finds."""
        partition = self._runner.partitions.of(campaign_id)
        reply = await self._queue.ask(flow, campaign_id, user_id)
        issued_before = False
        if reply.status is not Status.ISSUED:
            _require_issue(reply, campaign_id)
            issued_before = not flow.sent_again and not resumed
        try:
            # In the flow's own generation: a recovery that came between may have lost the issue, and its number
            # may be another user's by now.
            terms = _terms_of(reply.text(1))
            spent = None if issued_before else key
            issued = position_of(partition, reply.values[0])
            coupon, granted = await self._grant(flow, user_id, campaign_id, terms, key=spent, issued=issued)
        except StaleGeneration as error:
            raise OutcomeUnknown("a recovery came between, and the coupon may be issued or not") from error
        except MayBeCold:
            raise
        except EngineError as error:
            raise OutcomeUnknown("the coupon is issued and not yet among the user's coupons") from error
        if issued_before:
            raise CouponAlreadyIssued(coupon.coupon_id)
        if key is not None and not granted:
            # The worker was faster, and knows of no key.
            await self._key_claims.let_go(self._runner.partitions.of(user_id), key)
        return coupon

    async def grant(self, issue: Issue, asked: str = "") -> tuple[Coupon, bool]:
        """Put an issued coupon among its user's coupons, once; and whether it was not there before.

        Only for an issue that is in PostgreSQL, which no recovery takes back. Raises `MayBeCold`: ask PostgreSQL, and
        where it has no such coupon, call again with the error's ``asked``.
        """
        terms = _terms(issue)
        return await self._runner.alone(
            lambda flow: self._grant(flow, issue.user_id, issue.campaign_id, terms, asked=asked)
        )

    async def _grant(
        self,
        flow: Flow,
        user_id: str,
        campaign_id: str,
        terms: _Terms,
        *,
        asked: str = "",
        key: RequestKey | None = None,
        issued: Position | None = None,
    ) -> tuple[Coupon, bool]:
        partition = self._runner.partitions.of(user_id)
        keys = self._runner.keys
        reply = await self._runner.change(
            flow,
            partition,
            "grant_coupon",
            (
                keys.meta(partition),
                keys.events(partition),
                keys.wallet(partition, user_id),
                keys.coupons(partition, user_id),
                keys.cold(partition),
                *self._key_claims.record(partition, key),
            ),
            (
                user_id,
                campaign_id,
                terms.text,
                self._days.text(terms.issued_at_ms),
                asked,
                *key_arguments(key),
                position_text((issued,)) if issued and key else "",
            ),
            urgent=True,
        )
        is_granted = reply.status is Status.GRANTED
        if not is_granted and reply.status is Status.COLD:
            raise MayBeCold(reply.text(0))
        coupon = _coupon(reply.text(1), reply.text(2), partition, () if issued is None else (issued,))
        return coupon, is_granted

    async def list_coupons(self, user_id: str) -> list[Coupon]:
        """A user's coupons as Redis has them, newest first."""
        return list((await self.holding(user_id)).coupons)

    async def holding(self, user_id: str) -> Holding:
        """The same, and what there is besides; all of one moment."""
        partition = self._runner.partitions.of(user_id)
        keys = self._runner.keys
        names = (keys.meta(partition), keys.coupons(partition, user_id), keys.wallet(partition, user_id))
        coupons, wallet = await self._runner.alone(
            lambda flow: self._runner.read(flow, partition, "read_hashes", names)
        )
        found = [
            _coupon(coupon_id, packed, partition)
            for coupon_id, packed in hash_of(coupons).items()
            if not coupon_id.startswith("campaign:")
        ]
        found.sort(key=lambda coupon: coupon.user_number, reverse=True)
        return Holding(tuple(found), int(hash_of(wallet).get("coupon_number", "0")))

    async def read_coupon(self, user_id: str, coupon_id: str) -> Coupon:
        """One coupon of this user. Raises `NotFound`."""
        partition = self._runner.partitions.of(user_id)
        keys = (self._runner.keys.meta(partition), self._runner.keys.coupons(partition, user_id))
        values = await self._runner.alone(
            lambda flow: self._runner.read(flow, partition, "read_fields", keys, (coupon_id,))
        )
        if values[0] is None or ":" in coupon_id:
            raise NotFound(f"user {user_id} has no coupon {coupon_id}")
        return _coupon(coupon_id, values[0].decode(), partition)


def _optional(amount: int | None) -> str:
    return "" if amount is None else str(amount)


def _rule(kind: str, value: str, minimum_order: str, maximum_discount: str) -> Discount:
    return Discount(
        kind,
        int(value),
        int(minimum_order) if minimum_order else None,
        int(maximum_discount) if maximum_discount else None,
    )


def _require_issue(reply: Reply, campaign_id: str) -> None:
    """Raise why `issue_coupons` has no issue for a user."""
    match reply.status:
        case Status.UNKNOWN:
            raise UnknownCampaign(campaign_id)
        case Status.NOT_OPEN:
            raise CampaignNotOpen(reply.integer(0), reply.integer(1), reply.integer(2) < reply.integer(0))
        case Status.EXHAUSTED:
            raise CouponsExhausted(reply.integer(0))


def _terms_of(packed: str) -> _Terms:
    """From an issue as `issue_coupons` answers it."""
    number, issued_at, kind, value, minimum_order, maximum_discount, valid_days = packed.split(",")
    issued_at_ms = int(issued_at)
    valid_until_ms = issued_at_ms + int(valid_days) * DAY_MS
    rule = f"{number},{kind},{value},{minimum_order},{maximum_discount}"
    return _Terms(issued_at_ms, f"{rule},{issued_at},{issued_at},{valid_until_ms}")


def _terms(issue: Issue) -> _Terms:
    """From an issue as PostgreSQL has it."""
    rule = issue.discount
    limits = f"{_optional(rule.minimum_order)},{_optional(rule.maximum_discount)}"
    return _terms_of(f"{issue.number},{issue.issued_at_ms},{rule.kind},{rule.value},{limits},{issue.valid_days}")


def _campaign(campaign_id: str, fields: dict[str, str]) -> Campaign:
    return Campaign(
        campaign_id,
        fields["name"],
        _rule(fields["kind"], fields["value"], fields["minimum_order"], fields["maximum_discount"]),
        int(fields["quantity"]),
        int(fields["issued"]),
        int(fields["opens_at"]),
        int(fields["closes_at"]),
        int(fields["valid_days"]),
    )


def _coupon(coupon_id: str, packed: str, partition: int, others: tuple[Position, ...] = ()) -> Coupon:
    (
        state,
        campaign_id,
        number,
        kind,
        value,
        minimum_order,
        maximum_discount,
        issued_at,
        valid_from,
        valid_until,
        order_id,
        used_at,
        seq,
    ) = packed.split(",")
    return Coupon(
        coupon_id,
        campaign_id,
        int(number),
        _rule(kind, value, minimum_order, maximum_discount),
        state,
        order_id or None,
        int(issued_at),
        int(valid_from),
        int(valid_until),
        int(used_at) if used_at else None,
        (position_of(partition, seq), *others),
    )
