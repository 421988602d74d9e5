"""What the shop should do: one partition's rules in dictionaries, written from the requirements.

Every call of a script is put to the model as well, which says what the answer, the event and the state must be.
Amounts and units are integers, times ms since 1970; ``place`` is the ``<epoch>-<seq>`` of an entity's last change.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import orjson

Arguments = dict[str, Any]
Reply = list[Any]
Line = tuple[str, str, int]
Rule = tuple[str, str, str, str]
"""Kind, value, minimum order, maximum discount; the last two may be empty."""


@dataclass(slots=True)
class Wallet:
    """A user. The ledger is (seq, kind, amount, balance after, order)."""

    balance: int = 0
    open_order: str = ""
    last_order: str = ""
    coupon_number: int = 0
    place: str = ""
    ledger: list[tuple[int, str, int, int, str]] = field(default_factory=list)


@dataclass(slots=True)
class Coupon:
    """A user's coupon: free, taken by an order in progress, or used."""

    user: str
    campaign: str
    number: str
    rule: Rule
    issued_at: str
    valid_from: int
    valid_until: int
    place: str
    state: str = "free"
    order: str = ""
    used_at: str = ""


@dataclass(slots=True)
class Order:
    """An order; a tombstone has the status void and nothing else."""

    user: str
    status: str
    place: str
    at: int
    failure: str = ""
    lines: str = "[]"
    subtotal: int = 0
    discount: int = 0
    total: int = 0
    coupon: str = ""
    pay_before: str = ""
    paid_at: str = ""
    finished_at: str = ""
    coupon_rule: tuple[str, ...] = ()
    discount_at: int = 0
    paid_place: str = ""

    @property
    def is_live(self) -> bool:
        """Whether its stock must be there."""
        return self.status in {"awaiting_payment", "completed"}

    def units(self) -> list[Line]:
        """Product, stock item and units of each line."""
        return _units(self.lines)


@dataclass(slots=True)
class StockItem:
    """Units of a stock item; ``received`` is all that ever came, less what went otherwise than by a sale."""

    option: str
    received: int
    available: int
    added_seq: int
    added_index: int
    reserved: int = 0
    sold: int = 0


@dataclass(slots=True)
class Product:
    """A product with its stock items in the order they came."""

    name: str
    price: int
    place: str = ""
    stock: dict[str, StockItem] = field(default_factory=dict)


@dataclass(slots=True)
class Reservation:
    """What an order holds of a partition's stock, has bought or gave back."""

    user: str
    lines: list[Line]
    at: int
    place: str
    state: str = "held"
    finished_at: str = ""
    short: int = 0


@dataclass(slots=True)
class Campaign:
    """A campaign and who was issued what: number, time, rule, days."""

    name: str
    rule: Rule
    quantity: int
    opens_at: int
    closes_at: int
    valid_days: str
    place: str
    issued: int = 0
    issues: dict[str, tuple[int, str, Rule, str]] = field(default_factory=dict)


