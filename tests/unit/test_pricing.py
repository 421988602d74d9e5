"""The Lua that prices a coupon, against the rule written anew in Python's own integers."""

from collections.abc import Iterator
from typing import NamedTuple

import fakeredis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.scripts.partition import NOW, Partition, order_id

MOST = 2**53 - 1


class Rule(NamedTuple):
    kind: str
    value: int
    minimum_order: int | None
    maximum_discount: int | None


def discount_of(rule: Rule, subtotal: int, lowest: int, highest: int) -> int | str:
    """What the coupon takes off, or why it may not be used."""
    if rule.minimum_order is not None and subtotal < rule.minimum_order:
        return "minimum_order"
    off = rule.value if rule.kind == "amount" else subtotal * rule.value // 100
    if rule.maximum_discount is not None and off > rule.maximum_discount:
        off = rule.maximum_discount
    off = min(off, subtotal, highest)
    return "minimum_discount" if off < lowest else off


def amounts(least: int = 0) -> st.SearchStrategy[int]:
    near = st.sampled_from([10**14, 10**15, MOST - 1_000]).flatmap(lambda top: st.integers(top, top + 1_000))
    return st.one_of(st.integers(least, 200), st.integers(least, 10_000_000), near)


rules = st.builds(
    Rule,
    kind=st.just("percent"),
    value=st.integers(1, 100),
    minimum_order=st.none() | amounts(),
    maximum_discount=st.none() | amounts(),
) | st.builds(
    Rule,
    kind=st.just("amount"),
    value=amounts(1),
    minimum_order=st.none() | amounts(),
    maximum_discount=st.none() | amounts(),
)


@pytest.fixture(scope="module")
def partition() -> Iterator[Partition]:
    client = fakeredis.FakeRedis(protocol=2)
    yield Partition(client)
    client.close()


@pytest.mark.requirement("R3.9", "R4.6", "R0.8")
@given(rule=rules, subtotal=amounts(), lowest=st.integers(0, 3), highest=amounts())
@example(rule=Rule("percent", 29, None, None), subtotal=100, lowest=1, highest=MOST)
@example(rule=Rule("percent", 57, None, None), subtotal=MOST, lowest=1, highest=MOST)
@example(rule=Rule("percent", 100, None, None), subtotal=MOST, lowest=1, highest=MOST)
@example(rule=Rule("percent", 1, None, None), subtotal=99, lowest=1, highest=MOST)
@example(rule=Rule("percent", 1, None, None), subtotal=100, lowest=1, highest=MOST)
@example(rule=Rule("amount", 5, 100, None), subtotal=100, lowest=5, highest=5)
@example(rule=Rule("amount", 5, None, 0), subtotal=100, lowest=0, highest=5)
def test_the_script_prices_as_the_rule_says(
    partition: Partition, rule: Rule, subtotal: int, lowest: int, highest: int
) -> None:
    partition.begin()
    minimum, maximum = ("" if limit is None else limit for limit in (rule.minimum_order, rule.maximum_discount))
    coupon = partition.grant(
        kind=rule.kind, value=rule.value, minimum_order=minimum, maximum_discount=maximum, valid_until=NOW + 1
    )
    reply = partition.run(
        "place_order", order=order_id(), coupon_id=coupon, subtotal=subtotal, payment_max=MOST, discount_min=lowest,
        discount_max=highest,
    )  # fmt: skip
    expected = discount_of(rule, subtotal, lowest, highest)
    if isinstance(expected, str):
        assert reply == ["coupon_not_valid", expected]
    else:
        assert reply[:1] + reply[2:4] == ["placed", str(expected), str(subtotal - expected)]
