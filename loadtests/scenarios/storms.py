"""Many requests for the same thing: charges of one balance, and every request repeated."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from locust import task

from loadtests.scenarios.customer import NOT_DONE, Answer, Customer, OutcomeUnknown, stock_key, units_of
from loadtests.scenarios.plan import PRICE, SHELF

AMOUNT_MAX = 1_000
CHARGE = 10 * PRICE


class ChargeStorm(Customer):
    """Several users charge one balance at once, as fast as they are answered."""

    scenario = "charges"
    _users = 0

    def on_start(self) -> None:
        super().on_start()
        ChargeStorm._users += 1
        number = ChargeStorm._users // max(1, self.options.wallet_users)
        self.become(f"wallet-{self.plan.run}-{self.session.token}-{number}")

    @task(20)
    def charge_some(self) -> None:
        """Charge a small amount."""
        self.charge(random.randint(1, AMOUNT_MAX))

    @task(1)
    def look(self) -> None:
        """Read the balance, which only grows."""
        before = self.tally.balances[self.user_id]
        answer = self.get(f"{self.at}/balance", "balance")
        if not answer.problem and answer.body["balance"] < before:
            self.tally.broken.append(f"{self.user_id} was charged {before} and has {answer.body['balance']}")


class RetryStorm(Customer):
    """Every request is sent several times at once with the same Idempotency-Key, and once more afterwards."""

    scenario = "retries"
    needs = (SHELF,)
    concurrency = 32

    @task(3)
    def charge_repeatedly(self) -> None:
        """One charge, however often it is sent."""
        path, effects = f"{self.at}/balance/charges", {f"user:{self.user_id}": 1}
        refusals = frozenset({"balance-limit"})
        if not self._repeated(path, "charge", {"amount": CHARGE}, "position", effects, refusals):
            self.tally.balances[self.user_id] += CHARGE

    @task(2)
    def buy_repeatedly(self) -> None:
        """One order, however often it is sent; now and then the balance does not reach."""
        product = random.choice(self.plan.shelf())
        body = {"lines": [{"product_id": product, "quantity": 1}]}
        effects = {f"user:{self.user_id}": 1, stock_key(product): 1}
        can_pay, refusals = self.can_pay(PRICE), frozenset({"insufficient-balance"})
        problem = self._repeated(f"{self.at}/checkout", "checkout", body, "order_id", effects, refusals)
        if not problem:
            self.tally.balances[self.user_id] -= PRICE
            self.tally.units.update(units_of({product: 1}))
        elif problem == "insufficient-balance" and can_pay:
            self.tally.broken.append(f"{self.user_id} could pay {PRICE} and was answered that it could not")

    def _repeated(
        self,
        path: str,
        name: str,
        body: Mapping[str, Any],
        identity: str,
        effects: Mapping[str, int],
        refusals: frozenset[str],
    ) -> str:
        """The problem, "" where it was done. All answers must be the same one, by the member `identity`."""
        key = uuid4().hex

        def send() -> Answer:
            return self.change(path, name, body, expected=refusals, key=key)

        with self.session.under_way(), self.tally.uncertainty(effects):
            answers = self.at_once(send, self.options.copies) + self.at_once(send, 1)
            outcomes = {(each.problem, each.body.get(identity)) for each in answers if each.problem not in NOT_DONE}
            if not outcomes:
                raise OutcomeUnknown(f"{name}: no answer to any copy")
        if len(outcomes) > 1:
            self.tally.broken.append(f"copies of one {name} were answered {sorted(map(str, outcomes))}")
        return min(problem for problem, _ in outcomes)
