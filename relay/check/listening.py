"""Whether the relay can listen on the addresses of its settings, and if not, whether a relay already does."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from relay.runtime import unix_socket

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.settings.addresses import HostPort, UnixAddress

_ANSWER_LIMIT = 5.0
"""Seconds."""
_LONGEST_ANSWER = 4096
"""Bytes."""
_OUR_NAME = b"smtp-dedup-relay"
"""A relay sends this in its SMTP greeting and in the `Server` field of its HTTP responses."""
_PROXY_HEADER = b"PROXY UNKNOWN\r\n"
"""What a balancer sends when it connects for itself. A relay that takes this command for a balancer expects it."""
_REQUESTS = {"listen.address": b"", "listen.tls_address": b"", "http.address": b"GET /livez HTTP/1.0\r\n\r\n"}
_IN_USE = os.strerror(errno.EADDRINUSE)


def addresses(settings: Settings) -> dict[str, HostPort | UnixAddress]:
    """Returns the addresses to listen on, by the setting that names each."""
    all_keys = {
        "listen.address": settings.listen.address,
        "listen.tls_address": settings.listen.tls_address,
        "http.address": settings.http.address,
    }
    return {key: address for key, address in all_keys.items() if address is not None}


def bind_error(address: HostPort | UnixAddress, settings: Settings) -> str:
    """Returns the reason why the relay cannot listen on an address; empty if it can."""
    from relay.settings.addresses import HostPort

    try:
        if isinstance(address, HostPort):
            _bind(address)
        else:
            unix_socket.check_free(address.path)
            if settings.listen.socket_group:
                unix_socket.group_id(settings.listen.socket_group)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _bind(address: HostPort) -> None:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the relay itself does: a listener is in the way, connections in TIME_WAIT are not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address.host, address.port))


def held_by_relay(key: str, address: HostPort | UnixAddress, reason: str, settings: Settings) -> bool:
    """Returns whether the address is in use, which `reason` says, and a relay answers there."""
    if reason != _IN_USE:
        return False
    request, received = _REQUESTS[key], b""
    end = b"\r\n\r\n" if request else b"\n"
    deadline = time.monotonic() + _ANSWER_LIMIT
    try:
        with _connect(key, address, settings) as connection:
            connection.sendall(request)
            while end not in received and len(received) < _LONGEST_ANSWER:
                # A limit for the whole answer, not for each piece of it.
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                more = connection.recv(512)
                if not more:
                    break
                received += more
    except OSError:
        return False
    return _OUR_NAME in received


def _connect(key: str, address: HostPort | UnixAddress, settings: Settings) -> socket.socket:
    """Connects, and begins as a relay with these settings expects it: with a PROXY header, and with TLS."""
    from relay.settings.addresses import HostPort

    if not isinstance(address, HostPort):
        return unix_socket.connect(address.path, _ANSWER_LIMIT)
    connection = socket.create_connection((address.host, address.port), timeout=_ANSWER_LIMIT)
    try:
        own = ip_address(connection.getsockname()[0])
        if key != "http.address" and any(own in network for network in settings.listen.proxy_networks):
            connection.sendall(_PROXY_HEADER)
        has_tls = key == "listen.tls_address" or (key == "http.address" and settings.http.tls)
        return _in_tls(connection) if has_tls else connection
    except OSError:
        connection.close()
        raise


def _in_tls(connection: socket.socket) -> socket.socket:
    """Does a handshake without a look at the certificate: only the greeting is of interest."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def listen_remedy(key: str, reason: str) -> str:
    """Returns the remedy for an address that cannot be listened on for this reason."""
    if "group" in reason:
        return "correct listen.socket_group, or add the relay's user to the group"
    if reason == os.strerror(errno.ENOENT):
        return f"make the folder, or choose another {key}"
    return f"choose another {key}" + (", or stop the program that uses it" if reason == _IN_USE else "")
