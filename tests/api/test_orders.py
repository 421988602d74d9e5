"""Placing, reading, cancelling and checking out orders over HTTP (R3)."""

import uuid

import httpx
import pytest

from tests.running_shop import RunningShop, charge, place, problem, put_campaign, put_product, take_coupon


def available(client: httpx.Client, product: str) -> list[int]:
    return [item["available"] for item in client.get(f"/v1/products/{product}").json()["stock"]]


@pytest.mark.core
@pytest.mark.requirement("R3.1", "R3.2", "R3.7", "R3.10", "R3.11", "R3.18")
def test_an_order_holds_its_stock_and_awaits_payment(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, price=250, S=5, M=5)
    put_product(client, f"{product}-b", price=40)
    answer = place(client, user, (product, "M", 2), (f"{product}-b", "one", 3))
    order = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/users/{user}/orders/{order['order_id']}"
    assert (order["user_id"], order["status"], order["payment"]["status"]) == (user, "awaiting_payment", "pending")
    assert [(line["product_id"], line["stock_id"], line["quantity"], line["amount"]) for line in order["lines"]] == [
        (product, "M", 2, 500),
        (f"{product}-b", "one", 3, 120),
    ]
    assert (order["subtotal"], order["discount"], order["total"]) == (620, 0, 620)
    assert order["ordered_at"] < order["pay_before"]
    assert available(client, product) == [5, 3]
    read = client.get(answer.headers["location"]).json()
    assert {**read, "position": "", "durable": False} == {**order, "position": "", "durable": False}


@pytest.mark.requirement("R3.1")
def test_the_only_stock_item_need_not_be_named_and_repeated_lines_add_up(
    client: httpx.Client, user: str, product: str
) -> None:
    put_product(client, product, one=5)
    lines = [{"product_id": product, "quantity": 1}, {"product_id": product, "stock_id": "one", "quantity": 2}]
    order = client.post(f"/v1/users/{user}/orders", json={"lines": lines}).json()
    assert [(line["stock_id"], line["quantity"]) for line in order["lines"]] == [("one", 3)]
    assert available(client, product) == [2]


def test_a_stock_item_must_be_named_where_there_are_several(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, S=5, M=5)
    answer = client.post(f"/v1/users/{user}/orders", json={"lines": [{"product_id": product, "quantity": 1}]})
    assert problem(answer, 422, "stock-id-required")["product_id"] == product


def test_what_an_order_names_and_nobody_knows_is_told(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, S=5)
    unknown = problem(place(client, user, (product, "S", 1), (product, "XL", 1)), 422, "unknown-reference")
    assert unknown["references"] == [
        {"kind": "stock_item", "product_id": product, "stock_id": "XL", "campaign_id": None}
    ]
    unknown = problem(place(client, user, (product, "S", 1), (f"{product}-b", "S", 1)), 422, "unknown-reference")
    assert unknown["references"][0]["product_id"] == f"{product}-b"
    assert available(client, product) == [5]


@pytest.mark.core
@pytest.mark.requirement("R0.3", "R3.11")
def test_what_cannot_be_had_in_full_is_refused_line_by_line_and_holds_nothing(
    client: httpx.Client, user: str, product: str
) -> None:
    others = [f"{product}-{number}" for number in range(4)]
    for each in others:
        put_product(client, each, S=5)
    lines = [(each, "S", 9 if index % 2 else 1) for index, each in enumerate(others)]
    refused = problem(place(client, user, *lines), 409, "out-of-stock")
    assert refused["retryable"] is False
    short = sorted((line["product_id"], line["requested"], line["available"]) for line in refused["lines"])
    assert short == [(others[1], 9, 5), (others[3], 9, 5)]
    assert [available(client, each) for each in others] == [[5]] * 4


@pytest.mark.requirement("R0.3")
def test_it_is_worth_trying_again_while_others_only_hold_the_rest(
    client: httpx.Client, user: str, product: str
) -> None:
    put_product(client, product, S=2)
    order = place(client, f"{user}-first", (product, "S", 2)).json()["order_id"]
    assert problem(place(client, user, (product, "S", 1)), 409, "out-of-stock")["retryable"] is True
    client.post(f"/v1/users/{user}-first/orders/{order}/cancellation")
    assert place(client, user, (product, "S", 1)).status_code == 201


