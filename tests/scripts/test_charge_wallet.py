import pytest
import redis

from tests.scripts.partition import NOW, Partition


@pytest.mark.requirement("R1.1", "R1.2", "R1.3", "R1.5")
def test_a_charge_adds_to_the_users_balance_and_answers_it(partition: Partition) -> None:
    with partition.one_event("wallet.charged", user="kim", amount=700, balance=700, at=NOW, key="", fingerprint=""):
        assert partition.run("charge_wallet", amount=700) == ["charged", "1-1", "700", str(NOW)]
    with partition.one_event("wallet.charged", amount=5, balance=705, key="k", fingerprint="f"):
        reply = partition.run("charge_wallet", amount=5, key="k", fingerprint="f")
    assert reply == ["charged", "1-2", "705", str(NOW)]
    assert partition.wallet() == {"balance": "705", "seq": "1-2"}
    assert partition.wallet("lee") == {}


def test_without_a_given_time_the_servers_clock_decides(partition: Partition) -> None:
    seconds, micros = partition.time()
    charged_at_ms = int(partition.run("charge_wallet", amount=1, now_ms="")[3])
    assert 0 <= charged_at_ms - (seconds * 1000 + micros // 1000) < 5_000


@pytest.mark.requirement("R0.8")
def test_a_charge_past_the_highest_balance_changes_nothing(partition: Partition) -> None:
    partition.run("charge_wallet", amount=60, balance_max=100)
    with partition.unchanged():
        assert partition.run("charge_wallet", amount=41, balance_max=100) == ["balance_limit", "60"]
    assert partition.run("charge_wallet", amount=40, balance_max=100)[:3] == ["charged", "1-2", "100"]


@pytest.mark.requirement("R0.8")
@pytest.mark.parametrize(
    "amount", [0, -1, -700, "", "1.5", "1e3", "0x10", "abc", " 5", "5 ", "+5", "007", "-0", "nan", "inf", 2**53, 2**64]
)
def test_what_is_no_positive_whole_amount_changes_nothing(partition: Partition, amount: int | str) -> None:
    partition.run("charge_wallet", amount=700)
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run("charge_wallet", amount=amount, balance_max=2**53 - 1)


@pytest.mark.parametrize(
    "wrong", [{"now_ms": "abc"}, {"now_ms": "nan"}, {"now_ms": "1.5"}, {"backlog_max": "abc"}, {"balance_max": "abc"}]
)
def test_other_malformed_arguments_change_nothing(partition: Partition, wrong: dict[str, str]) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run("charge_wallet", amount=5, **wrong)


def test_large_balances_are_exact_to_the_unit(partition: Partition) -> None:
    most = 2**53 - 1
    for amount, balance in [(10**14, 10**14), (7, 10**14 + 7), (most - 10**14 - 8, most - 1), (1, most)]:
        with partition.one_event("wallet.charged", amount=amount, balance=balance):
            reply = partition.run("charge_wallet", amount=amount, balance_max=most)
        assert reply[2] == str(balance)
        assert partition.wallet()["balance"] == str(balance)
    with partition.unchanged():
        assert partition.run("charge_wallet", amount=1, balance_max=most) == ["balance_limit", str(most)]
