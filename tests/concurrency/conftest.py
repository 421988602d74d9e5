from collections.abc import AsyncIterator, Iterator

import pytest

from engine.engine import Engine
from tests.engine.shop import opened
from tests.engine.valkey_process import ValkeyProcess


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """One Valkey for all races."""
    process = ValkeyProcess(tmp_path_factory.mktemp("races"))
    process.start()
    yield process
    process.kill()


@pytest.fixture
async def engine(redis_process: ValkeyProcess) -> AsyncIterator[Engine]:
    """An engine on empty, trusted partitions, at the test's time."""
    async with opened(redis_process.url) as engine:
        yield engine
