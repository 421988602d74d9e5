"""What an open console is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx


@contextmanager
def watching(url: str) -> Iterator[Iterator[dict[str, Any]]]:
    """What a console that is open at this API process is shown, look by look."""
    with (
        httpx.Client(base_url=url, timeout=15, verify=False) as client,
        client.stream("GET", "/admin/v1/console/events") as answer,
    ):
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.iter_lines()
        yield (json.loads(line.removeprefix("data: ")) for line in lines if line)
