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
            reply = partition.run("issue_coupon", user=user, now_ms=NOW + number)
        assert reply == ["issued", f"1-{number + 1}", f"{number},{NOW + number},percent,10,500,,30"]
        assert partition.campaign()["issued"] == str(number)
        assert partition.campaign()["seq"] == f"1-{number + 1}"


@pytest.mark.requirement("R4.9")
def test_no_more_are_issued_than_there_are(partition: Partition) -> None:
    for number in range(3):
        partition.run("issue_coupon", user=f"u{number}")
    with partition.unchanged():
        for number in range(3, 40):
            assert partition.run("issue_coupon", user=f"u{number}") == ["exhausted", "3"]
    partition.run("put_campaign", quantity=4, opens_at=NOW)
    assert partition.run("issue_coupon", user="late")[2].startswith("4,")


@pytest.mark.requirement("R4.1")
def test_asked_again_it_gives_the_same_number_and_the_rule_it_was_issued_with(partition: Partition) -> None:
    first = partition.run("issue_coupon")
    partition.run("put_campaign", kind="amount", value=9, quantity=1, opens_at=NOW)
    with partition.unchanged():
        assert partition.run("issue_coupon") == ["already_issued", "1-3", first[2]]
        assert partition.run("issue_coupon", now_ms=NOW + 10**9) == ["already_issued", "1-3", first[2]]


@pytest.mark.requirement("R4.4")
def test_outside_of_the_window_nothing_is_issued(partition: Partition) -> None:
    window = [str(NOW), str(NOW + 1_000)]
    with partition.unchanged():
        assert partition.run("issue_coupon", now_ms=NOW - 1) == ["not_open", *window, str(NOW - 1)]
        assert partition.run("issue_coupon", now_ms=NOW + 1_000) == ["not_open", *window, str(NOW + 1_000)]
    assert partition.run("issue_coupon", now_ms=NOW + 999)[0] == "issued"


def test_a_campaign_that_there_is_not_is_unknown(partition: Partition) -> None:
    with partition.unchanged():
        assert partition.run("issue_coupon", campaign="summer") == ["unknown"]


def test_refusals_come_in_the_order_of_the_head(partition: Partition) -> None:
    for number in range(3):
        partition.run("issue_coupon", user=f"u{number}")
    with partition.unchanged():
        assert partition.run("issue_coupon", user="u1", now_ms=NOW - 1)[0] == "already_issued"
        assert partition.run("issue_coupon", user="u9", now_ms=NOW - 1)[0] == "not_open"
        assert partition.run("issue_coupon", user="u9")[0] == "exhausted"


def test_a_malformed_time_changes_nothing(partition: Partition) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run("issue_coupon", now_ms="soon")
