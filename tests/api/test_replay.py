"""`firstcome replay` against a shop in processes of its own: what it prints is compared with what the file holds."""

import csv
import gzip
import itertools
import os
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from api.commands.api import program
from api.commands.data_folder import Addresses
from tests.running_shop import RunningShop
from tests.servers import Databases
from tests.shop_servers import opened_shop

HEADER = ["Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country"]
DIRT = [
    ["C1", "R-1", "GLASS BALL", "-2", "2009-12-01 08:00:00", "1.25", "9001", "France"],
    ["900", "R-1", "GLASS BALL", "2", "2009-12-01 08:00:00", "1.25", "", "France"],
    ["901", "R-1", "GLASS BALL", "2", "2009-12-01 08:00:00", "0", "9001", "France"],
    ["902", "R-1", "damaged", "-7", "2009-12-01 08:00:00", "1.25", "9001", "France"],
    ["903", "R-1", "GLASS BALL", "two", "2009-12-01 08:00:00", "1.25", "9001", "France"],
]
# The whole month, or any other file of the data set, where there is one.
REAL_FILE = os.environ.get("FIRSTCOME_REPLAY_FILE")
PART_LINES = 3_000


def write_orders(path: Path, prefix: str, *, customers: int = 12, invoices: int = 40, seed: int = 1) -> Path:
    """A file of random sales, the same for the same seed, with lines between them that are no sale."""
    dice = random.Random(seed)
    rows = []
    for number in range(invoices):
        customer = 9000 + dice.randrange(customers)
        for _ in range(dice.randint(1, 6)):
            code = f"{prefix}-{dice.randrange(9)}"
            code, price = dice.choice([code, code.lower()]), f"{dice.choice([125, 125, 85]) / 100:.2f}"
            rows.append(
                [str(700 + number), code, "BALL", str(dice.randint(1, 30)), "2009-12-01", price, customer, "UK"]
            )
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows, *DIRT])
    return path


