"""Users who look around, and some of whom buy."""

from __future__ import annotations

import random

from loadtests.scenarios.customer import Customer, units_of
from loadtests.scenarios.plan import GIFT, PRICE, SHELF

LINES_MAX = 3
UNITS_MAX = 3
CHARGE = 20 * PRICE
PAGES_MAX = 3
COUPON_REFUSALS = frozenset({"coupons-exhausted", "coupon-already-issued"})


class _Visitor(Customer):
    """What anybody may look at."""

    abstract = True

    def look_at_list(self) -> None:
        """The first pages of the products."""
        path = "/v1/products?limit=20"
        for _ in range(random.randint(1, PAGES_MAX)):
            answer = self.get(path, "products")
            if answer.problem or not answer.body["next_cursor"]:
                return
            path = f"/v1/products?limit=20&cursor={answer.body['next_cursor']}"

    def look_at_product(self) -> None:
        """One product with its stock."""
        answer = self.get(f"/v1/products/{random.choice(self.plan.shelf())}", "product")
        if not answer.problem and answer.body["available"] < 0:
            self.tally.broken.append(f"{answer.body['product_id']} has {answer.body['available']} units")

    def look_at_best_sellers(self) -> None:
        """What sells best."""
        self.get("/v1/best-sellers", "best sellers")

    def look_at_campaigns(self) -> None:
        """Which coupons there are."""
        self.get("/v1/campaigns?state=open", "campaigns")


class Browse(_Visitor):
    """Users who only look."""

    scenario = "browse"
    needs = (SHELF,)

    tasks = {  # noqa: RUF012 - Locust's own way to weigh tasks
        _Visitor.look_at_product: 10,
        _Visitor.look_at_list: 4,
        _Visitor.look_at_best_sellers: 3,
        _Visitor.look_at_campaigns: 1,
    }


class _Buyer(_Visitor):
    """A user with a balance, a coupon now and then, and never more than one order in progress."""

    abstract = True

    def __init__(self, environment: object) -> None:
        super().__init__(environment)
        self._coupon: str | None = None
        self._asked_for_coupon = False

    def charge_purse(self) -> None:
        """Put money onto the balance."""
        self.charge(CHARGE)

    def fetch_coupon(self) -> None:
        """Take the coupon that everybody gets, once."""
        if not self._asked_for_coupon:
            answer = self.take_coupon(self.plan.gift, COUPON_REFUSALS)
            self._asked_for_coupon = True
            self._coupon = answer.body.get("coupon_id")

    def buy(self) -> None:
        """Order and pay at once. Too small a balance leaves a failed order and gives all of it back."""
        answer = self.check_out(self._basket(), self._coupon)
        self._after(answer.problem, answer.body)

    def order_and_decide(self) -> None:
        """Order, look at the order, and pay for it or give it up."""
        basket = self._basket()
        answer = self.order(basket, self._coupon)
        if answer.problem:
            self._after(answer.problem, answer.body)
            return
        at = f"{self.at}/orders/{answer.body['order_id']}"
        self.get(at, "order read")
        coupon, self._coupon = self._coupon, None
        if random.random() < 0.25:
            self._cancel(at, basket)
            self._coupon = coupon
            return
        if self._pay(at, basket, answer.body["total"]) == "insufficient-balance":
            self._coupon = coupon

    def look_at_own(self) -> None:
        """The balance, the orders and the coupons; they are this user's alone."""
        answer = self.get(f"{self.at}/balance", "balance")
        known, uncertain = self.tally.balances[self.user_id], self.tally.uncertain[f"user:{self.user_id}"]
        if not answer.problem and not uncertain and answer.body["balance"] != known:
            self.tally.broken.append(f"{self.user_id} has {answer.body['balance']} and not {known}")
        self.get(f"{self.at}/orders?limit=5", "orders")
        self.get(f"{self.at}/coupons?limit=5", "coupons")

    def _pay(self, at: str, basket: dict[str, int], total: int) -> str:
        can_pay = self.can_pay(total)
        with self.tally.doubt(units_of(basket)):
            answer = self.post(
                f"{at}/payment",
                "pay",
                {},
                expected=frozenset({"insufficient-balance"}),
                effects={f"user:{self.user_id}": 1},
            )
        if not answer.problem:
            self.tally.balances[self.user_id] -= total
        elif answer.problem == "insufficient-balance":
            self.tally.units.subtract(units_of(basket))
            if can_pay:
                self.tally.broken.append(f"{self.user_id} could pay {total} and was answered {answer.body}")
        return answer.problem

    def _cancel(self, at: str, basket: dict[str, int]) -> None:
        with self.tally.doubt(units_of(basket)):
            answer = self.post(f"{at}/cancellation", "cancel", {})
        if not answer.problem:
            self.tally.units.subtract(units_of(basket))

    def _after(self, problem: str, body: dict[str, object]) -> None:
        """A coupon is gone once it was used; an order of an uncertain outcome is in the way and given up."""
        if not problem or problem == "coupon-not-valid":
            self._coupon = None
        elif problem == "order-in-progress":
            refusals = frozenset({"order-not-cancellable"})
            self.post(f"{self.at}/orders/{body['order_id']}/cancellation", "cancel", {}, expected=refusals)

    def _basket(self) -> dict[str, int]:
        products = random.sample(self.plan.shelf(), min(self.plan.products, random.randint(1, LINES_MAX)))
        return {product: random.randint(1, UNITS_MAX) for product in products}


class Shopping(_Buyer):
    """The mix of a normal day: most look, some buy, few give up."""

    scenario = "shopping"
    needs = (GIFT, SHELF)

    tasks = {  # noqa: RUF012 - Locust's own way to weigh tasks
        _Buyer.look_at_product: 30,
        _Buyer.look_at_list: 10,
        _Buyer.look_at_best_sellers: 10,
        _Buyer.look_at_campaigns: 5,
        _Buyer.charge_purse: 8,
        _Buyer.fetch_coupon: 4,
        _Buyer.buy: 12,
        _Buyer.order_and_decide: 8,
        _Buyer.look_at_own: 8,
    }


class Soak(_Buyer):
    """For hours: more writing than looking, so that a leak, a growing lag or a slow drift of the books has to show."""

    scenario = "soak"
    needs = (GIFT, SHELF)

    tasks = {  # noqa: RUF012 - Locust's own way to weigh tasks
        _Buyer.look_at_product: 10,
        _Buyer.look_at_best_sellers: 5,
        _Buyer.charge_purse: 15,
        _Buyer.fetch_coupon: 4,
        _Buyer.buy: 25,
        _Buyer.order_and_decide: 15,
        _Buyer.look_at_own: 15,
    }
