import itertools

import pytest
import redis

from tests.scripts.partition import NOW, Partition, order_id


@pytest.fixture(autouse=True)
def shop(partition: Partition) -> None:
    partition.stock_shop()


@pytest.mark.requirement("R3.11", "R0.3", "R2.4")
def test_all_lines_are_held_in_one_step(partition: Partition) -> None:
    order = order_id()
    with partition.one_event("stock.reserved", order=order, user="kim", lines="shirt:M:2,hat:one:1", at=NOW):
        reply = partition.reserve(order, ("shirt", "M", 2), ("hat", "", 1))
    assert reply == [
        "reserved", "1-3", ["shirt", "M", "2", "Name", "middle", "1000", "hat", "one", "1", "Hat", "", "500"],
    ]  # fmt: skip
    assert (partition.units("M"), partition.units("one", "hat")) == ((3, 2, 0), (2, 1, 0))
    assert partition.reservation(order) == {
        "user": "kim", "state": "held", "lines": "shirt:M:2,hat:one:1", "at": str(NOW), "seq": "1-3",
    }  # fmt: skip
    assert partition.product()["seq"] == partition.product("hat")["seq"] == "1-3"


@pytest.mark.requirement("R0.3", "R3.2")
def test_one_line_that_cannot_be_had_holds_nothing(partition: Partition) -> None:
    partition.reserve(order_id(), ("hat", "one", 2))
    with partition.unchanged():
        reply = partition.reserve(order_id(), ("shirt", "S", 1), ("hat", "", 2), ("shirt", "M", 6))
    assert reply == ["out_of_stock", ["hat", "one", "2", "1", "2", "shirt", "M", "6", "5", "0"]]


def test_the_last_unit_can_be_had_and_no_more(partition: Partition) -> None:
    assert partition.reserve(order_id(), ("hat", "one", 3))[0] == "reserved"
    assert partition.units("one", "hat") == (0, 3, 0)
    with partition.unchanged():
        assert partition.reserve(order_id(), ("hat", "one", 1))[0] == "out_of_stock"


def test_to_look_changes_nothing_and_says_what_to_hold_would(partition: Partition) -> None:
    order = order_id()
    with partition.unchanged():
        assert partition.reserve(order, ("shirt", "S", 10), ("hat", "", 3), hold=0) == ["available"]
        for wrong in (("shirt", "S", 11), ("hat", "big", 1), ("shirt", "", 1), ("sock", "one", 1)):
            refused = partition.reserve(order, ("shirt", "M", 1), wrong, hold=0)
            assert refused == partition.reserve(order, ("shirt", "M", 1), wrong)
    held = partition.reserve(order, ("shirt", "S", 10), ("hat", "", 3))
    assert held[0] == "reserved"
    with partition.unchanged():
        assert partition.reserve(order, ("shirt", "S", 10), ("hat", "", 3), hold=0) == held


@pytest.mark.parametrize("hold", ["", "-1", "no", "1.5"])
def test_to_hold_or_to_look_is_said_plainly(partition: Partition, hold: str) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.reserve(order_id(), ("shirt", "S", 1), hold=hold)


@pytest.mark.requirement("R0.3")
def test_the_same_stock_item_given_twice_is_added_up(partition: Partition) -> None:
    with partition.unchanged():
        reply = partition.reserve(order_id(), ("hat", "one", 2), ("hat", "", 2))
        assert reply == ["out_of_stock", ["hat", "one", "4", "3", "0"]]
    order = order_id()
    reply = partition.reserve(order, ("hat", "one", 1), ("shirt", "S", 1), ("hat", "", 2))
    assert reply[2][:3] == ["hat", "one", "3"]
    assert partition.reservation(order)["lines"] == "hat:one:3,shirt:S:1"
    assert partition.units("one", "hat") == (0, 3, 0)


def test_a_repeated_call_holds_once_and_answers_the_same(partition: Partition) -> None:
    order = order_id()
    first = partition.reserve(order, ("hat", "", 3))
    with partition.unchanged():
        assert partition.reserve(order, ("hat", "", 3)) == first
        assert partition.reserve(order, ("hat", "", 3), now_ms=NOW + 40_000) == first


def test_a_repeated_call_answers_what_is_held_though_the_product_has_changed(partition: Partition) -> None:
    order = order_id()
    first = partition.reserve(order, ("hat", "", 3))
    partition.run("put_product", "one", "", 0, "two", "", 5, product="hat", name="Hat", price=500)
    with partition.unchanged():
        assert partition.reserve(order, ("hat", "", 3), quantity_max=1) == first
        assert partition.reserve(order_id(), ("hat", "", 1)) == ["stock_id_required", "hat"]


@pytest.mark.parametrize(("finish", "state"), [("release_stock", "released"), ("confirm_stock", "sold")])
def test_a_finished_reservation_is_never_taken_anew(partition: Partition, finish: str, state: str) -> None:
    order = order_id()
    partition.reserve(order, ("hat", "one", 1))
    if finish == "confirm_stock":
        partition.confirm(order, "hat")
    else:
        partition.run(finish, "hat", order=order)
    with partition.unchanged():
        assert partition.reserve(order, ("hat", "one", 1)) == ["finished", state]
        assert partition.reserve(order, ("hat", "one", 1), now_ms=NOW + 10**9) == ["finished", state]


