"""What counts as one client. A client is named by its IP address, or by `LOCAL`."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

LOCAL = "local"
"""The name of all clients on a Unix socket, in place of an IP address."""
_IPV6_CLIENT = 64
"""Bits. A client usually has a whole IPv6 network of this length."""


def address_of(peer: str) -> IPv4Address | IPv6Address:
    """Returns a client's address; IPv4 for a mapped one. Raises `ValueError`."""
    address = ip_address(peer.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def names_itself(balancer: str, client: str) -> bool:
    """Returns whether the client in a balancer's PROXY header is the balancer's own machine.

    It is if the address is the balancer's own, or the loopback address of a machine that is not this one.
    """
    return address_of(client) == address_of(balancer) or (is_loopback(client) and not is_loopback(balancer))


def is_loopback(peer: str) -> bool:
    """Returns whether a client is on this machine."""
    return peer == LOCAL or (bool(peer) and address_of(peer).is_loopback)


def client_of(peer: str) -> str:
    """Returns what counts as one client: an IPv4 address, an IPv6 network of 64 bits, or all local clients."""
    if ":" not in peer:
        return peer
    address = address_of(peer)
    return str(int(address) >> _IPV6_CLIENT) if address.version == 6 else str(address)  # noqa: PLR2004 - IPv6
