"""The demo's receiver of paid orders."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from api.commands.receiver import receiver_app
from persistence.webhooks import Signer, make_secret

SECRETS = (make_secret(), make_secret())


def _event(number: int) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"0:1-{number}", "source": "/firstcome/orders", "type": "t", "data": {}}


def _client(file: Path) -> httpx.AsyncClient:
    app = receiver_app(file, SECRETS)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receiver")


async def _post(client: httpx.AsyncClient, body: bytes, secret: str = SECRETS[0], at: datetime | None = None) -> int:
    headers = Signer([secret]).headers("msg_1", body, at or datetime.now(UTC))
    return (await client.post("/", content=body, headers=headers)).status_code


def _batch(*numbers: int) -> bytes:
    return orjson.dumps([_event(number) for number in numbers])


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def _cut_short(file: Path) -> None:
    """A crash in the middle of writing a line."""
    with file.open("a") as lines:
        lines.write('{"id": "0:1-')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the receiver keeps its events; the folder does not exist yet."""
    return tmp_path / "data" / "received.jsonl"


@pytest.fixture
async def client(file: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a receiver."""
    async with _client(file) as client:
        yield client


async def test_it_keeps_each_event_once_and_shows_the_last_ones(client: httpx.AsyncClient, file: Path) -> None:
    for batch in (_batch(1, 2), _batch(2), _batch(3)):
        assert await _post(client, batch) == 204

    shown = (await client.get("/")).json()

    assert (shown["count"], shown["repeats"]) == (3, 1)
    assert [event["id"] for event in shown["last"]] == ["0:1-3", "0:1-2", "0:1-1"]
    assert _lines(file) == 3


async def test_it_knows_after_a_restart_what_it_has_but_not_a_line_cut_short(
    client: httpx.AsyncClient, file: Path
) -> None:
    await _post(client, _batch(1))
    _cut_short(file)

    async with _client(file) as again:
        await _post(again, _batch(1, 2))
        shown = (await again.get("/")).json()

    assert (shown["count"], shown["repeats"]) == (2, 1)
    assert _lines(file) == 2


@pytest.mark.parametrize("body", [b"", b'"x"', b"{}", b"[5]", b'[{"specversion": "1.0", "id": 5}]', b"[{}]"])
async def test_what_is_no_batch_of_events_is_refused(client: httpx.AsyncClient, file: Path, body: bytes) -> None:
    assert await _post(client, body) == 400
    assert _lines(file) == 0


async def test_only_what_is_signed_with_a_live_secret_and_lately_is_taken(
    client: httpx.AsyncClient, file: Path
) -> None:
    assert (await client.post("/", content=_batch(1))).status_code == 401
    assert (await client.post("/", content=b"\xff", headers={"webhook-id": "m"})).status_code == 401
    assert await _post(client, _batch(1), make_secret()) == 401
    assert await _post(client, _batch(1), at=datetime.now(UTC) - timedelta(minutes=6)) == 401
    assert (await client.get("/")).json()["refused"] == 4
    assert _lines(file) == 0

    for number, secret in enumerate(SECRETS):
        assert await _post(client, _batch(number), secret) == 204
    assert _lines(file) == 2


async def test_a_body_that_was_changed_on_its_way_is_refused(client: httpx.AsyncClient, file: Path) -> None:
    headers = Signer(SECRETS).headers("msg_1", _batch(1), datetime.now(UTC))
    assert (await client.post("/", content=_batch(2), headers=headers)).status_code == 401
    assert (await client.post("/", content=_batch(1), headers=headers)).status_code == 204
