"""Events to rows: a pure fold. Many changes of one wallet, stock item or order collapse into one row change.

An event comes as the stream holds it: see `engine.events`. Whatever is wrong with it is found before the batch is
touched, so a batch always holds whole events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import signature
from operator import itemgetter
from time import gmtime, strftime
from typing import NamedTuple

import orjson

from engine.events import HEAD, SEPARATOR, VERSION
from engine.packed_lines import unpack
from persistence.row_targets import COUPONS, DISCOUNTS, ORDERS, RESERVATIONS
from persistence.row_text import NULL, Row

_OLD_HEAD = [b"type", b"v", b"at"]
_OLD_VERSION = b"1"

# A cell list that later events of the batch still change.
Cells = list[str]


class EventError(Exception):
    """An event cannot be turned into rows."""

    def __init__(self, partition: int, place: str, reason: str) -> None:
        super().__init__(f"{(self.__doc__ or '').strip()} partition {partition}, event {place}: {reason}")
        self.partition = partition
        self.place = place
        self.reason = reason


class UnknownEvent(EventError):
    """This program does not know the event's type or version; a newer worker does."""


class UnreadableEvent(EventError):
    """The event's type is known, but its fields are not what they must be."""


class SequenceGap(EventError):
    """The event is not the one that follows the last."""


class LaterEpoch(EventError):
    """The event belongs to an epoch that has not begun in PostgreSQL: recovery has to end the one before."""


class CompletedOrder(NamedTuple):
    """An order that became completed in this batch. ``lines`` is None where an earlier batch held them.

    ``lines``: (product id, stock id, quantity) of each.
    """

    order_id: str
    user_id: str
    paid_at_ms: int
    lines: tuple[tuple[str, str, int], ...] | None


@dataclass(slots=True)
class StockChange:
    """What a batch changes of one stock item that exists (units; option where it was put anew)."""

    partition: str
    option: str = NULL
    received: int = 0
    available: int = 0
    reserved: int = 0
    sold: int = 0


Entry = tuple[bytes, Sequence[bytes]]
"""An entry of a stream: its id, and its fields and values in turn."""


@dataclass(slots=True)
class RowBatch:
    """Everything that a run of events changes, by table. Cells are text as COPY takes them, or `NULL`.

    Named for a table: its new rows, with the columns of `persistence.row_targets`. ``*_changes``: changes of rows that
    exist, with the columns of `persistence.row_statements`.
    """

    events: int = 0
    # position in each partition after the batch: (epoch, seq)
    cursors: dict[int, tuple[int, int]] = field(default_factory=dict)
    # when the last event of each partition happened, ms
    times: dict[int, int] = field(default_factory=dict)
    # user -> partition, balance, coupon number, last order, place
    wallets: dict[str, Cells] = field(default_factory=dict)
    ledger: list[Row] = field(default_factory=list)
    products: dict[str, Cells] = field(default_factory=dict)
    product_places: dict[str, str] = field(default_factory=dict)
    stock_items: dict[tuple[str, str], Row] = field(default_factory=dict)
    stock_changes: dict[tuple[str, str], StockChange] = field(default_factory=dict)
    stock_adjustments: list[Row] = field(default_factory=list)
    reservations: dict[tuple[str, str], Cells] = field(default_factory=dict)
    reservation_changes: dict[tuple[str, str], Row] = field(default_factory=dict)
    # reservations that are held anew; their rows may be there already
    adoptions: dict[tuple[str, str], Cells] = field(default_factory=dict)
    # (day, product) -> partition, units
    daily_sales: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    orders: dict[str, Cells] = field(default_factory=dict)
    order_changes: dict[str, Row] = field(default_factory=dict)
    order_lines: list[Row] = field(default_factory=list)
    discounts: dict[str, Cells] = field(default_factory=dict)
    discount_changes: dict[str, Row] = field(default_factory=dict)
    campaigns: dict[str, Cells] = field(default_factory=dict)
    campaign_issues: dict[str, Row] = field(default_factory=dict)
    coupon_issues: list[Row] = field(default_factory=list)
    coupons: dict[str, Cells] = field(default_factory=dict)
    coupon_changes: dict[str, Row] = field(default_factory=dict)
    outbox: list[Row] = field(default_factory=list)
    # (partition, owner, key)
    spent_keys: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    completed: list[CompletedOrder] = field(default_factory=list)
    # lines of the orders placed in this batch, for those that are also paid in it
    _lines: dict[str, tuple[tuple[str, str, int], ...]] = field(default_factory=dict)
    _layouts: dict[str, "_Layout"] = field(default_factory=dict, compare=False)


