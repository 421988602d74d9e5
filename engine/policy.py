"""The limits that hold at every step (R0.8), and the checks that need no Redis."""

from dataclasses import dataclass

from engine.errors import ChargeLimit, LineLimit, UnitPriceLimit

INTEGER_MAX = 2**53 - 1
"""Largest integer that Lua, JSON clients and JavaScript all keep exactly."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Amounts in minor units of the currency, quantities in units."""

    charge_min: int = 1
    charge_max: int = 10_000_000
    balance_max: int = 100_000_000
    payment_max: int = 50_000_000
    unit_price_max: int = 100_000_000
    line_quantity_max: int = 100_000
    lines_max: int = 500
    discount_min: int = 1
    discount_max: int = 1_000_000
    stock_items_max: int = 200
    available_max: int = 1_000_000_000_000
    payment_deadline_ms: int = 86_400_000

    def check_charge(self, amount: int) -> None:
        """Raise `ChargeLimit` unless one charge may be of this amount."""
        if not self.charge_min <= amount <= self.charge_max:
            raise ChargeLimit(self.charge_min, self.charge_max)

    def check_unit_price(self, price: int) -> None:
        """Raise `UnitPriceLimit` unless a product may have this price."""
        if not 0 <= price <= self.unit_price_max:
            raise UnitPriceLimit(self.unit_price_max)

    def check_line_count(self, count: int) -> None:
        """Raise `LineLimit` unless an order may have so many lines."""
        if count > self.lines_max:
            raise LineLimit(count, self.lines_max)
