"""What is asked: the paths of the benchmark, and the requests that each is made of.

A template's `<n>` is a number that is never used twice, `<user>` one of the charged users at random, `<product>` and
`<other>` two different products at random. `requests.lua` and `python_load` fill them in alike.
"""

from dataclasses import dataclass

USERS = 20_000
PRODUCTS = 1_000
CHARGED = 10_000_000
PRICE = 1_000
CAMPAIGN = "opening"
READ_RATE = 500
"""How often a second the best sellers are asked for, to see how long one answer takes where nothing is at its limit."""

EXHAUSTED = "gone"
"""A campaign of which nothing is left."""


@dataclass(frozen=True, slots=True)
class Path:
    """One kind of request. ``accepts``: what counts as accepted, coupons or orders; None for what changes nothing."""

    name: str
    title: str
    method: str
    path: str
    body: str = ""
    accepts: str | None = None
    refusal: str = ""
    """The problem that every answer is to be; nothing where none is to be one."""
    header: str = ""
    """A header of its own, as it stands in a request."""


def _line(product: str) -> str:
    return f'{{"product_id":"{product}","stock_id":"one","quantity":1}}'


def _cart(*products: str) -> str:
    return f'{{"lines":[{",".join(map(_line, products))}]}}'


_CHECKOUT = "/v1/users/user-<user>/checkout"

CHARGE = Path(
    "charge", "charge", "POST", "/v1/users/user-<n>/balance/charges", f'{{"amount":{CHARGED}}}', accepts="charges"
)
COUPON = Path(
    "coupon", "coupon issue", "POST", "/v1/users/rush-<n>/coupons", f'{{"campaign_id":"{CAMPAIGN}"}}', accepts="coupons"
)
COUPON_DURABLE = Path(
    "coupon-durable", "coupon issue, answered when in PostgreSQL", "POST", COUPON.path, COUPON.body,
    accepts="coupons", header="Prefer: durable",
)  # fmt: skip
COUPON_GONE = Path(
    "coupon-gone", "coupon, none left", "POST", "/v1/users/late-<n>/coupons", f'{{"campaign_id":"{EXHAUSTED}"}}',
    refusal="coupons-exhausted",
)  # fmt: skip
CHECKOUT = Path(
    "checkout", "checkout, two of 1,000 products", "POST", _CHECKOUT, _cart("product-<product>", "product-<other>"),
    accepts="orders",
)  # fmt: skip
CHECKOUT_HOT = Path(
    "checkout-hot", "checkout, all want one product", "POST", _CHECKOUT, _cart("hot", "product-<product>"),
    accepts="orders",
)  # fmt: skip
CHECKOUT_GONE = Path(
    "checkout-gone", "checkout, sold out", "POST", _CHECKOUT, _cart("gone-1", "gone-2"), refusal="out-of-stock"
)
PRODUCT = Path("product", "product detail", "GET", "/v1/products/product-<product>")
BALANCE = Path("balance", "balance", "GET", "/v1/users/user-<user>/balance")
BEST_SELLERS = Path("best-sellers", "best sellers", "GET", "/v1/best-sellers")

COMPARED = (COUPON, CHECKOUT, CHECKOUT_HOT)
"""What the baselines serve too."""
ALL = (*COMPARED, COUPON_DURABLE, COUPON_GONE, CHECKOUT_GONE, PRODUCT, BALANCE, BEST_SELLERS)


def product_ids(products: int) -> list[str]:
    """Every product with stock: the one that all want, and so many others."""
    return ["hot", *(f"product-{number}" for number in range(products))]


GONE = ("gone-1", "gone-2")
"""Products without stock."""
