"""Whatever schemathesis makes of the specification, the real API and the mock answer as the specification says.

The real shop has what the examples name, and everybody must bring a token, so that rights are tried too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from api.authentication import make_token, read_keys
from api.commands.api import program
from api.commands.listening import free_port
from api.commands.processes import ChildProcess, wait_until
from api.examples import EXAMPLES
from api.settings import ApiSettings
from tests.contract.fuzzing import fuzz
from tests.running_shop import RunningShop
from tests.servers import Databases
from tests.shop_servers import opened_shop

SETTINGS: Final = ApiSettings(token_secret="the-secret-of-these-tests-is-long-enough", user_rate=0, address_rate=0)
CHANGED: Final = ("token_secret", "user_rate", "address_rate")
TOKEN: Final = make_token(read_keys(SETTINGS), SETTINGS, "op", is_operator=True, valid_s=3600)  # type: ignore[arg-type]
A_LOOK: Final = ("--phases", "examples,fuzzing", "--max-examples", "6", "--seed", "2026")
"""The same cases each time, for a change is to be judged by it; what is new is found by the long look."""
A_LONG_LOOK: Final = ("--max-examples", "500")
CASES_OF_A_LOOK: Final = 250
CASES_OF_A_LONG_LOOK: Final = 10_000
A_LONG_LOOK_TAKES_AT_MOST_S: Final = 6_500
"""A machine that is busy with other work as well has needed more than 3,000."""


@pytest.fixture
def shop_url(databases: Databases) -> Iterator[str]:
    """A real shop that has what the examples name."""
    settings = {name: getattr(SETTINGS, name) for name in CHANGED}
    with opened_shop(databases, **settings) as shop:
        fill(shop)
        yield shop.url()
        shop.assert_conserved()
        assert shop.errors_logged() == []


@pytest.fixture
def mock_url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {f"FIRSTCOME_{name.upper()}": str(getattr(SETTINGS, name)) for name in CHANGED}
    command = [*program(), "mock", "--port", str(port)]
    log = tmp_path / "mock.log"
    mock = ChildProcess("mock", command, log, env={**os.environ, **settings}, cwd=tmp_path, stop_timeout_s=10)
    mock.start()
    try:
        wait_until(lambda: answers(url), timeout_s=30, what="the mock answers")
        yield url
    finally:
        mock.stop()
    assert "Traceback" not in log.read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", timeout=2, verify=False).is_success
    except httpx.TransportError:
        return False


def fill(shop: RunningShop) -> None:
    """Makes the products and campaigns of the examples, and puts money onto their user's balance."""
    client = httpx.Client(base_url=shop.url(), headers={"Authorization": f"Bearer {TOKEN}"}, verify=False)
    with client:
        for operation, path, window in (
            ("put_product", "/admin/v1/products/{product_id}", {}),
            (
                "put_campaign",
                "/admin/v1/campaigns/{campaign_id}",
                {"opens_at": "2026-01-01T00:00:00.000Z", "closes_at": "2099-01-01T00:00:00.000Z"},
            ),
        ):
            for example in EXAMPLES[operation]:
                body: Any = {**msgspec.to_builtins(example.body), **window}
                assert client.put(path.format(**example.path_params), json=body).is_success
        for user in ("mina", "op"):
            charged = client.post(f"/v1/users/{user}/balance/charges", json={"amount": 10_000_000})
            assert charged.is_success


def test_the_real_api_answers_as_specified_whatever_it_is_asked(shop_url: str, tmp_path: Path) -> None:
    cases = fuzz(shop_url, tmp_path, *A_LOOK, token=TOKEN, timeout_s=110)
    assert cases >= CASES_OF_A_LOOK


def test_the_mock_answers_as_specified_whatever_it_is_asked(mock_url: str, tmp_path: Path) -> None:
    cases = fuzz(mock_url, tmp_path, *A_LOOK, token=TOKEN, timeout_s=110)
    assert cases >= CASES_OF_A_LOOK


@pytest.mark.soak
@pytest.mark.timeout(A_LONG_LOOK_TAKES_AT_MOST_S + 300)
def test_the_real_api_answers_ten_thousand_cases_as_specified(shop_url: str, tmp_path: Path) -> None:
    cases = fuzz(shop_url, tmp_path, *A_LONG_LOOK, token=TOKEN, timeout_s=A_LONG_LOOK_TAKES_AT_MOST_S)
    assert cases >= CASES_OF_A_LONG_LOOK


@pytest.mark.soak
@pytest.mark.timeout(A_LONG_LOOK_TAKES_AT_MOST_S + 300)
def test_the_mock_answers_ten_thousand_cases_as_specified(mock_url: str, tmp_path: Path) -> None:
    cases = fuzz(mock_url, tmp_path, *A_LONG_LOOK, token=TOKEN, timeout_s=A_LONG_LOOK_TAKES_AT_MOST_S)
    assert cases >= CASES_OF_A_LONG_LOOK
