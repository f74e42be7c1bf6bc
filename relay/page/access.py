"""Where a request comes from, and whether the page may be shown there at all. `guard` adds sessions and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from aiohttp import web
from yarl import URL

from relay.core.client import LOCAL, address_of, is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.settings.addresses import Network

_FORWARDING = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP")
_LOCALHOST = "127.0.0.1"


class Refused(Exception):  # noqa: N818 - it is a decision, not an error
    """A request to which the page is not shown. The arguments are the reason and the remedy."""

    def __init__(self, reason: str, remedy: str, status: int = 403) -> None:
        super().__init__(reason, remedy)
        self.reason, self.remedy, self.status = reason, remedy, status


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sent a request."""

    client: str
    """The IP address, or `LOCAL` on a Unix socket."""
    encrypted: bool
    """Whether the browser uses TLS."""
    user: str = ""
    """The user who has logged in."""
    session: str = ""
    """The id of the session."""

    @property
    def trusted(self) -> bool:
        """Whether the visitor is on this machine."""
        return is_loopback(self.client)


VISITOR = web.RequestKey("visitor", Visitor)
"""The key of a request's visitor."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may see the page."""

    needs_login: bool
    host_names: frozenset[str] = frozenset()
    """Names under which the page is known, folded; addresses and localhost need not be in it."""
    proxy_networks: Sequence[Network] = ()

    def visitor(self, request: web.Request) -> Visitor:
        """Returns who sent a request. Raises `Refused` if the page must not be shown there."""
        visitor = self._identify(request)
        self._check_host(request)
        if visitor.trusted:
            return visitor
        if not self.needs_login:
            raise Refused(
                "This page is shown on this machine only.",
                "To open it from other hosts, name a file in http.users_file, add yourself with relay user add, and "
                "set http.tls = true or use a proxy (docs/page.md).",
            )
        if not visitor.encrypted:
            raise Refused(
                "This page is not shown over an unprotected connection.",
                "Set http.tls = true, or let a proxy speak TLS, name it in http.proxy_networks, and let it send "
                "X-Forwarded-Proto: https (docs/page.md).",
            )
        return visitor

    def _identify(self, request: web.Request) -> Visitor:
        peer = _peer(request)
        if self._is_proxy(peer) and "X-Forwarded-For" in request.headers:
            client = self._forwarded_client(request)
            if is_loopback(client) and not is_loopback(peer):
                client = peer  # a program on the proxy's host, not on this one
            return Visitor(client, request.headers.get("X-Forwarded-Proto") == "https")
        if is_loopback(peer) and any(name in request.headers for name in _FORWARDING):
            raise Refused(
                "This request came through a proxy on this machine that the relay does not know.",
                "Name the proxy in http.proxy_networks, and let it send X-Forwarded-For (docs/page.md).",
            )
        return Visitor(peer, request.secure)

    def _forwarded_client(self, request: web.Request) -> str:
        """Returns the last address that is not a proxy's own: what stands before it, the client may have written."""
        found = ",".join(request.headers.getall("X-Forwarded-For")).split(",")
        client = ""
        for each in reversed(found):
            try:
                client = str(address_of(each.strip()))
            except ValueError:
                break
            if not self._is_proxy(client):
                return client
        if not client:
            raise Refused("The proxy sent no address in X-Forwarded-For.", "Correct it (docs/page.md).")
        return client

    def _is_proxy(self, peer: str) -> bool:
        address = address_of(_LOCALHOST if peer == LOCAL else peer)
        return any(address in network for network in self.proxy_networks)

    def _check_host(self, request: web.Request) -> None:
        """Refuses names that are not the relay's: a page of another site could point its own name to this address."""
        host = host_of(request)
        if not host or not (_is_address(host) or host == "localhost" or host in self.host_names):
            raise Refused(
                f'This page is not known as "{host}".',
                "Add the name to http.host_names, or open the page by its address.",
                status=421,
            )


def host_of(request: web.Request) -> str:
    """Returns the host in the `Host` field, folded and without its port; empty if it is not valid."""
    try:
        host = URL(f"http://{request.headers.get('Host', '')}").host
    except ValueError:  # also for a label of an international name that cannot be decoded
        return ""
    return (host or "").rstrip(".").lower()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _peer(request: web.Request) -> str:
    """Returns the address of the other end of the connection, or `LOCAL` on a Unix socket."""
    name = request.transport.get_extra_info("peername") if request.transport else None
    return str(name[0]) if isinstance(name, tuple) else LOCAL
