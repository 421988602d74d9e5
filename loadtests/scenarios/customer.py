"""A user of the shop that Locust moves: sends requests, tells refusals from failures, counts what was answered."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final
from uuid import uuid4

import gevent
from locust import FastHttpUser
from locust.exception import RescheduleTask, StopUser

from api.authentication import Keys, make_token, read_keys
from api.settings import ApiSettings
from loadtests.scenarios.plan import COUPON_VALUE, PRICE, STOCK_ITEM, Plan
from loadtests.scenarios.session import Session

TRIES_MAX: Final = 12
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.05, 3.0
RETRY_AFTER_S_MAX: Final = 5.0
TOKEN_S: Final = 24 * 3600

NOT_DONE: Final = frozenset({"overloaded", "too-many-requests", "request-in-progress", "campaign-not-open"})
"""Refusals after which the same request may be sent again, for it has done nothing."""

SERVER_IS_BUSY: Final = frozenset({"overloaded", "recovering", "too-many-requests", "history-unavailable"})
"""Expected of any request: the shop sheds load and says when to come again."""


class OutcomeUnknown(RescheduleTask):
    """A request may have taken effect, and nobody will tell: the tally knows it as uncertain, the task is over."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the shop said. `problem` is the name of a refusal, "" where it did as it was asked."""

    status: int
    body: dict[str, Any]
    problem: str
    replayed: bool = False


