"""Reading of orders in the format of Online Retail II: every sort of dirt that the real files hold, by hand."""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.commands.online_retail import (
    CollidingIds,
    Invoice,
    InvoiceLine,
    NotOnlineRetail,
    Product,
    Sales,
    SkipReason,
    UnusableFile,
    pence,
    read_file,
    read_sales,
    to_id,
    whole_number,
)

HEADER = ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country"]


def line(
    *,
    invoice: str = "489434",
    code: str = "85048",
    description: str = "GLASS BALL",
    quantity: object = 12,
    price: object = "6.95",
    customer: object = "13085",
) -> list[str]:
    return [
        invoice,
        code,
        description,
        str(quantity),
        "2009-12-01 07:45:00",
        str(price),
        str(customer),
        "United Kingdom",
    ]


def read(*lines: Sequence[str], header: Sequence[str] = HEADER) -> Sales:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *lines])
    return read_sales(text.getvalue().splitlines(keepends=True))


def skipped(sales: Sales) -> dict[SkipReason, int]:
    return {reason: count for reason, count in sales.skipped.items() if count}


def test_a_sale_becomes_a_product_and_an_invoice() -> None:
    sales = read(line())
    assert sales.products == (Product("85048", "GLASS BALL", price=695, quantity=12),)
    assert sales.invoices == (Invoice("489434", "customer-13085", (InvoiceLine("85048", 12),)),)
    assert (sales.lines_read, sales.sale_lines, skipped(sales)) == (1, 1, {})


@pytest.mark.parametrize(
    ("dirty", "reason"),
    [
        (line(invoice="C489449", quantity=-12), SkipReason.CANCELLATION),
        (line(invoice="c489449"), SkipReason.CANCELLATION),
        (line(customer=""), SkipReason.NO_CUSTOMER),
        (line(customer="   "), SkipReason.NO_CUSTOMER),
        (line(price="0"), SkipReason.ZERO_PRICE),
        (line(price="0.00"), SkipReason.ZERO_PRICE),
        (line(price="0.004"), SkipReason.ZERO_PRICE),
        (line(price="-11062.06"), SkipReason.ZERO_PRICE),
        (line(quantity=0), SkipReason.QUANTITY_NOT_POSITIVE),
        (line(quantity=-3), SkipReason.QUANTITY_NOT_POSITIVE),
        (line(quantity="a dozen"), SkipReason.UNREADABLE),
        (line(quantity="1.5"), SkipReason.UNREADABLE),
        (line(quantity=""), SkipReason.UNREADABLE),
        (line(quantity="9" * 30), SkipReason.UNREADABLE),
        (line(price="free"), SkipReason.UNREADABLE),
        (line(price="NaN"), SkipReason.UNREADABLE),
        (line(price="Infinity"), SkipReason.UNREADABLE),
        (line(price="1e400"), SkipReason.UNREADABLE),
        (line(code=""), SkipReason.UNREADABLE),
        (line(code="X" * 65), SkipReason.UNREADABLE),
        (line(invoice=""), SkipReason.UNREADABLE),
        (["489434", "85048", "GLASS BALL"], SkipReason.UNREADABLE),
        ([], SkipReason.UNREADABLE),
        (line(description="x" * (csv.field_size_limit() + 1)), SkipReason.UNREADABLE),
    ],
)
def test_a_line_that_is_no_sale_is_counted_by_its_reason_and_skipped(dirty: list[str], reason: SkipReason) -> None:
    sales = read(line(), dirty, line(invoice="489435"))
    assert skipped(sales) == {reason: 1}
    assert (sales.lines_read, sales.sale_lines, len(sales.invoices)) == (3, 2, 2)


def test_a_line_with_several_faults_counts_once_under_the_first() -> None:
    sales = read(line(invoice="C1", quantity=-1, price="0", customer=""), line(quantity=-1, price="0", customer=""))
    assert skipped(sales) == {SkipReason.CANCELLATION: 1, SkipReason.NO_CUSTOMER: 1}