def replay(shop: RunningShop, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user does, with both stores to look into."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTCOME_")}
    stores = {"FIRSTCOME_REDIS_URL": shop.redis_url, "FIRSTCOME_DATABASE_URL": shop.database_url, "COLUMNS": "200"}
    urls = itertools.chain.from_iterable(("--url", shop.url(number)) for number in range(shop.api_count))
    return subprocess.run(
        [*program(), "replay", str(file), *urls, *arguments],
        env={**inherited, **stores},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


def counts(output: str) -> Counter[str]:
    """The rows of the printed tables that are a name and one number."""
    return Counter(
        {name: int(n.replace(",", "")) for name, n in re.findall(r"^│ (\S.*?) +│ +([\d,]+) │$", output, re.M)}
    )


def refused(output: str) -> int:
    return sum(count for name, count in counts(output).items() if name.startswith("refused"))


def assert_agrees(result: subprocess.CompletedProcess[str], invoices: int) -> None:
    assert result.returncode == 0, result.stdout + result.stderr
    assert "The books agree." in result.stdout
    assert "differs" not in result.stdout
    for store in ("Redis", "PostgreSQL"):
        assert f"{store}: units sold" in result.stdout
    assert counts(result.stdout)["completed"] + refused(result.stdout) == invoices


@pytest.mark.requirement("R0.3", "R3.1", "R5.1")
def test_every_invoice_is_sold_again_and_again_and_the_books_agree(shop: RunningShop, tmp_path: Path) -> None:
    file = write_orders(tmp_path / "orders.csv.gz", "A")
    for _ in range(2):
        result = replay(shop, file)
        assert_agrees(result, invoices=40)
        assert counts(result.stdout)["completed"] == 40
    skipped = {name: count for name, count in counts(result.stdout).items() if name.startswith("skipped")}
    assert skipped == {
        "skipped: cancellation": 1,
        "skipped: no customer": 1,
        "skipped: zero price": 1,
        "skipped: quantity not positive": 1,
        "skipped: unreadable": 1,
    }


@pytest.mark.requirement("R0.3", "R0.4", "R3.4", "R3.16")
def test_with_too_little_stock_and_money_invoices_are_refused_and_the_books_agree(
    shop: RunningShop, tmp_path: Path
) -> None:
    result = replay(shop, write_orders(tmp_path / "orders.csv.gz", "B"), "--stock", "0.5", "--balance", "0.8")
    assert_agrees(result, invoices=40)
    reasons = counts(result.stdout)
    assert reasons["refused: out-of-stock"] > 0
    assert reasons["refused: insufficient-balance"] > 0


def test_a_data_folder_tells_where_everything_is(shop: RunningShop, tmp_path: Path) -> None:
    file = write_orders(tmp_path / "orders.csv.gz", "C", invoices=3)
    Addresses(os.getpid(), shop.url(), shop.redis_url, shop.database_url).write(tmp_path)
    result = subprocess.run(
        [*program(), "replay", str(file), "--data", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert_agrees(result, invoices=3)


def test_what_is_never_settled_is_a_difference(shop: RunningShop, tmp_path: Path) -> None:
    """Without its worker a shop sells, but nothing becomes durable and no sale counts."""
    file = write_orders(tmp_path / "orders.csv.gz", "D", invoices=3)
    for worker in shop.workers:
        worker.signal(signal.SIGSTOP)
    try:
        result = replay(shop, file, "--settle", "1")
    finally:
        for worker in shop.workers:
            worker.signal(signal.SIGCONT)
    assert result.returncode == 1
    assert "the books do not agree 1 s after the last answer" in result.stderr
    assert "differs" in result.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["a,b,c"], "not a file of Online Retail II"),
        ([",".join(HEADER), "1,A B,x,1,d,1,1,UK", "1,A/B,x,1,d,1,1,UK"], "would both get the id 'A_B'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_before_anything_happens(
    tmp_path: Path, content: Iterable[str], message: str
) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("\n".join(content))
    command = [*program(), "replay", str(file), "--url", "http://127.0.0.1:9"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert message in result.stderr


@pytest.mark.skipif(REAL_FILE is None, reason="FIRSTCOME_REPLAY_FILE names no file")
def test_a_part_of_the_real_orders_agrees(shop: RunningShop, tmp_path: Path) -> None:
    assert REAL_FILE is not None
    part = tmp_path / "part.csv"
    content = Path(REAL_FILE).read_bytes()
    if REAL_FILE.endswith(".gz"):
        content = gzip.decompress(content)
    part.write_bytes(b"\n".join(content.splitlines()[: 1 + PART_LINES]))
    for factors in (("1", "1"), ("0.5", "0.8")):
        result = replay(shop, part, "--stock", factors[0], "--balance", factors[1])
        assert_agrees(result, invoices=invoice_count(result.stdout))


@pytest.mark.soak
@pytest.mark.skipif(REAL_FILE is None, reason="FIRSTCOME_REPLAY_FILE names no file")
@pytest.mark.parametrize(("processes", "stock", "balance"), [(1, "1", "1"), (1, "0.5", "0.8"), (2, "1", "1")])
def test_all_real_orders_agree(databases: Databases, processes: int, stock: str, balance: str) -> None:
    """Through so many APIs and workers."""
    assert REAL_FILE is not None
    with opened_shop(databases, api_count=processes, worker_count=processes) as shop:
        result = replay(shop, Path(REAL_FILE), "--stock", stock, "--balance", balance, "--settle", "120")
        assert_agrees(result, invoices=len(sales_invoices(Path(REAL_FILE))))
        if (stock, balance) == ("1", "1"):
            assert refused(result.stdout) == 0
        else:
            assert counts(result.stdout)["refused: out-of-stock"] > 0
            assert counts(result.stdout)["refused: insufficient-balance"] > 0
        shop.assert_conserved()


def sales_invoices(path: Path) -> set[str]:
    """The invoices that hold a sale, as this test reads the file."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
        return {
            row["Invoice"]
            for row in csv.DictReader(file)
            if not row["Invoice"].startswith("C")
            and row["Customer ID"]
            and int(row["Quantity"]) > 0
            and float(row["Price"]) > 0
        }


def invoice_count(output: str) -> int:
    """How many sales invoices the command found in its file."""
    found = re.search(r"^([\d,]+) sales invoices of", output, re.M)
    assert found is not None, output
    return int(found[1].replace(",", ""))
