"""What a load test needs of a shop: a campaign and products of its own, made through the admin API."""

from __future__ import annotations

import secrets
import time
from argparse import Namespace
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx

from api.commands.token import OperatorAuth
from api.settings import ApiSettings
from api.times import format_moment

PRICE = 1_000
COUPON_VALUE = 300
STOCK_ITEM = "one"
PLENTY = 10_000_000
HTTP_TIMEOUT_S = 30.0
WAITS_FOR_OPENING = timedelta(days=1)
NOT_PREPARED: Final = 4
"""The exit code where a plan cannot be made in a shop, or there is no shop."""
WRONG_OUTCOME: Final = 3
"""The exit code where the shop does not hold what it answered."""
CUT_SHORT: Final = 5
"""The exit code where a run ended before its users had done what they came for, or before it was checked."""


CAMPAIGN, GIFT, SALE, SHELF = "campaign", "gift", "sale", "shelf"
"""What a scenario can need."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the users of one run ask for. `campaign` and `sale` are scarce, of the others there is plenty."""

    run: str
    needs: tuple[str, ...]
    coupons: int
    stock: int
    products: int
    begun_at: float
    """When the run began, in seconds of the Unix epoch."""
    opens_at: float | None = None
    """When the rush begins, in the same seconds; None until all users are there."""

    @property
    def campaign(self) -> str:
        """The campaign that opens at a moment, and of which few get a coupon."""
        return f"rush-{self.run}"

    @property
    def gift(self) -> str:
        """The campaign of which everybody gets one."""
        return f"gift-{self.run}"

    @property
    def sale(self) -> str:
        """The product of which there is little."""
        return f"sale-{self.run}"

    def shelf(self) -> list[str]:
        """The products of normal shopping."""
        return [f"item-{self.run}-{number}" for number in range(self.products if SHELF in self.needs else 0)]

    def as_message(self) -> dict[str, Any]:
        """What can be sent to another process."""
        return asdict(self)


def make_plan(options: Namespace, needs: Collection[str]) -> Plan:
    """The plan of a new run, with what its scenarios need."""
    run = options.run_name or secrets.token_hex(4)
    return Plan(run, tuple(sorted(needs)), options.coupons, options.stock, options.products, time.time())


def admin_client(url: str) -> httpx.Client:
    """A client with an operator's token, where FIRSTCOME_TOKEN_* holds a secret. Raises SettingError."""
    return httpx.Client(base_url=url, auth=OperatorAuth(ApiSettings.from_environment()), timeout=HTTP_TIMEOUT_S)


def prepare(client: httpx.Client, plan: Plan) -> None:
    """Makes what the plan names. Raises httpx.HTTPError where the shop refuses."""
    if CAMPAIGN in plan.needs:
        put_campaign(client, plan.campaign, plan.coupons, datetime.now(UTC) + WAITS_FOR_OPENING)
    if GIFT in plan.needs:
        put_campaign(client, plan.gift, PLENTY, datetime.now(UTC))
    if SALE in plan.needs:
        put_product(client, plan.sale, plan.stock)
    for product in plan.shelf():
        put_product(client, product, PLENTY)


def open_campaign(client: httpx.Client, plan: Plan, opens_in_s: float) -> Plan:
    """The plan with the moment of its opening, at which its campaign opens too."""
    opens_at = datetime.now(UTC) + timedelta(seconds=opens_in_s)
    if CAMPAIGN in plan.needs:
        put_campaign(client, plan.campaign, plan.coupons, opens_at)
    return replace(plan, opens_at=opens_at.timestamp())


def put_campaign(client: httpx.Client, campaign: str, quantity: int, opens_at: datetime) -> None:
    """Makes or moves a campaign."""
    body = {
        "name": f"Load test {campaign}",
        "discount": {"kind": "amount", "value": COUPON_VALUE},
        "quantity": quantity,
        "opens_at": format_moment(opens_at),
        "closes_at": format_moment(opens_at + timedelta(days=30)),
        "valid_days": 30,
    }
    client.put(f"/admin/v1/campaigns/{campaign}", json=body).raise_for_status()


def put_product(client: httpx.Client, product: str, quantity: int) -> None:
    """Makes a product with one stock item."""
    stock = [{"stock_id": STOCK_ITEM, "option": STOCK_ITEM, "initial_quantity": quantity}]
    body = {"name": f"Load test {product}", "price": PRICE, "stock": stock}
    client.put(f"/admin/v1/products/{product}", json=body).raise_for_status()