@pytest.mark.core
@pytest.mark.requirement("R3.6", "R3.8")
@pytest.mark.parametrize("at", ["orders", "checkout"])
def test_a_user_has_one_order_in_progress(client: httpx.Client, user: str, product: str, at: str) -> None:
    put_product(client, product, S=5)
    charge(client, user)
    first = place(client, user, (product, "S", 1)).json()
    refused = problem(place(client, user, (product, "S", 1), at=at), 409, "order-in-progress")
    assert (refused["order_id"], refused["pay_before"]) == (first["order_id"], first["pay_before"])
    assert available(client, product) == [4]


@pytest.mark.core
@pytest.mark.requirement("R3.7", "R3.16", "R3.17")
def test_a_cancelled_order_gives_everything_back_and_stays_cancelled(
    client: httpx.Client, user: str, product: str, campaign: str
) -> None:
    put_product(client, product, S=5)
    put_campaign(client, campaign)
    coupon = take_coupon(client, user, campaign)
    placed = place(client, user, (product, "S", 2), coupon=coupon)
    path = f"/v1/users/{user}/orders/{placed.json()['order_id']}"
    first, second = client.post(f"{path}/cancellation"), client.post(f"{path}/cancellation", json={})
    assert (first.status_code, second.status_code) == (200, 200)
    assert (first.json()["status"], first.json()["payment"]["failure"]) == ("failed", "cancelled")
    assert second.json()["payment"] == first.json()["payment"]
    assert available(client, product) == [5]
    assert client.get(f"/v1/users/{user}/coupons/{coupon}").json()["state"] == "valid"
    late = problem(client.post(f"{path}/payment"), 409, "order-not-payable")
    assert (late["order_status"], late["failure"]) == ("failed", "cancelled")


@pytest.mark.requirement("R3.7")
def test_a_completed_order_cannot_be_cancelled(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, S=5)
    charge(client, user)
    order = place(client, user, (product, "S", 1), at="checkout").json()["order_id"]
    refused = problem(client.post(f"/v1/users/{user}/orders/{order}/cancellation"), 409, "order-not-cancellable")
    assert (refused["order_id"], refused["order_status"], refused["failure"]) == (order, "completed", None)
    assert available(client, product) == [4]


@pytest.mark.core
@pytest.mark.requirement("R3.1", "R3.3", "R3.14", "R3.15")
def test_a_checkout_orders_and_pays_at_once(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, price=300, S=5)
    charge(client, user, 1000)
    answer = place(client, user, (product, "S", 2), at="checkout")
    order = answer.json()
    assert (answer.status_code, order["status"], order["payment"]["status"]) == (201, "completed", "paid")
    assert (order["payment"]["amount"], order["payment"]["paid_at"]) == (600, order["ordered_at"])
    assert client.get(answer.headers["location"]).json()["status"] == "completed"
    assert client.get(f"/v1/users/{user}/balance").json()["balance"] == 400
    assert available(client, product) == [3]


@pytest.mark.core
@pytest.mark.requirement("R3.4", "R3.16", "R3.17")
def test_a_checkout_beyond_the_balance_leaves_a_failed_order_and_nothing_held(
    client: httpx.Client, user: str, product: str, campaign: str
) -> None:
    put_product(client, product, price=1000, S=5, M=5)
    put_campaign(client, campaign)
    coupon = take_coupon(client, user, campaign)
    charge(client, user, 1699)
    refused = problem(
        place(client, user, (product, "S", 1), (product, "M", 1), coupon=coupon, at="checkout"),
        402,
        "insufficient-balance",
    )
    assert (refused["balance"], refused["total"]) == (1699, 1700)
    order = client.get(f"/v1/users/{user}/orders/{refused['order_id']}").json()
    assert (order["status"], order["payment"]["failure"]) == ("failed", "insufficient_balance")
    assert available(client, product) == [5, 5]
    charge(client, user, 1)
    assert place(client, user, (product, "S", 2), coupon=coupon, at="checkout").json()["total"] == 1700


@pytest.mark.requirement("R0.8")
def test_more_than_a_payment_may_be_cannot_be_ordered(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, price=50_000_001, S=5)
    refused = problem(place(client, user, (product, "S", 1)), 422, "payment-limit")
    assert (refused["total"], refused["maximum"]) == (50_000_001, 50_000_000)
    assert available(client, product) == [5]


