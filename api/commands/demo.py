"""The demo's catalogue and campaign, made through the admin API as an operator would make them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from api.times import format_moment

_SIZES = ("S", "M", "L", "XL")

PRODUCTS: dict[str, tuple[str, int, dict[str, int]]] = {
    "t-shirt": ("오가닉 코튼 티셔츠 · Organic cotton T-shirt", 19_000, dict.fromkeys(_SIZES, 200)),
    "hoodie": ("기모 후드 · Brushed hoodie", 49_000, dict.fromkeys(_SIZES, 120)),
    "jeans": ("셀비지 청바지 · Selvedge jeans", 89_000, {"28": 40, "30": 60, "32": 60, "34": 40}),
    "hanbok": ("생활한복 저고리 · Everyday hanbok jacket", 129_000, {"S": 20, "M": 30, "L": 20}),
    "raincoat": ("바람막이 우비 · Packable raincoat", 65_000, {"M": 50, "L": 50}),
    "socks": ("줄무늬 양말 · Striped socks", 4_500, {"one-size": 1_000}),
    "cap": ("볼캡 · Baseball cap", 22_000, {"one-size": 300}),
    "limited-sneakers": ("한정판 운동화 · Limited sneakers", 159_000, {"250": 5, "260": 5, "270": 5}),
}
"""Product id to its name, its price in won, and the quantity of each size."""

CAMPAIGN_ID = "welcome"
CAMPAIGN_DAYS = 365
TIMEOUT_S = 30.0


def make_demo(client: httpx.Client) -> bool:
    """Makes the catalogue and an open campaign where the shop has no product yet; returns whether it did.

    Raises httpx.HTTPError when the shop does not do as asked.
    """
    found = client.get("/v1/products", params={"limit": 1}, timeout=TIMEOUT_S)
    found.raise_for_status()
    if found.json()["items"]:
        return False
    # The campaign comes before the products, so that a demo that was interrupted is made whole the next time.
    _put(client, f"/admin/v1/campaigns/{CAMPAIGN_ID}", _campaign(datetime.now(UTC)))
    for product_id, (name, price, sizes) in PRODUCTS.items():
        stock = [{"stock_id": size, "option": size, "initial_quantity": quantity} for size, quantity in sizes.items()]
        _put(client, f"/admin/v1/products/{product_id}", {"name": name, "price": price, "stock": stock})
    return True


def _campaign(now: datetime) -> dict[str, Any]:
    return {
        "name": "첫 구매 10% 쿠폰 · 10 % off the first order",
        "discount": {"kind": "percent", "value": 10, "minimum_order": 10_000, "maximum_discount": 20_000},
        "quantity": 1_000,
        "opens_at": format_moment(now),
        "closes_at": format_moment(now + timedelta(days=CAMPAIGN_DAYS)),
        "valid_days": 30,
    }


def _put(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    client.put(path, json=body, timeout=TIMEOUT_S).raise_for_status()


def first_purchase(api_url: str, *, with_token: bool = False, token_command: str = "firstcome token") -> list[str]:
    """The command lines of a first purchase, to be typed one after the other; the user is a new one each time.

    Each POST has a key of its own, as a client's must.
    """
    sign = [f"token=$({token_command} --user $user)"] if with_token else []
    curl = 'curl -s -H "Authorization: Bearer $token"' if with_token else "curl -s"
    at = f"{api_url}/v1/users/$user"
    lines = '[{"product_id": "t-shirt", "stock_id": "M", "quantity": 2}, {"product_id": "cap", "quantity": 1}]'
    order = f"""{{"lines": {lines}, "coupon_id": "'${{coupon:?was not given}}'"}}"""
    coupon_id = r"""sed -n 's/.*"coupon_id":"\([^"]*\)".*/\1/p'"""

    def post(path: str, what: str, body: str) -> str:
        headers = f"-H 'Content-Type: application/json' -H \"Idempotency-Key: {what}-$user\""
        return f"{curl} {at}/{path} {headers} -d '{body}'"

    take = post("coupons", "coupon", f'{{"campaign_id": "{CAMPAIGN_ID}"}}')
    return [
        "user=mina-$(date +%s)-$$",
        *sign,
        f"curl -s {api_url}/v1/products/t-shirt",
        post("balance/charges", "charge", '{"amount": 100000}'),
        f"coupon=$({take} | {coupon_id})",
        f"{curl} {at}/coupons/$coupon",
        post("checkout", "checkout", order),
        f"{curl} {at}/balance",
        f"curl -s {api_url}/v1/best-sellers",
    ]
