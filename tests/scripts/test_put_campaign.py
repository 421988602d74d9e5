import pytest
import redis

from tests.scripts.partition import NOW, Partition

FIELDS = {
    "name": "Spring", "kind": "percent", "value": 10, "minimum_order": 500, "maximum_discount": "", "quantity": 3,
    "opens_at": NOW, "closes_at": NOW + 5, "valid_days": 30,
}  # fmt: skip


@pytest.mark.requirement("R4.1", "R4.4")
def test_a_campaign_is_made_with_its_rule_window_and_quantity(partition: Partition) -> None:
    with partition.one_event("campaign.put", campaign="spring", at=NOW, **FIELDS):
        assert partition.run("put_campaign", **FIELDS) == ["created", "1-1", "0"]
    expected = {name: str(value) for name, value in FIELDS.items()}
    assert partition.campaign() == {**expected, "issued": "0", "seq": "1-1"}
    assert partition.run("list_ids", ids=partition.keys.campaigns(partition.index)) == ["read", ["spring"]]


def test_a_changed_campaign_keeps_what_is_issued(partition: Partition) -> None:
    partition.run("put_campaign")
    partition.issue()
    with partition.one_event("campaign.put", value=7, quantity=1):
        assert partition.run("put_campaign", value=7, quantity=1) == ["updated", "1-3", "1"]
    assert (partition.campaign()["issued"], partition.campaign()["value"]) == ("1", "7")


@pytest.mark.requirement("R4.9")
def test_the_quantity_never_falls_below_what_is_issued(partition: Partition) -> None:
    partition.run("put_campaign")
    for user in ("kim", "lee"):
        partition.issue(user)
    with partition.unchanged():
        assert partition.run("put_campaign", quantity=1) == ["quantity_below_issued", "2"]
    assert partition.run("put_campaign", quantity=2)[0] == "updated"
    assert partition.issue("park") == [["exhausted", "2"]]


@pytest.mark.parametrize("argument", ["value", "minimum_order", "quantity", "opens_at", "closes_at", "valid_days"])
@pytest.mark.parametrize("number", ["-1", "1.5", "abc", str(2**53)])
def test_malformed_numbers_change_nothing(partition: Partition, argument: str, number: str) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run("put_campaign", **{argument: number})


@pytest.mark.parametrize("argument", ["value", "quantity", "opens_at", "closes_at", "valid_days"])
def test_what_must_be_given_may_not_be_nothing(partition: Partition, argument: str) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run("put_campaign", **{argument: ""})
