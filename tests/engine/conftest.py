import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

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


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """One Valkey for all tests of the flows."""
    process = ValkeyProcess(tmp_path_factory.mktemp("flows"))
    process.start()
    yield process
    process.kill()


@pytest.fixture
async def engine(redis_process: ValkeyProcess) -> AsyncIterator[Engine]:
    """An engine on empty, trusted partitions, at the test's time."""
    async with opened(redis_process.url) as engine:
        yield engine


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
