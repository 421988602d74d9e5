"""What the users of a load test were answered, added up over all load generators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

HAS_ONE, NONE_LEFT = "coupon-already-issued", "coupons-exhausted"
COUNTERS = ("units", "balances", "uncertain", "accepted", "refused", "asked")


@dataclass(slots=True)
class Tally:
    """Only what was answered counts as done; what may have been done is `uncertain`.

    `uncertain` has a key for what cannot be told exactly any more, such as `stock:sale-1/one` with the units that were
    asked for, or `user:u1`. A request under way is uncertain too, so a tally is right at any moment.
    """

    coupons: dict[str, dict[str, int]] = field(default_factory=dict)
    """Campaign to user to issue number."""
    issued_twice: list[str] = field(default_factory=list)
    """Who was answered two different coupons of one campaign."""
    units: Counter[str] = field(default_factory=Counter)
    """Stock item, as `product/stock`, to the units in orders that stand."""
    balances: Counter[str] = field(default_factory=Counter)
    """User to what was charged and not spent."""
    uncertain: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    """Operation to the answers that it was done."""
    refused: Counter[str] = field(default_factory=Counter)
    """Operation and problem to the answers that it was not, as the shop says it."""
    broken: list[str] = field(default_factory=list)
    """Answers that contradict another answer."""
    asked: Counter[str] = field(default_factory=Counter)
    """Campaign or product to the users who asked for one of the few, and were answered."""
    answered: int = 0
    """Requests that were done as they asked, reads as well."""
    finished: int = 0
    """Users that have done all that they came for."""

    def issued(self, campaign: str, user: str, number: int) -> None:
        """A user has a coupon of a campaign."""
        if self.coupons.setdefault(campaign, {}).setdefault(user, number) != number:
            self.issued_twice.append(f"{user} of {campaign}")

    def wanted_one(self, user: str, told: Sequence[tuple[str, str | None]], unknown: bool) -> None:
        """A user asked several times for a coupon of one campaign and was told these problems ("" for none), and of
        these coupons: one request has to get one and all others to be told of it, or none is left for any of them.
        ``unknown``: one more request was not answered.
        """
        given = [coupon for problem, coupon in told if not problem]
        has_one = [coupon for problem, coupon in told if problem == HAS_ONE]
        none_left = any(problem == NONE_LEFT for problem, _ in told)
        if (
            len(given) > 1
            or len({*given, *has_one}) > 1
            or (none_left and (given or has_one))
            or (has_one and not given and not unknown)
        ):
            self.broken.append(f"{user} asked for one coupon {len(told)} times and was told {told}")

    @contextmanager
    def uncertainty(self, effects: Mapping[str, int]) -> Iterator[None]:
        """Within it these effects may or may not have come about; so it stays where it ends in any exception."""
        self.uncertain.update(effects)
        yield
        self.uncertain.subtract(effects)

    @contextmanager
    def doubt(self, units: Mapping[str, int]) -> Iterator[None]:
        """Within it, it is uncertain whether these units, which have been counted, stay in their order."""
        self.units.subtract(units)
        with self.uncertainty({f"stock:{name}": quantity for name, quantity in units.items()}):
            yield
        self.units.update(units)

    def add(self, other: Tally) -> None:
        """Adds what another load generator has counted."""
        for campaign, numbers in other.coupons.items():
            for user, number in numbers.items():
                self.issued(campaign, user, number)
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.issued_twice += other.issued_twice
        self.broken += other.broken
        self.answered += other.answered
        self.finished += other.finished

    def as_message(self) -> dict[str, Any]:
        """What can be sent to another process."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Tally:
        """What another process has sent."""
        members: dict[str, Any] = {
            name: Counter(value) if name in COUNTERS else value for name, value in message.items()
        }
        return cls(**members)
