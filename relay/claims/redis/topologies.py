"""Builds the deployment that the URL of a store names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.claims.redis.cluster import Cluster
from relay.claims.redis.connection import DirectConnector, ServerConnection
from relay.claims.redis.deployment import SingleServer
from relay.claims.redis.sentinel import SentinelConnector
from relay.claims.redis.servers import Topology

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.claims.redis.deployment import Deployment
    from relay.claims.redis.servers import RedisServers


def new_deployment(servers: RedisServers, timeout: float, clock: Callable[[], float]) -> Deployment:
    """Returns the servers, not connected yet. `timeout` in seconds; `clock` is monotonic."""
    match servers.topology:
        case Topology.CLUSTER:
            return Cluster(servers, timeout, clock)
        case Topology.SENTINEL:
            return SingleServer(ServerConnection(SentinelConnector(servers, timeout), clock))
        case Topology.SINGLE:
            return SingleServer(ServerConnection(DirectConnector(servers, timeout), clock))
