import pytest

from engine.errors import ChargeLimit, LineLimit, UnitPriceLimit
from engine.policy import INTEGER_MAX, Policy

POLICY = Policy(charge_min=10, charge_max=100, unit_price_max=50, lines_max=3)


@pytest.mark.requirement("R0.8")
@pytest.mark.parametrize("amount", [-INTEGER_MAX, -1, 0, 9, 101, INTEGER_MAX])
def test_a_charge_outside_of_the_limits_is_refused_with_them(amount: int) -> None:
    with pytest.raises(ChargeLimit) as refused:
        POLICY.check_charge(amount)
    assert (refused.value.minimum, refused.value.maximum) == (10, 100)


def test_what_is_within_the_limits_is_allowed() -> None:
    for amount in (10, 100):
        POLICY.check_charge(amount)
    for price in (0, 50):
        POLICY.check_unit_price(price)
    POLICY.check_line_count(3)


@pytest.mark.requirement("R0.8")
def test_a_price_outside_of_the_limits_is_refused() -> None:
    for price in (-1, 51):
        with pytest.raises(UnitPriceLimit):
            POLICY.check_unit_price(price)


@pytest.mark.requirement("R0.8")
def test_too_many_lines_are_refused() -> None:
    with pytest.raises(LineLimit) as refused:
        POLICY.check_line_count(4)
    assert refused.value.maximum == 3


@pytest.mark.requirement("R0.8")
def test_no_default_passes_what_lua_keeps_exactly() -> None:
    policy = Policy()
    assert INTEGER_MAX == 2**53 - 1
    assert policy.line_quantity_max * policy.lines_max * policy.unit_price_max <= INTEGER_MAX
    assert policy.balance_max + policy.charge_max <= INTEGER_MAX
    assert policy.available_max + policy.line_quantity_max <= INTEGER_MAX
