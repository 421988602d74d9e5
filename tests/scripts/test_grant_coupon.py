from typing import Any

import pytest
import redis

from tests.scripts.partition import NOW, Partition, order_id

RULE: dict[str, Any] = {"number": 12, "kind": "percent", "value": 10, "minimum_order": 500, "maximum_discount": 300}
PACKED = f"free,spring,12,percent,10,500,300,{NOW},{NOW},{NOW + 1_000_000},,,1-1"


@pytest.mark.requirement("R4.2", "R4.4", "R4.5")
def test_a_coupon_is_put_among_the_users_with_its_rule_and_validity(partition: Partition) -> None:
    with partition.one_event(
        "coupon.granted", user="kim", coupon="kim-20270115-1", campaign="spring", issued_at=NOW, valid_from=NOW,
        valid_until=NOW + 1_000_000, coupon_number=1, at=NOW + 7, **RULE,
    ):  # fmt: skip
        reply = partition.run("grant_coupon", now_ms=NOW + 7, **RULE)
    assert reply == ["granted", "1-1", "kim-20270115-1", PACKED]
    assert partition.wallet() == {"coupon_number": "1", "seq": "1-1"}
    assert partition.hash(partition.keys.coupons(partition.index, "kim")) == {
        "kim-20270115-1": PACKED, "campaign:spring": "kim-20270115-1",
    }  # fmt: skip


@pytest.mark.requirement("R4.5")
def test_the_users_number_goes_on_over_days_and_campaigns(partition: Partition) -> None:
    assert partition.grant() == "kim-20270115-1"
    assert partition.grant(campaign="summer", issue_day="20270116") == "kim-20270116-2"
    assert partition.grant(campaign="summer", user="lee") == "lee-20270115-1"


def test_a_repeated_grant_answers_the_coupon_as_it_stands(partition: Partition) -> None:
    coupon = partition.grant(**RULE)
    with partition.unchanged():
        assert partition.run("grant_coupon", **RULE) == ["already_granted", "1-1", coupon, PACKED]
    order = order_id()
    partition.place(order, coupon_id=coupon)
    with partition.unchanged():
        reply = partition.run("grant_coupon", issue_day="20300101", **RULE)
    assert reply[:3] == ["already_granted", "1-2", coupon]
    assert reply[3].startswith("taken,spring,12,")


@pytest.mark.parametrize(
    "argument",
    ["number", "value", "minimum_order", "maximum_discount", "issued_at", "valid_from", "valid_until", "now_ms"],
)
@pytest.mark.parametrize("number", ["-1", "1.5", "abc", "1e3", "0x10", " 1", "1\r\n", "12345678901234567"])
def test_malformed_numbers_change_nothing(partition: Partition, argument: str, number: str) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run("grant_coupon", **{argument: number})


@pytest.mark.parametrize("argument", ["number", "kind", "value", "issued_at", "valid_from", "valid_until"])
def test_terms_that_lack_what_every_coupon_has_change_nothing(partition: Partition, argument: str) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="no terms of a coupon"):
        partition.run("grant_coupon", **{argument: ""})


@pytest.mark.parametrize(
    "terms",
    [
        "", "1", f"1,amount,5,,,{NOW},{NOW},{NOW},", f"1,amount,5,,{NOW},{NOW},{NOW}",
        f"0,amount,5,,,{NOW},{NOW},{NOW}", f"1,amount,0,,,{NOW},{NOW},{NOW}", f"1,amount,5,,,{NOW},{NOW},{NOW}\n",
        f"1,amount,5,,,{NOW},{NOW},{NOW},,,9-9",
    ],
)  # fmt: skip
def test_terms_of_another_form_change_nothing(partition: Partition, terms: str) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="no terms of a coupon"):
        partition.run("grant_coupon", terms=terms)
