"""Which server this is: learned from its own INFO, handed to every script, compared with the one that is trusted."""

from dataclasses import dataclass

# What to ask, in this order; the replies go to `read_identity`. INFO takes one section at a time before Redis 7.
IDENTITY_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("INFO", "server"),
    ("INFO", "replication"),
    ("INFO", "persistence"),
    ("TIME",),
)


class NotServing(Exception):
    """The server answers, but it is not one to send scripts to now."""


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """One run of one primary: ``token`` is ``run_id:master_replid``, another after each restart, failover or promotion.

    ``clock_ms`` is the server's wall clock, in ms since 1970, when it was asked. ``origin`` is the replication id that
    it followed before it was promoted; nothing where it was not.
    """

    token: bytes
    clock_ms: int
    origin: bytes = b""


def read_identity(
    server: bytes, replication: bytes, persistence: bytes, time: list[bytes], *, in_cluster: bool = False
) -> ServerIdentity:
    """Read the replies to `IDENTITY_COMMANDS`.

    Raises NotServing for a replica, a loading server, and one that is a node of a cluster where none is expected, or is
    none where one is.
    """
    about = _fields(server)
    if (b"cluster" in (about.get(b"redis_mode"), about.get(b"server_mode"))) != in_cluster:
        raise NotServing(
            "it is not a node of a Redis Cluster: write redis:// or rediss://"
            if in_cluster
            else "it is a node of a Redis Cluster: write redis+cluster:// or rediss+cluster://"
        )
    role = _fields(replication)
    if role.get(b"role") != b"master":
        primary = b":".join((role.get(b"master_host", b"?"), role.get(b"master_port", b"?"))).decode(errors="replace")
        raise NotServing(f"it is a replica of {primary}: name the primary")
    if _fields(persistence).get(b"loading", b"0") != b"0":
        raise NotServing("it is loading its data: wait")
    try:
        token = about[b"run_id"] + b":" + role[b"master_replid"]
    except KeyError as missing:
        raise NotServing(f"its INFO has no {missing}: it is not a Redis 6.2 or later, or a Valkey") from None
    seconds, microseconds = time
    origin = role.get(b"master_replid2", b"")
    return ServerIdentity(token, int(seconds) * 1000 + int(microseconds) // 1000, origin if origin.strip(b"0") else b"")


def read_version(server: bytes) -> str:
    """The server's name and version from its ``INFO server``."""
    about = _fields(server)
    valkey = about.get(b"valkey_version")
    return f"Redis {about[b'redis_version'].decode()}" if valkey is None else f"Valkey {valkey.decode()}"


def _fields(info: bytes) -> dict[bytes, bytes]:
    return dict(line.split(b":", 1) for line in info.splitlines() if b":" in line and not line.startswith(b"#"))