def test_codes_that_differ_only_by_case_are_one_product() -> None:
    sales = read(line(code="85123a", quantity=1), line(code="85123A", quantity=2, invoice="489435"))
    assert [(product.product_id, product.quantity) for product in sales.products] == [("85123A", 3)]


def test_repeated_lines_of_a_product_in_an_invoice_add_up() -> None:
    sales = read(line(quantity=1), line(code="22041", quantity=5), line(quantity=2))
    assert sales.invoices[0].lines == (InvoiceLine("85048", 3), InvoiceLine("22041", 5))


def test_characters_that_an_id_may_not_have_become_an_underscore() -> None:
    sales = read(line(code="bank charges"), line(code="gift/20£"))
    assert [product.product_id for product in sales.products] == ["BANK_CHARGES", "GIFT_20_"]


@pytest.mark.parametrize("code", [".", ".."])
def test_a_code_that_no_path_can_hold_becomes_underscores(code: str) -> None:
    assert to_id(code) == "_" * len(code)


def test_control_characters_in_a_description_become_spaces() -> None:
    assert read(line(description="GLASS\x00\x07BALL")).products[0].name == "GLASS BALL"


def test_an_unclosed_quote_loses_no_line_of_those_it_swallows() -> None:
    text = ",".join(HEADER) + "\n" + ",".join(line()) + "\n"
    text += (
        '489435,85049,"A GLASS,1,2009-12-01 07:45:00,1,13085,UK\n' + ",".join(line()) + "\n" + ",".join(line()) + "\n"
    )

    sales = read_sales(text.splitlines(keepends=True))

    assert (sales.lines_read, sales.sale_lines, skipped(sales)) == (4, 1, {SkipReason.UNREADABLE: 3})


def test_two_codes_that_would_share_an_id_are_refused_by_name() -> None:
    with pytest.raises(CollidingIds, match=r"'GIFT 20' and 'GIFT/20' would both get the id 'GIFT_20'"):
        read(line(code="Gift 20"), line(code="Gift/20"))


def test_two_customers_that_would_share_an_id_are_refused_by_name() -> None:
    with pytest.raises(CollidingIds, match="customers"):
        read(line(customer="a b"), line(customer="a/b"))


def test_a_customer_number_that_a_spreadsheet_made_a_fraction_is_the_same_customer() -> None:
    sales = read(line(customer="13085.0"), line(customer="13085", code="22041"))
    assert [(invoice.customer_id, len(invoice.lines)) for invoice in sales.invoices] == [("customer-13085", 2)]


def test_a_customer_whose_id_would_be_too_long_is_refused() -> None:
    with pytest.raises(UnusableFile, match="at most 64"):
        read(line(customer="x" * 64))


def test_the_price_is_the_one_that_most_lines_have() -> None:
    sales = read(line(price="1.25"), line(price="1.25", quantity=1), line(price="0.85", quantity=5000))
    assert sales.products[0].price == 125


def test_of_prices_with_as_many_lines_each_the_lowest_holds_in_any_order() -> None:
    prices = ["2.10", "1.25", "3.75"]
    for order in (prices, prices[::-1]):
        assert read(*(line(price=price) for price in order)).products[0].price == 125


def test_the_name_is_the_most_frequent_description_and_the_code_where_there_is_none() -> None:
    sales = read(
        line(description="?"),
        line(description="  WHITE  CHERRY LIGHTS "),
        line(description="WHITE CHERRY LIGHTS"),
        line(code="22041", description=""),
    )
    assert [product.name for product in sales.products] == ["WHITE CHERRY LIGHTS", "22041"]


def test_invoices_stand_in_file_order_even_when_their_lines_are_mixed() -> None:
    sales = read(line(invoice="2"), line(invoice="1"), line(invoice="2", code="22041"))
    assert [(invoice.invoice_id, len(invoice.lines)) for invoice in sales.invoices] == [("2", 2), ("1", 1)]


