"""The addresses and inherited sockets on which a relay listens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from relay.core.errors import CannotListenError
from relay.events.service import ADDRESS_NOT_USED
from relay.settings.addresses import HostPort

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Mapping

    from relay.monitor.http import HttpServer
    from relay.settings import Settings
    from relay.settings.addresses import UnixAddress
    from relay.smtp.listener import Listener


async def listen(
    settings: Settings, listener: Listener, http: HttpServer, inherited: Mapping[str, list[socket.socket]]
) -> tuple[str, str, str]:
    """Listens for SMTP, SMTP over TLS, and HTTP, in this order. Returns the addresses; an empty one means nowhere.

    `inherited` are the sockets of the service manager by name (`relay.runtime.systemd`), which replace the addresses in
    the settings. Raises `CannotListenError`.
    """
    _warn_of_unused(settings, inherited)
    # SMTP first: a client that sees a live health check can send.
    smtp = await _listen_smtp(settings, listener, inherited.get("smtp"))
    smtps = await _listen_smtps(settings, listener, inherited.get("smtps"))
    return smtp, smtps, await _listen_http(settings, http, inherited.get("http"))


async def _listen_smtp(settings: Settings, listener: Listener, inherited: list[socket.socket] | None) -> str:
    if inherited:
        listener.adopt(inherited)
        return _names_of(inherited)
    return await _started("listen.address", settings.listen.address, _start_listener(settings, listener))


async def _listen_smtps(settings: Settings, listener: Listener, inherited: list[socket.socket] | None) -> str:
    address = settings.listen.tls_address
    if inherited:
        listener.adopt_tls(inherited)
        return _names_of(inherited)
    if address is None:
        return ""
    started = listener.start_tls(address.host, address.port, reuse_port=settings.listen.reuse_port)
    return await _started("listen.tls_address", address, started)


async def _listen_http(settings: Settings, http: HttpServer, inherited: list[socket.socket] | None) -> str:
    address = settings.http.address
    if inherited:
        await http.adopt(inherited)
        return _names_of(inherited)
    return await _started("http.address", address, http.start(address.host, address.port)) if address else ""


def _warn_of_unused(settings: Settings, inherited: Mapping[str, list[socket.socket]]) -> None:
    for name, key, address in (
        ("smtp", "listen.address", settings.listen.address),
        ("smtps", "listen.tls_address", settings.listen.tls_address),
        ("http", "http.address", settings.http.address),
    ):
        if name in inherited and address is not None and str(address) != _names_of(inherited[name]):
            ADDRESS_NOT_USED.log(key=key, address=str(address), socket=_names_of(inherited[name]))


async def _start_listener(settings: Settings, listener: Listener) -> int:
    """Listens on `listen.address`, and returns the port; 0 for a Unix socket."""
    listen = settings.listen
    if isinstance(listen.address, HostPort):
        address, reuse_port = listen.address, listen.reuse_port
        return await listener.start(address.host, address.port, reuse_port=reuse_port)
    listener.start_unix(listen.address.path, listen.socket_mode, listen.socket_group)
    return 0


def _names_of(sockets: list[socket.socket]) -> str:
    """Returns the addresses of listening sockets, as in the settings."""
    names = []
    for listening in sockets:
        name = listening.getsockname()
        names.append(str(HostPort(*name[:2])) if isinstance(name, tuple) else f"unix:{os.fsdecode(name)}")
    return ", ".join(names)


async def _started(key: str, address: HostPort | UnixAddress, started: Awaitable[int]) -> str:
    """Returns the address with the port on which a listener has started. Raises `CannotListenError`."""
    try:
        port = await started
    except OSError as error:
        # asyncio wraps the system's message in a sentence; error numbers of the resolver are negative.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise CannotListenError(key, str(address), reason) from error
    return str(HostPort(address.host, port) if isinstance(address, HostPort) else address)
