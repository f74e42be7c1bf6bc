"""The upstream in use, whether it answers, and its metrics."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from relay.core.errors import LoginRefused, UpstreamError
from relay.events.upstream import UPSTREAM_DOWN, UPSTREAM_SILENT, UPSTREAM_UP
from relay.runtime.tasks import run_within
from relay.service.build_upstream import build_upstream
from relay.upstream.smtp import SmtpUpstream

if TYPE_CHECKING:
    from relay.monitor.metrics import Metrics
    from relay.service.build_upstream import UpstreamPlan

_FIRST_PROBE = 5.0
"""Seconds within which a new upstream should say what it offers, before clients use it."""


class WatchedUpstream:
    """An upstream. It appears in the metrics and the log only while it is in use."""

    def __init__(self, plan: UpstreamPlan, metrics: Metrics) -> None:
        self.plan = plan
        self.upstream = build_upstream(plan, self._note, metrics.upstream_step)
        self.up = False
        """Whether the last attempt to reach it succeeded."""
        self._metrics = metrics
        self._in_use = False
        self._problem = ""

    def use(self) -> None:
        """Shows this upstream in the metrics."""
        self._in_use = True
        self._metrics.pool_in_use.set_function(lambda: self.upstream.connections_in_use)
        self._metrics.upstream_up.set(self.up)
        for name in self.upstream.states():
            self._metrics.upstream_used.labels(name).set_function(functools.partial(self._is_used, name))

    def leave(self) -> None:
        """Removes it from the metrics. Transactions that use it go on; then its connections end."""
        self._in_use = False
        for name in self.upstream.states():
            self._metrics.upstream_used.remove(name)

    async def learn(self) -> None:
        """Learns what it offers, before it is used; for a few seconds at most. An upstream that is away is no error."""
        await run_within(_FIRST_PROBE, {"first": self.probe(), "others": self.learn_fallbacks()})

    async def learn_fallbacks(self) -> None:
        """Learns what the upstreams offer that are not used yet."""
        if isinstance(self.upstream, SmtpUpstream):
            await self.upstream.learn()

    async def probe(self) -> None:
        """Tries to reach it, if it is down."""
        if self.up:
            return
        try:
            await self.upstream.probe()
            self._problem = ""
            self._note(True)
        except UpstreamError as error:
            is_logged = isinstance(error, LoginRefused) or str(error) == self._problem
            self._problem = str(error)
            if not is_logged:
                UPSTREAM_SILENT.log(error=error)

    def _is_used(self, name: str) -> bool:
        return self.upstream.states()[name]

    def _note(self, up: bool) -> None:
        if self._in_use:
            if up != self.up:
                (UPSTREAM_UP if up else UPSTREAM_DOWN).log()
            self._metrics.upstream_up.set(up)
        self.up = up
