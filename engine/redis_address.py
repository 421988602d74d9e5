"""Where Redis is: the parsed ``FIRSTCOME_REDIS_URL``."""

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

PORT_DEFAULT = 6379
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A TCP address or a Unix socket, and how to log in there. Its text form shows no password."""

    host: str = "localhost"
    port: int = PORT_DEFAULT
    socket_path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_authorities_file: str | None = None
    tls_certificate_file: str | None = None
    tls_key_file: str | None = None

    def __str__(self) -> str:
        if self.socket_path is not None:
            return f"unix://{self.socket_path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """The certificates to trust and to show, or None without TLS. Reads the named files."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.tls_authorities_file)
        if self.tls_certificate_file is not None:
            context.load_cert_chain(self.tls_certificate_file, self.tls_key_file)
        return context


CLUSTER_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}


def names_a_cluster(url: str) -> bool:
    """Whether a URL is one for `parse_cluster_url`."""
    return url.partition("://")[0] in CLUSTER_SCHEMES


def parse_redis_addresses(url: str) -> tuple[RedisAddress, ...]:
    """Read a URL of either kind: one address of a server, or some of a cluster's nodes. Raises as `parse_redis_url`."""
    return parse_cluster_url(url) if names_a_cluster(url) else (parse_redis_url(url),)


def parse_cluster_url(url: str) -> tuple[RedisAddress, ...]:
    """Read ``redis+cluster://[[user]:password@]host[:port],host[:port],...[/0]`` or ``rediss+cluster://...`` (TLS).

    Any node that is named leads to all others. The options are those of `parse_redis_url`, and so is what it raises.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in CLUSTER_SCHEMES:
        raise ValueError("a Redis Cluster's URL begins with redis+cluster:// or rediss+cluster://")
    authority_length = next((index for index, letter in enumerate(rest) if letter in "/?"), len(rest))
    authority, tail = rest[:authority_length], rest[authority_length:]
    credentials, at, hosts = authority.rpartition("@")
    if not all(hosts.split(",")):
        raise ValueError("a Redis Cluster's URL names one node or more, with commas between them")
    return tuple(
        parse_redis_url(f"{CLUSTER_SCHEMES[scheme]}://{credentials}{at}{host}{tail}") for host in hosts.split(",")
    )


def parse_redis_url(url: str) -> RedisAddress:
    """Read ``redis://[[user]:password@]host[:port][/0]``, ``rediss://...`` (TLS) or ``unix://[[user]:password@]/path``.

    With TLS, options name files: ``?ssl_ca_certs=/etc/ca.pem``, ``ssl_certfile``, ``ssl_keyfile``.
    Raises ValueError that says what is wrong, without repeating the URL, which may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("a Redis URL begins with redis://, rediss://, unix://, redis+cluster:// or rediss+cluster://")
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    database = options.pop("db", "0")
    if parts.scheme != "unix" and parts.path not in {"", "/"}:
        database = parts.path.removeprefix("/")
    if database != "0":
        raise ValueError(f"only database 0 can be used (Redis Cluster has no other), not {database!r}")
    allowed = _TLS_OPTIONS if parts.scheme == "rediss" else frozenset()
    if unknown := options.keys() - allowed:
        raise ValueError(f"the Redis URL has options that are not known: {', '.join(sorted(unknown))}")
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if username is not None and password is None:
        raise ValueError(
            "the Redis URL names a user without a password (a password alone is written redis://:password@host)"
        )
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError("a Unix socket is written with its whole path: unix:///path/to/redis.sock")
        return RedisAddress(socket_path=unquote(parts.path), username=username, password=password)
    return RedisAddress(
        host=parts.hostname or "localhost",
        port=parts.port or PORT_DEFAULT,
        username=username,
        password=password,
        tls=parts.scheme == "rediss",
        tls_authorities_file=options.get("ssl_ca_certs"),
        tls_certificate_file=options.get("ssl_certfile"),
        tls_key_file=options.get("ssl_keyfile"),
    )
