"""The stores and the upstreams of a run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from parts.auth_service import AuthService
from parts.ports import HOST

from faults.faulty_redis import FaultyRedis
from faults.receiver import RecordingPeer, RecordingPostfix
from faults.several_redis import FailingCluster, FailingSentinels
from faults.tls import RelayTls
from faults.two_addresses import TwoAddresses
from faults.wire import Wire

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from parts.redis_server import RedisServer
    from parts.relay_process import RelayProcess

    from faults.history import Copy
    from faults.scenario import Scenario


class Servers:
    """The servers that a scenario asks for. Only those have an attribute, such as `redis` or `second`."""

    def __init__(self, scenario: Scenario, chance: random.Random) -> None:
        self.scenario = scenario
        self.chance = chance
        self.folder: Path
        self.notes: list[str] = []
        """Remarks of the report about this run."""
        self.fallback_urls: list[str] = []
        self.prefix: Sequence[str] = scenario.prefix
        """The command that starts each relay."""

    def make_certificate(self) -> None:
        """Makes `tls` if the scenario asks for it."""
        if self.scenario.tls:
            self.tls = RelayTls(self.folder / "tls")

    async def start_store(self, stack: AsyncExitStack) -> str:
        kind = self.scenario.store
        self.sqlite = self.folder / "store" / "claims.db"
        if kind == "sqlite":
            self.sqlite.parent.mkdir()
            return f"sqlite:{self.sqlite}"
        if kind == "memory":
            return "memory:"
        if kind == "redis sentinel":
            self.sentinels = stack.enter_context(FailingSentinels())
            return self.sentinels.url
        if kind == "redis cluster":
            self.cluster = stack.enter_context(FailingCluster())
            return self.cluster.url
        self.redis = stack.enter_context(FaultyRedis())
        if kind == "redis":
            return self.redis.url
        self.wire = await stack.enter_async_context(Wire(self.redis.port))
        return f"redis://{HOST}:{self.wire.port}/0"

    async def start_upstream(self, stack: AsyncExitStack) -> str:
        if self.scenario.upstream == "postfix with logins":
            self.auth_service = stack.enter_context(AuthService({}))
            certificate = self.tls.issue()
            self.postfix = RecordingPostfix(*self.auth_service.postfix_settings, certificate=certificate)
            await asyncio.to_thread(stack.enter_context, self.postfix)
            return f"smtp+starttls://{HOST}:{self.postfix.port}"
        if self.scenario.upstream.endswith(("postfix", "postfixes")):
            self.postfix = stack.enter_context(RecordingPostfix())
            return self.postfix.url
        self.peer = await stack.enter_async_context(RecordingPeer(self.chance))
        if self.scenario.upstream == "two peers":
            self.second = await stack.enter_async_context(RecordingPeer(self.chance))
            self.fallback_urls = [self.second.url]
        if self.scenario.upstream == "two addresses":
            self.name = await stack.enter_async_context(TwoAddresses(self.peer.port, self.folder / "hosts"))
            self.prefix = self.name.prefix
            return self.name.url
        return self.peer.url

    async def client_ports(self, relays: Sequence[RelayProcess], stack: AsyncExitStack) -> list[int]:
        """Returns the ports that clients connect to: those of the relays, or of a Postfix in front of each."""
        if self.scenario.upstream != "two postfixes":
            return [relay.port for relay in relays]
        fronts = [RecordingPostfix(f"smtpd_proxy_filter = {HOST}:{relay.port}") for relay in relays]
        return [(await asyncio.to_thread(stack.enter_context, front)).port for front in fronts]

    async def copies(self) -> list[Copy]:
        """Returns all accepted messages of all receivers, when no delivery is in progress."""
        if not hasattr(self, "postfix"):
            return self.taken()
        copies = await self.postfix.copies()
        if self.postfix.redelivered:
            self.notes.append(f"Postfix put {self.postfix.redelivered} of the mails that it had into a mailbox twice")
        return copies

    def taken(self) -> list[Copy]:
        """Returns all messages that the receivers have accepted so far."""
        if hasattr(self, "postfix"):
            return self.postfix.delivered()
        peers = [getattr(self, name) for name in ("peer", "second") if hasattr(self, name)]
        return [copy for peer in peers for copy in peer.taken]

    def servers(self) -> list[RedisServer]:
        """Returns the Redis servers that hold claims now."""
        if hasattr(self, "sentinels"):
            return self.sentinels.masters
        if hasattr(self, "cluster"):
            return self.cluster.masters
        return [self.redis] if hasattr(self, "redis") and self.redis.running else []

    def kept_ports(self) -> set[int]:
        """Returns the ports of upstreams and stores, to which a relay keeps connections."""
        ends = (getattr(self, name, None) for name in ("peer", "second", "name", "postfix", "redis", "wire"))
        ports = {end.port for end in ends if end is not None}
        for several in ("sentinels", "cluster"):
            if hasattr(self, several):
                ports |= getattr(self, several).ports
        return ports