@dataclass(slots=True)
class Model:
    """One partition. `call` is one script; ``events`` is what the last call had to append, each with its place."""

    meta: dict[str, str] = field(default_factory=dict)
    wallets: dict[str, Wallet] = field(default_factory=dict)
    coupons: dict[str, Coupon] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    products: dict[str, Product] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)
    sales: dict[str, dict[str, int]] = field(default_factory=dict)
    adjustments: list[tuple[int, str, str, int, int, str, int]] = field(default_factory=list)
    cold: dict[str, str] = field(default_factory=dict)
    evicted: set[str] = field(default_factory=set)
    """Keys, and ids of coupons, that PostgreSQL alone has; what they are about is still in the fields above."""
    events: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    now: int = 0
    request: str = ""

    def call(self, name: str, arguments: Arguments, now: int) -> Reply:
        """The reply of a script whose arguments are given by the names in its head."""
        self.events, self.now, self.request = [], now, arguments.get("request", "")
        if "backlog_max" in arguments or name.startswith("evict_"):
            refusal = self._guard(arguments)
            if refusal:
                return refusal
        reply: Reply = getattr(self, name)(arguments)
        return reply

    def take_state_of(self, other: "Model") -> None:
        """Become what another model is in all but its meta."""
        for each in fields(self):
            if each.name not in {"meta", "events", "now", "request"}:
                setattr(self, each.name, copy.deepcopy(getattr(other, each.name)))

    # ---- what every script begins and ends with ----------------------------------------------------------------------

    def _guard(self, a: Arguments) -> Reply | None:
        if self.meta.get("server") != a["server"]:
            return ["unverified"]
        if self.meta["generation"] != a["generation"]:
            return ["stale", self.meta["generation"]]
        if int(self.meta["seq"]) - int(self.meta["durable"]) >= int(a.get("backlog_max", "9" * 9)):
            return ["overloaded"]
        return None

    def _happened(self, type_: str, /, **values: Any) -> str:
        seq = int(self.meta["seq"]) + 1
        self.meta["seq"] = str(seq)
        place = f"{self.meta['epoch']}-{seq}"
        texts = {name: str(value) for name, value in values.items()}
        event = {"type": type_, "v": "2", "at": str(self.now), "request": self.request, **texts}
        self.events.append((place, event))
        return place

    @property
    def seq(self) -> int:
        return int(self.meta["seq"])

    # ---- wallets -----------------------------------------------------------------------------------------------------

    def charge_wallet(self, a: Arguments) -> Reply:
        wallet = self.wallets.get(a["user"], Wallet())
        amount = int(a["amount"])
        if wallet.balance + amount > int(a["balance_max"]):
            return ["balance_limit", str(wallet.balance)]
        self.wallets[a["user"]] = wallet
        wallet.balance += amount
        wallet.place = self._happened(
            "wallet.charged", user=a["user"], amount=amount, balance=wallet.balance, **_keyed(a)
        )
        wallet.ledger.append((self.seq, "charge", amount, wallet.balance, ""))
        return ["charged", wallet.place, str(wallet.balance), str(self.now)]

    # ---- catalogue and stock -----------------------------------------------------------------------------------------

    def put_product(self, a: Arguments) -> Reply:
        known = self.products.get(a["product"])
        wanted = [tuple(a["stock"][i : i + 3]) for i in range(0, len(a["stock"]), 3)]
        added = list(dict.fromkeys(stock for stock, _, _ in wanted if known is None or stock not in known.stock))
        if len(added) + (len(known.stock) if known else 0) > int(a["stock_items_max"]):
            return ["too_many_items", str(len(added) + (len(known.stock) if known else 0))]
        place = self._happened(
            "product.put", product=a["product"], name=a["name"], price=a["price"], stock=a["stock_json"],
            added=",".join(added),
        )  # fmt: skip
        product = self.products.setdefault(a["product"], Product("", 0))
        product.name, product.price, product.place = a["name"], int(a["price"]), place
        for stock, option, units in wanted:
            if stock in added:
                product.stock[stock] = StockItem(option, int(units), int(units), self.seq, added.index(stock))
            product.stock[stock].option = option
        return ["updated" if known else "created", place]

    def adjust_stock(self, a: Arguments) -> Reply:
        product = self.products.get(a["product"])
        item = product.stock.get(a["stock"]) if product else None
        if product is None or item is None:
            return ["unknown"]
        delta = int(a["delta"])
        if not 0 <= item.available + delta <= int(a["available_max"]):
            return ["stock_limit", str(item.available)]
        item.available += delta
        item.received += delta
        product.place = self._happened(
            "stock.adjusted", product=a["product"], stock=a["stock"], delta=delta, available=item.available,
            reason=a["reason"], **_keyed(a),
        )  # fmt: skip
        change = (self.seq, a["product"], a["stock"], delta, item.available, a["reason"], self.now)
        self.adjustments.append(change)
        return ["adjusted", product.place, str(item.available), item.option]

    def reserve_stock(self, a: Arguments) -> Reply:
        held = self._reservation(a["order"])
        if held is not None:
            if held.state != "held":
                return ["finished", held.state]
            return ["reserved", held.place, self._shown(held.lines)]
        if self.now - int(a["created_ms"]) > int(a["age_max_ms"]):
            return ["too_old"]
        wanted: dict[tuple[str, str], int] = {}
        required: Reply = []
        limit: Reply = []
        for i in range(0, len(a["line"]), 4):
            _, name, stock, units = a["line"][i : i + 4]
            if stock == "":
                if name not in self.products:
                    return ["unknown_reference", name, ""]
                if len(self.products[name].stock) != 1:
                    required = required or ["stock_id_required", name]
                    continue
                (stock,) = self.products[name].stock
            wanted[name, stock] = wanted.get((name, stock), 0) + int(units)
        short: list[str] = []
        for (name, stock), units in wanted.items():
            if name not in self.products or stock not in self.products[name].stock:
                return ["unknown_reference", name, stock]
            if units > int(a["quantity_max"]):
                limit = limit or ["quantity_limit", name, stock, str(units)]
            item = self.products[name].stock[stock]
            if units > item.available:
                short += [name, stock, str(units), str(item.available), str(item.reserved)]
        if required or limit:
            return required or limit
        if short:
            return ["out_of_stock", short]
        if a["hold"] == "0":
            return ["available"]
        lines = [(name, stock, units) for (name, stock), units in wanted.items()]
        place = self._happened("stock.reserved", order=a["order"], user=a["user"], lines=packed(lines))
        self.reservations[a["order"]] = Reservation(a["user"], lines, self.now, place)
        self._move(lines, place, available=-1, reserved=1)
        return ["reserved", place, self._shown(lines)]

    def _shown(self, lines: Sequence[Line]) -> list[str]:
        shown: list[str] = []
        for name, stock, units in lines:
            product = self.products[name]
            shown += [name, stock, str(units), product.name, product.stock[stock].option, str(product.price)]
        return shown

    def _move(self, lines: Sequence[Line], place: str, **ways: int) -> None:
        for name, stock, units in lines:
            self.products[name].place = place
            item = self.products[name].stock[stock]
            for where, way in ways.items():
                setattr(item, where, getattr(item, where) + way * units)

    def release_stock(self, a: Arguments) -> Reply:
        held = self._reservation(a["order"])
        if held is None:
            return ["missing"]
        if held.state == "held":
            held.place = self._happened("stock.released", order=a["order"], lines=packed(held.lines))
            held.state, held.finished_at = "released", str(self.now)
            self._move(held.lines, held.place, reserved=-1, available=1)
        return [held.state, held.place]

    def confirm_stock(self, a: Arguments) -> Reply:
        orders = a["id"][: int(a["orders"])]
        found = {order: self._reservation(order) for order in orders}
        new = {order: held for order, held in found.items() if held is not None and held.state == "held"}
        if new:
            sold: dict[str, dict[str, int]] = {}
            for held in new.values():
                for name, stock, units in held.lines:
                    of_product = sold.setdefault(name, {})
                    of_product[stock] = of_product.get(stock, 0) + units
            lines = [(name, stock, units) for name, items in sold.items() for stock, units in items.items()]
            place = self._happened("stock.confirmed", orders=",".join(new), day=a["day"], lines=packed(lines))
            for held in new.values():
                held.state, held.finished_at, held.place = "sold", str(self.now), place
            self._move(lines, place, reserved=-1, sold=1)
            sales = self.sales.setdefault(a["day"], {})
            for name, _, units in lines:
                sales[name] = sales.get(name, 0) + units
        outcomes = []
        for known in found.values():
            state = "missing" if known is None else known.state.replace("sold", "confirmed")
            outcomes += [state, "" if known is None else known.place]
        return ["confirmed", outcomes]

    def adopt_stock(self, a: Arguments) -> Reply:
        held = self._reservation(a["order"])
        if held is not None and held.state != "released":
            return ["exists", held.place, held.state]
        lines = unpacked(a["packed"])
        short: list[Line] = []
        for name, stock, units in lines:
            if name not in self.products or stock not in self.products[name].stock:
                return ["unknown_reference", name, stock]
            missing = units - self.products[name].stock[stock].available
            if missing > 0:
                short.append((name, stock, missing))
        place = self._happened(
            "stock.adopted", order=a["order"], user=a["user"], lines=a["packed"], short=packed(short)
        )
        self._move(short, place, available=1, received=1)
        self._move(lines, place, available=-1, reserved=1)
        self.evicted.discard(f"reservation:{a['order']}")
        units_short = sum(units for _, _, units in short)
        self.reservations[a["order"]] = Reservation(a["user"], lines, self.now, place, short=units_short)
        return ["adopted", place, packed(short)]

    # ---- orders ------------------------------------------------------------------------------------------------------

    def place_order(self, a: Arguments) -> Reply:
        refusal, discount, total = self._price(a)
        if refusal:
            return refusal
        pay_before = str(self.now + int(a["pay_within_ms"]))
        place = self._happened("order.placed", **self._drafted(a, discount, total), pay_before=pay_before, **_keyed(a))
        self._record(a, "awaiting_payment", place, discount, total, pay_before=pay_before)
        self.wallets[a["user"]].open_order = a["order"]
        if a["coupon_id"]:
            self._turn(a["coupon_id"], "taken", a["order"], "", place)
        return ["placed", place, str(discount), str(total), str(self.now), pay_before]

    def checkout_order(self, a: Arguments) -> Reply:
        refusal, discount, total = self._price(a)
        if refusal:
            return refusal
        balance = self.wallets.get(a["user"], Wallet()).balance
        is_paid = balance >= total
        status = "completed" if is_paid else "failed"
        failure = "" if is_paid else "insufficient_balance"
        after = balance - total if is_paid else balance
        place = self._happened(
            "order.checked_out", **self._drafted(a, discount, total), status=status, failure=failure, balance=after,
            **_keyed(a),
        )  # fmt: skip
        order = self._record(a, status, place, discount, total, failure=failure, finished_at=str(self.now))
        if not is_paid:
            return ["insufficient_balance", place, str(discount), str(total), str(self.now), str(after)]
        self._debit(a["order"], order, place)
        if a["coupon_id"]:
            self._turn(a["coupon_id"], "used", a["order"], str(self.now), place)
        return ["completed", place, str(discount), str(total), str(self.now), str(after)]

    def _price(self, a: Arguments) -> tuple[Reply | None, int, int]:
        known = self._order(a["order"])
        if known is not None:
            return ["exists", known.place, known.status], 0, 0
        if self.now - int(a["created_ms"]) > int(a["age_max_ms"]):
            return ["too_old"], 0, 0
        wallet = self.wallets.get(a["user"], Wallet())
        if wallet.open_order:
            return ["order_in_progress", wallet.open_order, self.orders[wallet.open_order].pay_before], 0, 0
        subtotal, discount = int(a["subtotal"]), 0
        if a["coupon_id"]:
            reason, discount = self._discount(a, subtotal)
            if reason:
                return ["coupon_not_valid", reason], 0, 0
        total = subtotal - discount
        return (["payment_limit", str(total)] if total > int(a["payment_max"]) else None), discount, total

    def _discount(self, a: Arguments, subtotal: int) -> tuple[str, int]:
        coupon = self.coupons.get(a["coupon_id"])
        if coupon is None or coupon.user != a["user"] or a["coupon_id"] in self.evicted:
            return "unknown", 0
        if coupon.state != "free":
            return coupon.state, 0
        if self.now >= coupon.valid_until:
            return "expired", 0
        if self.now < coupon.valid_from:
            return "not_started", 0
        kind, value, minimum, maximum = coupon.rule
        if minimum and subtotal < int(minimum):
            return "minimum_order", 0
        discount = subtotal * int(value) // 100 if kind == "percent" else int(value)
        discount = min(discount, int(maximum or discount), int(a["discount_max"]), subtotal)
        return ("minimum_discount", 0) if discount < int(a["discount_min"]) else ("", discount)

    def _drafted(self, a: Arguments, discount: int, total: int) -> dict[str, Any]:
        coupon = self.coupons.get(a["coupon_id"])
        return {
            "order": a["order"], "user": a["user"], "lines": a["lines"], "subtotal": a["subtotal"],
            "discount": discount, "total": total, "coupon": a["coupon_id"],
            "rule": ",".join((coupon.campaign, coupon.number, *coupon.rule)) if coupon else "",
        }  # fmt: skip

    def _record(self, a: Arguments, status: str, place: str, discount: int, total: int, **more: str) -> Order:
        coupon = self.coupons.get(a["coupon_id"])
        order = self.orders[a["order"]] = Order(
            a["user"], status, place, self.now, lines=a["lines"], subtotal=int(a["subtotal"]), discount=discount,
            total=total, coupon=a["coupon_id"], discount_at=self.now,
            coupon_rule=(coupon.campaign, coupon.number, *coupon.rule) if coupon else (), **more,
        )  # fmt: skip
        wallet = self.wallets.setdefault(a["user"], Wallet())
        wallet.last_order, wallet.place = a["order"], place
        return order

    def _debit(self, order_id: str, order: Order, place: str) -> None:
        wallet = self.wallets[order.user]
        wallet.balance -= order.total
        wallet.place = order.place = order.paid_place = place
        order.status, order.paid_at, order.finished_at = "completed", str(self.now), str(self.now)
        if order.total:
            wallet.ledger.append((self.seq, "payment", -order.total, wallet.balance, order_id))

    def _turn(self, coupon_id: str, state: str, order: str, used_at: str, place: str) -> None:
        coupon = self.coupons[coupon_id]
        coupon.state, coupon.order, coupon.used_at, coupon.place = state, order, used_at, place

    def _fail(self, order_id: str, failure: str) -> str:
        order = self.orders[order_id]
        place = self._happened(
            "order.failed", order=order_id, user=order.user, failure=failure, coupon=order.coupon, **_keyed({})
        )
        order.status, order.failure, order.place, order.finished_at = "failed", failure, place, str(self.now)
        order.discount_at = self.now
        wallet = self.wallets[order.user]
        wallet.open_order, wallet.place = "", place
        if order.coupon:
            self._turn(order.coupon, "free", "", "", place)
        return place

    def _awaiting(self, a: Arguments) -> tuple[Order | None, Reply]:
        order = self._order(a["order"])
        if order is None or order.user != a["user"] or order.status == "void":
            return None, ["unknown"]
        return (order, []) if order.status == "awaiting_payment" else (None, [order.status, order.place])

    def pay_order(self, a: Arguments) -> Reply:
        order, reply = self._awaiting(a)
        if order is None:
            return self._with_order(reply, a["order"])
        if self.now >= int(order.pay_before):
            return self._with_order(["expired", self._fail(a["order"], "expired")], a["order"])
        wallet = self.wallets[order.user]
        if wallet.balance < order.total:
            place = self._fail(a["order"], "insufficient_balance")
            return [*self._with_order(["insufficient_balance", place], a["order"]), str(wallet.balance)]
        after = wallet.balance - order.total
        place = self._happened(
            "order.paid",
            order=a["order"],
            user=order.user,
            total=order.total,
            balance=after,
            coupon=order.coupon,
            **_keyed(a),
        )
        wallet.open_order = ""
        self._debit(a["order"], order, place)
        order.discount_at = self.now
        if order.coupon:
            self._turn(order.coupon, "used", a["order"], str(self.now), place)
        return [*self._with_order(["paid", place], a["order"]), str(after)]

    def _with_order(self, reply: Reply, order_id: str) -> Reply:
        return reply if reply == ["unknown"] else [*reply, self.order_hash(order_id)]

    def cancel_order(self, a: Arguments) -> Reply:
        order, reply = self._awaiting(a)
        if order is not None:
            reply = ["cancelled", self._fail(a["order"], "cancelled")]
        elif reply[0] == "failed" and self.orders[a["order"]].failure == "cancelled":
            reply[0] = "cancelled"
        return self._with_order(reply, a["order"])

    def expire_order(self, a: Arguments) -> Reply:
        order, reply = self._awaiting(a)
        if order is None:
            return reply
        if self.now < int(order.pay_before):
            return ["not_due", order.pay_before]
        return ["expired", self._fail(a["order"], "expired")]

    def fail_order(self, a: Arguments) -> Reply:
        order, reply = self._awaiting(a)
        return reply if order is None else ["failed", self._fail(a["order"], "stock_lost")]

    def void_order(self, a: Arguments) -> Reply:
        order = self._order(a["order"])
        if order is None and self._may_be_cold(int(a["created_ms"]), a["asked"]):
            return ["cold", self.cold["times"]]
        if order is None:
            place = self._happened("order.voided", order=a["order"], user=a["user"])
            self.orders[a["order"]] = Order(a["user"], "void", place, self.now, finished_at=str(self.now))
            return ["voided", place]
        return ["voided", order.place] if order.status == "void" else ["exists", order.place, order.status]

    # ---- coupons -----------------------------------------------------------------------------------------------------

    def put_campaign(self, a: Arguments) -> Reply:
        known = self.campaigns.get(a["campaign"])
        issued = known.issued if known else 0
        if int(a["quantity"]) < issued:
            return ["quantity_below_issued", str(issued)]
        names = ("campaign", "name", "kind", "value", "minimum_order", "maximum_discount", "quantity", "opens_at")
        place = self._happened("campaign.put", **{name: a[name] for name in (*names, "closes_at", "valid_days")})
        self.campaigns[a["campaign"]] = Campaign(
            a["name"], _rule(a), int(a["quantity"]), int(a["opens_at"]), int(a["closes_at"]), a["valid_days"], place,
            issued, known.issues if known else {},
        )  # fmt: skip
        return ["updated" if known else "created", place, str(issued)]

    def issue_coupons(self, a: Arguments) -> Reply:
        campaign = self.campaigns.get(a["campaign"])
        if campaign is None:
            return ["unknown"]
        answers = []
        for user, self.request in zip(a["user"], a["request"].split(","), strict=True):
            answers.append(self._issue(campaign, a["campaign"], user))
        return ["answered", answers]

    def _issue(self, campaign: Campaign, campaign_id: str, user: str) -> Reply:
        if user in campaign.issues:
            return ["already_issued", campaign.place, _issue_text(campaign.issues[user])]
        if not campaign.opens_at <= self.now < campaign.closes_at:
            return ["not_open", str(campaign.opens_at), str(campaign.closes_at), str(self.now)]
        if campaign.issued >= campaign.quantity:
            return ["exhausted", str(campaign.quantity)]
        campaign.issued += 1
        kind, value, minimum, maximum = campaign.rule
        campaign.place = self._happened(
            "coupon.issued", campaign=campaign_id, user=user, number=campaign.issued, kind=kind, value=value,
            minimum_order=minimum, maximum_discount=maximum, valid_days=campaign.valid_days,
        )  # fmt: skip
        issue = (campaign.issued, str(self.now), campaign.rule, campaign.valid_days)
        campaign.issues[user] = issue
        return ["issued", campaign.place, _issue_text(issue)]

    def adopt_issue(self, a: Arguments) -> Reply:
        campaign = self.campaigns.get(a["campaign"])
        if campaign is None:
            return ["unknown"]
        if a["user"] in campaign.issues:
            return ["already_issued", campaign.place]
        number = int(a["number"])
        campaign.issued, campaign.quantity = max(campaign.issued, number), max(campaign.quantity, number)
        names = ("campaign", "user", "number", "issued_at", "kind", "value", "minimum_order", "maximum_discount")
        campaign.place = self._happened(
            "coupon.adopted", **{name: a[name] for name in (*names, "valid_days")}, issued=campaign.issued,
            quantity=campaign.quantity,
        )  # fmt: skip
        campaign.issues[a["user"]] = (number, a["issued_at"], _rule(a), a["valid_days"])
        return ["adopted", campaign.place]

    def grant_coupon(self, a: Arguments) -> Reply:
        for coupon_id, coupon in self.coupons.items():
            if (coupon.user, coupon.campaign) == (a["user"], a["campaign"]) and coupon_id not in self.evicted:
                return ["already_granted", coupon.place, coupon_id, self.coupon_text(coupon_id)]
        names = (
            "number", "kind", "value", "minimum_order", "maximum_discount", "issued_at", "valid_from", "valid_until",
        )  # fmt: skip
        terms = dict(zip(names, a["terms"].split(","), strict=True))
        if self._may_be_cold(int(terms["issued_at"]), a["asked"]):
            return ["cold", self.cold["times"]]
        wallet = self.wallets.setdefault(a["user"], Wallet())
        wallet.coupon_number += 1
        coupon_id = f"{a['user']}-{a['issue_day']}-{wallet.coupon_number}"
        place = self._happened(
            "coupon.granted", user=a["user"], coupon=coupon_id, campaign=a["campaign"], **terms,
            coupon_number=wallet.coupon_number, **_keyed(a),
        )  # fmt: skip
        wallet.place = place
        self.coupons[coupon_id] = Coupon(
            a["user"], a["campaign"], terms["number"], _rule(terms), terms["issued_at"], int(terms["valid_from"]),
            int(terms["valid_until"]), place,
        )  # fmt: skip
        return ["granted", place, coupon_id, self.coupon_text(coupon_id)]

    # ---- eviction ----------------------------------------------------------------------------------------------------

    def _order(self, order_id: str) -> Order | None:
        """An order that Redis still has."""
        return None if f"order:{order_id}" in self.evicted else self.orders.get(order_id)

    def _reservation(self, order_id: str) -> Reservation | None:
        return None if f"reservation:{order_id}" in self.evicted else self.reservations.get(order_id)

    def _may_be_cold(self, began: int, asked: str) -> bool:
        return began <= int(self.cold.get("before", -1)) and asked != self.cold.get("times")

    def evict_orders(self, a: Arguments) -> Reply:
        latest = self._latest(a)
        leaving = []
        for order_id, made in zip(a["order"][::2], a["order"][1::2], strict=True):
            order = self._order(order_id)
            if order and order.status != "awaiting_payment" and int(made) <= latest and self._is_durable(order.place):
                leaving.append((order_id, order))
        for order_id, order in leaving:
            self.evicted.add(f"order:{order_id}")
            wallet = self.wallets.get(order.user, Wallet())
            if wallet.last_order == order_id:
                wallet.last_order = ""
            if order.coupon and self._coupon_leaves(order.coupon, latest):
                self.evicted.add(order.coupon)
        return self._evicted(len(leaving), latest)

    def evict_reservations(self, a: Arguments) -> Reply:
        latest = self._latest(a)
        leaving = []
        for order_id, made in zip(a["order"][::2], a["order"][1::2], strict=True):
            held = self._reservation(order_id)
            if held and held.state != "held" and int(made) <= latest and self._is_durable(held.place):
                leaving.append(f"reservation:{order_id}")
        self.evicted.update(leaving)
        return self._evicted(len(leaving), latest, reservations=a["mark"])

    def evict_coupons(self, a: Arguments) -> Reply:
        latest = self._latest(a)
        leaving = [coupon_id for coupon_id in a["coupon_id"] if self._coupon_leaves(coupon_id, latest)]
        self.evicted.update(leaving)
        return self._evicted(len(leaving), latest, coupons=a["mark"])

    def evict_sales(self, a: Arguments) -> Reply:
        return ["evicted", "0"]  # a simulation takes minutes

    def _latest(self, a: Arguments) -> int:
        return min(int(a["hot_from_ms"]), self.now - int(a["age_max_ms"]) - 1)

    def _is_durable(self, place: str) -> bool:
        return int(place.rpartition("-")[2]) <= int(self.meta["durable"])

    def _coupon_leaves(self, coupon_id: str, latest: int) -> bool:
        coupon = self.coupons.get(coupon_id)
        if coupon is None or coupon_id in self.evicted or not self._is_durable(coupon.place):
            return False
        over = {"used": coupon.used_at, "free": str(coupon.valid_until), "taken": str(latest + 1)}[coupon.state]
        return max(int(over), int(coupon.issued_at)) <= latest

    def _evicted(self, count: int, latest: int, **marks: str) -> Reply:
        if count:
            self.cold["before"] = str(max(latest, int(self.cold.get("before", 0))))
            self.cold["times"] = str(int(self.cold.get("times", 0)) + 1)
        self.cold |= {name: mark for name, mark in marks.items() if mark}
        return ["evicted", str(count)]

    # ---- trust, durability and recovery ------------------------------------------------------------------------------

    def init_partition(self, a: Arguments) -> Reply:
        if self.meta:
            return ["exists"]
        names = ("format", "generation", "epoch", "server")
        self.meta = {**{name: a[name] for name in names}, "seq": "0", "durable": "0"}
        return ["trusted"]

    def raise_generation(self, a: Arguments) -> Reply:
        if self.meta.get("server") != a["server"]:
            return ["unverified"]
        self.meta["generation"] = str(max(int(a["generation"]), int(self.meta["generation"])))
        return ["raised", self.meta["seq"]]

    def mark_durable(self, a: Arguments) -> Reply:
        if self.meta.get("server") != a["server"]:
            return ["unverified"]
        if self.meta["epoch"] != a["epoch"] or int(self.meta["seq"]) < int(a["seq"]):
            return ["changed"]
        self.meta["durable"] = str(max(int(a["seq"]), int(self.meta["durable"])))
        return ["marked"]

    def hold_partition(self, a: Arguments) -> Reply:
        if self.meta.get("server") not in {a["expected_server"], a["server"]}:
            return ["changed"]
        self.meta["server"] = a["server"]
        return ["held", self.meta["epoch"], self.meta["seq"]]

    def begin_epoch(self, a: Arguments) -> Reply:
        if self.meta.get("server") != a["server"]:
            return ["unverified"]
        if self.meta["seq"] != a["seq"] or self.meta["epoch"] not in {a["epoch"], a["next_epoch"]}:
            return ["changed"]
        self.meta |= {"generation": a["generation"], "epoch": a["next_epoch"], "durable": a["seq"]}
        return ["begun"]

    def trust_partition(self, a: Arguments) -> Reply:
        identity = a["server"].removeprefix(a["claim"])
        found = (self.meta.get("server"), self.meta.get("epoch"), self.meta.get("seq"))
        if found[:2] == (identity, a["epoch"]):
            return ["trusted"]
        if found[0] != a["server"]:
            return ["unverified"]
        if found[1:] != (a["epoch"], a["seq"]):
            return ["changed"]
        self.meta |= {"server": identity, "durable": a["seq"]}
        return ["trusted"]

    def begin_load(self, a: Arguments) -> Reply:
        mark = self.meta.get("server") or self.meta.get("loading") or ""
        if mark == a["server"].removeprefix(a["claim"]):
            return ["trusted"]
        if mark not in {a["expected"], a["server"]}:
            return ["changed"]
        self.meta = {"loading": a["server"]}
        return ["loading"]

    def clear_keys(self, a: Arguments) -> Reply:
        return ["cleared" if self.meta.get("loading") == a["server"] else "unverified"]

    def load_keys(self, a: Arguments) -> Reply:
        return ["loaded" if self.meta.get("loading") == a["server"] else "unverified"]

    def finish_load(self, a: Arguments) -> Reply:
        """Its caller gives the state afterwards, which is PostgreSQL's: see `Simulation`."""
        begun = {"server": a["server"], "epoch": a["next_epoch"], "seq": a["seq"]}
        if begun.items() <= self.meta.items():
            return ["held", a["next_epoch"], a["seq"]]
        if self.meta.get("loading") != a["server"]:
            return ["unverified"]
        self.meta = {**begun, "format": a["format"], "generation": a["generation"], "durable": a["seq"]}
        return ["held", a["next_epoch"], a["seq"]]

    # ---- how Redis is to hold it -------------------------------------------------------------------------------------

    def keys(self) -> dict[str, dict[str, str]]:
        """Every key, without its prefix, and what it holds; sorted sets as members and scores."""
        kept = {"meta": self.meta, "cold": self.cold}
        kept |= {f"user:{user}": self.wallet_hash(user) for user in self.wallets}
        kept |= {f"order:{order}": self.order_hash(order) for order in self.orders}
        kept |= {f"product:{product}": self.product_hash(product) for product in self.products}
        kept |= {f"reservation:{order}": self.reservation_hash(order) for order in self.reservations}
        kept |= {f"campaign:{campaign}": self.campaign_hash(campaign) for campaign in self.campaigns}
        for kind, names in (("coupons", {coupon.user for coupon in self.coupons.values()}), ("issued", self.campaigns)):
            kept |= {f"{kind}:{name}": self.key(f"{kind}:{name}") for name in names}
        kept |= {f"sales:{day}": self.key(f"sales:{day}") for day in self.sales}
        kept |= {name: self.key(name) for name in ("products", "campaigns")}
        return {name: content for name, content in kept.items() if content}

    def key(self, name: str) -> dict[str, str]:
        """What one key holds; nothing where it must not exist."""
        kind, _, rest = name.partition(":")
        match kind:
            case "meta":
                return self.meta
            case "cold":
                return self.cold
            case "user":
                return self.wallet_hash(rest)
            case "coupons":
                mine = {
                    name: coupon
                    for name, coupon in self.coupons.items()
                    if coupon.user == rest and name not in self.evicted
                }
                campaigns = {f"campaign:{coupon.campaign}": name for name, coupon in mine.items()}
                return {**{name: self.coupon_text(name) for name in mine}, **campaigns}
            case "order":
                return self.order_hash(rest)
            case "products" | "campaigns":
                return dict.fromkeys(self.products if kind == "products" else self.campaigns, "0")
            case "product":
                return self.product_hash(rest)
            case "reservation":
                return self.reservation_hash(rest)
            case "sales":
                return {product: str(units) for product, units in self.sales.get(rest, {}).items()}
            case "campaign":
                return self.campaign_hash(rest)
            case "issued":
                issues = self.campaigns[rest].issues if rest in self.campaigns else {}
                return {user: _issue_text(issue) for user, issue in issues.items()}
        raise ValueError(f"no key is called {name}")

    def wallet_hash(self, user: str) -> dict[str, str]:
        wallet = self.wallets.get(user)
        if wallet is None:
            return {}
        content = {"balance": str(wallet.balance), "coupon_number": str(wallet.coupon_number), "seq": wallet.place}
        if wallet.last_order:
            content["last_order"] = wallet.last_order
        if wallet.open_order:
            content |= {
                "open_order": wallet.open_order,
                "open_pay_before": self.orders[wallet.open_order].pay_before,
            }
        return content

    def order_hash(self, order_id: str) -> dict[str, str]:
        order = self._order(order_id)
        if order is None:
            return {}
        if order.status == "void":
            return {"user": order.user, "status": "void", "seq": order.place}
        return {
            "user": order.user, "status": order.status, "failure": order.failure, "lines": order.lines,
            "subtotal": str(order.subtotal), "discount": str(order.discount), "total": str(order.total),
            "coupon": order.coupon, "ordered_at": str(order.at), "pay_before": order.pay_before,
            "paid_at": order.paid_at, "seq": order.place,
        }  # fmt: skip

    def product_hash(self, product_id: str) -> dict[str, str]:
        product = self.products.get(product_id)
        if product is None:
            return {}
        content = {
            "name": product.name, "price": str(product.price), "stocks": ",".join(product.stock), "seq": product.place,
        }  # fmt: skip
        if len(product.stock) == 1:
            content["only"] = content["stocks"]
        for stock, item in product.stock.items():
            content |= {f"o:{stock}": item.option, f"a:{stock}": str(item.available)}
            content |= {f"r:{stock}": str(item.reserved), f"s:{stock}": str(item.sold)}
        return content

    def reservation_hash(self, order_id: str) -> dict[str, str]:
        held = self._reservation(order_id)
        if held is None:
            return {}
        content = {
            "user": held.user, "state": held.state, "lines": packed(held.lines), "at": str(held.at), "seq": held.place,
        }  # fmt: skip
        return content | ({"finished_at": held.finished_at} if held.finished_at else {})

    def campaign_hash(self, campaign_id: str) -> dict[str, str]:
        campaign = self.campaigns.get(campaign_id)
        if campaign is None:
            return {}
        kind, value, minimum, maximum = campaign.rule
        return {
            "name": campaign.name, "kind": kind, "value": value, "minimum_order": minimum, "maximum_discount": maximum,
            "quantity": str(campaign.quantity), "issued": str(campaign.issued), "opens_at": str(campaign.opens_at),
            "closes_at": str(campaign.closes_at), "valid_days": campaign.valid_days, "seq": campaign.place,
        }  # fmt: skip

    def coupon_text(self, coupon_id: str) -> str:
        """A coupon as it is packed."""
        coupon = self.coupons[coupon_id]
        texts = (
            coupon.state, coupon.campaign, coupon.number, *coupon.rule, coupon.issued_at, str(coupon.valid_from),
            str(coupon.valid_until), coupon.order, coupon.used_at, coupon.place,
        )  # fmt: skip
        return ",".join(texts)


def packed(lines: Sequence[Line]) -> str:
    """Lines as reservations and their events hold them."""
    return ",".join(f"{product}:{stock}:{units}" for product, stock, units in lines)


def unpacked(text: str) -> list[Line]:
    """The other way round."""
    parts = [line.split(":") for line in text.split(",")] if text else []
    return [(product, stock, int(units)) for product, stock, units in parts]


@lru_cache(maxsize=512)
def _units(lines: str) -> list[Line]:
    return [(line["product_id"], line["stock_id"], line["quantity"]) for line in orjson.loads(lines)]


def _keyed(a: Arguments) -> dict[str, str]:
    """No request of the simulation carries an idempotency key."""
    assert a.get("key", "") == ""
    return {"key": "", "fingerprint": "", "result": ""}


def _rule(a: Arguments) -> Rule:
    return (a["kind"], a["value"], a["minimum_order"], a["maximum_discount"])


def _issue_text(issue: tuple[int, str, Rule, str]) -> str:
    number, at, rule, valid_days = issue
    return ",".join((str(number), at, *rule, valid_days))