class _Event(NamedTuple):
    """Where, when and for which request an event on its way into a batch happened; all but ``at_ms`` are cells."""

    partition: str
    place: str
    at_ms: int
    at: str
    request: str


def read_events(batch: RowBatch, partition: int, epoch: int, seq: int, entries: Sequence[Entry]) -> None:
    """Take in stream entries that must follow ``epoch`` and ``seq`` without a gap, in the same epoch.

    Raises `SequenceGap`, `LaterEpoch`, `UnknownEvent` or `UnreadableEvent` at the first entry that cannot be taken in;
    those before it are in the batch then.
    """
    first, cell, at_ms = seq, str(partition), 0
    try:
        for name, flat in entries:
            place = name.decode()
            if place != f"{epoch}-{seq + 1}":
                trouble = LaterEpoch if int(place.split("-")[0]) > epoch else SequenceGap
                raise trouble(partition, place, f"expected {epoch}-{seq + 1}")
            try:
                if flat[::2] == HEAD and flat[3] == VERSION:
                    kind, at, request, data = flat[1].decode(), flat[5], flat[7].decode(), flat[9].decode()
                    if "\0" in request or "\0" in data:
                        raise ValueError("a NUL, which PostgreSQL cannot hold")
                    fields = data.split(SEPARATOR)
                else:
                    kind, at, request, fields = _read_old(flat)
                names, values = fields[::2], fields[1::2]
                layout = batch._layouts.get(kind)
                if layout is None or layout.names != names or len(values) != len(names):
                    layout = batch._layouts[kind] = _layout(kind, names, values)
                happened_ms = int(at)
                event = _Event(cell, place, happened_ms, _moment(happened_ms), request or NULL)
                layout.apply(batch, event, *layout.choose(values))
                if layout.choose_key is not None:
                    _spend_key(batch, event, *layout.choose_key(values))
            except (LookupError, ValueError, TypeError, ArithmeticError, OSError) as error:
                # A time that is out of all bounds is one of the last two.
                _require_known(partition, place, flat)
                raise UnreadableEvent(partition, place, f"{type(error).__name__}: {error}") from error
            seq, at_ms = seq + 1, happened_ms
    finally:
        if seq > first:
            batch.cursors[partition] = (epoch, seq)
            batch.times[partition] = at_ms
            batch.events += seq - first


def _read_old(flat: Sequence[bytes]) -> tuple[str, bytes, str, list[str]]:
    """Type, time, request, and names and values by turns, of what an earlier release wrote: all of it fields."""
    if flat[:6:2] != _OLD_HEAD or flat[3] != _OLD_VERSION:
        raise ValueError("its fields are not those of its version")
    texts = [part.decode() for part in flat]
    if any("\0" in text for text in texts):
        raise ValueError("a NUL, which PostgreSQL cannot hold")
    request, first = (texts[7], 8) if texts[6:7] == ["request"] else ("", 6)
    return texts[1], flat[5], request, texts[first:]


def _require_known(partition: int, place: str, flat: Sequence[bytes]) -> None:
    """Raises `UnknownEvent` where an event that cannot be read is one that a newer worker may read."""
    head = dict(zip(flat[::2], flat[1::2], strict=False))
    if b"type" not in head or b"v" not in head:
        return
    kind, version = (head[name].decode(errors="replace") for name in (b"type", b"v"))
    if head[b"v"] not in {_OLD_VERSION, VERSION} or kind not in _APPLY:
        raise UnknownEvent(partition, place, f"type {kind!r}, version {version!r}")


class _Layout(NamedTuple):
    """How the events of one type with these very fields are taken in: which values are wanted, and by what.

    Scripts write the fields of a type always alike, so a batch makes as many of these as it has types.
    """

    names: list[str]
    choose: Callable[[Sequence[str]], tuple[str, ...]]
    apply: Callable[..., None]
    choose_key: Callable[[Sequence[str]], tuple[str, ...]] | None
    """Owner, key, fingerprint and result, where the events of the type may spend an idempotency key."""


