"""One relay process: its parts, and the order in which they start and end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING

from relay.claims.manager import ClaimManager
from relay.claims.memory import MemoryStore
from relay.claims.store_client import BatchingStoreClient
from relay.core.errors import SettingsError
from relay.core.ruling import DEFAULT
from relay.dependencies import Dependencies
from relay.events.service import PART_FAILED, PART_TIMED_OUT
from relay.monitor.http import HttpServer
from relay.monitor.http_connections import HttpConnections
from relay.monitor.logs import MessageLog
from relay.monitor.metrics import Metrics
from relay.monitor.recent_lines import RecentLines
from relay.monitor.reporter import LogAndMetricsReporter
from relay.page.sources import Sources
from relay.runtime.hostname import hostname
from relay.runtime.memory import MemoryBudget
from relay.runtime.tasks import Tasks, run_within
from relay.service.build import (
    build_authenticator,
    build_executors,
    build_policy,
    build_session_limits,
    build_site,
)
from relay.service.build_stores import (
    build_copy_keeper,
    build_old_records,
    build_store,
    build_trace_store,
    build_trace_writer,
)
from relay.service.certificates import RENEW_EVERY, renew
from relay.service.listening import listen
from relay.service.prepared import prepare
from relay.service.watched_upstream import WatchedUpstream
from relay.smtp.listener import Listener
from relay.trace.takeover import has_traces, take_over

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Coroutine, Mapping

    from relay.core.delivery import Upstream
    from relay.page.commands import Commands
    from relay.service.prepared import Prepared
    from relay.settings import Loaded, Settings

_MOST_LOOP_IDS = 100
"""Ids of earlier stores that are still recognised in mail loops."""
_PROBE_EVERY = 5.0
"""Seconds between two probes of an upstream that did not answer, so that `/readyz` recovers without mail."""
_LEAST_CLOSING_TIME = 1.0
"""Seconds."""


class Service:
    """A relay: `start`, then `drain` and `close`."""

    def __init__(self, loaded: Loaded) -> None:
        self.restart_to_change: tuple[str, ...] = ()
        """The settings that were changed by the last reload, but only a restart changes."""
        self.reload_problem = ""
        """Why the last reload failed, on one line; empty if it did not."""
        self.prepared = prepare(loaded)
        """The settings in force, and what was made of them."""
        settings = loaded.settings
        self.metrics = Metrics()
        self.metrics.reloaded(time.time())
        store = build_store(settings)
        self.memory_store = store if isinstance(store, MemoryStore) else None
        """The store of `store.url = "memory:"`, which only this process has."""
        self.store = BatchingStoreClient(store, limit=settings.store.timeout)
        self._upstream = WatchedUpstream(self.prepared.upstream, self.metrics)
        self.claims = ClaimManager(
            self.store,
            lease=settings.dedup.lease,
            clock=time.monotonic,
            on_lost=self.metrics.claims_lost.inc,
            on_beyond_bound=lambda bound, count: self.metrics.claims_beyond_bound[bound].inc(count),
        )
        self.trace_store = build_trace_store(settings)
        """None if no traces are kept."""
        self._traces = build_trace_writer(settings, self.trace_store, self.metrics)
        self._copies = build_copy_keeper(settings, self.metrics)
        self._loop_ids = [secrets.token_hex(8)]
        self._executors = build_executors()
        self._memory = MemoryBudget(self.prepared.memory_size)
        self._reporter = LogAndMetricsReporter(self.metrics, MessageLog(addresses=settings.log.addresses))
        limits = build_session_limits(settings, self.prepared.memory_size)
        self.listener = Listener(self._dependencies(), limits, self._tls)
        self.warnings = RecentLines(addresses=settings.log.addresses)
        self._http = HttpServer(
            self.metrics,
            self.state,
            connections=HttpConnections(tls=self._http_tls) if settings.http.tls else None,
            page=build_site(settings, self._sources()),
            open_paths=settings.http.open_paths,
        )
        self._tasks = Tasks()
        self.commands: Commands | None = None
        """What the page uses of the admin API, which sets it."""
        self.address = ""
        """HOST:PORT on which it listens; empty before `start`."""
        self.tls_address = ""
        self.http_address = ""

    @property
    def loaded(self) -> Loaded:
        """The settings in force, with the source of each."""
        return self.prepared.loaded

    @property
    def _settings(self) -> Settings:
        return self.prepared.loaded.settings

    @property
    def upstream(self) -> Upstream:
        """The upstream of new transactions."""
        return self._upstream.upstream

    @property
    def _tls(self) -> ssl.SSLContext | None:
        certificate = self.prepared.certificate
        return certificate.context if certificate else None

    def _dependencies(self) -> Dependencies:
        prepared = self.prepared
        return Dependencies(
            policy=build_policy(self._settings),
            upstream=self.upstream,
            authenticator=build_authenticator(self._settings, self.upstream, prepared.users),
            claims=self.claims,
            reporter=self._reporter,
            judge=prepared.judge,
            executors=self._executors,
            memory=self._memory,
            traces=self._traces,
            copies=self._copies,
            pseudonyms=prepared.pseudonyms,
            loop_ids=self._loop_ids,
            new_id=lambda: secrets.token_hex(6),
            clock=time.monotonic,
            now=time.time,
        )

    def _http_tls(self) -> ssl.SSLContext:
        """Returns the present context for `http.tls`, without which the settings are refused if there is none."""
        if self._tls is None:
            raise RuntimeError("http.tls without a certificate")
        return self._tls

    def _sources(self) -> Sources:
        return Sources(
            loaded=lambda: self.loaded,
            judge=lambda: self.prepared.judge,
            state=self.state,
            listening=lambda: self.address,
            load=self.load,
            metrics=self.metrics,
            warnings=self.warnings,
            traces=self.trace_store,
            pseudonyms=lambda: self.prepared.pseudonyms,
            commands=lambda: self.commands,
            host=hostname(),
            now=time.time,
            clock=time.monotonic,
        )

    async def start(self, inherited: Mapping[str, list[socket.socket]] | None = None) -> None:
        """Opens the store, listens, and starts to probe the upstream. Raises `CannotListenError`.

        `inherited` are the sockets of the service manager by name (`relay.runtime.systemd`), which replace the
        addresses in the settings.
        """
        logging.root.addHandler(self.warnings)
        self._set_gauges()
        self._show_settings()
        self._upstream.use()
        self.store.subscribe(self._on_store_change)
        await self.store.start()
        self._on_store_change(self.store.up)
        self.claims.start()
        if self._traces:
            await self._traces.start()
            await self._take_over_records()
        if self._copies:
            self._copies.start()
        self._tasks.start_loop(self._probe_upstream, "probe upstream")
        self._tasks.start(self._upstream.learn_fallbacks(), "learn extensions")
        self._tasks.start_loop(self._renew_certificate, "renew certificate")
        self.address, self.tls_address, self.http_address = await listen(
            self._settings, self.listener, self._http, inherited or {}
        )

    async def _take_over_records(self) -> None:
        """Begins to copy what version 0.1 has recorded, if there are no traces yet."""
        settings, traces = self._settings, self.trace_store
        if traces is None or await has_traces(traces, settings.store.timeout):
            return
        if records := build_old_records(settings):
            self._tasks.start(take_over(records, traces, settings.record.keep_for), "take over records")

    async def _renew_certificate(self) -> None:
        """Replaces a self-signed certificate before it expires."""
        await asyncio.sleep(RENEW_EVERY)
        certificate = self.prepared.certificate
        if certificate and renew(certificate):
            self.listener.table.tls = certificate.context

    @property
    def summary(self) -> str:
        """One line about the present state, for the service manager."""
        _, parts = self.state()
        states = ", ".join(f"{name} {parts[name]}" for name in ("listener", "upstream", "store"))
        sums = f"{states}; sessions: {self.listener.sessions}, waiting twins: {self.claims.waiting}"
        if self.reload_problem:
            sums += f"; reload failed: {self.reload_problem}"
        if self.restart_to_change:
            sums += f"; restart to change: {', '.join(self.restart_to_change)}"
        return sums

    def load(self) -> dict[str, int]:
        """Returns what the relay holds now."""
        return {
            "sessions": self.listener.sessions,
            "upstream_connections": self.upstream.connections_in_use,
            "claims": self.claims.held,
            "waiting_twins": self.claims.waiting,
            "memory_bytes": self._memory.used,
            "memory_limit_bytes": self._memory.size,
        }

    async def use(self, prepared: Prepared) -> None:
        """Uses other settings from now on. Transactions that have begun end with those before.

        Raises `SettingsError`, and changes nothing, if the sockets that are open do not go together with them.
        """
        if prepared.certificate is None and self.listener.needs_certificate:
            raise SettingsError(
                "tls.certificate cannot be removed while clients that begin with TLS connect; restart the relay"
            )
        upstream, before = self._upstream, self.prepared
        if prepared.upstream != upstream.plan:
            upstream = WatchedUpstream(prepared.upstream, self.metrics)
            await upstream.learn()
        # From here to the end of `exchange` nothing waits, and nothing fails: all settings change at once.
        self.prepared = prepared
        if upstream is not self._upstream:
            self._upstream.leave()
            upstream.use()
            self._upstream, replaced = upstream, self._upstream
            self._tasks.start(replaced.upstream.close(), "leave the upstream before")
        self._memory.resize(prepared.memory_size)
        self._show_settings()
        limits = build_session_limits(self._settings, prepared.memory_size)
        self.listener.table.exchange(limits, self._dependencies(), self._tls)
        if before.users is not None:
            before.users.close()

    def _show_settings(self) -> None:
        """Shows the settings in force in the metrics and the log."""
        self.metrics.add_rules([*(rule.name for rule in self.prepared.judge.rules), DEFAULT])
        self.metrics.observing.set(self._settings.dedup.mode == "observe")
        self.metrics.in_flight_limit_bytes.set(self._memory.size)
        self._reporter.messages = MessageLog(addresses=self._settings.log.addresses)
        self.warnings.show_addresses(self._settings.log.addresses)

    async def drain(self) -> bool:
        """Lets running transactions finish, within `limits.drain`. Returns False if some did not finish."""
        return await self.listener.drain(max(self._settings.limits.drain - self._closing_time, 0.0))

    async def close(self) -> None:
        """Ends all parts, each within a limit. The store ends last, so that all acceptances can be written."""
        limit = self._closing_time
        await _close(limit / 2, sessions=self.listener.close(), messages=self.listener.table.messages.cancel())
        await _close(
            limit * 3 / 8,
            claims=self.claims.close(),
            **({"traces": self._traces.close()} if self._traces else {}),
            **({"copies": self._copies.close()} if self._copies else {}),
            upstream=self.upstream.close(),
            http=self._http.close(),
            tasks=self._tasks.cancel(),
        )
        await _close(limit / 8, store=self.store.close())
        logging.root.removeHandler(self.warnings)
        self._executors.close()
        if self.prepared.users is not None:
            self.prepared.users.close()

    @property
    def _closing_time(self) -> float:
        """Seconds of `limits.drain` for `close`, in which the last acceptances are written to a store that may hang."""
        settings = self._settings
        return max(_LEAST_CLOSING_TIME, min(4 * settings.store.timeout, settings.limits.drain / 2))

    def state(self) -> tuple[bool, Mapping[str, object]]:
        """Returns whether mail can flow, and the state of each part for `/readyz`."""
        draining = self.listener.draining
        parts: dict[str, object] = {
            "listener": "draining" if draining else "listening",
            "upstream": "up" if self._upstream.up else "down",
            "store": "up" if self.store.up else "degraded",
        }
        if self._traces:
            parts["trace"] = "up" if self._traces.up else "degraded"
        states = self.upstream.states()
        if len(states) > 1:
            parts["upstreams"] = {name: "up" if used else "down" for name, used in states.items()}
        return self._upstream.up and not draining, parts

    def _set_gauges(self) -> None:
        self.metrics.sessions.set_function(lambda: self.listener.sessions)
        self.metrics.claims.set_function(lambda: self.claims.held)
        self.metrics.waiting_twins.set_function(lambda: self.claims.waiting)
        self.metrics.in_flight_bytes.set_function(lambda: self._memory.used)
        if traces := self._traces:
            self.metrics.trace_up.set_function(lambda: traces.up)
            self.metrics.traces_waiting.set_function(lambda: traces.waiting)

    def _on_store_change(self, up: bool) -> None:
        self.metrics.set_store(up)
        if up:
            self._use_loop_id(self.store.identity)
            self.claims.store_returned()

    def _use_loop_id(self, loop_id: str | None) -> None:
        """Uses the store's id from now on. Messages that left with an earlier id are still recognised as loops."""
        if loop_id and loop_id != self._loop_ids[-1]:
            self._loop_ids[:] = [*(old for old in self._loop_ids if old != loop_id), loop_id][-_MOST_LOOP_IDS:]

    async def _probe_upstream(self) -> None:
        await self._upstream.probe()
        await asyncio.sleep(_PROBE_EVERY)


async def _close(limit: float, **parts: Coroutine[object, object, None]) -> None:
    """Closes parts concurrently. One that fails or hangs does not keep the others open."""
    for part, result in (await run_within(limit, parts)).items():
        if isinstance(result, TimeoutError):
            PART_TIMED_OUT.log(part=part, seconds=limit)
        elif isinstance(result, BaseException):
            PART_FAILED.log(result, part=part)
