"""The laws: what must hold at every moment, within a partition and between those that are trusted."""

from collections import Counter
from collections.abc import Iterator, Mapping

from engine.partitions import Partitions
from tests.simulation.model import Line, Model, Order

PARTITIONS = 6


def broken_within(model: Model, has_lost: bool) -> Iterator[str]:
    """The laws of one partition."""
    yield from _broken_money(model)
    yield from _broken_stock(model, has_lost)
    yield from _broken_coupons(model, has_lost)


def _broken_money(model: Model) -> Iterator[str]:
    paid = Counter[str]()
    awaiting: dict[str, list[str]] = {}
    for order_id, order in model.orders.items():
        if order.status == "completed":
            paid[order.user] += order.total
        elif order.status == "awaiting_payment":
            awaiting.setdefault(order.user, []).append(order_id)
    for user, wallet in model.wallets.items():
        charged = sum(amount for _, kind, amount, _, _ in wallet.ledger if kind == "charge")
        if wallet.balance < 0 or wallet.balance != charged - paid[user]:
            yield f"{user} has {wallet.balance}, was charged {charged} and paid {paid[user]}"
        if awaiting.get(user, []) != ([wallet.open_order] if wallet.open_order else []):
            yield f"{user} has {awaiting.get(user)} in progress, and {wallet.open_order!r} says the wallet"


def _broken_stock(model: Model, has_lost: bool) -> Iterator[str]:
    held, sold = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for order_id, reservation in model.reservations.items():
        if reservation.short and not has_lost:
            yield f"{order_id} is short of {reservation.short} units, and nothing was lost"
        counter = {"held": held, "sold": sold, "released": None}[reservation.state]
        if counter is not None:
            for name, stock, units in reservation.lines:
                counter[name, stock] += units
    for product_id, product in model.products.items():
        for stock_id, item in product.stock.items():
            key = (product_id, stock_id)
            if min(item.available, item.reserved, item.sold) < 0:
                yield f"{key} has less than nothing: {item}"
            if (item.reserved, item.sold) != (held[key], sold[key]):
                yield f"{key} is {item}; reservations hold {held[key]} and sold {sold[key]}"
            if item.received != item.available + item.reserved + item.sold:
                yield f"{key} is not conserved: {item}"


def _broken_coupons(model: Model, has_lost: bool) -> Iterator[str]:
    for name, campaign in model.campaigns.items():
        numbers = [number for number, *_ in campaign.issues.values()]
        if len(set(numbers)) != len(numbers) or max(numbers, default=0) > campaign.issued:
            yield f"{name} issued {campaign.issued}, numbers {numbers}"
        if campaign.issued > campaign.quantity or (not has_lost and campaign.issued != len(numbers)):
            yield f"{name} issued {campaign.issued} of {campaign.quantity}, to {len(numbers)} users"
    takers = Counter(order.coupon for order in model.orders.values() if order.coupon and order.is_live)
    for coupon_id, coupon in model.coupons.items():
        order = model.orders.get(coupon.order)
        state = {"awaiting_payment": "taken", "completed": "used"}.get(order.status, "free") if order else "free"
        if coupon.state != state or takers[coupon_id] != (state != "free"):
            yield f"coupon {coupon_id} is {coupon.state} by {coupon.order!r}; {takers[coupon_id]} live orders have it"


def broken_between(trusted: Mapping[int, Model], order_id: str | None) -> Iterator[str]:
    """The laws between trusted partitions, about one order, or about everything where none is named."""
    partitions = Partitions(PARTITIONS)
    for number, model in trusted.items():
        for known in model.orders if order_id is None else {order_id} & model.orders.keys():
            yield from _broken_order(trusted, partitions, known, model.orders[known])
        for known in model.reservations if order_id is None else {order_id} & model.reservations.keys():
            held = model.reservations[known]
            user = partitions.of(held.user)
            buyer = trusted[user].orders.get(known) if user in trusted else None
            if held.state == "sold" and user in trusted and (buyer is None or buyer.status != "completed"):
                yield f"{known} is sold in partition {number}, and its order is {buyer}"
        for coupon_id, coupon in model.coupons.items() if order_id is None else ():
            where = partitions.of(coupon.campaign)
            if where in trusted:
                campaign = trusted[where].campaigns.get(coupon.campaign)
                issue = campaign.issues.get(coupon.user) if campaign else None
                if issue is None or issue[0] != int(coupon.number):
                    yield f"coupon {coupon_id} has number {coupon.number}, and its issue is {issue}"


def _broken_order(trusted: Mapping[int, Model], partitions: Partitions, order_id: str, order: Order) -> Iterator[str]:
    lines: dict[int, list[Line]] = {}
    for line in order.units() if order.is_live else ():
        lines.setdefault(partitions.of(line[0]), []).append(line)
    allowed = {"held"} if order.status == "awaiting_payment" else {"held", "sold"}
    for where, wanted in lines.items():
        held = trusted[where].reservations.get(order_id) if where in trusted else None
        if where in trusted and (held is None or held.state not in allowed or sorted(held.lines) != sorted(wanted)):
            yield f"{order_id} is {order.status} and wants {wanted} of partition {where}, which has {held}"


def unfinished(models: list[Model]) -> Iterator[str]:
    """What is not settled when nothing happens any more and every deadline has passed."""
    partitions = Partitions(PARTITIONS)
    for number, model in enumerate(models):
        for order_id, order in model.orders.items():
            if order.status == "awaiting_payment":
                yield f"{order_id} of {order.user} still awaits its payment"
        for order_id, held in model.reservations.items():
            if held.state == "held":
                yield f"{order_id} of {held.user} still holds stock of partition {number}"
        for name, campaign in model.campaigns.items():
            for user in campaign.issues:
                coupons = models[partitions.of(user)].coupons.values()
                if not any((coupon.user, coupon.campaign) == (user, name) for coupon in coupons):
                    yield f"{user} was issued a coupon of {name} and has none"
