"""Whose address a request comes from, where proxies stand in between."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

FORWARDS_MAX: Final = 20
"""So many addresses of `X-Forwarded-For` are looked at, from the nearest."""

_IPV6_PREFIX: Final = 64
"""What one household or server gets; the rest of an address is its own to choose."""

_WITH_PORT: Final = re.compile(r"\[(?P<bracketed>[^\]]+)\](?::\d+)?|(?P<plain>[\d.]+):\d+")


class TrustedProxies:
    """Proxies that may say for whom they ask (`X-Forwarded-For`): addresses and networks, spaces or commas between.

    Raises ValueError for what is none. The default trusts nobody, and so the header of nobody.
    """

    def __init__(self, networks: str = "") -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(text) for text in networks.replace(",", " ").split()
        )

    def client(self, peer: str, forwarded_for: bytes | None) -> str:
        """The address nearest to us that is no trusted proxy's, IPv6 as its /64; "" where there is none.

        Only a trusted peer's word counts, and only as far as the next address is a trusted one's: what stands beyond
        was written by whoever liked to.
        """
        address = _parsed(peer)
        if forwarded_for is not None and address is not None and self._networks:
            # From the right, so that a header of nothing but commas costs no more than any other.
            for text in forwarded_for.decode("latin-1").rsplit(",", FORWARDS_MAX)[-FORWARDS_MAX:][::-1]:
                if not self._trusts(address):
                    break
                forwarded = _parsed(text.strip())
                if forwarded is None:
                    break
                address = forwarded
        return "" if address is None else _sender(address)

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    with_port = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address(text if with_port is None else with_port["bracketed"] or with_port["plain"])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


@lru_cache(maxsize=4096)
def _sender(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address) >> (128 - _IPV6_PREFIX) << (128 - _IPV6_PREFIX), _IPV6_PREFIX)))
