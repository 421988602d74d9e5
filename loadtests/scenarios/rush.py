"""Everybody at once: a stampede for coupons, and a sale of one product of which there is little."""

from __future__ import annotations

import random
from contextlib import suppress

from locust import task

from loadtests.scenarios.customer import SERVER_IS_BUSY, Answer, Customer, OutcomeUnknown, sleep_until
from loadtests.scenarios.plan import CAMPAIGN, PRICE, SALE
from loadtests.scenarios.tally import HAS_ONE, NONE_LEFT

STILL_HELD_TRIES = 20


class _Stampede(Customer):
    """Users that come within the opening second, ask once, and are finished."""

    abstract = True
    one_shot = True

    def await_opening(self) -> None:
        self.session.opened.wait()
        assert self.plan.opens_at is not None
        sleep_until(self.plan.opens_at + random.uniform(0, self.options.spread))

    def count_asked(self, what: str, answer: Answer) -> None:
        """Whoever was answered; whom the shop was too busy for is a failure, and not in want of one of the few."""
        if answer.problem not in SERVER_IS_BUSY:
            self.tally.asked[what] += 1


class CouponRush(_Stampede):
    """All users want one of the few coupons of a campaign that opens at a moment they all know."""

    scenario = "rush"
    needs = (CAMPAIGN,)

    @task
    def rush(self) -> None:
        """Look at the campaign, wait for its opening, ask for a coupon; who has one asks again, and gets no other."""
        with suppress(OutcomeUnknown):  # what is uncertain is in the tally
            copies = 2 if random.uniform(0, 100) < self.options.impatient else 1
            self.at_once(self._look, copies)  # over connections of their own, which are open from then on
            self.await_opening()
            answers = self.at_once(self._ask, copies)
            if any(not answer.problem for answer in answers):
                answers += self.at_once(self._ask, 1)
            told = [(answer.problem, answer.body.get("coupon_id")) for answer in answers]
            self.tally.wanted_one(self.user_id, told, unknown=copies > len(answers))
            if answers:
                self.count_asked(self.plan.campaign, min(answers, key=lambda answer: answer.problem in SERVER_IS_BUSY))
        self.finish()

    def _look(self) -> Answer:
        return self.get(f"/v1/campaigns/{self.plan.campaign}", "campaign")

    def _ask(self) -> Answer:
        return self.take_coupon(self.plan.campaign, frozenset({HAS_ONE, NONE_LEFT, "campaign-not-open"}))


class LimitedSale(_Stampede):
    """All users want one unit of the same product, and there are only a few."""

    scenario = "sale"
    needs = (SALE,)

    @task
    def sale(self) -> None:
        """Charge a balance, look at the product, buy it at the opening; again while others only hold what is left."""
        with suppress(OutcomeUnknown):
            self.charge(PRICE)
            self.get(f"/v1/products/{self.plan.sale}", "product")
            self.await_opening()
            for _ in range(STILL_HELD_TRIES):
                answer = self.check_out({self.plan.sale: 1})
                if answer.problem != "out-of-stock" or not answer.body["retryable"]:
                    break
            self.count_asked(self.plan.sale, answer)
        self.finish()
