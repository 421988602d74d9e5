"""adopt_issue: an issue that was lost while its coupon was not."""

import pytest
import redis

from tests.scripts.partition import NOW, Partition

PACKED = f"5,{NOW},amount,300,,,7"


@pytest.fixture
def open_campaign(partition: Partition) -> Partition:
    partition.run("put_campaign", quantity=10)
    assert partition.issue("lee")[0][0] == "issued"
    return partition


def issues(partition: Partition) -> dict[str, str]:
    return partition.hash(partition.keys.issues(partition.index, "spring"))


def test_the_number_and_all_below_it_count_as_issued(open_campaign: Partition) -> None:
    with open_campaign.one_event(
        "coupon.adopted", campaign="spring", user="kim", number=5, issued_at=NOW, valid_days=7, issued=5, quantity=10
    ):
        assert open_campaign.run("adopt_issue", number=5) == ["adopted", "1-3"]
    assert issues(open_campaign)["kim"] == PACKED
    fields = open_campaign.campaign()
    assert (fields["issued"], fields["quantity"], fields["seq"]) == ("5", "10", "1-3")
    assert open_campaign.issue("ann")[0][2].split(",")[0] == "6"
    assert open_campaign.issue("kim")[0][0] == "already_issued"


def test_a_lower_number_does_not_take_back_what_is_issued(open_campaign: Partition) -> None:
    open_campaign.run("adopt_issue", number=5)
    assert open_campaign.run("adopt_issue", number=3, user="ann") == ["adopted", "1-4"]
    assert open_campaign.campaign()["issued"] == "5"


def test_a_number_above_the_quantity_raises_it(open_campaign: Partition) -> None:
    assert open_campaign.run("adopt_issue", number=12)[0] == "adopted"
    fields = open_campaign.campaign()
    assert (fields["issued"], fields["quantity"]) == ("12", "12")
    assert open_campaign.issue("ann") == [["exhausted", "12"]]


def test_who_has_one_keeps_it(open_campaign: Partition) -> None:
    with open_campaign.unchanged():
        assert open_campaign.run("adopt_issue", user="lee", number=9) == ["already_issued", "1-2"]


def test_a_campaign_that_is_not_there_is_unknown(partition: Partition) -> None:
    with partition.unchanged():
        assert partition.run("adopt_issue", number=1) == ["unknown"]


@pytest.mark.parametrize(
    ("argument", "value"), [("number", "0"), ("number", "x"), ("value", "1.5"), ("issued_at", "-1"), ("valid_days", "")]
)
def test_malformed_numbers_change_nothing(open_campaign: Partition, argument: str, value: str) -> None:
    with open_campaign.unchanged(), pytest.raises(redis.ResponseError):
        open_campaign.run("adopt_issue", **{argument: value})
