"""Requests, answers and refusals that the FastAPI baselines share: those of Firstcome's own specification."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

LINES_MAX = 500
PAYMENT_MAX = 50_000_000
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._~@|-]{1,64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CouponRequest(_Strict):
    """Which campaign."""

    campaign_id: Id


class Line(_Strict):
    """Units of one stock item."""

    product_id: Id
    stock_id: Id
    quantity: Annotated[int, Field(ge=1, le=100_000)]


class OrderRequest(_Strict):
    """What to buy."""

    lines: Annotated[list[Line], Field(min_length=1, max_length=LINES_MAX)]
    coupon_id: Id | None = None

    def units(self) -> dict[tuple[str, str], int]:
        """Units by stock item, the same one given twice added up, in one order for all, so that locks cannot cross."""
        total: dict[tuple[str, str], int] = {}
        for line in self.lines:
            item = (line.product_id, line.stock_id)
            total[item] = total.get(item, 0) + line.quantity
        return dict(sorted(total.items()))


class Coupon(BaseModel):
    """An issued coupon."""

    coupon_id: str
    campaign_id: str
    issue_number: int
    state: str = "valid"
    value: int
    issued_at: datetime


class OrderLine(BaseModel):
    """A line with the price that holds."""

    product_id: str
    stock_id: str
    name: str
    unit_price: int
    quantity: int
    amount: int


class Order(BaseModel):
    """A paid order."""

    order_id: str
    user_id: str
    status: str = "completed"
    lines: list[OrderLine]
    total: int
    currency: str = "KRW"
    ordered_at: datetime


class Refused(Exception):
    """The shop says no; nothing was changed."""

    def __init__(self, status: int, problem: str, **members: Any) -> None:
        super().__init__(problem)
        self.status = status
        self.body = {"type": f"/problems/{problem}", "status": status, **members}


async def _answer_refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status, media_type="application/problem+json")


def make_app(**arguments: Any) -> FastAPI:
    """An application that answers refusals as problems, without what a benchmark does not ask for."""
    app = FastAPI(openapi_url=None, **arguments)
    app.add_exception_handler(Refused, _answer_refused)
    return app


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)