@pytest.mark.requirement("R0.8")
def test_the_highest_price_times_the_highest_quantity_is_still_exact(
    client: httpx.Client, user: str, product: str
) -> None:
    for number in range(3):
        put_product(client, f"{product}-{number}", price=100_000_000, S=100_000)
    lines = [(f"{product}-{number}", "S", 100_000) for number in range(3)]
    assert problem(place(client, user, *lines), 422, "payment-limit")["total"] == 30_000_000_000_000
    assert available(client, f"{product}-2") == [100_000]


@pytest.mark.requirement("R0.8")
def test_too_many_lines_and_too_many_units_are_refused(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, price=0, S=200_000)
    many = problem(place(client, user, *[(product, "S", 1)] * 501), 422, "line-limit")
    assert (many["limit"], many["requested"], many["maximum"]) == ("lines", 501, 500)
    refused = problem(place(client, user, (product, "S", 60_000), (product, "S", 40_001)), 422, "line-limit")
    assert (refused["limit"], refused["requested"], refused["maximum"]) == ("quantity", 100_001, 100_000)
    assert (refused["product_id"], refused["stock_id"]) == (product, "S")
    largest = 2**53 - 1
    huge = problem(place(client, user, (product, "S", largest), (product, "S", largest)), 422, "line-limit")
    assert huge["maximum"] == 100_000
    assert place(client, user, *[(product, "S", 200)] * 500).json()["lines"][0]["quantity"] == 100_000


@pytest.mark.requirement("R3.2")
def test_lines_stay_in_the_order_they_were_asked_for(client: httpx.Client, user: str, product: str) -> None:
    wanted = [f"{product}-{number}" for number in (3, 1, 4, 0, 2)]
    for each in wanted:
        put_product(client, each, S=1)
    order = place(client, user, *[(each, "S", 1) for each in wanted]).json()
    assert [line["product_id"] for line in order["lines"]] == wanted


@pytest.mark.requirement("R3.3")
def test_a_free_order_is_completed_without_touching_the_balance(
    shop: RunningShop, client: httpx.Client, user: str, product: str
) -> None:
    put_product(client, product, price=0, S=1)
    order = place(client, user, (product, "S", 1), at="checkout").json()
    assert (order["status"], order["total"]) == ("completed", 0)
    shop.settle()
    assert client.get(f"/v1/users/{user}/balance/entries").json()["items"] == []


def test_the_price_is_that_of_the_moment_of_ordering(client: httpx.Client, user: str, product: str) -> None:
    put_product(client, product, price=100, S=5)
    order = place(client, user, (product, "S", 1)).json()
    put_product(client, product, price=999, S=5)
    charge(client, user)
    paid = client.post(f"/v1/users/{user}/orders/{order['order_id']}/payment").json()
    assert (paid["total"], paid["lines"][0]["unit_price"]) == (100, 100)


@pytest.mark.parametrize("method", ["GET", "POST payment", "POST cancellation"])
def test_another_users_order_is_not_found_and_not_touched(
    client: httpx.Client, user: str, product: str, method: str
) -> None:
    put_product(client, product, S=5)
    charge(client, f"{user}-other")
    order = place(client, user, (product, "S", 1)).json()["order_id"]
    verb, _, action = method.partition(" ")
    path = f"/v1/users/{user}-other/orders/{order}" + (f"/{action}" if action else "")
    refused = problem(client.request(verb, path), 404, "not-found")
    assert refused["detail"] == f"User {user}-other has no order {order}."
    assert client.get(f"/v1/users/{user}/orders/{order}").json()["status"] == "awaiting_payment"


@pytest.mark.parametrize("order_id", ["x", "0", str(uuid.UUID(int=0)), str(uuid.UUID(int=7 << 76)), "0" * 128])
def test_an_order_that_there_is_not_is_not_found(client: httpx.Client, user: str, order_id: str) -> None:
    for method, path in [("GET", ""), ("POST", "/payment"), ("POST", "/cancellation")]:
        refused = problem(client.request(method, f"/v1/users/{user}/orders/{order_id}{path}"), 404, "not-found")
        assert refused["detail"] == f"User {user} has no order {order_id}."
