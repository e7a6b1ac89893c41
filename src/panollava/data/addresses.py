"""Which addresses a CSV's URLs may lead to: those of the public internet.

A URL in a data set of others could name this machine, its network or a cloud's metadata service, directly, by a name or
by a redirect. Resolves a host's name to the addresses to connect to, and raises PrivateAddress unless all of them are
public.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
# What `ipaddress` calls global, in some of its versions, and is a network's own: site-local (RFC 3879), local-use NAT64
# (RFC 8215), IPv4-compatible (RFC 4291, 2.5.5.1).
_OWN = tuple(IPv6Network(one) for one in ("fec0::/10", "64:ff9b:1::/48", "::/96"))


class PrivateAddress(Exception):
    """A host is not on the public internet."""

    def __init__(self, host: str, address: str) -> None:
        shown = host if host == address else f"{host} ({address})"
        super().__init__(
            f"{shown} is an address of this machine or its network, not of the public internet. If the images lie "
            "there: data.allow_private_addresses: true"
        )


def is_public(address: str) -> bool:
    """Whether an IP address, as text, is one of the public internet; IPv4 addresses inside of IPv6 ones count."""
    found: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(found, IPv6Address):
        inside = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        if found in _NAT64:
            inside.append(IPv4Address(int(found) & 0xFFFFFFFF))
        if any(one is not None and not is_public(str(one)) for one in inside):
            return False
        if found.ipv4_mapped is not None:
            return True
        if any(found in network for network in _OWN):
            return False
    return found.is_global and not found.is_multicast


def public_addresses(host: str, port: int) -> list[str]:
    """The addresses of `host`. Raises PrivateAddress where one of them is not public, socket.gaierror for none."""
    found = socket.getaddrinfo(host.strip("[]").encode("idna").decode(), port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not is_public(address):
            raise PrivateAddress(host, address)
    return addresses


def refuse_private_host(host: str) -> None:
    """Where a proxy connects: raise PrivateAddress for a host that is private as far as this machine knows."""
    with suppress(socket.gaierror, UnicodeError):
        public_addresses(host, 80)
