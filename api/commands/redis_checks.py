"""What `firstcome doctor` looks at in Redis: one server, or every node of a cluster."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.commands.checks import CONNECT_TIMEOUT_S, Check, clock_check
from api.commands.redis_memory import Samples, sample
from engine.cluster_map import VIEW_COMMANDS, ClusterMap, ClusterNode, ClusterView, Endpoint, merge, read_view
from engine.partitions import CLUSTER_SLOTS, Partitions
from engine.redis_address import RedisAddress, names_a_cluster, parse_cluster_url
from engine.settings import EngineSettings, without_password

REDIS_VERSION_MIN = (6, 2)
LAG_BYTES_MAX = 16 * 1024 * 1024
_START = "start it, or set FIRSTCOME_REDIS_URL to where it is; `firstcome up` brings one of its own"


def redis_checks(settings: EngineSettings) -> list[Check]:
    """Every check of the server or the cluster that the settings name."""
    url = settings.redis_url
    try:
        if names_a_cluster(url):
            return _cluster_checks(url, settings.partitions)
        with _server(url) as client:
            node = _look_at(client)
            samples = sample(client)
    except (redis.RedisError, OSError, ValueError) as error:
        return [Check("Redis", f"{without_password(url)}: {error}", _START)]
    return [
        Check("Redis", f"{without_password(url)} answers"),
        *_node_checks(node),
        Check("memory", f"{node.info['used_memory_human']} used; by a sample: {samples}"),
    ]


def first_redis_checks(settings: EngineSettings) -> list[Check]:
    """What is to be known before anything begins, quickly: of the server, or of each primary of the cluster."""
    url = settings.redis_url
    try:
        if not names_a_cluster(url):
            with _server(url) as client:
                return _node_checks(_look_at(client))
        seed = (seeds := parse_cluster_url(url))[0]
        checks: list[Check] = []
        for node in merge([_view_of_any(seeds)]).primaries.values():
            with _connected(replace(seed, host=node.endpoint.host, port=node.endpoint.port)) as client:
                checks += _node_checks(_look_at(client), f" of {_name(node)}")
    except (redis.RedisError, OSError, ValueError) as error:
        return [Check("Redis", f"{without_password(url)}: {error}", _START)]
    return checks


def _server(url: str) -> redis.Redis:
    # Of the old protocol, so that a Redis 5, which has no HELLO, can say how old it is.
    return redis.Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=CONNECT_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        protocol=2,
    )


@dataclass(frozen=True, slots=True)
class _Node:
    """What a server says of itself, and when it was asked for the time."""

    info: Mapping[str, Any]
    time_ms: int
    began: float
    ended: float


def _look_at(client: redis.Redis) -> _Node:
    began = time.time()
    seconds, microseconds = client.time()
    ended = time.time()
    info = client.info("everything") or client.info()  # a Redis 5 has no section of that name
    return _Node(info, int(seconds) * 1000 + int(microseconds) // 1000, began, ended)


def _node_checks(node: _Node, of: str = "") -> list[Check]:
    checks = (
        _version_check(node.info),
        _policy_check(str(node.info.get("maxmemory_policy", "unknown"))),
        _append_only_check(node.info),
        clock_check("Redis' clock", node.time_ms, node.began, node.ended),
    )
    return [replace(check, name=check.name + of) for check in checks]


def _version_check(info: Mapping[str, Any]) -> Check:
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = str(info.get("valkey_version", info["redis_version"]))
    numbers = tuple(int(number) for number in re.findall(r"\d+", str(info["redis_version"]))[:2])
    old = numbers < REDIS_VERSION_MIN
    remedy = "use Redis 6.2 or newer, or Valkey" if old else ""
    return Check("Redis version", f"{name} {version}", remedy, decisive=True)


def _policy_check(policy: str) -> Check:
    remedy = "set maxmemory-policy noeviction: a server that evicts keys loses money and stock"
    return Check("maxmemory-policy", policy, "" if policy == "noeviction" else remedy, decisive=policy != "unknown")


def _append_only_check(info: Mapping[str, Any]) -> Check:
    if not info.get("aof_enabled"):
        remedy = "set appendonly yes: without it, what is not yet in PostgreSQL is lost when Redis ends"
        return Check("append-only file", "off", remedy)
    if info.get("aof_last_write_status", "ok") != "ok":
        return Check("append-only file", "the last write failed", "look for a full disk and at the server's log")
    return Check("append-only file", "on")


# ---- a cluster -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cluster:
    """What the nodes of a cluster say together, and what each primary that answers says of itself, by its id."""

    map: ClusterMap
    partitions: Partitions
    owners: tuple[ClusterNode | None, ...]
    answers: Mapping[str, _Node]
    troubles: Mapping[str, str]

    @property
    def primaries(self) -> list[ClusterNode]:
        """In the order of their slots."""
        return sorted(self.map.primaries.values(), key=lambda node: node.slots or ((CLUSTER_SLOTS, 0),))

    def count_of(self, node: ClusterNode) -> int:
        """How many partitions a node has."""
        return sum(owner is not None and owner.node_id == node.node_id for owner in self.owners)


def _cluster_checks(url: str, partition_count: int) -> list[Check]:
    seeds = parse_cluster_url(url)
    known = merge([_view_of_any(seeds)])
    answers, troubles, views, samples = {}, {}, [], Samples()
    for node in known.primaries.values():
        try:
            with _connected(replace(seeds[0], host=node.endpoint.host, port=node.endpoint.port)) as client:
                views.append(_view(client, node.endpoint))
                answers[node.node_id] = _look_at(client)
                samples.add(sample(client))
        except (redis.RedisError, OSError) as error:
            troubles[node.node_id] = str(error)
    partitions = Partitions(partition_count)
    together = merge(views) if views else known
    owners = tuple(together.owner(partitions.slot(number)) for number in range(partition_count))
    cluster = _Cluster(together, partitions, owners, answers, troubles)
    replicas = len(together.nodes) - len(together.primaries)
    used = ", ".join(str(node.info["used_memory_human"]) for node in answers.values())
    answer = f"{without_password(url)} answers: {len(together.primaries)} primaries, {replicas} other nodes"
    return [
        Check("Redis Cluster", answer),
        *(_primary_check(cluster, node) for node in cluster.primaries),
        *_failed_checks(cluster),
        _coverage_check(cluster),
        _evenness_check(cluster),
        _moving_check(cluster),
        *_same_everywhere(cluster),
        _min_replicas_check(cluster),
        Check("memory", f"{used} used; by a sample: {samples}"),
    ]


def _view_of_any(seeds: Sequence[RedisAddress]) -> ClusterView:
    trouble: Exception = ValueError("it names no node")
    for seed in seeds:
        try:
            with _connected(seed) as client:
                return _view(client, Endpoint(seed.host, seed.port))
        except (redis.RedisError, OSError) as error:
            trouble = error
    raise trouble


def _connected(address: RedisAddress) -> redis.Redis:
    tls: dict[str, Any] = {}
    if address.tls:
        files = (address.tls_authorities_file, address.tls_certificate_file, address.tls_key_file)
        tls = {"ssl": True, **dict(zip(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"), files, strict=True))}
    return redis.Redis(
        host=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=CONNECT_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        protocol=2,
        **tls,
    )


def _view(client: redis.Redis, asked: Endpoint) -> ClusterView:
    connection = client.connection_pool.get_connection()
    replies = []
    try:
        for command in VIEW_COMMANDS:
            connection.send_command(*command)  # type: ignore[no-untyped-call]
            replies.append(connection.read_response())
    finally:
        client.connection_pool.release(connection)
    return read_view(replies[0], replies[1], asked)


def _name(node: ClusterNode) -> str:
    return f"{node.endpoint.host}:{node.endpoint.port}"


def _primary_check(cluster: _Cluster, node: ClusterNode) -> Check:
    slots = sum(last - first + 1 for first, last in node.slots)
    share = f"{slots} slots, {cluster.count_of(node)} partitions"
    name = f"primary {_name(node)}"
    if node.node_id in cluster.troubles:
        remedy = "start it, or let its replica take over (CLUSTER FAILOVER TAKEOVER where no majority is left)"
        return Check(name, f"{share}; {cluster.troubles[node.node_id]}", remedy)
    answer = cluster.answers.get(node.node_id)
    if answer is None:
        return Check(name, share)
    info = answer.info
    replicas = [info[f"slave{number}"] for number in range(int(info["connected_slaves"]))]
    if not replicas:
        found = f"{share}, no replica"
        return Check(name, found, f"give it one (CLUSTER REPLICATE {node.node_id}): nobody takes over when it fails")
    behind = [int(info["master_repl_offset"]) - int(replica["offset"]) for replica in replicas]
    shown = ", ".join(
        f"replica {replica['ip']}:{replica['port']} {replica['state']}, {lag} bytes behind"
        for replica, lag in zip(replicas, behind, strict=True)
    )
    healthy = any(
        replica["state"] == "online" and lag <= LAG_BYTES_MAX for replica, lag in zip(replicas, behind, strict=True)
    )
    remedy = "" if healthy else "see why its replica does not follow: a failover now would lose what it lacks"
    return Check(name, f"{share}; {shown}", remedy)


def _failed_checks(cluster: _Cluster) -> Iterator[Check]:
    for node in cluster.map.nodes.values():
        if node.has_failed:
            remedy = "start it again, or take it out on every node (CLUSTER FORGET) and put another in its place"
            yield Check(f"node {_name(node)}", "has failed, says the cluster", remedy)


def _coverage_check(cluster: _Cluster) -> Check:
    lost = [number for number, owner in enumerate(cluster.owners) if owner is None]
    if not lost:
        return Check("partitions served", f"all {len(cluster.owners)}")
    slots = [cluster.partitions.slot(number) for number in lost]
    return Check("partitions served", f"not {lost}", f"give the slots {slots} to a node (CLUSTER ADDSLOTS)")


def _evenness_check(cluster: _Cluster) -> Check:
    counts = [cluster.count_of(node) for node in cluster.primaries]
    advice = "move slots so that every primary has one range of equal size, or take the ones without any as replicas"
    even = not counts or max(counts) - min(counts) <= 1
    return Check("partitions per node", ", ".join(map(str, counts)), advice="" if even else advice)


def _moving_check(cluster: _Cluster) -> Check:
    of = {cluster.partitions.slot(number): number for number in range(cluster.partitions.count)}
    moving = sorted(of[slot] for slot in cluster.map.moving if slot in of)
    if not moving:
        return Check("slots being moved", f"{len(cluster.map.moving)}, none with a partition")
    remedy = "end the move (CLUSTER SETSLOT ... NODE) or give it up (STABLE): they are not served, and recovery waits"
    return Check("slots being moved", f"those of partitions {moving}", remedy)


def _same_everywhere(cluster: _Cluster) -> Iterator[Check]:
    """Each check of a single server: once where all nodes are alike and well, else of each that is not."""
    checks = {node_id: _node_checks(answer) for node_id, answer in cluster.answers.items()}
    names = {node.node_id: _name(node) for node in cluster.primaries}
    for alike in zip(*checks.values(), strict=True):
        failed = [
            Check(f"{check.name} of {names[node_id]}", check.found, check.remedy)
            for node_id, check in zip(checks, alike, strict=True)
            if check.failed
        ]
        if failed:
            yield from failed
        else:
            yield Check(alike[0].name, "; ".join(dict.fromkeys(check.found for check in alike)))


def _min_replicas_check(cluster: _Cluster) -> Check:
    # INFO has the field where the setting is on; CONFIG is not for the application's user.
    off = [
        _name(node)
        for node in cluster.primaries
        if node.node_id in cluster.answers and "min_slaves_good_slaves" not in cluster.answers[node.node_id].info
    ]
    advice = (
        "min-replicas-to-write 1 bounds what a primary that is cut off accepts and loses; it sells nothing then while"
        " its replica is away"
    )
    found = f"not set on {', '.join(off)}" if off else "set on every primary"
    return Check("min-replicas-to-write", found, advice=advice if off else "")