def test_one_invoice_number_of_two_customers_is_two_sales() -> None:
    sales = read(line(customer="1"), line(customer="2"))
    assert [invoice.customer_id for invoice in sales.invoices] == ["customer-1", "customer-2"]


def test_the_column_names_of_the_first_edition_and_another_order_are_read() -> None:
    header = ["CustomerID", "UnitPrice", "Quantity", "Description", "StockCode", "InvoiceNo"]
    sales = read(["13085", "6.95", "12", "GLASS BALL", "85048", "489434"], header=header)
    assert sales.products == (Product("85048", "GLASS BALL", price=695, quantity=12),)


@pytest.mark.parametrize("header", [[], ["a", "b"], [name for name in HEADER if name != "StockCode"]])
def test_a_file_without_the_columns_is_refused(header: list[str]) -> None:
    with pytest.raises(NotOnlineRetail, match="StockCode"):
        read(header=header)


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(NotOnlineRetail):
        read_sales([])


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("6.95", 695),
        ("0.29", 29),
        ("1.005", 101),
        ("0.005", 1),
        ("10", 1000),
        ("-1.5", -150),
        ("", None),
        ("1,5", None),
    ],
)
def test_pounds_become_pence(text: str, amount: int | None) -> None:
    assert pence(text) == amount


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("-3", -3), ("12.0", 12), ("1.5", None), ("1e3", None)])
def test_quantities_are_whole(text: str, number: int | None) -> None:
    assert whole_number(text) == number


def test_plain_and_gzipped_files_with_a_byte_order_mark_read_alike(tmp_path: Path) -> None:
    content = "\r\n".join([",".join(HEADER), ",".join(line())]).encode("utf-8-sig")
    plain, packed = tmp_path / "orders.csv", tmp_path / "orders.data"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    assert read_file(plain) == read_file(packed) == read(line())


def test_a_file_in_an_old_encoding_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes("\n".join([",".join(HEADER), ",".join(line(description="£10 VOUCHER"))]).encode("latin-1"))
    assert read_file(path).products[0].name == "\ufffd10 VOUCHER"


def test_a_torn_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv.gz"
    path.write_bytes(gzip.compress("\n".join([",".join(HEADER)] + [",".join(line())] * 500).encode())[:-20])
    with pytest.raises(UnusableFile, match="not whole"):
        read_file(path)


codes = st.text(alphabet="aAbB9", min_size=1, max_size=2)
dirty_lines = st.builds(
    line,
    invoice=st.sampled_from(["1", "2", "C3", ""]),
    code=codes,
    description=st.sampled_from(["", "one", "another"]),
    quantity=st.one_of(st.integers(-2, 5), st.just("x")),
    price=st.sampled_from(["0", "1.25", "2.5", "?"]),
    customer=st.sampled_from(["", "1", "2.0"]),
)


@given(st.lists(dirty_lines, max_size=40))
def test_everything_adds_up_to_all_lines_read(lines: list[list[str]]) -> None:
    sales = read(*lines)
    assert sales.lines_read == len(lines) == sales.sale_lines + sum(sales.skipped.values())
    sold = Counter[str]()
    for invoice in sales.invoices:
        assert len({each.product_id for each in invoice.lines}) == len(invoice.lines)
        for each in invoice.lines:
            sold[each.product_id] += each.quantity
    assert sold == {product.product_id: product.quantity for product in sales.products}


@given(st.lists(dirty_lines, max_size=20), st.randoms(use_true_random=False))
def test_names_and_prices_do_not_depend_on_the_order_of_the_lines(lines: list[list[str]], random: object) -> None:
    shuffled = list(lines)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert set(read(*lines).products) == set(read(*shuffled).products)


@given(st.text(max_size=10))
def test_an_id_is_as_long_as_its_code_and_stays_as_it_is(code: str) -> None:
    assert len(to_id(code)) == len(code)
    assert to_id(to_id(code)) == to_id(code)
