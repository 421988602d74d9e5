import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.order_ids import created_ms, is_order_id, make_order_id


@given(st.integers(0, 2**48 - 1))
def test_an_order_id_is_a_uuid_of_version_7_that_carries_its_time(at_ms: int) -> None:
    order_id = make_order_id(at_ms)
    parsed = uuid.UUID(order_id)
    assert (str(parsed), parsed.version, parsed.variant) == (order_id, 7, uuid.RFC_4122)
    assert created_ms(order_id) == at_ms
    assert is_order_id(order_id)


@pytest.mark.requirement("R3.10")
def test_ids_of_one_moment_differ_and_later_ones_sort_later() -> None:
    assert len({make_order_id(5) for _ in range(1_000)}) == 1_000
    assert make_order_id(5) < make_order_id(6) < make_order_id(10**12)


GOOD = "01a3185c-5000-7abc-8def-0123456789ab"


@pytest.mark.parametrize(
    "text",
    [
        "", "x", GOOD[:-1], GOOD + "0", GOOD.upper(), GOOD.replace("7abc", "4abc"), GOOD.replace("-", ""),
        GOOD.replace("-", "0"), GOOD.replace("a3", "g3"), GOOD.replace("1a", "１a"), f"{{{GOOD[:-2]}}}",
        "01a3185c5-000-7abc-8def-0123456789ab", " " + GOOD[1:], GOOD[:-1] + "\n",
    ],
)  # fmt: skip
def test_what_is_written_otherwise_is_no_order_id(text: str) -> None:
    assert is_order_id(GOOD)
    assert not is_order_id(text)
    with pytest.raises(ValueError, match="not an order id"):
        created_ms(text)


@pytest.mark.parametrize("text", [GOOD.replace("8def", "0def"), GOOD.replace("8def", "cdef")])
def test_another_variant_is_no_order_id(text: str) -> None:
    assert not is_order_id(text)
