"""Events to rows, and rows to COPY text: both pure."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import SEPARATOR
from persistence.event_rows import (
    EVENT_TYPES,
    LaterEpoch,
    RowBatch,
    SequenceGap,
    StockChange,
    UnknownEvent,
    UnreadableEvent,
    read_events,
)
from persistence.row_text import NULL, copy_text

AT = 1_763_771_400_123
MOMENT = "2025-11-22 00:30:00.123+00"
ORDER = "019ab000-0000-7000-8000-000000000001"
OTHER = "019ab000-0000-7000-8000-000000000002"
THIRD = "019ab000-0000-7000-8000-000000000003"

Entry = tuple[bytes, list[bytes]]


def _event(event_type: str, /, *, v: Any = "2", at: Any = AT, request: Any = "", **fields: Any) -> list[bytes]:
    data = [part if isinstance(part, bytes) else str(part).encode() for field in fields.items() for part in field]
    head = {"type": event_type, "v": v, "at": at, "request": request}
    return [str(part).encode() for field in head.items() for part in field] + [b"data", SEPARATOR.encode().join(data)]


def _before(event: list[bytes], *, with_request: bool = True) -> list[bytes]:
    """The event as the releases before wrote it: each of its fields is one of the entry; at first without a request."""
    assert event[2:4] == [b"v", b"2"]
    head = [*event[:2], b"v", b"1", *event[4 : 8 if with_request else 6]]
    return head + event[9].split(SEPARATOR.encode())


def _entries(*events: list[bytes], epoch: int = 1, after: int = 0) -> list[Entry]:
    return [(b"%d-%d" % (epoch, after + number), event) for number, event in enumerate(events, start=1)]


def _fold(*events: list[bytes], partition: int = 3) -> RowBatch:
    batch = RowBatch()
    read_events(batch, partition, 1, 0, _entries(*events))
    return batch


def _charged(user: str = "ann", amount: int | str = 5, balance: int | str = 5) -> list[bytes]:
    return _event("wallet.charged", user=user, amount=amount, balance=balance, key="", fingerprint="")


def _line(product: str = "tea", name: str = "차 ☕") -> dict[str, str | int]:
    return {
        "product_id": product, "stock_id": "s", "name": name, "option": "", "unit_price": 100, "quantity": 2,
        "amount": 200,
    }  # fmt: skip


def _order(kind: str, *, order: str = ORDER, coupon: str = "", total: int = 200, **more: Any) -> list[bytes]:
    fields = {
        "order": order, "user": "ann", "lines": orjson.dumps([_line()]), "subtotal": 200, "discount": 200 - total,
        "total": total, "coupon": coupon, "rule": "spring,7,amount,50,," if coupon else "",
        **more, "key": "", "fingerprint": "",
    }  # fmt: skip
    return _event(kind, **fields)


def _placed(**more: Any) -> list[bytes]:
    return _order("order.placed", pay_before=AT + 1_000, **more)


def _checked_out(status: str = "completed", failure: str = "", **more: Any) -> list[bytes]:
    return _order("order.checked_out", status=status, failure=failure, balance=800, **more)


def _paid(order: str = ORDER, coupon: str = "") -> list[bytes]:
    return _event("order.paid", order=order, user="ann", total=200, balance=800, coupon=coupon)


def _failed(order: str = ORDER, coupon: str = "") -> list[bytes]:
    return _event("order.failed", order=order, user="ann", failure="expired", coupon=coupon)


def _reserved(order: str = ORDER, lines: str = "tea:s:2") -> list[bytes]:
    return _event("stock.reserved", order=order, user="ann", lines=lines)


def _granted() -> list[bytes]:
    return _event(
        "coupon.granted", user="ann", coupon="ann-20251122-1", campaign="spring", number=7, kind="amount", value=50,
        minimum_order="", maximum_discount="", issued_at=AT, valid_from=AT, valid_until=AT + 1, coupon_number=1,
    )  # fmt: skip


def test_a_charge_becomes_a_ledger_entry_and_the_wallet_after_it() -> None:
    batch = _fold(_charged())

    assert batch.ledger == [("3", "1", "1", "ann", "charge", "5", "5", NULL, MOMENT)]
    assert batch.wallets == {"ann": ["3", "5", NULL, NULL, "1-1"]}
    assert batch.cursors == {3: (1, 1)}


def test_many_charges_of_one_wallet_become_one_row_change() -> None:
    batch = _fold(*(_charged(balance=5 * number) for number in range(1, 101)))

    assert batch.wallets == {"ann": ["3", "500", NULL, NULL, "1-100"]}
    assert len(batch.ledger) == batch.events == 100


def test_an_order_placed_and_paid_in_one_batch_is_one_completed_row() -> None:
    batch = _fold(_granted(), _placed(coupon="ann-20251122-1", total=150), _paid(coupon="ann-20251122-1"))

    assert batch.orders[ORDER] == [
        ORDER, "3", "ann", "completed", NULL, "200", "50", "150", "ann-20251122-1", MOMENT,
        "2025-11-22 00:30:01.123+00", MOMENT, MOMENT, "1-3",
    ]  # fmt: skip
    assert batch.order_changes == {}
    assert batch.coupons["ann-20251122-1"][9:] == [
        "used",
        ORDER,
        MOMENT,
        MOMENT,
        "2025-11-22 00:30:00.124+00",
        MOMENT,
        "1-3",
    ]
    assert batch.discounts[ORDER][4:] == ["spring", "7", "amount", "50", NULL, NULL, "50", "used", MOMENT]
    assert batch.wallets["ann"] == ["3", "800", "1", ORDER, "1-3"]


def test_an_order_paid_in_a_later_batch_changes_the_row_that_is_there() -> None:
    batch = _fold(_paid(coupon="ann-20251122-1"))

    assert batch.orders == {}
    assert batch.order_changes == {ORDER: (ORDER, "completed", NULL, MOMENT, MOMENT, "1-1")}
    assert batch.coupon_changes == {"ann-20251122-1": ("ann-20251122-1", "used", ORDER, MOMENT, "1-1")}
    assert batch.discount_changes == {ORDER: (ORDER, "used", MOMENT)}


@pytest.mark.requirement("R3.17", "R4.11")
def test_a_failed_order_frees_its_coupon_and_keeps_the_attempt_on_record() -> None:
    batch = _fold(_placed(coupon="c", total=150), _failed(coupon="c"))

    assert batch.orders[ORDER][3:5] == ["failed", "expired"]
    assert batch.coupon_changes == {"c": ("c", "free", NULL, NULL, "1-2")}
    assert batch.discounts[ORDER][-2:] == ["returned", MOMENT]


def test_a_failed_checkout_pays_nothing_and_leaves_its_coupon_alone() -> None:
    batch = _fold(_checked_out("failed", "insufficient_balance", coupon="c", total=150))

    assert batch.orders[ORDER][3:5] == ["failed", "insufficient_balance"]
    assert (batch.ledger, batch.outbox, batch.completed) == ([], [], [])
    assert batch.coupon_changes == {}
    assert batch.discounts[ORDER][-2:] == ["returned", MOMENT]
    assert batch.wallets == {"ann": ["3", NULL, NULL, ORDER, "1-1"]}


def test_of_two_orders_of_one_millisecond_the_one_placed_later_is_the_last() -> None:
    batch = _fold(_checked_out(order=OTHER), _checked_out(order=ORDER), _charged())

    assert batch.wallets["ann"][3] == ORDER


@pytest.mark.requirement("R3.5")
def test_only_completed_orders_are_told_to_the_data_platform() -> None:
    batch = _fold(_checked_out(), _checked_out("failed", "insufficient_balance", order=OTHER))

    assert batch.outbox == [("3", ORDER, "ann", "3:1-1", MOMENT, NULL)]


def test_what_is_told_says_the_request_that_paid_for_it() -> None:
    paid, other = _checked_out(), _checked_out(order=OTHER)
    paid[7] = b"of-ann"

    assert [row[-1] for row in _fold(paid, other).outbox] == ["of-ann", NULL]


def test_an_order_of_total_zero_is_completed_without_a_ledger_entry() -> None:
    batch = _fold(_checked_out(total=0, coupon="c"))

    assert batch.ledger == []
    assert batch.orders[ORDER][3] == "completed"
    assert len(batch.outbox) == 1


def test_completed_orders_are_handed_on_with_the_lines_that_the_batch_knows() -> None:
    batch = _fold(_placed(), _paid(), _paid(order=OTHER))

    assert [(order.order_id, order.lines) for order in batch.completed] == [(ORDER, (("tea", "s", 2),)), (OTHER, None)]


def test_a_voided_order_leaves_a_tombstone() -> None:
    batch = _fold(_event("order.voided", order=ORDER, user="ann"))

    assert batch.orders[ORDER][3] == "void"
    assert batch.wallets == {}


@pytest.mark.requirement("R3.16")
def test_reserved_and_released_units_of_a_batch_add_up_to_no_change_of_stock() -> None:
    batch = _fold(_reserved(lines="tea:s:2,cup:m:1"), _event("stock.released", order=ORDER, lines="tea:s:2,cup:m:1"))

    changes = {key: (change.available, change.reserved, change.sold) for key, change in batch.stock_changes.items()}
    assert changes == {("tea", "s"): (0, 0, 0), ("cup", "m"): (0, 0, 0)}
    assert batch.reservations["3", ORDER][3:] == ["released", "tea:s:2,cup:m:1", MOMENT, MOMENT, "1-2"]


@pytest.mark.requirement("R5.2")
def test_confirmed_units_are_sold_and_counted_for_their_day() -> None:
    batch = _fold(
        _event("stock.confirmed", orders=f"{ORDER},{OTHER}", day="20251122", lines="tea:s:2"),
        _event("stock.confirmed", orders=THIRD, day="20251122", lines="tea:m:3"),
    )

    assert batch.daily_sales == {("20251122", "tea"): ("3", 5)}
    assert (batch.stock_changes["tea", "s"].reserved, batch.stock_changes["tea", "s"].sold) == (-2, 2)
    assert list(batch.reservation_changes.values()) == [
        ("3", ORDER, "sold", MOMENT, "1-1"), ("3", OTHER, "sold", MOMENT, "1-1"), ("3", THIRD, "sold", MOMENT, "1-2"),
    ]  # fmt: skip


def _adopted(lines: str = "tea:s:5,tea:m:1", short: str = "tea:s:2") -> list[bytes]:
    return _event("stock.adopted", order=ORDER, user="ann", lines=lines, short=short)


def test_an_adopted_reservation_is_held_anew_and_what_was_short_counts_as_received() -> None:
    batch = _fold(_adopted())

    assert batch.adoptions == {("3", ORDER): ["3", ORDER, "ann", "held", "tea:s:5,tea:m:1", MOMENT, NULL, "1-1"]}
    assert batch.stock_changes == {
        ("tea", "s"): StockChange("3", received=2, available=-3, reserved=5),
        ("tea", "m"): StockChange("3", available=-1, reserved=1),
    }


def test_what_is_adopted_and_confirmed_in_one_batch_is_one_row() -> None:
    batch = _fold(_adopted(), _event("stock.confirmed", orders=ORDER, day="20251122", lines="tea:s:5,tea:m:1"))

    assert batch.reservation_changes == {}
    ((_, _, _, state, _, at, finished_at, place),) = batch.adoptions.values()
    assert (state, at, finished_at, place) == ("sold", MOMENT, MOMENT, "1-2")


def test_what_is_reserved_released_and_adopted_in_one_batch_is_held() -> None:
    reserved = _event("stock.reserved", order=ORDER, user="ann", lines="tea:s:5")
    released = _event("stock.released", order=ORDER, lines="tea:s:5")
    batch = _fold(reserved, released, _adopted("tea:s:5", ""))

    assert batch.adoptions == {}
    assert [cells[3] for cells in batch.reservations.values()] == ["held"]
    assert batch.stock_changes["tea", "s"] == StockChange("3", available=-5, reserved=5)


def test_an_adopted_issue_keeps_its_number_and_time() -> None:
    batch = _fold(
        _event(
            "coupon.adopted", campaign="spring", user="ann", number=5, issued_at=AT - 1_000, kind="amount", value=100,
            minimum_order="", maximum_discount=30, valid_days=7, issued=8, quantity=10,
        )
    )  # fmt: skip

    before = MOMENT.replace(":00.123", ":59.123").replace("00:30", "00:29")
    assert batch.coupon_issues == [("spring", "ann", "3", "5", "amount", "100", NULL, "30", "7", before)]
    assert batch.campaign_issues == {"spring": ("spring", "8", "1-1")}


def test_a_product_put_adds_new_stock_items_and_renames_those_that_exist() -> None:
    stock = orjson.dumps(
        [
            {"stock_id": "s", "option": "small", "initial_quantity": 5},
            {"stock_id": "m", "option": "중간", "initial_quantity": 7},
        ]
    )
    batch = _fold(_event("product.put", product="tea", name="차", price=100, stock=stock, added="m"))

    assert batch.products == {"tea": ["tea", "3", "차", "100"]}
    assert batch.stock_items == {("tea", "m"): ("tea", "m", "3", "1", "0", "중간", "7", "7", "0", "0")}
    assert batch.stock_changes["tea", "s"].option == "small"
    assert batch.stock_changes["tea", "s"].received == 0


def test_an_adjustment_changes_what_was_received_and_what_is_available() -> None:
    batch = _fold(
        _event("stock.adjusted", product="tea", stock="s", delta=-3, available=7, reason="lost", key="", fingerprint="")
    )

    assert (batch.stock_changes["tea", "s"].received, batch.stock_changes["tea", "s"].available) == (-3, -3)
    assert batch.stock_adjustments == [("3", "1", "tea", "s", "-3", "7", "lost", MOMENT)]


@pytest.mark.requirement("R4.8")
def test_issues_raise_the_campaigns_count() -> None:
    rule = {"kind": "percent", "value": 10, "minimum_order": "", "maximum_discount": 500}
    put = _event(
        "campaign.put", campaign="spring", name="봄", **rule, quantity=9, opens_at=AT, closes_at=AT, valid_days=7
    )
    issues = [
        _event(
            "coupon.issued",
            campaign="spring",
            user=f"u{number}",
            number=number,
            **rule,
            valid_days=7,
            key="",
            fingerprint="",
        )
        for number in (1, 2)
    ]
    batch = _fold(put, *issues)

    assert batch.campaign_issues == {"spring": ("spring", "2", "1-3")}
    assert [row[1:4] for row in batch.coupon_issues] == [("u1", "3", "1"), ("u2", "3", "2")]


def test_partitions_share_a_batch_and_keep_their_own_places() -> None:
    batch = RowBatch()
    read_events(batch, 1, 4, 10, _entries(_charged("ann"), epoch=4, after=10))
    read_events(batch, 2, 1, 0, _entries(_charged("bob"), _charged("bob", balance=10)))

    assert batch.cursors == {1: (4, 11), 2: (1, 2)}
    assert batch.events == 3


def test_an_entry_of_a_later_epoch_waits_for_the_recovery_that_ends_this_one() -> None:
    batch = RowBatch()
    with pytest.raises(LaterEpoch):
        read_events(batch, 0, 1, 0, [(b"1-1", _charged()), (b"2-2", _charged())])
    assert (batch.cursors, batch.times) == ({0: (1, 1)}, {0: 1763771400123})


@pytest.mark.parametrize("name", [b"1-3", b"1-1", b"0-2", b"1-02"])
def test_an_entry_that_does_not_follow_the_last_is_a_gap(name: bytes) -> None:
    batch = RowBatch()
    with pytest.raises(SequenceGap):
        read_events(batch, 0, 1, 0, [(b"1-1", _charged()), (name, _charged())])

    assert batch.cursors == {0: (1, 1)}, "what came before is taken in"


@pytest.mark.parametrize(
    "event",
    [
        _event("wallet.painted", user="ann"),
        _event("wallet.charged", v="3", user="a"),
        _before(_event("wallet.painted")),
        _event("wallet.painted", request="a\0b"),
        _event("wallet.painted", user=b"\xff"),
        [*_event("wallet.painted"), b"more", b"of it"],
        _event("wallet.charged", v="3", user=b"\xff"),
        [b"v", b"3", b"type", b"wallet.charged"],
    ],
)
def test_unknown_types_and_versions_are_told_apart_from_bad_events(event: list[bytes]) -> None:
    batch = RowBatch()
    with pytest.raises(UnknownEvent, match=r"type 'wallet\.(painted|charged)', version '[123]'"):
        read_events(batch, 0, 1, 0, _entries(_charged(), event, _charged()))

    assert batch.cursors == {0: (1, 1)}
    assert len(batch.ledger) == 1


_BAD = {
    "an amount that is no number": _charged(amount="five"),
    "no user": _charged(user=""),
    "a missing field": _event("wallet.charged", user="ann"),
    "a NUL in a field": _charged(user="a\0b"),
    "bytes that are not UTF-8": _event("wallet.charged", user=b"\xff", amount=1, balance=1),
    "a time that is no number": _event("wallet.charged", at="now", user="ann", amount=1, balance=1),
    "a field without a value": _charged()[:-1],
    "no type first": _charged()[2:],
    "half a field": _charged(f"ann{SEPARATOR}bob"),
    "a time out of all bounds": _event("wallet.charged", at=10**20, user="ann", amount=1, balance=1),
    "a field twice": _charged(f"ann{SEPARATOR}user{SEPARATOR}bob"),
    "a NUL in its request": _event("wallet.charged", request="a\0b", user="ann", amount=1, balance=1),
    "no data": _charged()[:8],
    "no data, as it was before": _before(_charged())[:6],
    "a NUL in a field, as it was before": [*_before(_charged())[:-1], b"a\0b"],
    "a field without a value, as it was before": _before(_charged())[:-1],
    "nothing": [],
    "lines that are not JSON": _order("order.placed", pay_before=AT, lines="["),
    "a line without a product": _order("order.placed", pay_before=AT, lines="[{}]"),
    "a NUL in a line": _order("order.placed", pay_before=AT, lines=orjson.dumps([_line(name="a\0b")]).decode()),
    "half a surrogate in a line": _order(
        "order.placed", pay_before=AT, lines=orjson.dumps([_line(name="NAME")]).decode().replace("NAME", "\\ud800")
    ),
    "a status that there is not": _checked_out("perhaps"),
    "units of nothing": _reserved(lines=""),
    "units below one": _reserved(lines="tea:s:0"),
    "a day that is none": _event("stock.confirmed", orders=ORDER, day="today", lines="tea:s:1"),
    "an order twice": _event("stock.confirmed", orders=f"{ORDER},{ORDER}", day="20251122", lines="tea:s:2"),
    "no order among others": _event("stock.confirmed", orders=f"{ORDER},", day="20251122", lines="tea:s:2"),
    "an added stock item that is not put": _event("product.put", product="p", name="n", price=1, stock="[]", added="s"),
    "a rule of too few parts": _order("order.placed", pay_before=AT, coupon="c", rule="spring,7"),
}


@pytest.mark.parametrize("event", _BAD.values(), ids=_BAD.keys())
def test_a_bad_event_leaves_nothing_in_the_batch(event: list[bytes]) -> None:
    batch, same = RowBatch(), RowBatch()
    read_events(same, 0, 1, 0, _entries(_charged()))

    with pytest.raises(UnreadableEvent):
        read_events(batch, 0, 1, 0, _entries(_charged(), event))

    assert batch == same


@pytest.mark.parametrize("with_request", [True, False])
def test_what_an_earlier_release_wrote_is_read_as_what_this_one_writes(with_request: bool) -> None:
    events = [_charged(), _placed(), _paid(), _reserved(), _charged("bob")]

    assert _fold(*(_before(event, with_request=with_request) for event in events)) == _fold(*events)


@pytest.mark.parametrize("again", [_paid(), _failed()])
def test_an_order_finishes_once(again: list[bytes]) -> None:
    with pytest.raises(UnreadableEvent, match=r"already|before"):
        _fold(_placed(), _paid(), again)
    with pytest.raises(UnreadableEvent, match=r"already|before"):
        _fold(_paid(), again)


def test_a_reservation_finishes_once() -> None:
    confirmed = _event("stock.confirmed", orders=ORDER, day="20251122", lines="tea:s:2")
    with pytest.raises(UnreadableEvent, match="already"):
        _fold(_reserved(), confirmed, confirmed)
    with pytest.raises(UnreadableEvent, match="before"):
        _fold(confirmed, confirmed)


def test_fields_in_another_order_or_more_of_them_are_read_by_name() -> None:
    batch = _fold(_event("wallet.charged", balance=5, note="x", user="ann", amount=5), _charged(balance=10))

    assert batch.wallets == {"ann": ["3", "10", NULL, NULL, "1-2"]}


def test_every_event_of_the_scripts_is_known() -> None:
    from engine.scripts import load_scripts  # noqa: PLC0415

    written = {event for script in load_scripts().values() for event in script.head.events}
    assert written <= EVENT_TYPES


# --- COPY text ---

_CELL = st.one_of(
    st.just(NULL),
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.sampled_from(["", "\\N", "\\", "\t", "\n", "\r\n", "'\"", "한국어", "🛒", "\\.", "a\\tb", "\x01", " x "]),
)


def _read_copy(data: bytes) -> list[list[str]]:
    """PostgreSQL's own rules for the text format, the other way round."""
    plain = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
    lines = data.decode().split("\n")
    assert lines.pop() == ""
    read = []
    for line in lines:
        cells = []
        for cell in line.split("\t"):
            out, rest = "", cell
            while rest:
                size = 2 if rest[0] == "\\" else 1
                out, rest = out + plain.get(rest[:size], rest[:size]), rest[size:]
            cells.append(NULL if cell == "\\N" else out)
        read.append(cells)
    return read


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(_CELL, min_size=width, max_size=width), min_size=1)))
def test_rows_come_out_of_copy_text_as_they_went_in(rows: list[list[str]]) -> None:
    assert _read_copy(copy_text(rows)) == rows


def test_no_rows_are_no_data() -> None:
    assert copy_text([]) == b""
