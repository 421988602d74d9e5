import pytest
import redis

from tests.scripts.partition import NOW, Partition


@pytest.fixture(autouse=True)
def campaign(partition: Partition) -> None:
    partition.run(
        "put_campaign", kind="percent", value=10, minimum_order=500, maximum_discount="", quantity=3, opens_at=NOW,
        closes_at=NOW + 1_000, valid_days=30,
    )  # fmt: skip


@pytest.mark.requirement("R4.1", "R4.8", "R4.9")
def test_users_get_the_numbers_in_the_order_they_come(partition: Partition) -> None:
    for number, user in enumerate(("kim", "lee", "park"), 1):
        with partition.one_event(
            "coupon.issued", campaign="spring", user=user, number=number, kind="percent", value=10, minimum_order=500,
            maximum_discount="", valid_days=30, at=NOW + number,
        ):  # fmt: skip
            answers = partition.issue(user, now_ms=NOW + number)
        assert answers == [["issued", f"1-{number + 1}", f"{number},{NOW + number},percent,10,500,,30"]]
        assert partition.campaign()["issued"] == str(number)
        assert partition.campaign()["seq"] == f"1-{number + 1}"


@pytest.mark.requirement("R4.1", "R4.8", "R4.9")
def test_users_of_one_call_get_what_they_would_get_one_after_the_other(partition: Partition) -> None:
    """Among them one who has one, one who asks twice, and more than there are coupons for."""
    partition.issue("lee")
    users = ["kim", "lee", "kim", "park", "choi", "park"]
    together = partition.issue(*users)
    held, events = partition.dump(), partition.events()
    partition.begin()
    partition.run(
        "put_campaign", kind="percent", value=10, minimum_order=500, maximum_discount="", quantity=3, opens_at=NOW,
        closes_at=NOW + 1_000, valid_days=30,
    )  # fmt: skip
    partition.issue("lee")
    in_turn = [partition.issue(user)[0] for user in users]
    assert together == in_turn
    assert [status for status, *_ in together] == [
        "issued", "already_issued", "already_issued", "issued", "exhausted", "already_issued",
    ]  # fmt: skip
    assert partition.dump() == held
    assert partition.events() == events
    assert partition.seq() == len(events)


def test_each_event_of_a_call_says_the_request_that_it_is_for(partition: Partition) -> None:
    partition.issue("kim", "lee", "park", request="first,,third")
    issued = [fields for _, fields in partition.events() if fields["type"] == "coupon.issued"]
    assert [(each["user"], each["request"]) for each in issued] == [("kim", "first"), ("lee", ""), ("park", "third")]


@pytest.mark.requirement("R4.9")
def test_no_more_are_issued_than_there_are(partition: Partition) -> None:
    partition.issue("u0", "u1", "u2")
    with partition.unchanged():
        late = [f"u{number}" for number in range(3, 40)]
        assert partition.issue(*late) == [["exhausted", "3"]] * len(late)
    partition.run("put_campaign", quantity=4, opens_at=NOW)
    assert [status for status, *_ in partition.issue("late", "later")] == ["issued", "exhausted"]
    assert partition.campaign()["issued"] == "4"


@pytest.mark.requirement("R4.1")
def test_asked_again_it_gives_the_same_number_and_the_rule_it_was_issued_with(partition: Partition) -> None:
    ((_, _, issue),) = partition.issue()
    partition.run("put_campaign", kind="amount", value=9, quantity=1, opens_at=NOW)
    with partition.unchanged():
        assert partition.issue() == [["already_issued", "1-3", issue]]
        assert partition.issue(now_ms=NOW + 10**9) == [["already_issued", "1-3", issue]]


@pytest.mark.requirement("R4.4")
def test_outside_of_the_window_nothing_is_issued(partition: Partition) -> None:
    window = [str(NOW), str(NOW + 1_000)]
    with partition.unchanged():
        for now in (NOW - 1, NOW + 1_000):
            assert partition.issue(now_ms=now) == [["not_open", *window, str(now)]]
    assert partition.issue(now_ms=NOW + 999)[0][0] == "issued"


def test_a_campaign_that_there_is_not_is_unknown(partition: Partition) -> None:
    with partition.unchanged():
        assert partition.run("issue_coupons", "kim", campaign="summer") == ["unknown"]


def test_refusals_come_in_the_order_of_the_head(partition: Partition) -> None:
    partition.issue("u0", "u1", "u2")
    with partition.unchanged():
        assert [status for status, *_ in partition.issue("u1", "u9", now_ms=NOW - 1)] == ["already_issued", "not_open"]
        assert partition.issue("u9") == [["exhausted", "3"]]


def test_a_malformed_time_changes_nothing(partition: Partition) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.issue(now_ms="soon")
