"""The types of the surface: what they take and what they refuse."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api import schemas
from api.examples import EXAMPLES
from api.operations import PATH_PARAMETERS, PathParameter

LINE = {"product_id": "shirt", "stock_id": "M", "quantity": 1}
PRODUCT = {"name": "셔츠", "price": 1, "stock": [{"stock_id": "M", "option": "M", "initial_quantity": 0}]}
CAMPAIGN = {
    "name": "Spring",
    "discount": {"kind": "percent", "value": 10},
    "quantity": 1,
    "opens_at": "2026-03-02T10:00:00Z",
    "closes_at": "2026-03-02T10:00:00.001Z",
    "valid_days": 1,
}


def read(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"amount": -(2**53) + 1}, schemas.ChargeRequest),
        ({"lines": [LINE]}, schemas.OrderRequest),
        ({"lines": [{"product_id": "a~b|c@d._-", "quantity": 2**53 - 1, "stock_id": None}]}, schemas.OrderRequest),
        ({}, schemas.NothingRequest),
        (PRODUCT, schemas.ProductRequest),
        (CAMPAIGN, schemas.CampaignRequest),
        ({"delta": -1, "reason": "broken"}, schemas.AdjustmentRequest),
    ],
)
def test_a_request_as_specified_is_taken(value: Any, kind: Any) -> None:
    assert isinstance(read(value, kind), kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"amount": 2**53}, schemas.ChargeRequest),
        ({"amount": 1, "currency": "KRW"}, schemas.ChargeRequest),
        ({"lines": []}, schemas.OrderRequest),
        ({"lines": [{**LINE, "quantity": 0}]}, schemas.OrderRequest),
        ({"lines": [{**LINE, "quantity": -1}]}, schemas.OrderRequest),
        ({"lines": [{**LINE, "quantity": 1.0}]}, schemas.OrderRequest),
        ({"lines": [{**LINE, "quantity": True}]}, schemas.OrderRequest),
        ({"lines": [{**LINE, "product_id": ""}]}, schemas.OrderRequest),
        ({"lines": [{**LINE, "product_id": "a\n"}]}, schemas.OrderRequest),
        ({"lines": [{**LINE, "product_id": "a,b"}]}, schemas.OrderRequest),
        ({"lines": [{**LINE, "product_id": "a:b"}]}, schemas.OrderRequest),
        ({"lines": [{**LINE, "stock_id": "x" * 65}]}, schemas.OrderRequest),
        ({"nothing": None}, schemas.NothingRequest),
        ({**PRODUCT, "price": -1}, schemas.ProductRequest),
        ({**PRODUCT, "name": ""}, schemas.ProductRequest),
        ({**PRODUCT, "name": "  "}, schemas.ProductRequest),
        ({**PRODUCT, "name": "a\x00b"}, schemas.ProductRequest),
        ({**PRODUCT, "name": "a\n"}, schemas.ProductRequest),
        ({**PRODUCT, "name": "가" * 201}, schemas.ProductRequest),
        ({**PRODUCT, "stock": []}, schemas.ProductRequest),
        ({**PRODUCT, "stock": PRODUCT["stock"] * 2}, schemas.ProductRequest),  # type: ignore[operator]
        ({**CAMPAIGN, "closes_at": CAMPAIGN["opens_at"]}, schemas.CampaignRequest),
        ({**CAMPAIGN, "opens_at": "2026-02-30T10:00:00Z"}, schemas.CampaignRequest),
        ({**CAMPAIGN, "opens_at": 0}, schemas.CampaignRequest),
        ({**CAMPAIGN, "quantity": 0}, schemas.CampaignRequest),
        ({**CAMPAIGN, "discount": {"kind": "percent", "value": 101}}, schemas.CampaignRequest),
        ({**CAMPAIGN, "discount": {"kind": "amount", "value": 0}}, schemas.CampaignRequest),
        ({**CAMPAIGN, "discount": {"kind": "gift", "value": 1}}, schemas.CampaignRequest),
        ({"delta": 0, "reason": "none"}, schemas.AdjustmentRequest),
        ({"delta": 1}, schemas.AdjustmentRequest),
    ],
)
def test_a_request_that_is_not_as_specified_is_refused(value: Any, kind: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(value, kind)


def test_an_absent_value_is_null_and_not_left_out() -> None:
    for examples in EXAMPLES.values():
        for shown in examples:
            encoded = msgspec.json.decode(msgspec.json.encode(shown.answer))
            assert len(encoded) == len(shown.answer.__struct_fields__)
            assert read(shown.answer, type(shown.answer)) == shown.answer


def test_best_sellers_begin_from_a_day() -> None:
    answer = schemas.BestSellers(from_="2026-03-01", to="2026-03-02", time_zone="Asia/Seoul", items=[])
    assert msgspec.to_builtins(answer)["from"] == "2026-03-01"


@pytest.mark.parametrize("parameter", PATH_PARAMETERS.values(), ids=PATH_PARAMETERS)
@given(text=st.text(max_size=70) | st.text(alphabet=schemas.ID_CHARACTERS, max_size=130) | st.text("0123456789:,-"))
@example(text=".")
@example(text="..")
@example(text="...")
def test_an_id_in_a_path_is_what_its_type_says(parameter: PathParameter, text: str) -> None:
    """The quick check by characters and the published pattern are one rule."""
    try:
        msgspec.convert(text, parameter.type)
        typed = True
    except msgspec.ValidationError:
        typed = False
    assert parameter.allows(text) == typed


def test_a_cursor_may_be_any_base64url() -> None:
    assert msgspec.convert("Ab0_-=", schemas.Cursor) == "Ab0_-="
