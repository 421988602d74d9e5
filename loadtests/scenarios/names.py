"""The scenarios by name, for those who choose one: without Locust, which changes a process that imports it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Named:
    """A scenario: its tag, the name of its class, and what its users do. ``one_shot``: the run is over by itself."""

    tag: str
    name: str
    does: str
    one_shot: bool = False


SCENARIOS = (
    Named("rush", "CouponRush", "all want one of few coupons in the opening second", one_shot=True),
    Named("sale", "LimitedSale", "all want one unit of a product of which there is little", one_shot=True),
    Named("shopping", "Shopping", "the mix of a normal day"),
    Named("charges", "ChargeStorm", "several users charge one balance at once"),
    Named("browse", "Browse", "all only look"),
    Named("retries", "RetryStorm", "each request is sent several times at once with one Idempotency-Key"),
    Named("soak", "Soak", "for hours: more writing than looking"),
)


class UnknownScenario(ValueError):
    """No scenario is called that; the message lists those that there are."""


def chosen(text: str) -> Sequence[Named]:
    """The scenarios that are named here by tag or by class, with commas between. Raises `UnknownScenario`."""
    by_name = {name: each for each in SCENARIOS for name in (each.tag, each.name)}
    names = text.replace(",", " ").split()
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        there_are = ", ".join(each.tag for each in SCENARIOS)
        raise UnknownScenario(f"no scenario is called {', '.join(unknown) or repr(text)}; there are {there_are}")
    return list(dict.fromkeys(by_name[name] for name in names))
