"""Orders in the format of the UCI data set "Online Retail II", read into what a shop needs to take them again.

The files come as they were kept by a real wholesaler, dirt included. Each line is either a part of a sale or is counted
under the first reason that makes it none, so that the counts always add up to the lines read. Nothing here knows of the
shop.
"""

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

# The columns by meaning; the second spelling is that of the first edition of the data set.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "invoice": ("Invoice", "InvoiceNo"),
    "code": ("StockCode",),
    "description": ("Description",),
    "quantity": ("Quantity",),
    "price": ("Price", "UnitPrice"),
    "customer": ("Customer ID", "CustomerID"),
}
NAME_LENGTH_MAX = 200
ID_LENGTH_MAX = 64
# Far above any real line; below it, sums of whole files stay well inside the integers that JSON carries exactly.
QUANTITY_MAX = 10**9
PRICE_PENCE_MAX = 10**12

_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._~@|-]")
_WHOLE_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_SPACES = re.compile(r"[\s\x00-\x1f\x7f]+")

Vote = TypeVar("Vote", int, str)


class SkipReason(StrEnum):
    """Why a line is no sale. A line counts under the first that holds, in this order."""

    UNREADABLE = "unreadable"
    CANCELLATION = "cancellation"
    NO_CUSTOMER = "no customer"
    ZERO_PRICE = "zero price"
    QUANTITY_NOT_POSITIVE = "quantity not positive"


class UnusableFile(Exception):
    """The file cannot be replayed as a whole."""


class NotOnlineRetail(UnusableFile):
    """The first line does not name the columns of the data set."""


class CollidingIds(UnusableFile):
    """Two different codes become one id when the characters that an id may not have are replaced."""


@dataclass(frozen=True, slots=True)
class Product:
    """What is sold: `price` in pence, `quantity` the units that all invoices together take."""

    product_id: str
    name: str
    price: int
    quantity: int


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """All of one product in an invoice."""

    product_id: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """One sale to one customer, its lines in the order in which their products first appear."""

    invoice_id: str
    customer_id: str
    lines: tuple[InvoiceLine, ...]


@dataclass(frozen=True, slots=True)
class Sales:
    """A whole file. `lines_read = sale_lines + sum(skipped.values())`; products and invoices stand in file order."""

    products: tuple[Product, ...]
    invoices: tuple[Invoice, ...]
    lines_read: int
    sale_lines: int
    skipped: Mapping[SkipReason, int]


@dataclass(frozen=True, slots=True)
class SaleLine:
    """One line of the file that is a sale; `code` in upper case, `price` in pence."""

    invoice: str
    customer: str
    code: str
    description: str
    quantity: int
    price: int


def read_file(path: Path) -> Sales:
    """Reads a csv file, gzipped or not (told by its first bytes, not by its name). Raises UnusableFile, OSError."""
    with _open_text(path) as text:
        return read_sales(text)


def read_sales(text: Iterable[str]) -> Sales:
    """Reads the lines of a csv file, the header first, one at a time. Raises UnusableFile."""
    records = _records(text)
    columns = _find_columns(next(records, None))
    catalogue = _Catalogue()
    customers = _Ids("customers", prefix="customer-")
    invoices: dict[tuple[str, str], dict[str, int]] = {}
    skipped: Counter[SkipReason] = Counter()
    lines_read = sale_lines = 0
    for record in records:
        lines_read += 1
        line = read_line(record, columns)
        if isinstance(line, SkipReason):
            skipped[line] += 1
            continue
        sale_lines += 1
        product_id = catalogue.add(line)
        quantities = invoices.setdefault((line.invoice, customers.of(line.customer)), {})
        quantities[product_id] = quantities.get(product_id, 0) + line.quantity
    return Sales(
        products=catalogue.products(),
        invoices=tuple(
            Invoice(invoice_id, customer_id, tuple(InvoiceLine(*line) for line in quantities.items()))
            for (invoice_id, customer_id), quantities in invoices.items()
        ),
        lines_read=lines_read,
        sale_lines=sale_lines,
        skipped={reason: skipped[reason] for reason in SkipReason},
    )


def read_line(record: list[str] | None, columns: Mapping[str, int]) -> SaleLine | SkipReason:
    """Tells what one record is; `columns` gives the index of each field, `None` is a record that csv could not read."""
    if record is None or len(record) <= max(columns.values()):
        return SkipReason.UNREADABLE
    value = {name: record[index].strip() for name, index in columns.items()}
    quantity, price = whole_number(value["quantity"]), pence(value["price"])
    if not value["invoice"] or not 0 < len(value["code"]) <= ID_LENGTH_MAX or quantity is None or price is None:
        return SkipReason.UNREADABLE
    if value["invoice"].upper().startswith("C"):
        return SkipReason.CANCELLATION
    if not value["customer"]:
        return SkipReason.NO_CUSTOMER
    if price <= 0:
        return SkipReason.ZERO_PRICE
    if quantity <= 0:
        return SkipReason.QUANTITY_NOT_POSITIVE
    customer = _WHOLE_NUMBER.fullmatch(value["customer"])  # spreadsheets export 13085 as 13085.0
    return SaleLine(
        invoice=value["invoice"],
        customer=customer[1] if customer else value["customer"],
        code=value["code"].upper(),
        description=_SPACES.sub(" ", value["description"])[:NAME_LENGTH_MAX].strip(),
        quantity=quantity,
        price=price,
    )


