"""What an API counts: each answer once, by what is known beforehand, for all its processes together."""

import tempfile
from collections.abc import Iterator

import pytest

from api.operations import OPERATIONS
from api.problems import NOT_FOUND, OUT_OF_STOCK, OVERLOADED
from api.request_counts import ADDED, GATHERED_MAX, LAYOUT, SECONDS_MAX, RequestCounts

CHECKOUT = next(operation for operation in OPERATIONS if operation.operation_id == "checkout")
BLOCK = LAYOUT.blocks["checkout"]


@pytest.fixture
def file() -> Iterator[int]:
    with tempfile.TemporaryFile() as shared:
        shared.truncate(LAYOUT.bytes_of(2))
        yield shared.fileno()


def changed(counts: RequestCounts) -> dict[int, int]:
    """Every cell that is not 0 by its place, without the gauges."""
    counts.fold()
    totals, _ = counts.totals()
    return {place: value for place, value in enumerate(totals) if value and place not in LAYOUT.gauges.values()}


def test_no_two_things_share_a_cell() -> None:
    places = [*LAYOUT.gauges.values(), *LAYOUT.added.values()]
    for block in LAYOUT.blocks.values():
        places += [block.outcomes, block.outcomes + 1, block.outcomes + 2, *block.problems.values()]
        places += [*range(block.buckets, block.buckets + len(SECONDS_MAX) + 1), block.nanoseconds]
    assert sorted(places) == list(range(LAYOUT.length))


def test_an_answer_counts_by_outcome_problem_and_time() -> None:
    counts = RequestCounts()
    checkout = counts.counter_for(CHECKOUT)
    checkout(201, None, 3_100_000)
    checkout(409, OUT_OF_STOCK, 60_000_000_000)
    checkout(503, OVERLOADED, 1_000_000)
    assert changed(counts) == {
        BLOCK.outcomes: 1,
        BLOCK.outcomes + 1: 1,
        BLOCK.outcomes + 2: 1,
        BLOCK.problems["out-of-stock"]: 1,
        BLOCK.problems["overloaded"]: 1,
        BLOCK.buckets: 1,
        BLOCK.buckets + 2: 1,
        BLOCK.buckets + len(SECONDS_MAX): 1,
        BLOCK.nanoseconds: 60_004_100_000,
    }


def test_times_that_are_gathered_count_as_each_alone_does() -> None:
    """Also those on a bucket's bound, beyond the last one, and more of them than are gathered."""
    bounds = [round(seconds * 1_000_000_000) for seconds in SECONDS_MAX]
    times = [0, *bounds, *(bound + 1 for bound in bounds), *(7_000_000,) * (2 * GATHERED_MAX)]
    counts = RequestCounts()
    checkout = counts.counter_for(CHECKOUT)
    for time_ns in times:
        checkout(200, None, time_ns)
    assert changed(counts) == {
        BLOCK.outcomes: len(times),
        BLOCK.nanoseconds: sum(times),
        **{BLOCK.buckets + index: 2 for index in (0, 1, 2, 4, 5, 6, 7, 8, 9)},
        BLOCK.buckets + 3: 2 + 2 * GATHERED_MAX,
        BLOCK.buckets + len(bounds): 1,
    }


def test_a_problem_that_no_operation_foresees_is_counted_as_another() -> None:
    counts = RequestCounts()
    counts.counter_for(CHECKOUT)(418, None, 0)
    counts.counter_for(None)(404, NOT_FOUND, 0)
    counts.counter_for(None)(503, OVERLOADED, 0)
    none = LAYOUT.blocks["none"]
    seen = changed(counts)
    assert (seen[BLOCK.outcomes + 1], seen[none.problems["not-found"]], seen[none.problems["other"]]) == (1, 1, 1)


def test_each_process_counts_for_all_and_one_that_is_started_again_goes_on(file: int) -> None:
    first, second = RequestCounts(file, 0, 2), RequestCounts(file, 1, 2)
    first.counter_for(CHECKOUT)(201, None, 0)
    second.counter_for(CHECKOUT)(201, None, 0)
    added = dict.fromkeys(ADDED, 5)
    for counts in (first, second):
        counts.publish({"requests_in_flight": 3}, added)
    again = RequestCounts(file, 1, 2)
    again.counter_for(CHECKOUT)(201, None, 0)
    again.publish({}, dict.fromkeys(ADDED, 1))
    totals, alive = first.totals()
    assert alive == 2
    assert totals[LAYOUT.gauges["requests_in_flight"]] == 3
    assert totals[BLOCK.outcomes] == 3
    assert {totals[place] for place in LAYOUT.added.values()} == {11}


def test_what_stood_in_a_process_that_is_dead_does_not_stand_any_more(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = RequestCounts(file, 0, 2), RequestCounts(file, 1, 2)
    with monkeypatch.context() as before:
        before.setattr("time.time_ns", lambda: 1_000_000_000)
        second.publish({"requests_in_flight": 7}, {})
    first.publish({"requests_in_flight": 2}, {})
    totals, alive = first.totals()
    assert (totals[LAYOUT.gauges["requests_in_flight"]], alive) == (2, 1)


def test_memory_of_another_version_is_not_counted_in(file: int) -> None:
    with pytest.raises(ValueError, match="bytes in the place of"):
        RequestCounts(file, 0, 3)
