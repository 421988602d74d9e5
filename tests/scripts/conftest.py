from collections.abc import Iterator
from time import monotonic, sleep

import pytest
import redis

from api.commands.listening import free_port
from api.commands.server_files import RedisProgram, redis_programs
from tests.engine.valkey_process import ValkeyProcess
from tests.scripts.partition import Partition


@pytest.fixture(scope="session", params=redis_programs(), ids=lambda program: program.flavour)
def cluster_node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A cluster of one node, which refuses a call whose keys are not all of one slot; of each program there is."""
    program: RedisProgram = request.param
    folder = tmp_path_factory.mktemp(f"scripts-{program.flavour}")
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    server = ValkeyProcess(folder, *options, program=program.program)
    server.start()
    client = redis.Redis(port=server.port, protocol=2)
    client.cluster("ADDSLOTSRANGE", 0, 16383)
    give_up_at = monotonic() + 10
    while client.cluster("INFO")["cluster_state"] != "ok":
        assert monotonic() < give_up_at, "the cluster of one node does not become ready"
        sleep(0.02)
    yield client
    client.close()
    server.kill()


@pytest.fixture
def partition(cluster_node: redis.Redis) -> Partition:
    """An empty, trusted partition: generation 1, epoch 1."""
    partition = Partition(cluster_node)
    partition.begin()
    return partition
