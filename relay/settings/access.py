"""Who may send: refuses settings with which the relay would forward mail for everybody (an open relay)."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING

from relay.settings.addresses import HostPort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.settings.addresses import Network, UnixAddress

_WIDEST = {4: 8, 6: 16}
"""The least bits of a public network, by IP version. No organisation has a wider one, but half of everybody is one."""
_PRIVATE = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)
"""Networks that the Internet does not route: RFC 1918, 6598, 1122, 3927, 4291 and 4193."""


def open_networks(networks: Sequence[Network]) -> list[str]:
    """Returns the networks that are wider than any that one organisation has, such as 0.0.0.0/0."""
    return [
        str(network) for network in networks if network.prefixlen < _WIDEST[network.version] and not _private(network)
    ]


def public_networks(networks: Sequence[Network]) -> list[str]:
    """Returns the networks that are not private ones or this machine."""
    return [str(network) for network in networks if not _private(network)]


def check_access(
    addresses: Sequence[HostPort | UnixAddress], networks: Sequence[Network], balancers: Sequence[Network], mode: str
) -> None:
    """Raises `ValueError` if everybody could send.

    `addresses` are those on which clients connect, directly or through `balancers`, which may be on this machine.
    """
    if wide := open_networks(balancers):
        raise ValueError(
            f"listen.proxy_networks holds {wide[0]}: every host in it could send from any address that it names (an "
            "open relay); name the addresses of your load balancers only"
        )
    public = [address for address in addresses if not address.loopback or (balancers and isinstance(address, HostPort))]
    if not public:
        return
    has_users = mode in {"file", "passthrough"}
    others = "; users who log in need not be in them" if has_users else ', and let others log in: auth.mode = "file"'
    if wide := open_networks(networks):
        raise ValueError(
            f"listen.networks holds {wide[0]} while listen.address is {public[0]}"
            f"{' behind a load balancer' if public[0].loopback else ''}: every host that can connect could send"
            f" through this relay without a login (an open relay); name your own networks only{others}"
        )
    if mode == "any" and (found := public_networks(networks)):
        raise ValueError(
            f'auth.mode = "any" accepts every password, and listen.networks holds the public network {found[0]}; name '
            'private networks only, or write auth.mode = "file" or "passthrough"'
        )


def _private(network: Network) -> bool:
    if isinstance(network, IPv4Network):
        return any(isinstance(private, IPv4Network) and network.subnet_of(private) for private in _PRIVATE)
    return any(not isinstance(private, IPv4Network) and network.subnet_of(private) for private in _PRIVATE)
