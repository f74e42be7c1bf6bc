"""HOST:PORT, Unix sockets, networks and paths, as an operator writes them.

Each function raises `ValueError` with a text that says how to correct the value.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TypeAlias

from relay.settings.units import parse_list, shortened

Network: TypeAlias = IPv4Network | IPv6Network

_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:]*))(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"\w(?:[\w.-]*\w)?\.?")
_LIKE_IPV4 = re.compile(r"[0-9.]+")
_OPEN_PATHS = ("/metrics", "/livez", "/readyz")
_LAST_PORT = 65535
_UNIX = "unix:"
_LONGEST_UNIX_PATH = 107
"""Bytes. `sun_path` has 108 in Linux, one of them for the null byte (unix(7))."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (name or address, IPv6 without its brackets) and a port. Port 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object, default_port: int | None = None, *, example_port: int = 2525) -> HostPort:
        """Reads `HOST:PORT`, with IPv6 in brackets. The port is optional if there is a default.

        `example_port` is the port in the examples of error messages.
        """
        if isinstance(value, HostPort):
            return value
        text = str(value).strip()
        found = _HOST_PORT.fullmatch(text)
        if not found:
            raise ValueError(_remedy_for(text, example_port))
        port = int(found["port"]) if found["port"] else default_port
        if port is None:
            raise ValueError(f'the port is missing; write HOST:PORT, for example "127.0.0.1:{example_port}"')
        host = _v6(found["v6"], example_port) if found["v6"] is not None else _host(found["host"])
        if port > _LAST_PORT:
            raise ValueError(f"port {port} does not exist; write one from 0 to {_LAST_PORT}")
        return cls(host, port)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        address = _address(self.host)
        return address.is_loopback if address else self.host.rstrip(".").lower() == "localhost"

    def takes(self, other: HostPort) -> bool:
        """Returns whether a connection to `other` certainly reaches a listener on this address."""
        if self.port != other.port:
            return False
        host, other_host = (
            "127.0.0.1" if name == "localhost" else name
            for name in (address.host.rstrip(".").lower() for address in (self, other))
        )
        if host == "0.0.0.0":
            return other.loopback and ":" not in other_host
        return host == other_host or (host == "::" and other.loopback)

    def clashes_with(self, other: HostPort) -> bool:
        """Returns whether certainly only one of the two addresses can be listened on."""
        if self == other:
            return self.port != 0
        # A listener on [::] leaves the IPv4 addresses free.
        return self.port != 0 and "::" not in (self.host, other.host) and (self.takes(other) or other.takes(self))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket to listen on. Only this machine can reach it, and no other address is the same."""

    path: Path

    loopback = True

    @classmethod
    def parse(cls, text: str) -> UnixAddress:
        """Reads `unix:PATH` with an absolute path."""
        return cls(_socket_path(text.removeprefix(_UNIX), "unix:/run/smtp-dedup-relay/smtp.sock"))

    def takes(self, other: HostPort) -> bool:
        """Returns whether a connection to `other` reaches this socket: never."""
        del other
        return False

    def clashes_with(self, other: HostPort) -> bool:
        """Returns whether only one of the two addresses can be listened on: never."""
        del other
        return False

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"


def parse_listen_address(value: object) -> HostPort | UnixAddress:
    """Reads `HOST:PORT` or `unix:PATH`."""
    if isinstance(value, UnixAddress):
        return value
    text = str(value).strip()
    return UnixAddress.parse(text) if text.startswith(_UNIX) else HostPort.parse(value)


def parse_http_address(value: object) -> HostPort | None:
    """Reads the `HOST:PORT` of the HTTP server; returns None for empty text."""
    return None if value is None or value == "" else HostPort.parse(value, example_port=9625)


def parse_host_names(value: object) -> tuple[str, ...]:
    """Reads a list of host names, and folds them."""
    names = tuple(str(item).strip().rstrip(".").lower() for item in parse_list(value, '["relay.example.com"]'))
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f'"{shortened(name)}" is not a host name; write it without scheme and port')
    return names


def parse_open_paths(value: object) -> tuple[str, ...]:
    """Reads a list of paths of the HTTP server."""
    paths = tuple(str(item).strip() for item in parse_list(value, '["/livez"]'))
    for path in paths:
        if path not in _OPEN_PATHS:
            raise ValueError(f'"{shortened(path)}" is none of {", ".join(_OPEN_PATHS)}; write for example ["/livez"]')
    return paths


def parse_networks(value: object) -> tuple[Network, ...]:
    """Reads a list of CIDR networks: a TOML list, the text of one, or text with commas between the networks."""
    return tuple(_network(item) for item in parse_list(value, '["127.0.0.0/8", "::1/128"]'))


def parse_path(value: object) -> Path:
    """Reads the path of a file or folder. `~` is refused, because it would be taken literally."""
    text = str(value)
    if not text or not text.isprintable():
        raise ValueError('not a path; write for example "/etc/smtp-dedup-relay/password"')
    if text.startswith("~"):
        raise ValueError('"~" is not expanded here; write the whole path')
    # pathlib keeps two leading slashes, which a URL such as "maildir:PATH" could not repeat.
    return Path(f"/{text.lstrip('/')}" if text.startswith("//") else text)


def parse_path_or_none(value: object) -> Path | None:
    """Reads a path; returns None for empty text."""
    return None if value is None or value == "" else parse_path(value)


def parse_paths(value: object) -> tuple[Path | None, ...]:
    """Reads a list of paths; empty text in it means none."""
    return tuple(parse_path_or_none(item) for item in parse_list(value, '["/etc/smtp-dedup-relay/password2"]'))


def _remedy_for(text: str, port: int) -> str:
    if text.count(":") > 1 and "[" not in text:
        return f'an IPv6 address needs brackets; write for example "[::1]:{port}"'
    return f'not HOST:PORT; write for example "127.0.0.1:{port}"'


def _host(text: str) -> str:
    if text in {"", "*"}:
        raise ValueError(
            'the host is missing; write for example "127.0.0.1"; "0.0.0.0" or "[::]" where all addresses are meant'
        )
    if _NAME.fullmatch(text) and (not _LIKE_IPV4.fullmatch(text) or _address(text)):
        return text
    raise ValueError('not a host name or address; write for example "127.0.0.1" or "mail.example.com"')


def _v6(text: str, port: int) -> str:
    if isinstance(_address(text), IPv6Address):
        return text
    raise ValueError(f'not an IPv6 address between the brackets; write for example "[::1]:{port}"')


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _network(item: object) -> Network:
    if isinstance(item, IPv4Network | IPv6Network):
        return item
    text = str(item).strip()
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'"{text}" is not a network; write for example "10.0.0.0/8"') from None
    if isinstance(item, str) and _address(text.partition("/")[0]) == network.network_address:
        return network
    raise ValueError(f'"{text}" is a host inside a network; write "{network}"')


def parse_socket_or_none(value: object) -> Path | None:
    """Reads the absolute path of a Unix socket. Empty means none."""
    text = "" if value is None else str(value).strip()
    return _socket_path(text.removeprefix(_UNIX), "/run/smtp-dedup-relay/admin.sock") if text else None


def _socket_path(text: str, example: str) -> Path:
    path = parse_path(text)
    if not path.is_absolute():
        raise ValueError(f'not an absolute path; write for example "{example}"')
    size = len(os.fsencode(path))
    if size > _LONGEST_UNIX_PATH:
        raise ValueError(
            f"the path of a Unix socket has at most {_LONGEST_UNIX_PATH} bytes, and this one has {size}; write a "
            "shorter one"
        )
    return path
