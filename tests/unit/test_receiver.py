"""The demo's receiver of paid orders."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.commands.receiver import receiver_app


def _event(number: int) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"0:1-{number}", "source": "/firstcome/orders", "type": "t", "data": {}}


def _client(file: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(receiver_app(file)), base_url="http://receiver")


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
    for number in (1, 2, 2, 3):
        assert (await client.post("/", json=_event(number))).status_code == 204

    shown = (await client.get("/")).json()

    assert (shown["count"], shown["repeats"]) == (3, 1)
    assert [event["id"] for event in shown["last"]] == ["0:1-3", "0:1-2", "0:1-1"]
    assert _lines(file) == 3


async def test_it_knows_after_a_restart_what_it_has_but_not_a_line_cut_short(
    client: httpx.AsyncClient, file: Path
) -> None:
    await client.post("/", json=_event(1))
    _cut_short(file)

    async with _client(file) as again:
        await again.post("/", json=_event(1))
        await again.post("/", json=_event(2))
        shown = (await again.get("/")).json()

    assert (shown["count"], shown["repeats"]) == (2, 1)
    assert _lines(file) == 2


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{}", b'{"specversion": "1.0", "id": 5}', b"\xff"])
async def test_what_is_no_event_is_refused(client: httpx.AsyncClient, file: Path, body: bytes) -> None:
    assert (await client.post("/", content=body)).status_code == 400
    assert _lines(file) == 0
