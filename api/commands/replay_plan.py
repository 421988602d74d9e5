"""What a replay needs of the shop: how much stock, how much money, in which charges."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from api.commands.online_retail import Invoice, Sales

# Each product of a replay has this one stock item.
STOCK_ID = "unit"


@dataclass(frozen=True, slots=True)
class Plan:
    """Targets for one run, amounts in pence.

    `stock` is what shall be available of each product and `budgets` what each customer shall own before the first
    checkout; `totals` is what each invoice costs, in the order of `sales.invoices`.
    """

    sales: Sales
    stock: Mapping[str, int]
    budgets: Mapping[str, int]
    totals: tuple[int, ...]

    def invoices_by_customer(self) -> dict[str, list[tuple[Invoice, int]]]:
        """Each customer's invoices in file order, with their totals."""
        found: dict[str, list[tuple[Invoice, int]]] = {}
        for invoice, total in zip(self.sales.invoices, self.totals, strict=True):
            found.setdefault(invoice.customer_id, []).append((invoice, total))
        return found


def make_plan(sales: Sales, stock_factor: Decimal, balance_factor: Decimal) -> Plan:
    """The factors say how much there is of what all invoices together need; fractions of a unit or a penny count up."""
    price = {product.product_id: product.price for product in sales.products}
    totals = tuple(sum(price[line.product_id] * line.quantity for line in invoice.lines) for invoice in sales.invoices)
    needed: dict[str, int] = {}
    for invoice, total in zip(sales.invoices, totals, strict=True):
        needed[invoice.customer_id] = needed.get(invoice.customer_id, 0) + total
    return Plan(
        sales=sales,
        stock={product.product_id: part_of(product.quantity, stock_factor) for product in sales.products},
        budgets={customer: part_of(amount, balance_factor) for customer, amount in needed.items()},
        totals=totals,
    )


def part_of(amount: int, factor: Decimal) -> int:
    """`amount * factor`, exactly, rounded up."""
    return int((amount * factor).to_integral_value(rounding=ROUND_CEILING))


def charge_parts(amount: int, minimum: int, maximum: int) -> Iterator[int]:
    """Splits an amount into as few charges as the maximum allows, all about equal, none below the minimum."""
    if amount <= 0:
        return
    count = -(-amount // maximum)
    for part in range(count):
        yield max(minimum, amount * (part + 1) // count - amount * part // count)
