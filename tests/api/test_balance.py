"""Charging and reading balances over HTTP (R1)."""

import httpx
import pytest

from tests.running_shop import RunningShop, charge, problem


@pytest.mark.requirement("R1.2", "R1.4")
def test_a_user_nobody_has_seen_has_a_balance_of_zero(client: httpx.Client, user: str) -> None:
    assert client.get(f"/v1/users/{user}/balance").json() == {"user_id": user, "balance": 0, "currency": "KRW"}


@pytest.mark.requirement("R1.3", "R1.4", "R1.5")
def test_a_charge_answers_the_balance_it_leads_to(client: httpx.Client, user: str) -> None:
    first = client.post(f"/v1/users/{user}/balance/charges", json={"amount": 700})
    second = client.post(f"/v1/users/{user}/balance/charges", json={"amount": 50})
    assert (first.status_code, second.status_code) == (201, 201)
    assert (first.json()["balance"], second.json()["balance"]) == (700, 750)
    assert first.json()["durable"] is False
    assert client.get(f"/v1/users/{user}/balance").json()["balance"] == 750


@pytest.mark.requirement("R0.5", "R1.4")
def test_every_process_reads_what_another_charged(shop: RunningShop, user: str) -> None:
    charge(shop.client(0), user, 900)
    assert shop.client(1).get(f"/v1/users/{user}/balance").json()["balance"] == 900


@pytest.mark.requirement("R0.8")
@pytest.mark.parametrize("amount", [0, -1, 10_000_001, -(2**53 - 1)])
def test_a_charge_outside_the_policy_is_refused_with_its_limits(client: httpx.Client, user: str, amount: int) -> None:
    refused = problem(client.post(f"/v1/users/{user}/balance/charges", json={"amount": amount}), 422, "charge-limit")
    assert (refused["minimum"], refused["maximum"], refused["retryable"]) == (1, 10_000_000, False)
    assert client.get(f"/v1/users/{user}/balance").json()["balance"] == 0


@pytest.mark.requirement("R0.8")
def test_a_balance_never_passes_its_maximum(client: httpx.Client, user: str) -> None:
    for _ in range(10):
        charge(client, user, 10_000_000)
    refused = problem(client.post(f"/v1/users/{user}/balance/charges", json={"amount": 1}), 409, "balance-limit")
    assert (refused["balance"], refused["maximum"]) == (100_000_000, 100_000_000)
    assert client.get(f"/v1/users/{user}/balance").json()["balance"] == 100_000_000


@pytest.mark.requirement("R1.1")
@pytest.mark.parametrize("user_id", ["a b", "a%2Cb", "%7Ba%7D", "%ED%95%9C", "x" * 65, "a:b", "a%00"])
def test_a_user_id_that_no_identity_provider_issues_is_refused(client: httpx.Client, user_id: str) -> None:
    answer = client.get(f"/v1/users/{user_id}/balance")
    assert problem(answer, 422, "invalid-request")["errors"][0]["location"] == "path.user_id"


@pytest.mark.requirement("R1.1")
@pytest.mark.parametrize("user_id", ["auth0|42", "mina@example.com", "a~b_c.d-e", "x" * 64, "...", "-"])
def test_whatever_identity_providers_issue_is_a_user_id(client: httpx.Client, user_id: str) -> None:
    before = client.get(f"/v1/users/{user_id}/balance").json()["balance"]
    assert charge(client, user_id, 5) == before + 5


@pytest.mark.requirement("R1.1")
@pytest.mark.parametrize("path", ["/v1/users//balance", "/v1/users/balance", "/v1/users/a/b/balance", "/v1/users/"])
def test_without_a_user_id_there_is_nothing_at_the_address(client: httpx.Client, path: str) -> None:
    problem(client.get(path), 404, "not-found")
