import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """The lanes are tried on both event loops, for they rest on what transports do; all else on the one it runs on."""
    factories: dict[str, LoopFactory] = {"uvloop": uvloop.new_event_loop}
    if item.path.name.startswith("test_lane"):
        factories["asyncio"] = asyncio.new_event_loop
    return factories
