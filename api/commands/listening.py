"""The ports and sockets that are listened on, and why one is refused."""

import contextlib
import errno
import ipaddress
import itertools
import os
import random
import re
import socket
import sys
from pathlib import Path

BACKLOG = 2048
BUS_PORT_OFFSET = 10_000
"""From a cluster node's port to that of its bus (Redis Cluster specification)."""
FREE_PORTS = range(15_000, 22_000)
"""Below those that Linux (from 32,768) and macOS (from 49,152) give to outgoing connections, with their bus too."""

_CANDIDATES = itertools.cycle(random.SystemRandom().sample(FREE_PORTS, len(FREE_PORTS)))
_LISTEN = "0A"


class CannotListen(Exception):
    """An address cannot be listened on; the message says what to do."""


def require_loopback(host: str) -> None:
    """Refuses addresses that others can reach, for an API without a key to know callers by. Raises CannotListen."""
    if not is_loopback(host):
        raise CannotListen(
            f"without a key there is no authentication, so the API serves this machine only and not {host}: set "
            "FIRSTCOME_TOKEN_SECRET or FIRSTCOME_TOKEN_KEY_FILE (`firstcome token --new-key FILE` writes one), or "
            "leave --host at 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, processes: int = 1) -> list[socket.socket]:
    """A listening socket for each process, all on one address (port 0: a free one). Raises CannotListen.

    On Linux each process gets a socket of its own, among which the kernel spreads connections evenly; elsewhere they
    share one. The caller keeps them all open, so connections that wait at a process that died are served by its
    successor.
    """
    first = _bind(host, port, share_port=False)
    if processes == 1 or sys.platform != "linux":
        first.listen(BACKLOG)
        return [first] * processes
    # The plain socket has shown that nobody else listens here; with SO_REUSEPORT a second API would go unnoticed.
    port = first.getsockname()[1]
    first.close()
    listeners = [_bind(host, port, share_port=True) for _ in range(processes)]
    for listener in listeners:
        listener.listen(BACKLOG)
    return listeners


def free_port(host: str = "127.0.0.1", *, with_bus: bool = False) -> int:
    """A port that nobody listens on, for a process that will; `with_bus`: the one of a cluster node's bus is free too.

    The port that the system gives for 0 may be an outgoing connection's by the time that somebody listens on it; as
    systems are set up, none is given one of `FREE_PORTS`. Calls of a process give different ones until all have had
    their turn. Raises CannotListen.
    """
    # A host that is not this machine's is refused as such, and not as one without free ports.
    _bind(host, 0, share_port=False).close()
    for port in itertools.islice(_CANDIDATES, len(FREE_PORTS)):
        if is_free(port, host, with_bus=with_bus):
            return port
    raise CannotListen(f"no port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} is free: stop what listens on them")


def is_free(port: int, host: str = "127.0.0.1", *, with_bus: bool = False) -> bool:
    """Whether nobody uses a port of this machine at the moment, nor the one of its cluster bus."""
    try:
        for number in (port, port + BUS_PORT_OFFSET) if with_bus else (port,):
            _bound(host, number, share_port=False).close()
    except OSError:
        return False
    return True


class KeptPorts:
    """The ports of a shop's parts, kept in a file: each part has the one of its last start again, while that is free.

    None of them is ``taken``, and no two are the same.
    """

    def __init__(self, file: Path, taken: int) -> None:
        self._file = file
        self._taken = taken
        self._ports: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            self._ports = {name: int(port) for name, port in map(str.split, file.read_text().splitlines())}

    def of(self, part: str) -> int:
        """A port that nobody listens on. Raises CannotListen, and OSError where it cannot be kept."""
        port = self._ports.get(part, self._taken)
        others = {self._taken, *(number for name, number in self._ports.items() if name != part)}
        if port in others or port not in FREE_PORTS or not is_free(port):
            port = next(found for found in iter(free_port, None) if found not in others)
            self._ports[part] = port
            self._file.write_text("".join(f"{name} {number}\n" for name, number in self._ports.items()))
        return port


def http_url(host: str, port: int) -> str:
    """The URL of an API on this address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind(host: str, port: int, *, share_port: bool) -> socket.socket:
    try:
        return _bound(host, port, share_port=share_port)
    except OSError as error:
        raise CannotListen(_explain(error, host, port)) from error


def _bound(host: str, port: int, *, share_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        holder = _holder_of(port)
        return (
            f"port {port} is in use{f' by {holder}' if holder else ''}: stop that, or choose another one with --port "
            "(0 takes a free one)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs rights that this user does not have: choose one from 1024 on with --port"
    return f"cannot listen on {host}: {error.strerror or error}: give an address of this machine with --host"


def _holder_of(port: int) -> str:
    """The process that listens on a port, such as `process 12 (nginx)`; "" where it cannot be seen."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        with contextlib.suppress(OSError):
            if any(os.readlink(handle) in inodes for handle in (process / "fd").iterdir()):
                command = re.sub(r"\W*$", "", (process / "comm").read_text())
                return f"process {process.name} ({command})"
    return ""
