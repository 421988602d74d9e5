"""Taking, listing and using coupons over HTTP (R4)."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from api.times import format_moment
from tests.running_shop import (
    RunningShop,
    place,
    problem,
    put_campaign,
    put_product,
    take_coupon,
)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.requirement("R4.1", "R4.4", "R4.5", "R4.8")
def test_a_coupon_is_issued_with_its_place_in_line_its_id_and_its_time(
    client: httpx.Client, user: str, campaign: str, now: datetime
) -> None:
    rule = {"kind": "percent", "value": 10, "minimum_order": 500, "maximum_discount": 2000}
    put_campaign(client, campaign, quantity=3, valid_days=30, discount=rule)
    take_coupon(client, f"{user}-first", campaign)
    answer = client.post(f"/v1/users/{user}/coupons", json={"campaign_id": campaign})
    coupon = answer.json()
    assert answer.status_code == 201
    issued_at = datetime.fromisoformat(coupon["issued_at"])
    day = issued_at.astimezone(ZoneInfo("Asia/Seoul")).strftime("%Y%m%d")
    assert coupon["coupon_id"] == f"{user}-{day}-1"
    assert (coupon["issue_number"], coupon["state"], coupon["reason"]) == (2, "valid", None)
    assert coupon["discount"] == rule
    assert abs(issued_at - now) < timedelta(minutes=1)
    assert coupon["valid_from"] == coupon["issued_at"]
    assert datetime.fromisoformat(coupon["valid_until"]) == issued_at + timedelta(days=30)
    assert client.get(answer.headers["location"]).json()["coupon_id"] == coupon["coupon_id"]
    assert client.get(f"/v1/campaigns/{campaign}").json()["remaining"] == 1


@pytest.mark.core
@pytest.mark.requirement("R4.1")
def test_a_user_gets_one_coupon_of_a_campaign(shop: RunningShop, user: str, campaign: str) -> None:
    put_campaign(shop.client(), campaign, quantity=1)
    coupon = take_coupon(shop.client(0), user, campaign)
    again = shop.client(1).post(f"/v1/users/{user}/coupons", json={"campaign_id": campaign})
    assert problem(again, 409, "coupon-already-issued")["coupon_id"] == coupon
    assert shop.client().get(f"/v1/campaigns/{campaign}").json()["remaining"] == 0


@pytest.mark.core
@pytest.mark.requirement("R4.1", "R4.8", "R4.9")
def test_who_comes_after_the_last_coupon_gets_none(client: httpx.Client, user: str, campaign: str) -> None:
    put_campaign(client, campaign, quantity=1)
    take_coupon(client, f"{user}-first", campaign)
    late = client.post(f"/v1/users/{user}/coupons", json={"campaign_id": campaign})
    assert problem(late, 409, "coupons-exhausted")["quantity"] == 1
    assert client.get(f"/v1/users/{user}/coupons").json()["items"] == []


@pytest.mark.requirement("R4.1", "R4.4")
@pytest.mark.parametrize(("opens", "closes", "retryable"), [(1, 2, True), (-2, -1, False)])
def test_a_campaign_gives_coupons_only_while_it_is_open(
    client: httpx.Client, user: str, campaign: str, now: datetime, opens: int, closes: int, retryable: bool
) -> None:
    opens_at, closes_at = (format_moment(now + timedelta(hours=hours)) for hours in (opens, closes))
    put_campaign(client, campaign, opens_at=opens_at, closes_at=closes_at)
    refused = problem(
        client.post(f"/v1/users/{user}/coupons", json={"campaign_id": campaign}), 409, "campaign-not-open"
    )
    assert (refused["opens_at"], refused["closes_at"], refused["retryable"]) == (opens_at, closes_at, retryable)
    assert client.get(f"/v1/campaigns/{campaign}").json()["remaining"] == 100


def test_a_campaign_that_there_is_not_gives_nothing(client: httpx.Client, user: str, campaign: str) -> None:
    answer = client.post(f"/v1/users/{user}/coupons", json={"campaign_id": campaign})
    assert problem(answer, 422, "unknown-reference")["references"] == [
        {"kind": "campaign", "product_id": None, "stock_id": None, "campaign_id": campaign}
    ]
    problem(client.get(f"/v1/campaigns/{campaign}"), 404, "not-found")


@pytest.mark.requirement("R4.2")
def test_a_users_coupons_are_listed_newest_first_page_by_page(client: httpx.Client, user: str, campaign: str) -> None:
    taken = []
    for number in range(12):
        put_campaign(client, f"{campaign}-{number}")
        taken.append(take_coupon(client, user, f"{campaign}-{number}"))
    assert [coupon["coupon_id"] for coupon in pages(client, user, limit=5)] == taken[::-1]
    assert [coupon["coupon_id"] for coupon in pages(client, user, limit=12)] == taken[::-1]


@pytest.mark.core
@pytest.mark.requirement("R4.2", "R4.3")
def test_a_coupon_in_an_order_is_invalid_until_the_order_is_cancelled(
    client: httpx.Client, user: str, campaign: str, product: str
) -> None:
    put_product(client, product)
    put_campaign(client, campaign)
    put_campaign(client, f"{campaign}-b")
    coupon, free = take_coupon(client, user, campaign), take_coupon(client, user, f"{campaign}-b")
    order = place(client, user, (product, "one", 1), coupon=coupon).json()["order_id"]
    (taken,) = pages(client, user, state="invalid")
    assert (taken["coupon_id"], taken["reason"], taken["order_id"]) == (coupon, "taken", order)
    assert [item["coupon_id"] for item in pages(client, user, state="valid")] == [free]
    client.post(f"/v1/users/{user}/orders/{order}/cancellation")
    assert [item["coupon_id"] for item in pages(client, user, state="valid")] == [free, coupon]
    assert pages(client, user, state="invalid") == []


@pytest.mark.requirement("R4.2")
def test_a_list_goes_on_where_it_was_though_its_last_coupon_has_left_it(
    client: httpx.Client, user: str, campaign: str, product: str
) -> None:
    put_product(client, product)
    taken = []
    for number in range(4):
        put_campaign(client, f"{campaign}-{number}")
        taken.append(take_coupon(client, user, f"{campaign}-{number}"))
    first = client.get(f"/v1/users/{user}/coupons", params={"state": "valid", "limit": 2}).json()
    last = first["items"][-1]["coupon_id"]
    assert place(client, user, (product, "one", 1), coupon=last).status_code == 201
    query = {"state": "valid", "limit": 2, "cursor": first["next_cursor"]}
    rest = client.get(f"/v1/users/{user}/coupons", params=query).json()
    assert [coupon["coupon_id"] for coupon in rest["items"]] == taken[1::-1]
    assert rest["next_cursor"] is None


@pytest.mark.requirement("R3.9", "R4.6")
@pytest.mark.parametrize(
    ("rule", "discount"),
    [
        ({"kind": "amount", "value": 300}, 300),
        ({"kind": "amount", "value": 5000}, 999),
        ({"kind": "percent", "value": 10}, 99),
        ({"kind": "percent", "value": 100}, 999),
        ({"kind": "percent", "value": 50, "maximum_discount": 100}, 100),
        ({"kind": "amount", "value": 300, "minimum_order": 999}, 300),
    ],
)
def test_a_coupon_lowers_the_total_by_its_rule(
    client: httpx.Client, user: str, product: str, campaign: str, rule: dict[str, Any], discount: int
) -> None:
    put_product(client, product, price=333, S=3)
    put_campaign(client, campaign, discount=rule)
    order = place(client, user, (product, "S", 3), coupon=take_coupon(client, user, campaign)).json()
    assert (order["subtotal"], order["discount"], order["total"]) == (999, discount, 999 - discount)


@pytest.mark.requirement("R0.8", "R3.9", "R4.3")
@pytest.mark.parametrize(
    ("rule", "reason", "told"),
    [
        ({"kind": "amount", "value": 300, "minimum_order": 100}, "minimum_order", "The subtotal of 99 is below the"),
        ({"kind": "percent", "value": 1}, "minimum_discount", "Of a subtotal of 99 coupon"),
    ],
)
def test_a_coupon_that_gives_an_order_nothing_is_refused(
    client: httpx.Client, user: str, product: str, campaign: str, rule: dict[str, Any], reason: str, told: str
) -> None:
    put_product(client, product, price=99, S=3)
    put_campaign(client, campaign, discount=rule)
    coupon = take_coupon(client, user, campaign)
    refused = problem(place(client, user, (product, "S", 1), coupon=coupon), 409, "coupon-not-valid")
    assert (refused["coupon_id"], refused["reason"]) == (coupon, reason)
    assert refused["detail"].startswith(told)
    assert client.get(f"/v1/products/{product}").json()["available"] == 3
    assert client.get(f"/v1/users/{user}/coupons/{coupon}").json()["state"] == "valid"


@pytest.mark.requirement("R0.8")
def test_no_discount_passes_the_policys_maximum(client: httpx.Client, user: str, product: str, campaign: str) -> None:
    put_product(client, product, price=40_000_000, S=1)
    put_campaign(client, campaign, discount={"kind": "percent", "value": 50})
    order = place(client, user, (product, "S", 1), coupon=take_coupon(client, user, campaign)).json()
    assert order["discount"] == 1_000_000


@pytest.mark.requirement("R4.3")
def test_another_users_coupon_is_not_found_and_of_no_use(
    client: httpx.Client, user: str, product: str, campaign: str
) -> None:
    put_product(client, product)
    put_campaign(client, campaign)
    coupon = take_coupon(client, user, campaign)
    problem(client.get(f"/v1/users/{user}-other/coupons/{coupon}"), 404, "not-found")
    refused = problem(place(client, f"{user}-other", (product, "one", 1), coupon=coupon), 409, "coupon-not-valid")
    assert refused["reason"] == "unknown"
    assert client.get(f"/v1/products/{product}").json()["available"] == 100


@pytest.mark.requirement("R4.2")
def test_what_is_issued_keeps_its_rule_when_the_campaign_changes(
    client: httpx.Client, user: str, campaign: str
) -> None:
    put_campaign(client, campaign, discount={"kind": "amount", "value": 300}, valid_days=7)
    coupon = take_coupon(client, user, campaign)
    put_campaign(client, campaign, discount={"kind": "amount", "value": 1}, valid_days=1)
    kept = client.get(f"/v1/users/{user}/coupons/{coupon}").json()
    assert kept["discount"]["value"] == 300
    assert client.get(f"/v1/campaigns/{campaign}").json()["discount"]["value"] == 1


def test_campaigns_are_listed_by_their_opening_and_by_state(client: httpx.Client, campaign: str, now: datetime) -> None:
    states = {"closed": (-3, -2), "open": (-1, 1), "upcoming": (2, 3)}
    for state, hours in states.items():
        opens_at, closes_at = (format_moment(now + timedelta(hours=each)) for each in hours)
        put_campaign(client, f"{campaign}-{state}", opens_at=opens_at, closes_at=closes_at)

    def listed(**query: str) -> list[str]:
        items = client.get("/v1/campaigns", params=query).json()["items"]
        assert [item["opens_at"] for item in items] == sorted(item["opens_at"] for item in items)
        return [item["campaign_id"] for item in items if item["campaign_id"].startswith(campaign)]

    assert listed() == [f"{campaign}-{state}" for state in states]
    for state in states:
        assert listed(state=state) == [f"{campaign}-{state}"]


def pages(client: httpx.Client, user: str, **query: Any) -> list[dict[str, Any]]:
    """All of a user's coupons, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    for _ in range(100):
        page = client.get(f"/v1/users/{user}/coupons", params=query | ({"cursor": cursor} if cursor else {})).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found
