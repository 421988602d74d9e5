"""A first purchase, step by step, at the shop of `firstcome up`: shown in `/docs` and in `docs/firstcome.http`.

A test types it as it is shown, and holds every member that is shown against the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

_NAMED: Final = re.compile(r"{(\w+)}")
_LINE_LENGTH_MAX: Final = 70
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})
SHOP: Final = "http://127.0.0.1:8000"
"""Where a shop is unless it is told otherwise; `/docs` of a running one puts its own address in this place."""
PREPARATION: Final = f"""\
shop={SHOP}
user=mina-$(date +%s)-$$
ask() {{ curl -sS -w '\\n%{{http_code}}\\n' -H 'Content-Type: application/json' "$@"; }}
member() {{ sed -n "s/.*\\"$1\\":\\"\\([^\\"]*\\)\\".*/\\1/p"; }}"""
"""What the shell is told first; the user is a new one each time."""
WITH_TOKEN: Final = """\
token=$(firstcome token --user $user)
ask() {
  curl -sS -w '\\n%{http_code}\\n' -H 'Content-Type: application/json' -H "Authorization: Bearer $token" "$@"
}"""
"""What it is told besides where the shop asks for tokens."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `path` may name `{user}` and what earlier steps have kept.

    `shown` are members of the answer, by their path (`payment.status`); `keeps` names a member for later steps;
    `again`: it is the same request as before, and its answer the first one.
    """

    name: str
    title: str
    text: str
    method: str
    path: str
    status: int
    shown: Mapping[str, Any]
    body: Any = None
    key: str | None = None
    keeps: str | None = None
    again: bool = False
    headers: Mapping[str, str] = field(default_factory=lambda: _NONE)

    @property
    def command(self) -> str:
        """The step as it is typed into a shell, after the preparation."""
        parts = ["ask $shop" + _NAMED.sub(r"$\1", self.path)]
        if self.method == "POST" and self.body is None:
            parts.insert(1, "-X POST")
        parts += [f"-H '{name}: {value}'" for name, value in self._headers().items()]
        if self.body is not None:
            text = _NAMED.sub(r"""'"$\1"'""", self._body())
            parts.append(f"-d '{text}'")
        line = " \\\n  ".join(parts)
        if self.keeps is None:
            return line
        return f'answer=$({line})\necho "$answer"\n{self.keeps}=$(echo "$answer" | member {self.keeps})'

    @property
    def answer(self) -> str:
        """What is shown of the answer."""
        lines = [f"{self.status}"]
        if self.again:
            lines.append("Idempotent-Replayed: true")
        return "\n".join([*lines, *(f"{name}: {json.dumps(value)}" for name, value in self.shown.items())])

    def http(self) -> str:
        """The step in the format of `.http` files (VS Code REST Client and others)."""

        def variable(match: re.Match[str]) -> str:
            name = match[1]
            return "{{user}}" if name == "user" else f"{{{{{KEPT_BY[name]}.response.body.$.{name}}}}}"

        head = [f"### {self.title}", f"# @name {self.name}"]
        head.append(f"{self.method} {{{{shop}}}}{_NAMED.sub(variable, self.path)}")
        head.append("Authorization: Bearer {{token}}")
        headers = {**({"Content-Type": "application/json"} if self.body is not None else {}), **self._headers()}
        head += [f"{name}: {value}" for name, value in headers.items()]
        body = [] if self.body is None else ["", _NAMED.sub(variable, self._body())]
        return "\n".join([*head, *body])

    def _body(self) -> str:
        text = json.dumps(self.body)
        return text if len(text) <= _LINE_LENGTH_MAX else json.dumps(self.body, indent=2)

    def _headers(self) -> dict[str, str]:
        return {**({} if self.key is None else {"Idempotency-Key": self.key}), **self.headers}


_ORDER: Final = {
    "lines": [
        {"product_id": "t-shirt", "stock_id": "M", "quantity": 2},
        {"product_id": "cap", "quantity": 1},
    ],
    "coupon_id": "{coupon_id}",
}
_CHARGE: Final = {"amount": 100_000}
STEPS: Final = (
    Step(
        "charge",
        "Charge the balance",
        "Amounts are in won. The key makes the request safe to repeat: one key for one intention.",
        "POST",
        "/v1/users/{user}/balance/charges",
        201,
        {"amount": 100_000, "balance": 100_000},
        _CHARGE,
        "charge-1",
    ),
    Step(
        "charge_again",
        "Send it again, as after a lost answer",
        "The same key and the same body: nothing is charged twice, and the first answer comes again, with the header "
        "`Idempotent-Replayed: true` (`curl -i` shows it).",
        "POST",
        "/v1/users/{user}/balance/charges",
        201,
        {"amount": 100_000, "balance": 100_000},
        _CHARGE,
        "charge-1",
        again=True,
    ),
    Step(
        "look",
        "Look at a product",
        "Each size is a stock item with an id of its own. `available` is what a new order can have now.",
        "GET",
        "/v1/products/t-shirt",
        200,
        {"product_id": "t-shirt", "price": 19_000, "currency": "KRW"},
    ),
    Step(
        "coupon",
        "Take a coupon, first come, first served",
        "`issue_number` is your place in line; one coupon per user. When all are gone: 409 `coupons-exhausted`.",
        "POST",
        "/v1/users/{user}/coupons",
        201,
        {"campaign_id": "welcome", "state": "valid", "discount.kind": "percent", "discount.value": 10},
        {"campaign_id": "welcome"},
        "coupon-1",
        keeps="coupon_id",
    ),
    Step(
        "order",
        "Order several products",
        "All lines are held for you, or none. The order awaits its payment until `pay_before`; `stock_id` may be left "
        "out where a product has one stock item.",
        "POST",
        "/v1/users/{user}/orders",
        201,
        {"status": "awaiting_payment", "subtotal": 60_000, "discount": 6_000, "total": 54_000},
        _ORDER,
        "order-1",
        keeps="order_id",
    ),
    Step(
        "pay",
        "Pay",
        "Takes the total from the balance. Paying twice is answered like the first time. Too small a balance (402) "
        "fails the order and gives everything back.",
        "POST",
        "/v1/users/{user}/orders/{order_id}/payment",
        200,
        {"status": "completed", "payment.status": "paid", "payment.amount": 54_000},
        key="pay-1",
    ),
    Step(
        "balance",
        "See what is left",
        "100,000 less 54,000.",
        "GET",
        "/v1/users/{user}/balance",
        200,
        {"balance": 46_000},
    ),
    Step(
        "checkout",
        "Or order and pay in one request",
        "`Prefer: durable` waits until all of it is in PostgreSQL, so that it survives even the loss of Redis.",
        "POST",
        "/v1/users/{user}/checkout",
        201,
        {"status": "completed", "total": 22_000, "durable": True},
        {"lines": [{"product_id": "cap", "quantity": 1}]},
        "checkout-1",
        headers=MappingProxyType({"Prefer": "durable"}),
    ),
)
KEPT_BY: Final = {step.keeps: step.name for step in STEPS if step.keeps is not None}
"""What later steps need, to the name of the step whose answer has it."""


def script() -> str:
    """All of it as one shell script, as it stands on the page."""
    return "\n\n".join([PREPARATION, *(step.command for step in STEPS)]) + "\n"