class Customer(FastHttpUser):
    """One user with a balance of their own. Scenarios are subclasses; `scenario` is their name and their tag."""

    abstract = True
    insecure = False
    scenario: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    """What the shop must have for it, as `plan` names it."""
    one_shot: ClassVar[bool] = False
    """Whether a user does one thing and is finished, so that the run ends by itself."""

    session: ClassVar[Session]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.options = environment.parsed_options
        self.tally = self.session.tally
        self.user_id = f"{self.scenario}-{uuid4().hex[:16]}"
        self._headers = bearer(self.user_id)

    @property
    def plan(self) -> Plan:
        return self.session.plan

    @property
    def at(self) -> str:
        """Where this user's own things are."""
        return f"/v1/users/{self.user_id}"

    def on_start(self) -> None:
        """Waits until the shop is prepared."""
        self.session.prepared.wait()

    def wait_time(self) -> float:
        """The time to think, half to one and a half of what was asked for."""
        think: float = self.options.think * random.uniform(0.5, 1.5)
        return think

    def become(self, user_id: str) -> None:
        """From now on this is another user of the shop."""
        self.user_id = user_id
        self._headers = bearer(user_id)

    def get(self, path: str, name: str, expected: frozenset[str] = frozenset()) -> Answer:
        """Reads; asks again while the server is busy."""
        with self.session.under_way():
            for failed in range(TRIES_MAX):
                answer, wait_s = self._send("GET", path, name, expected)
                if answer.problem not in SERVER_IS_BUSY:
                    return answer
                gevent.sleep(max(wait_s, _backoff_s(failed)))
            self._give_up("GET", name, answer)
        return answer

    def post(
        self,
        path: str,
        name: str,
        body: Mapping[str, Any],
        *,
        expected: frozenset[str] = frozenset(),
        effects: Mapping[str, int] | None = None,
        key: str | None = None,
    ) -> Answer:
        """Changes something; `effects` are what is uncertain until there is an answer (see `Tally.uncertain`).

        It is sent again only where the shop says that nothing was done, or with a key, which makes that safe. Raises
        OutcomeUnknown.
        """
        with self.session.under_way(), self.tally.uncertainty(effects or {}):
            return self.change(path, name, body, expected=expected, key=key)

    def change(
        self, path: str, name: str, body: Mapping[str, Any], *, expected: frozenset[str], key: str | None
    ) -> Answer:
        """`post` for those who look after what is uncertain themselves."""
        if key is not None:
            expected |= {"request-in-progress"}
        for failed in range(TRIES_MAX):
            answer, wait_s = self._send("POST", path, name, expected, body, key)
            unknown = answer.status == 0 or (answer.status >= 500 and answer.problem not in NOT_DONE)
            if not unknown and answer.problem not in NOT_DONE:
                if not answer.problem:
                    self.tally.accepted[f"{name}, answered again" if answer.replayed else name] += 1
                return answer
            if unknown and key is None:
                break
            gevent.sleep(max(wait_s, _backoff_s(failed)))
        if unknown:
            raise OutcomeUnknown(f"{name}: {answer.status} {answer.problem}")
        self._give_up("POST", name, answer)
        return answer

    def _give_up(self, method: str, name: str, answer: Answer) -> None:
        """Whom the shop sends away so often is not served: a failure, as the outcome has none of it."""
        error = RuntimeError(f"given up: {TRIES_MAX} times {answer.status} {answer.problem}")
        self.environment.events.request.fire(
            request_type=method, name=name, response_time=0, response_length=0, context={}, exception=error
        )

    def _send(
        self,
        method: str,
        path: str,
        name: str,
        expected: frozenset[str],
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> tuple[Answer, float]:
        """One request, and how long the shop asks to wait. A refusal has a line of its own in Locust's statistics."""
        headers = self._headers if key is None else {**self._headers, "Idempotency-Key": key}
        data = None if body is None else json.dumps(body).encode()
        with self.client.request(
            method, path, name=name, data=data, headers=headers, catch_response=True, allow_redirects=False
        ) as response:
            status, found = response.status_code, response.headers or {}
            content = _decoded(response.content)
            if 200 <= status < 300:
                response.success()
                self.tally.answered += 1
                return Answer(status, content, "", found.get("idempotent-replayed") == "true"), 0.0
            problem = str(content.get("type", "")).rpartition("/")[2]
            if problem in expected or problem in SERVER_IS_BUSY:
                response.request_meta["name"] = f"{name}: {status} {problem}"
                response.success()
                self.tally.refused[f"{name}: {status} {problem}"] += 1
            elif status:
                response.failure(f"{status} {problem or 'without a problem document'}: {content.get('detail', '')}")
            # Without an answer Locust records the error that there was.
        return Answer(status, content, problem or "no-answer"), _retry_after_s(found.get("retry-after"))

    def at_once(self, ask: Callable[[], Answer], copies: int) -> list[Answer]:
        """What several requests at the same moment were answered; fewer than were sent, where one is unknown."""
        answers = []

        def send() -> None:
            with suppress(OutcomeUnknown):
                answers.append(ask())

        gevent.joinall([gevent.spawn(send) for _ in range(copies)])
        return answers

    # What users do in several scenarios

    def charge(self, amount: int, key: str | None = None) -> bool:
        """Puts money onto the balance."""
        answer = self.post(
            f"{self.at}/balance/charges",
            "charge",
            {"amount": amount},
            expected=frozenset({"balance-limit"}),
            effects={f"user:{self.user_id}": 1},
            key=key,
        )
        if not answer.problem:
            self.tally.balances[self.user_id] += amount
        return not answer.problem

    def check_out(self, products: Mapping[str, int], coupon: str | None = None, key: str | None = None) -> Answer:
        """Orders and pays at once."""
        answer = self.order(products, coupon, key, operation="checkout")
        if not answer.problem:
            self.tally.balances[self.user_id] -= answer.body["total"]
        return answer

    def order(
        self,
        products: Mapping[str, int],
        coupon: str | None = None,
        key: str | None = None,
        operation: str = "orders",
    ) -> Answer:
        """Orders units of products, which are held until the order is paid or given up."""
        lines = [{"product_id": product, "quantity": quantity} for product, quantity in products.items()]
        due = PRICE * sum(products.values()) - (COUPON_VALUE if coupon else 0)
        can_pay = self.can_pay(due)
        answer = self.post(
            f"{self.at}/{operation}",
            "order" if operation == "orders" else operation,
            {"lines": lines, "coupon_id": coupon},
            expected=frozenset({"out-of-stock", "order-in-progress", "insufficient-balance", "coupon-not-valid"}),
            effects={f"user:{self.user_id}": 1, **{stock_key(each): n for each, n in products.items()}},
            key=key,
        )
        if not answer.problem:
            self.tally.units.update(units_of(products))
            if answer.body["total"] != due:
                self.tally.broken.append(f"an order of {due} was answered with a total of {answer.body['total']}")
        elif answer.problem == "insufficient-balance" and can_pay:
            self.tally.broken.append(f"{self.user_id} could pay {due} and was answered {answer.body}")
        elif answer.problem == "out-of-stock" and self.plan.sale not in products:
            self.tally.broken.append(f"there is plenty of {', '.join(products)}, and {self.user_id} was answered none")
        return answer

    def can_pay(self, amount: int) -> bool:
        """Whether the balance reaches, for certain."""
        return not self.tally.uncertain[f"user:{self.user_id}"] and self.tally.balances[self.user_id] >= amount

    def take_coupon(self, campaign: str, expected: frozenset[str] = frozenset()) -> Answer:
        """Asks for a coupon of a campaign."""
        answer = self.post(
            f"{self.at}/coupons",
            "coupon",
            {"campaign_id": campaign},
            expected=expected,
            effects={f"campaign:{campaign}": 1},
        )
        if not answer.problem:
            self.tally.issued(campaign, self.user_id, answer.body["issue_number"])
        return answer

    def finish(self) -> None:
        """This user has done what it came for."""
        self.session.user_finished()
        raise StopUser


def bearer(user_id: str) -> dict[str, str]:
    """The headers of a user's requests: with a token where FIRSTCOME_TOKEN_* holds a secret."""
    settings, keys = _configured()
    headers = {"Content-Type": "application/json"}
    if keys is not None:
        token = make_token(keys, settings, user_id, is_operator=False, valid_s=TOKEN_S)
        headers["Authorization"] = f"Bearer {token}"
    return headers


@cache
def _configured() -> tuple[ApiSettings, Keys | None]:
    settings = ApiSettings.from_environment()
    return settings, read_keys(settings)


def units_of(products: Mapping[str, int]) -> dict[str, int]:
    """The units of an order by stock item, as the tally names them."""
    return {f"{product}/{STOCK_ITEM}": quantity for product, quantity in products.items()}


def stock_key(product: str) -> str:
    """What is uncertain while a product is ordered."""
    return f"stock:{product}/{STOCK_ITEM}"


def sleep_until(moment: float) -> None:
    """Sleeps until this second of the Unix epoch."""
    gevent.sleep(max(0.0, moment - time.time()))


def _decoded(content: bytes | None) -> dict[str, Any]:
    try:
        body = json.loads(content or b"{}")
    except ValueError:
        return {}  # of a proxy, say
    return body if isinstance(body, dict) else {}


def _retry_after_s(text: str | None) -> float:
    return min(float(text), RETRY_AFTER_S_MAX) if text and text.isdigit() else 0.0


def _backoff_s(failed_tries: int) -> float:
    return random.uniform(0.5, 1.5) * min(BACKOFF_S_MIN * 2.0**failed_tries, BACKOFF_S_MAX)