def whole_number(text: str) -> int | None:
    """`"12"`, `"-3"` and `"12.0"` as an integer; anything else, or beyond QUANTITY_MAX, is None."""
    match = _WHOLE_NUMBER.fullmatch(text)
    if match is None or len(match[1]) > 12:
        return None
    number = int(match[1])
    return number if abs(number) <= QUANTITY_MAX else None


def pence(pounds: str) -> int | None:
    """`"6.95"` as 695, fractions of a penny rounded, a half upwards; no number, or beyond PRICE_PENCE_MAX, is None."""
    try:
        amount = Decimal(pounds)
    except InvalidOperation:
        return None
    if not amount.is_finite() or abs(amount) > PRICE_PENCE_MAX / 100:
        return None
    return int((amount * 100).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def to_id(code: str) -> str:
    """The code with each character that an id may not have replaced by `_`."""
    new = _NOT_IN_AN_ID.sub("_", code)
    # A path segment of one dot or two leads elsewhere.
    return new.replace(".", "_") if new in {".", ".."} else new


class _Ids:
    """Gives each code its id and refuses a second code for the same id."""

    def __init__(self, kind: str, prefix: str = "") -> None:
        self._kind, self._prefix = kind, prefix
        self._ids: dict[str, str] = {}
        self._codes: dict[str, str] = {}

    def of(self, code: str) -> str:
        known = self._ids.get(code)
        if known is not None:
            return known
        new = self._prefix + to_id(code)
        if len(new) > ID_LENGTH_MAX:
            raise UnusableFile(f"{new!r} has {len(new)} characters; an id has at most {ID_LENGTH_MAX}")
        other = self._codes.setdefault(new, code)
        if other != code:
            raise CollidingIds(f"the {self._kind} {other!r} and {code!r} would both get the id {new!r}")
        self._ids[code] = new
        return new


@dataclass(slots=True)
class _Votes:
    """What the lines of one product say of it."""

    prices: Counter[int] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    quantity: int = 0


class _Catalogue:
    """Collects products from their lines."""

    def __init__(self) -> None:
        self._ids = _Ids("stock codes")
        self._votes: dict[str, _Votes] = {}

    def add(self, line: SaleLine) -> str:
        product_id = self._ids.of(line.code)
        votes = self._votes.setdefault(product_id, _Votes())
        votes.prices[line.price] += 1
        if line.description:
            votes.names[line.description] += 1
        votes.quantity += line.quantity
        return product_id

    def products(self) -> tuple[Product, ...]:
        return tuple(
            Product(
                product_id=product_id,
                name=_most_frequent(votes.names) if votes.names else product_id,
                price=_most_frequent(votes.prices),
                quantity=votes.quantity,
            )
            for product_id, votes in self._votes.items()
        )


def _most_frequent(votes: Counter[Vote]) -> Vote:
    """The value with the most votes; of several, the smallest, so that the order of the lines does not matter."""
    return min(votes, key=lambda value: (-votes[value], value))


def _find_columns(header: list[str] | None) -> dict[str, int]:
    places = {name.strip().lower(): index for index, name in enumerate(header or [])}
    columns = {
        meaning: places[spelling.lower()]
        for meaning, spellings in COLUMNS.items()
        for spelling in spellings
        if spelling.lower() in places
    }
    missing = [spellings[0] for meaning, spellings in COLUMNS.items() if meaning not in columns]
    if missing:
        raise NotOnlineRetail(f"the first line names no column {', '.join(missing)}: not a file of Online Retail II")
    return columns


def _records(text: Iterable[str]) -> Iterator[list[str] | None]:
    """The csv records, each of one line; None for each line that csv gives up on (a field of over 128 KiB), or that an
    unclosed quote has made a part of another's, so that no line is lost."""
    reader = csv.reader(text)
    lines_before = 0
    while True:
        record: list[str] | None = None
        try:
            record = next(reader)
        except csv.Error:
            pass
        except StopIteration:
            return
        lines = reader.line_num - lines_before
        lines_before = reader.line_num
        if lines == 1:
            yield record
        else:
            yield from [None] * lines


@contextmanager
def _open_text(path: Path) -> Iterator[Iterable[str]]:
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        content = stack.enter_context(gzip.open(file)) if gzipped else file
        # Copies in the encoding of old spreadsheets exist: a pound sign in a name must not stop the reading.
        text = io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace", newline="")
        try:
            yield stack.enter_context(text)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UnusableFile(f"{path} is not whole: {error}") from error
