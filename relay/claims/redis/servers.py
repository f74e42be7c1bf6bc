"""The Redis servers of a store: their addresses and the login. Imports nothing, so that the settings may use it."""

from __future__ import annotations

import enum
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations of the dataclass
from dataclasses import dataclass, field
from typing import NamedTuple


class Address(NamedTuple):
    """Where a server listens; an IPv6 address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Topology(enum.Enum):
    """How the servers of a store work together."""

    SINGLE = enum.auto()
    SENTINEL = enum.auto()
    CLUSTER = enum.auto()


@dataclass(frozen=True, slots=True)
class RedisServers:
    """The Redis or Valkey servers of one store, and the login."""

    addresses: tuple[Address, ...] = ()
    """The server, the sentinels, or nodes of the Cluster. Empty if `socket` is set."""
    topology: Topology = Topology.SINGLE
    socket: str = ""
    """Path of a Unix socket."""
    service: str = ""
    """The master's name in Sentinel."""
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    sentinel_password: str = field(default="", repr=False)
    tls: Mapping[str, str | bool] | None = None
    """Options of redis-py, such as `ssl_ca_certs`. None: without TLS."""
    namespace: str = field(default="", repr=False)
    """Separates the keys of relays that share the servers."""
    hosts: str = field(default="", compare=False)
    """The addresses as the URL writes them, for errors."""

    def __str__(self) -> str:
        return self.socket or self.hosts