def _layout(kind: str, names: list[str], values: list[str]) -> _Layout:
    apply = _APPLY[kind]
    if len(values) != len(names) or len(set(names)) != len(names):
        raise ValueError("a field without a value, or twice")
    # The parameters after the batch and the event are the names of the fields.
    _, _, *wanted = signature(apply).parameters
    choose_key = None
    if "result" in names:
        chosen = itemgetter(*[names.index(name) for name in ("key", "fingerprint", "result")])
        owner = names.index("user") if "user" in names else None
        choose_key = _choose_key(owner, chosen)
    choose = itemgetter(*[names.index(name) for name in wanted])
    return _Layout(names, choose, apply, choose_key)


def _choose_key(
    owner: int | None, chosen: Callable[[Sequence[str]], tuple[str, ...]]
) -> Callable[[Sequence[str]], tuple[str, ...]]:
    # An operator's key has no user; its digest says what it belongs to.
    return lambda values: ("" if owner is None else values[owner], *chosen(values))


@lru_cache(maxsize=64)
def _second(at_s: int) -> str:
    return strftime("%Y-%m-%d %H:%M:%S", gmtime(at_s))


_MILLISECOND = tuple(f".{ms:03d}+00" for ms in range(1000))


def _moment(at_ms: int) -> str:
    return _second(at_ms // 1000) + _MILLISECOND[at_ms % 1000]


def _whole(text: str) -> str:
    """A whole number in decimal, as it came."""
    int(text)
    return text


def _some(text: str) -> str:
    return text or NULL


def _some_whole(text: str) -> str:
    return _whole(text) if text else NULL


def _required(text: str) -> str:
    if not text:
        raise ValueError("an id is empty")
    return text


# --- Idempotency keys ---


def _spend_key(batch: RowBatch, event: _Event, owner: str, key: str, fingerprint: str, result: str) -> None:
    if key:
        row = (owner, key, event.partition, fingerprint, result, event.place, event.at)
        batch.spent_keys[event.partition, owner, key] = row


# --- Wallets ---

# The cells of a wallet: its partition, then those that a later event changes, as `row_statements.WALLETS` has them.
_BALANCE, _COUPON_NUMBER, _LAST_ORDER, _WALLET_PLACE = range(1, 5)


def _change_wallet(
    batch: RowBatch,
    event: _Event,
    user: str,
    *,
    balance: str = NULL,
    coupon_number: str = NULL,
    last_order: str = NULL,
) -> None:
    cells = batch.wallets.get(user)
    if cells is None:
        batch.wallets[user] = [event.partition, balance, coupon_number, last_order, event.place]
        return
    if balance is not NULL:
        cells[_BALANCE] = balance
    if coupon_number is not NULL:
        cells[_COUPON_NUMBER] = coupon_number
    if last_order is not NULL:
        cells[_LAST_ORDER] = last_order
    cells[_WALLET_PLACE] = event.place


def _wallet_charged(batch: RowBatch, event: _Event, user: str, amount: str, balance: str) -> None:
    epoch, seq = event.place.split("-")
    row = (event.partition, seq, epoch, _required(user), "charge", _whole(amount), _whole(balance), NULL, event.at)
    batch.ledger.append(row)
    _change_wallet(batch, event, user, balance=balance)


def _pay(batch: RowBatch, event: _Event, order: str, user: str, total: int, balance: str) -> None:
    if total:
        epoch, seq = event.place.split("-")
        batch.ledger.append((event.partition, seq, epoch, user, "payment", str(-total), balance, order, event.at))
    _change_wallet(batch, event, user, balance=balance)
    batch.outbox.append((event.partition, order, user, f"{event.partition}:{event.place}", event.at, event.request))


# --- Orders ---

# The cells of an order that a later event changes.
_STATUS, _FAILURE, _PAID_AT, _FINISHED_AT, _ORDER_PLACE = map(
    ORDERS.cell, ("status", "failure", "paid_at", "finished_at", "place")
)
_DISCOUNT_STATE, _DISCOUNT_AT = map(DISCOUNTS.cell, ("state", "at"))

_ORDER_LINE_TEXTS = itemgetter("product_id", "stock_id", "name", "option")
_ORDER_LINE_NUMBERS = itemgetter("unit_price", "quantity", "amount")


class _NewOrder(NamedTuple):
    order: str
    user: str
    subtotal: str
    discount: str
    total: str
    coupon: str
    rule: list[str] | None
    line_rows: list[Row]
    lines: tuple[tuple[str, str, int], ...]


def _read_order(
    batch: RowBatch,
    event: _Event,
    order: str,
    user: str,
    lines_json: str,
    subtotal: str,
    discount: str,
    total: str,
    coupon: str,
    rule: str,
) -> _NewOrder:
    rows: list[Row] = []
    lines = []
    for number, line in enumerate(orjson.loads(lines_json), start=1):
        texts = _ORDER_LINE_TEXTS(line)
        if "\0" in "".join(texts):
            raise ValueError(f"a NUL in line {number}")
        unit_price, quantity, amount = _ORDER_LINE_NUMBERS(line)
        rows.append((order, str(number), event.partition, *texts, str(unit_price), str(quantity), str(amount)))
        lines.append((texts[0], texts[1], int(quantity)))
    if order in batch.orders:
        raise ValueError(f"order {order} is on record already")
    return _NewOrder(
        _required(order), _required(user), _whole(subtotal), _whole(discount), _whole(total), coupon,
        _read_rule(rule) if coupon else None, rows, tuple(lines),
    )  # fmt: skip


def _read_rule(rule: str) -> list[str]:
    campaign, number, kind, value, minimum_order, maximum_discount = rule.split(",")
    return [campaign, _whole(number), kind, _whole(value), _some_whole(minimum_order), _some_whole(maximum_discount)]


def _put_order(
    batch: RowBatch, event: _Event, new: _NewOrder, *, status: str, failure: str, pay_before: str, discount_state: str
) -> None:
    paid_at = event.at if status == "completed" else NULL
    finished_at = NULL if status == "awaiting_payment" else event.at
    batch.orders[new.order] = [
        new.order, event.partition, new.user, status, _some(failure), new.subtotal, new.discount, new.total,
        _some(new.coupon), event.at, pay_before, paid_at, finished_at, event.place,
    ]  # fmt: skip
    batch.order_lines += new.line_rows
    if new.rule is not None:
        campaign, number, *rule = new.rule
        batch.discounts[new.order] = [
            new.order, event.partition, new.coupon, new.user, campaign, number, *rule, new.discount, discount_state,
            event.at,
        ]  # fmt: skip


def _order_placed(
    batch: RowBatch,
    event: _Event,
    order: str,
    user: str,
    lines: str,
    subtotal: str,
    discount: str,
    total: str,
    coupon: str,
    rule: str,
    pay_before: str,
) -> None:
    new = _read_order(batch, event, order, user, lines, subtotal, discount, total, coupon, rule)
    pay_before = _moment(int(pay_before))
    _put_order(batch, event, new, status="awaiting_payment", failure="", pay_before=pay_before, discount_state="taken")
    batch._lines[new.order] = new.lines
    _change_wallet(batch, event, new.user, last_order=new.order)
    if new.coupon:
        _change_coupon(batch, event, new.coupon, "taken", order=new.order)


def _order_checked_out(
    batch: RowBatch,
    event: _Event,
    order: str,
    user: str,
    lines: str,
    subtotal: str,
    discount: str,
    total: str,
    coupon: str,
    rule: str,
    status: str,
    failure: str,
    balance: str,
) -> None:
    new = _read_order(batch, event, order, user, lines, subtotal, discount, total, coupon, rule)
    _whole(balance)
    if status == "completed":
        _put_order(batch, event, new, status=status, failure="", pay_before=NULL, discount_state="used")
        _pay(batch, event, new.order, new.user, int(new.total), balance)
        _change_wallet(batch, event, new.user, last_order=new.order)
        if new.coupon:
            _change_coupon(batch, event, new.coupon, "used", order=new.order, used_at=event.at)
        batch.completed.append(CompletedOrder(new.order, new.user, event.at_ms, new.lines))
    elif status == "failed":
        # The coupon was never taken: only the attempt is on record.
        _put_order(
            batch, event, new, status=status, failure=_required(failure), pay_before=NULL, discount_state="returned"
        )
        _change_wallet(batch, event, new.user, last_order=new.order)
    else:
        raise ValueError(f"status {status!r}")


def _finish_order(batch: RowBatch, event: _Event, order: str, *, status: str, failure: str, paid_at: str) -> None:
    cells = batch.orders.get(order)
    if cells is None:
        if order in batch.order_changes:
            raise ValueError(f"order {order} has finished before")
        batch.order_changes[order] = (order, status, failure, paid_at, event.at, event.place)
        return
    if cells[_STATUS] != "awaiting_payment":
        raise ValueError(f"order {order} is {cells[_STATUS]} already")
    cells[_STATUS], cells[_FAILURE], cells[_PAID_AT], cells[_FINISHED_AT] = status, failure, paid_at, event.at
    cells[_ORDER_PLACE] = event.place


def _finish_discount(batch: RowBatch, event: _Event, order: str, state: str) -> None:
    cells = batch.discounts.get(order)
    if cells is None:
        batch.discount_changes[order] = (order, state, event.at)
    else:
        cells[_DISCOUNT_STATE], cells[_DISCOUNT_AT] = state, event.at


def _order_paid(batch: RowBatch, event: _Event, order: str, user: str, total: str, balance: str, coupon: str) -> None:
    units = int(total)
    _whole(balance)
    _required(user)
    _finish_order(batch, event, _required(order), status="completed", failure=NULL, paid_at=event.at)
    _pay(batch, event, order, user, units, balance)
    if coupon:
        _finish_discount(batch, event, order, "used")
        _change_coupon(batch, event, coupon, "used", order=order, used_at=event.at)
    batch.completed.append(CompletedOrder(order, user, event.at_ms, batch._lines.get(order)))


def _order_failed(batch: RowBatch, event: _Event, order: str, user: str, failure: str, coupon: str) -> None:
    _required(user)
    _finish_order(batch, event, _required(order), status="failed", failure=_required(failure), paid_at=NULL)
    _change_wallet(batch, event, user)
    if coupon:
        _finish_discount(batch, event, order, "returned")
        _change_coupon(batch, event, coupon, "free")


def _order_voided(batch: RowBatch, event: _Event, order: str, user: str) -> None:
    _required(order)
    _required(user)
    if order in batch.orders:
        raise ValueError(f"order {order} is on record already")
    batch.orders[order] = [
        order, event.partition, user, "void", NULL, "0", "0", "0", NULL, event.at, NULL, NULL, event.at, event.place,
    ]  # fmt: skip


# --- Coupons ---

# The cells of a coupon that a later event changes.
_COUPON_STATE, _COUPON_ORDER, _COUPON_USED_AT, _COUPON_PLACE = map(
    COUPONS.cell, ("state", "order_id", "used_at", "place")
)


def _change_coupon(
    batch: RowBatch, event: _Event, coupon: str, state: str, *, order: str = NULL, used_at: str = NULL
) -> None:
    cells = batch.coupons.get(coupon)
    if cells is None:
        batch.coupon_changes[coupon] = (coupon, state, order, used_at, event.place)
    else:
        cells[_COUPON_STATE], cells[_COUPON_ORDER], cells[_COUPON_USED_AT] = state, order, used_at
        cells[_COUPON_PLACE] = event.place


def _coupon_granted(
    batch: RowBatch,
    event: _Event,
    user: str,
    coupon: str,
    campaign: str,
    number: str,
    kind: str,
    value: str,
    minimum_order: str,
    maximum_discount: str,
    issued_at: str,
    valid_from: str,
    valid_until: str,
    coupon_number: str,
) -> None:
    cells = [
        _required(coupon), event.partition, _required(user), _required(campaign), _whole(number), kind, _whole(value),
        _some_whole(minimum_order), _some_whole(maximum_discount), "free", NULL, _moment(int(issued_at)),
        _moment(int(valid_from)), _moment(int(valid_until)), NULL, event.place,
    ]  # fmt: skip
    coupon_number = _whole(coupon_number)
    batch.coupons[coupon] = cells
    _change_wallet(batch, event, user, coupon_number=coupon_number)


# --- Campaigns ---


def _campaign_put(
    batch: RowBatch,
    event: _Event,
    campaign: str,
    name: str,
    kind: str,
    value: str,
    minimum_order: str,
    maximum_discount: str,
    quantity: str,
    opens_at: str,
    closes_at: str,
    valid_days: str,
) -> None:
    batch.campaigns[_required(campaign)] = [
        campaign, event.partition, name, kind, _whole(value), _some_whole(minimum_order), _some_whole(maximum_discount),
        _whole(quantity), _moment(int(opens_at)), _moment(int(closes_at)), _whole(valid_days), event.place,
    ]  # fmt: skip
    if campaign in batch.campaign_issues:
        _, number, _ = batch.campaign_issues[campaign]
        batch.campaign_issues[campaign] = (campaign, number, event.place)


def _coupon_issued(
    batch: RowBatch,
    event: _Event,
    campaign: str,
    user: str,
    number: str,
    kind: str,
    value: str,
    minimum_order: str,
    maximum_discount: str,
    valid_days: str,
) -> None:
    row = (
        _required(campaign), _required(user), event.partition, _whole(number), kind, _whole(value),
        _some_whole(minimum_order), _some_whole(maximum_discount), _whole(valid_days), event.at,
    )  # fmt: skip
    batch.coupon_issues.append(row)
    batch.campaign_issues[campaign] = (campaign, number, event.place)


def _coupon_adopted(
    batch: RowBatch,
    event: _Event,
    campaign: str,
    user: str,
    number: str,
    issued_at: str,
    kind: str,
    value: str,
    minimum_order: str,
    maximum_discount: str,
    valid_days: str,
    issued: str,
) -> None:
    row = (
        _required(campaign), _required(user), event.partition, _whole(number), kind, _whole(value),
        _some_whole(minimum_order), _some_whole(maximum_discount), _whole(valid_days), _moment(int(issued_at)),
    )  # fmt: skip
    batch.coupon_issues.append(row)
    batch.campaign_issues[campaign] = (campaign, _whole(issued), event.place)


# --- Catalogue and stock ---


def _change_stock(batch: RowBatch, event: _Event, product: str, stock: str) -> StockChange:
    change = batch.stock_changes.get((product, stock))
    if change is None:
        change = batch.stock_changes[product, stock] = StockChange(event.partition)
    batch.product_places[product] = event.place
    return change


def _product_put(batch: RowBatch, event: _Event, product: str, name: str, price: str, stock: str, added: str) -> None:
    _required(product)
    _, seq = event.place.split("-")
    index_of = {stock_id: str(index) for index, stock_id in enumerate(added.split(",")) if stock_id}
    options, items = {}, {}
    for item in orjson.loads(stock):
        stock_id, option, units = _required(item["stock_id"]), item["option"], str(int(item["initial_quantity"]))
        if "\0" in stock_id + option:
            raise ValueError("a NUL in a stock item")
        options[stock_id] = option
        if stock_id in index_of:
            items[product, stock_id] = (
                product, stock_id, event.partition, seq, index_of[stock_id], option, units, units, "0", "0",
            )  # fmt: skip
    if len(items) != len(index_of):
        raise ValueError("an added stock item is not in the list")
    batch.products[product] = [product, event.partition, name, _whole(price)]
    batch.stock_items.update(items)
    batch.product_places[product] = event.place
    for stock_id, option in options.items():
        if (product, stock_id) not in items:
            _change_stock(batch, event, product, stock_id).option = option


def _stock_adjusted(
    batch: RowBatch, event: _Event, product: str, stock: str, delta: str, available: str, reason: str
) -> None:
    units = int(delta)
    _, seq = event.place.split("-")
    row = (event.partition, seq, _required(product), _required(stock), delta, _whole(available), reason, event.at)
    batch.stock_adjustments.append(row)
    change = _change_stock(batch, event, product, stock)
    change.received += units
    change.available += units


def _stock_reserved(batch: RowBatch, event: _Event, order: str, user: str, lines: str) -> None:
    unpacked = unpack(lines)
    _required(order)
    _required(user)
    if (event.partition, order) in batch.reservations:
        raise ValueError(f"order {order} has a reservation already")
    batch.reservations[event.partition, order] = [
        event.partition, order, user, "held", lines, event.at, NULL, event.place,
    ]  # fmt: skip
    for product, stock, quantity in unpacked:
        change = _change_stock(batch, event, product, stock)
        change.available -= quantity
        change.reserved += quantity


# The cells of a reservation that a later event changes.
_RESERVATION_STATE, _RESERVATION_FINISHED_AT, _RESERVATION_PLACE = map(
    RESERVATIONS.cell, ("state", "finished_at", "place")
)


def _require_held(batch: RowBatch, event: _Event, order: str) -> None:
    cells = batch.adoptions.get((event.partition, order)) or batch.reservations.get((event.partition, order))
    if cells is not None and cells[_RESERVATION_STATE] != "held":
        raise ValueError(f"the reservation of {order} is {cells[_RESERVATION_STATE]} already")
    if cells is None and (event.partition, order) in batch.reservation_changes:
        raise ValueError(f"the reservation of {order} has finished before")


def _finish_reservation(batch: RowBatch, event: _Event, order: str, state: str) -> None:
    key = (event.partition, order)
    cells = batch.adoptions.get(key) or batch.reservations.get(key)
    if cells is None:
        batch.reservation_changes[key] = (event.partition, order, state, event.at, event.place)
    else:
        cells[_RESERVATION_STATE], cells[_RESERVATION_FINISHED_AT] = state, event.at
        cells[_RESERVATION_PLACE] = event.place


def _stock_released(batch: RowBatch, event: _Event, order: str, lines: str) -> None:
    unpacked = unpack(lines)
    _require_held(batch, event, _required(order))
    _finish_reservation(batch, event, order, "released")
    for product, stock, quantity in unpacked:
        change = _change_stock(batch, event, product, stock)
        change.reserved -= quantity
        change.available += quantity


def _stock_confirmed(batch: RowBatch, event: _Event, orders: str, day: str, lines: str) -> None:
    unpacked = unpack(lines)
    if len(day) != 8 or not day.isdigit():
        raise ValueError(f"day {day!r}")
    sold = orders.split(",")
    if len(set(sold)) < len(sold):
        raise ValueError("an order is given twice")
    for order in sold:
        _require_held(batch, event, _required(order))
    for order in sold:
        _finish_reservation(batch, event, order, "sold")
    for product, stock, quantity in unpacked:
        change = _change_stock(batch, event, product, stock)
        change.reserved -= quantity
        change.sold += quantity
        _, units = batch.daily_sales.get((day, product), ("", 0))
        batch.daily_sales[day, product] = (event.partition, units + quantity)


def _stock_adopted(batch: RowBatch, event: _Event, order: str, user: str, lines: str, short: str) -> None:
    unpacked = unpack(lines)
    missing = unpack(short) if short else []
    key = (event.partition, _required(order))
    if key in batch.adoptions:
        raise ValueError(f"order {order} was adopted already")
    cells = [event.partition, order, _required(user), "held", lines, event.at, NULL, event.place]
    if key in batch.reservations:
        batch.reservations[key] = cells
    else:
        batch.adoptions[key] = cells
    for product, stock, quantity in unpacked:
        change = _change_stock(batch, event, product, stock)
        change.available -= quantity
        change.reserved += quantity
    # Units that an order has by right and that were not there any more: the increase that brought them was lost.
    for product, stock, quantity in missing:
        change = _change_stock(batch, event, product, stock)
        change.available += quantity
        change.received += quantity


_APPLY: dict[str, Callable[..., None]] = {
    "wallet.charged": _wallet_charged,
    "order.placed": _order_placed,
    "order.checked_out": _order_checked_out,
    "order.paid": _order_paid,
    "order.failed": _order_failed,
    "order.voided": _order_voided,
    "coupon.granted": _coupon_granted,
    "product.put": _product_put,
    "stock.adjusted": _stock_adjusted,
    "stock.reserved": _stock_reserved,
    "stock.released": _stock_released,
    "stock.confirmed": _stock_confirmed,
    "stock.adopted": _stock_adopted,
    "campaign.put": _campaign_put,
    "coupon.issued": _coupon_issued,
    "coupon.adopted": _coupon_adopted,
}

EVENT_TYPES = frozenset(_APPLY)
