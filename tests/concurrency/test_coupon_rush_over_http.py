"""Two thousand users race for a hundred coupons through two API processes."""

import psycopg
import pytest

from tests.running_shop import problem, put_campaign
from tests.servers import Databases
from tests.shop_servers import opened_shop

USERS = [f"u{number}" for number in range(2_000)]
COUPONS = 100


@pytest.mark.requirement("R0.4", "R0.5", "R4.1", "R4.8", "R4.9")
async def test_exactly_the_first_hundred_of_two_thousand_users_get_a_coupon_each(databases: Databases) -> None:
    with opened_shop(databases, api_count=2, worker_count=2) as shop:
        put_campaign(shop.client(), "rush", quantity=COUPONS)
        async with shop.crowd() as crowd:
            # The first ones ask twice at once, each time at another process.
            asking = [user for user in USERS[:COUPONS] for _ in range(2)] + USERS[COUPONS:]
            answers = await crowd.all(
                [crowd.post(f"/v1/users/{user}/coupons", {"campaign_id": "rush"}) for user in asking]
            )
        issued = [answer.json() for answer in answers if answer.status_code == 201]
        assert len(issued) == COUPONS
        assert sorted(coupon["issue_number"] for coupon in issued) == list(range(1, COUPONS + 1))
        winners = {coupon["coupon_id"].rsplit("-", 2)[0]: coupon["issue_number"] for coupon in issued}
        assert len(winners) == COUPONS
        refused = [answer for answer in answers if answer.status_code != 201]
        second = [answer for answer in refused if answer.json()["type"] == "/problems/coupon-already-issued"]
        assert {answer.url.path.split("/")[3] for answer in second} <= winners.keys()
        for answer in refused:
            if answer not in second:
                problem(answer, 409, "coupons-exhausted")
        assert shop.client(1).get("/v1/campaigns/rush").json()["remaining"] == 0

        books = shop.assert_conserved()
        assert books.campaigns["rush"].issues == winners
        with psycopg.connect(shop.database_url) as connection:
            on_record = connection.execute("SELECT user_id, number FROM coupon_issue").fetchall()
        assert dict(on_record) == winners
        assert shop.errors_logged() == []
