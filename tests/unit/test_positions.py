import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.positions import Position, last_of_each, parse_position, position_of, position_text

numbers = st.integers(0, 10**16 - 1)
places = st.builds("{}-{}".format, numbers, numbers)


@given(st.lists(st.builds(Position, numbers, places), min_size=1, max_size=5).map(tuple))
def test_positions_survive_the_way_to_the_client_and_back(positions: tuple[Position, ...]) -> None:
    assert parse_position(position_text(positions)) == positions


def test_a_position_is_partition_epoch_and_sequence() -> None:
    position = position_of(3, b"1-42")
    assert (position.partition, position.epoch, position.seq) == (3, 1, 42)
    assert position == position_of(3, "1-42") == Position(3, "1-42")
    assert position_text((Position(3, "1-42"), Position(7, "2-9"))) == "3:1-42,7:2-9"
    assert parse_position("03:01-0042") == (position,)


@pytest.mark.parametrize(
    "text",
    [
        "", "3", "3:1", "3:1-", ":1-2", "3:1-2,", ",3:1-2", "3:1-2-3", "3:-1-2", "a:1-2", "3:1-2 ", "３:1-2", "3:1.5-2",
        "3:1-2;4:1-2", "3:1-" + "9" * 17, "+3:1-2", "3:1_0-2",
    ],
)  # fmt: skip
def test_what_no_answer_ever_held_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        parse_position(text)


@pytest.mark.parametrize("place", [b"", b"7", "none"])
def test_a_reply_without_a_place_is_noticed(place: bytes | str) -> None:
    with pytest.raises(ValueError, match="no place"):
        position_of(3, place)


def test_of_each_partition_the_last_position_stands_for_all_before_it() -> None:
    positions = [Position(1, "1-9"), Position(2, "1-10"), Position(1, "2-3"), Position(2, "1-9")]
    assert last_of_each(positions) == (Position(1, "2-3"), Position(2, "1-10"))
