import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from engine.engine import Engine
from tests.engine.shop import opened
from tests.engine.trouble import Proxy
from tests.engine.valkey_process import ValkeyProcess

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """The lanes are tried on both event loops, for they rest on what transports do; all else on the one it runs on."""
    factories: dict[str, LoopFactory] = {"uvloop": uvloop.new_event_loop}
    if item.path.name.startswith("test_lane"):
        factories["asyncio"] = asyncio.new_event_loop
    return factories


@pytest.fixture
async def proxy(redis_process: ValkeyProcess) -> AsyncIterator[Proxy]:
    """A proxy before that Valkey."""
    proxy = Proxy(redis_process.port)
    yield proxy
    await proxy.close()


@pytest.fixture
async def troubled(engine: Engine, proxy: Proxy) -> AsyncIterator[Engine]:
    """Another process's engine on the same partitions, through the proxy."""
    async with opened(await proxy.start(), fresh=False) as troubled:
        await troubled.wallets.balance("warm")
        yield troubled
