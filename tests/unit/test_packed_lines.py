"""Packed lines: what the scripts write into reservations and events."""

import pytest

from engine.packed_lines import pack, products_of, unpack

LINES = [("mug", "blue", 2), ("mug", "red", 1), ("tea", "green", 30)]


def test_what_is_packed_is_unpacked_again() -> None:
    assert pack(LINES) == "mug:blue:2,mug:red:1,tea:green:30"
    assert unpack(pack(LINES)) == LINES


@pytest.mark.parametrize("lines", ["", "mug:blue", "mug:blue:2:3", "mug:blue:0", ":blue:2", "mug::2", "mug:blue:x"])
def test_a_line_that_is_not_whole_is_refused(lines: str) -> None:
    with pytest.raises(ValueError, match=r"^line|values to unpack|invalid literal"):
        unpack(lines)


def test_each_product_is_named_once() -> None:
    assert products_of(pack(LINES)) == ("mug", "tea")


def test_the_products_of_lines_that_are_not_whole_are_named_all_the_same() -> None:
    assert products_of("mug:,,tea") == ("mug", "tea")
    assert products_of("") == ()
