"""A real Redis Cluster on this machine: primaries and replicas of the embedded Valkey, made once and kept."""

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.commands.embedded_valkey import EmbeddedValkey, Passwords
from api.commands.listening import free_port, is_free
from api.commands.processes import wait_until
from api.commands.redis_users import APPLICATION
from api.commands.server_files import RedisProgram
from engine.partitions import CLUSTER_SLOTS

HOST = "127.0.0.1"
PRIMARIES = 3
READY_TIMEOUT_S = 60.0
PORTS_NAME = "ports.json"
PASSWORDS_NAME = "passwords.json"

_SETTINGS: Mapping[str, str] = {
    "bind": HOST,
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-announce-ip": HOST,
    "cluster-node-timeout": "5000",
    # The partitions of the other nodes are served while one has nobody.
    "cluster-require-full-coverage": "no",
    "repl-diskless-sync-delay": "0",
    # So that a server whose parent was killed is known again by its socket.
    "proc-title-template": '"{title} {unixsocket} {server-mode}"',
}


class EmbeddedCluster:
    """The nodes of one folder: some primaries with even shares of the slots, then a replica of each (or none).

    `start` makes the cluster if there is none yet, and returns when every slot is served and every replica follows. It
    raises what `EmbeddedValkey.start` raises. A context manager starts and stops it. A node may be stopped, killed and
    started alone; its role is what the cluster has given it since.
    """

    def __init__(
        self,
        folder: Path,
        *,
        primaries: int = PRIMARIES,
        with_replicas: bool = True,
        program: RedisProgram | None = None,
        settings: Mapping[str, str] | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.nodes: list[EmbeddedValkey] = []
        self.ports: list[int] = []
        self._primaries = primaries
        self._count = primaries * 2 if with_replicas else primaries
        self._program = program
        self._settings = {**_SETTINGS, **(settings or {})}
        self._stopping = stopping

    @property
    def url(self) -> str:
        """For who may do everything."""
        return self._url("default", self._passwords().administrator)

    @property
    def application_url(self) -> str:
        """For the application, which may do what it needs."""
        return self._url(APPLICATION, self._passwords().application)

    @property
    def administrator_password(self) -> str:
        """Of the user `default` on every node."""
        return self._passwords().administrator

    def start(self) -> None:
        """Starts every node on what its folder holds."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._make_nodes()
            with ThreadPoolExecutor(self._count) as pool:
                list(pool.map(EmbeddedValkey.start, self.nodes))
            self._join()
            self._share_slots()
            self._give_replicas()
            self.wait_until_whole()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops every node cleanly, replicas first: a primary that stops waits for those that follow it."""
        with ThreadPoolExecutor(self._count) as pool:
            for nodes in (self.nodes[self._primaries :], self.nodes[: self._primaries]):
                list(pool.map(EmbeddedValkey.stop, nodes))

    def kill(self) -> None:
        """Ends every node as a power cut would; `start` may follow."""
        for node in self.nodes:
            node.kill()

    def add_node(self) -> EmbeddedValkey:
        """Starts one more node that knows the others: a primary without slots."""
        self.ports.append(self._another_port())
        node = self._node(len(self.nodes), self.ports[-1])
        self.nodes.append(node)
        node.start()
        self._count += 1
        self._join()
        self.wait_until_whole()
        return node

    @contextlib.contextmanager
    def client(self, node: int) -> Iterator[redis.Redis]:
        """An administrator's connection to one node, over its socket."""
        url = self.nodes[node].url
        with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=10) as client:
            yield client

    def ask(self, node: int, *command: str | int) -> Any:
        """An administrator's command; the reply as the server has it, text decoded."""
        url = self.nodes[node].url
        with redis.Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_timeout=10, protocol=2, decode_responses=True
        ) as client:
            client.response_callbacks.clear()  # the replies as they are
            return client.execute_command(*command)

    def info(self, node: int, *command: str) -> dict[str, str]:
        """The fields of an INFO or a CLUSTER INFO."""
        lines = str(self.ask(node, *command)).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def node_id(self, node: int) -> str:
        """What the cluster calls it."""
        return str(self.ask(node, "CLUSTER", "MYID"))

    def wait_until_whole(self, nodes: Sequence[int] | None = None) -> None:
        """Waits until these nodes (all) see every slot served, and every replica among them follows its primary."""
        numbers = range(len(self.nodes)) if nodes is None else nodes
        self._wait(lambda: all(self._is_whole(number) for number in numbers), "the cluster serves every slot")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _is_whole(self, number: int) -> bool:
        try:
            state = self.info(number, "CLUSTER", "INFO")
            role = self.info(number, "INFO", "replication")
        except (redis.RedisError, OSError):
            return False
        served = state["cluster_state"] == "ok" and int(state["cluster_slots_ok"]) == CLUSTER_SLOTS
        follows = role["role"] == "master" or role["master_link_status"] == "up"
        return served and follows and int(state["cluster_known_nodes"]) == self._count

    def _make_nodes(self) -> None:
        if self.nodes:
            return
        file = self.folder / PORTS_NAME
        with contextlib.suppress(OSError, ValueError):
            self.ports = list(json.loads(file.read_text(encoding="utf-8")))
        self.nodes = [self._node(number, port) for number, port in enumerate(self.ports[: self._count])]
        for node in self.nodes:
            node.end_left_over()
        if len(self.ports) != self._count or not all(is_free(port, HOST, with_bus=True) for port in self.ports):
            self.ports = [free_port(HOST, with_bus=True) for _ in range(self._count)]
            file.write_text(json.dumps(self.ports), encoding="utf-8")
            self.nodes = [self._node(number, port) for number, port in enumerate(self.ports)]

    def _another_port(self) -> int:
        while (port := free_port(HOST, with_bus=True)) in self.ports:
            pass  # of a node that is stopped now
        return port

    def _node(self, number: int, port: int) -> EmbeddedValkey:
        passwords = self._passwords()
        return EmbeddedValkey(
            self.folder / f"node-{number + 1}",
            name=f"Valkey node {number + 1}",
            program=self._program,
            settings={**self._settings, "port": str(port), "masterauth": passwords.administrator},
            stopping=self._stopping,
            passwords=passwords,
        )

    def _join(self) -> None:
        """Each learns of the others; nodes that have met before, at other ports, too."""
        knows_all = [int(self.info(n, "CLUSTER", "INFO")["cluster_known_nodes"]) == self._count for n in self._numbers]
        if all(knows_all) and all(self._sees_ports(number) for number in self._numbers):
            return
        for number in self._numbers:
            with contextlib.suppress(redis.ResponseError):  # one that has been in a cluster has an epoch
                self.ask(number, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port in self.ports[1:]:
            self.ask(0, "CLUSTER", "MEET", HOST, port)
        self._wait(
            lambda: all(
                int(self.info(number, "CLUSTER", "INFO")["cluster_known_nodes"]) == self._count
                and self._sees_ports(number)
                for number in self._numbers
            ),
            "the nodes have met",
        )

    @property
    def _numbers(self) -> range:
        return range(len(self.nodes))

    def _sees_ports(self, number: int) -> bool:
        seen = {line.split(" ")[1].partition("@")[0] for line in self.lines(number)}
        return seen == {f"{HOST}:{port}" for port in self.ports}

    def lines(self, number: int) -> list[str]:
        """The lines of a node's CLUSTER NODES."""
        return str(self.ask(number, "CLUSTER", "NODES")).splitlines()

    def _share_slots(self) -> None:
        if int(self.info(0, "CLUSTER", "INFO")["cluster_slots_assigned"]) == CLUSTER_SLOTS:
            return
        for number in range(self._primaries):
            own = next(line for line in self.lines(number) if "myself" in line).split(" ")
            if len(own) == 8:
                first, last = (CLUSTER_SLOTS * each // self._primaries for each in (number, number + 1))
                self.ask(number, "CLUSTER", "ADDSLOTS", *range(first, last))
        self._wait(
            lambda: all(
                int(self.info(number, "CLUSTER", "INFO")["cluster_slots_assigned"]) == CLUSTER_SLOTS
                for number in self._numbers
            ),
            "every node knows who has which slots",
        )

    def _give_replicas(self) -> None:
        for number in range(self._primaries, self._count):
            own = next(line for line in self.lines(number) if "myself" in line).split(" ")
            if "master" in own[2].split(",") and len(own) == 8:
                self.ask(number, "CLUSTER", "REPLICATE", self.node_id(number - self._primaries))

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, timeout_s=READY_TIMEOUT_S, what=what, stopping=self._stopping)

    def _passwords(self) -> Passwords:
        """Made at the first start, and kept beside the data; every node has the same."""
        file = self.folder / PASSWORDS_NAME
        if not file.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = file.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_text(json.dumps([secrets.token_hex(16), secrets.token_hex(16)]), encoding="utf-8")
            new.replace(file)
        return Passwords(*json.loads(file.read_text(encoding="utf-8")))

    def _url(self, user: str, password: str) -> str:
        return f"redis+cluster://{user}:{password}@{','.join(f'{HOST}:{port}' for port in self.ports)}"