def test_an_old_order_id_holds_nothing(partition: Partition) -> None:
    with partition.unchanged():
        assert partition.reserve(order_id(), ("hat", "one", 1), now_ms=NOW + 30_001) == ["too_old"]
    assert partition.reserve(order_id(), ("hat", "one", 1), now_ms=NOW + 30_000)[0] == "reserved"


def test_what_there_is_not_is_named(partition: Partition) -> None:
    with partition.unchanged():
        for line, named in [
            (("sock", "", 1), ["sock", ""]),
            (("sock", "S", 1), ["sock", "S"]),
            (("shirt", "XL", 1), ["shirt", "XL"]),
        ]:
            assert partition.reserve(order_id(), ("hat", "", 1), line) == ["unknown_reference", *named]
        assert partition.reserve(order_id(), ("shirt", "", 1)) == ["stock_id_required", "shirt"]


@pytest.mark.requirement("R0.8")
def test_more_of_a_stock_item_than_an_order_may_have_holds_nothing(partition: Partition) -> None:
    with partition.unchanged():
        reply = partition.reserve(order_id(), ("shirt", "S", 2), ("shirt", "S", 2), quantity_max=3)
        assert reply == ["quantity_limit", "shirt", "S", "4"]
    assert partition.reserve(order_id(), ("shirt", "S", 3), quantity_max=3)[0] == "reserved"


def test_refusals_come_in_the_order_of_the_head(partition: Partition) -> None:
    order = order_id()
    with partition.unchanged():
        old = {"now_ms": NOW + 40_000}
        assert partition.reserve(order, ("sock", "", 1), **old)[0] == "too_old"
        wrong: list[tuple[str, tuple[str, str, int]]] = [
            ("unknown_reference", ("sock", "a", 1)),
            ("stock_id_required", ("shirt", "", 1)),
            ("quantity_limit", ("hat", "one", 9)),
            ("out_of_stock", ("shirt", "M", 7)),
        ]
        for (first, line), (_, later) in itertools.combinations(wrong, 2):
            for lines in [(line, later), (later, line)]:
                assert partition.reserve(order, *lines, quantity_max=8)[0] == first, lines
        assert partition.reserve(order, ("shirt", "M", 7), quantity_max=8)[0] == "out_of_stock"


def test_of_one_reason_the_first_line_is_named(partition: Partition) -> None:
    partition.run("put_product", "big", "", 1, "small", "", 1, product="bag", name="Bag", price=500)
    cases: list[tuple[tuple[tuple[str, str, int], ...], list[str]]] = [
        ((("hat", "one", 9), ("shirt", "S", 9)), ["quantity_limit", "hat", "one", "9"]),
        ((("shirt", "", 1), ("bag", "", 1)), ["stock_id_required", "shirt"]),
        ((("sock", "a", 1), ("sock", "b", 1)), ["unknown_reference", "sock", "a"]),
    ]
    with partition.unchanged():
        for lines, named in cases:
            assert partition.reserve(order_id(), *lines, quantity_max=8) == named


@pytest.mark.requirement("R0.8")
@pytest.mark.parametrize("quantity", ["0", "-1", "1.5", "1e1", "", "abc", "nan", str(2**53)])
def test_malformed_quantities_change_nothing(partition: Partition, quantity: str) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.reserve(order_id(), ("shirt", "S", 1), ("hat", "one", quantity), quantity_max=2**53 - 1)


@pytest.mark.parametrize("wrong", ["created_ms", "age_max_ms", "quantity_max"])
def test_other_malformed_numbers_change_nothing(partition: Partition, wrong: str) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.reserve(order_id(), ("shirt", "S", 1), **{wrong: "abc"})


@pytest.mark.parametrize(
    "rest", [(9, "hat", "one", 1), ("x", "hat", "one", 1), (0, "hat", "one", 1), (1, "shirt", "S")]
)
def test_a_malformed_line_changes_nothing(partition: Partition, rest: tuple[str | int, ...]) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run("reserve_stock", 1, "shirt", "S", 1, *rest, order=order_id())


def test_other_products_than_are_held_change_nothing(partition: Partition) -> None:
    order = order_id()
    partition.reserve(order, ("hat", "one", 1))
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="other products"):
        partition.reserve(order, ("shirt", "S", 1))


def test_large_quantities_are_exact_to_the_unit(partition: Partition) -> None:
    most = 2**53 - 1
    partition.run("adjust_stock", stock="S", delta=most - 10, available_max=most)
    order = order_id()
    partition.reserve(order, ("shirt", "S", most - 1), quantity_max=most)
    assert partition.units("S") == (1, most - 1, 0)
    partition.run("release_stock", "shirt", order=order)
    assert partition.units("S") == (most, 0, 0)


def test_many_lines_are_held_in_one_step(partition: Partition) -> None:
    items = [part for number in range(200) for part in (f"s{number}", "", 1)]
    partition.run("put_product", *items, product="rack")
    reply = partition.reserve(order_id(), *[("rack", f"s{number % 200}", 1) for number in range(200)])
    assert reply[0] == "reserved"
    assert len(reply[2]) == 6 * 200
