"""One relay process: its parts, and the order in which they start and end."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import time
from typing import TYPE_CHECKING

from relay.claims.manager import ClaimManager
from relay.claims.memory import MemoryStore
from relay.claims.store_client import BatchingStoreClient
from relay.core.errors import CannotListenError, LoginRefused, UpstreamError
from relay.core.ruling import DEFAULT
from relay.dependencies import Dependencies
from relay.logins.users import FileAuthenticator
from relay.monitor.http import HttpServer
from relay.monitor.logs import MessageLog, log
from relay.monitor.metrics import Metrics
from relay.monitor.recent_lines import RecentLines
from relay.monitor.reporter import LogAndMetricsReporter
from relay.page.sources import Sources
from relay.records.kept_copies import KeptCopies
from relay.records.writer import RecordWriter
from relay.runtime.tasks import Tasks, run_within
from relay.service.build import (
    build_authenticator,
    build_certificate,
    build_executors,
    build_memory,
    build_policy,
    build_pseudonyms,
    build_session_limits,
    build_site,
    build_store,
    build_upstream,
    hostname,
)
from relay.settings.addresses import HostPort
from relay.settings.rules import build_judge
from relay.settings.sources import upstream_password
from relay.smtp.listener import Listener
from relay.upstream.smtp import SmtpUpstream

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Coroutine, Mapping

    from relay.settings import Loaded
    from relay.settings.addresses import UnixAddress
    from relay.smtp.certificate import ServerCertificate

_MOST_LOOP_IDS = 100
"""Ids of earlier stores that are still recognised in mail loops."""
_PROBE_EVERY = 5.0
"""Seconds between two probes of an upstream that did not answer, so that `/readyz` recovers without mail."""
_RENEW_EVERY = 6 * 3600.0
"""Seconds between two looks at the end of a self-signed certificate."""
_LEAST_CLOSING_TIME = 1.0
"""Seconds."""


class Service:
    """A relay: `start`, then `drain` and `close`."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        """The settings in force, with the source of each."""
        settings = loaded.settings
        self._judge = build_judge(settings)
        self.metrics = Metrics([*(rule.name for rule in self._judge.rules), DEFAULT])
        self.metrics.observing.set(settings.dedup.mode == "observe")
        store = build_store(settings)
        self.store = BatchingStoreClient(store, limit=settings.store.timeout)
        self.upstream = build_upstream(
            settings, upstream_password(settings), self._set_upstream_up, self.metrics.upstream_step
        )
        self.authenticator = build_authenticator(settings, self.upstream)
        self.claims = ClaimManager(
            self.store,
            lease=settings.dedup.lease,
            clock=time.monotonic,
            on_lost=self.metrics.claims_lost.inc,
            on_beyond_bound=lambda bound, count: self.metrics.claims_beyond_bound[bound].inc(count),
        )
        self.records = RecordWriter(
            self.store,
            settings.record.keep_for,
            KeptCopies(settings.record.keep.path) if settings.record.keep else None,
            on_lost=self.metrics.records_lost.inc,
        )
        self._loop_ids = [secrets.token_hex(8)]
        self._executors = build_executors()
        self._memory = build_memory(settings)
        self._certificate = build_certificate(settings)
        tls = self._certificate.context if self._certificate else None
        self.listener = Listener(self._dependencies(), build_session_limits(settings, self._memory), tls)
        self._warnings = RecentLines(addresses=settings.log.addresses)
        self._http = HttpServer(
            self.metrics,
            self.state,
            store if isinstance(store, MemoryStore) else None,
            page=build_site(settings, self._sources()),
            open_paths=settings.http.open_paths,
        )
        self._tasks = Tasks()
        self._upstream_up = False
        self._upstream_problem = ""
        self.address = ""
        """HOST:PORT on which it listens; empty before `start`."""
        self.tls_address = ""
        self.http_address = ""

    def _dependencies(self) -> Dependencies:
        return Dependencies(
            policy=build_policy(self.loaded.settings),
            upstream=self.upstream,
            authenticator=self.authenticator,
            claims=self.claims,
            reporter=LogAndMetricsReporter(self.metrics, MessageLog(addresses=self.loaded.settings.log.addresses)),
            judge=self._judge,
            executors=self._executors,
            memory=self._memory,
            records=self.records,
            pseudonyms=build_pseudonyms(self.loaded.settings),
            loop_ids=self._loop_ids,
            new_id=lambda: secrets.token_hex(6),
            clock=time.monotonic,
            now=time.time,
        )

    def _sources(self) -> Sources:
        return Sources(
            loaded=lambda: self.loaded,
            state=self.state,
            load=self.load,
            metrics=self.metrics,
            warnings=self._warnings,
            traces=None,
            host=hostname(),
            now=time.time,
            clock=time.monotonic,
        )

    async def start(self, inherited: Mapping[str, list[socket.socket]] | None = None) -> None:
        """Opens the store, listens, and starts to probe the upstream. Raises `CannotListenError`.

        `inherited` are the sockets of the service manager by name (`relay.runtime.systemd`), which replace the
        addresses in the settings.
        """
        logging.root.addHandler(self._warnings)
        self._set_gauges()
        self.store.subscribe(self._on_store_change)
        await self.store.start()
        self._on_store_change(self.store.up)
        self.claims.start()
        self.records.start()
        settings = self.loaded.settings
        self._tasks.start_loop(self._probe_upstream, "probe upstream")
        if isinstance(self.upstream, SmtpUpstream):
            self._tasks.start(self.upstream.learn(), "learn extensions")
        if settings.tls.self_signed:
            self._tasks.start_loop(self._renew_certificate, "renew certificate")
        given = inherited or {}
        self._warn_of_unused(given)
        # SMTP first: a client that sees a live health check can send.
        if "smtp" in given:
            self.listener.adopt(given["smtp"])
            self.address = _names_of(given["smtp"])
        else:
            self.address = await _listen("listen.address", settings.listen.address, self._start_listener())
        if "smtps" in given:
            self.listener.adopt_tls(given["smtps"])
            self.tls_address = _names_of(given["smtps"])
        elif (tls := settings.listen.tls_address) is not None:
            started = self.listener.start_tls(tls.host, tls.port, reuse_port=settings.listen.reuse_port)
            self.tls_address = await _listen("listen.tls_address", tls, started)
        if "http" in given:
            await self._http.adopt(given["http"])
            self.http_address = _names_of(given["http"])
        elif (http := settings.http.address) is not None:
            self.http_address = await _listen("http.address", http, self._http.start(http.host, http.port))

    def _warn_of_unused(self, inherited: Mapping[str, list[socket.socket]]) -> None:
        settings = self.loaded.settings
        for name, key, address in (
            ("smtp", "listen.address", settings.listen.address),
            ("smtps", "listen.tls_address", settings.listen.tls_address),
            ("http", "http.address", settings.http.address),
        ):
            if name in inherited and address is not None and str(address) != _names_of(inherited[name]):
                fields = {"key": key, "address": str(address), "socket": _names_of(inherited[name])}
                log.warning("address not used: the service manager passed a socket", extra={"fields": fields})

    async def _start_listener(self) -> int:
        """Listens on `listen.address`, and returns the port; 0 for a Unix socket."""
        listen = self.loaded.settings.listen
        if isinstance(listen.address, HostPort):
            address, reuse_port = listen.address, listen.reuse_port
            return await self.listener.start(address.host, address.port, reuse_port=reuse_port)
        self.listener.start_unix(listen.address.path, listen.socket_mode, listen.socket_group)
        return 0

    @property
    def summary(self) -> str:
        """One line about the present state, for the service manager."""
        _, parts = self.state()
        states = ", ".join(f"{name} {parts[name]}" for name in ("listener", "upstream", "store"))
        return f"{states}; sessions: {self.listener.sessions}, waiting twins: {self.claims.waiting}"

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

    def reload(self) -> None:
        """Reads the certificate again. Keeps the old one if the new one cannot be used."""
        if self._certificate is None:
            log.warning("SIGHUP has no effect: there is no tls.certificate to reload; restart for other settings")
        elif self._load_certificate(self._certificate):
            log.info("certificate reloaded; other settings need a restart")

    def _load_certificate(self, certificate: ServerCertificate) -> bool:
        try:
            certificate.reload()
        except OSError as error:
            log.error("certificate not reloaded, the old one stays in use: %s", error.strerror or error)
            return False
        self.listener.table.tls = certificate.context
        return True

    async def _renew_certificate(self) -> None:
        """Replaces a self-signed certificate before it expires."""
        await asyncio.sleep(_RENEW_EVERY)
        if self._certificate is not None and _is_due(self._certificate) and self._load_certificate(self._certificate):
            log.info("certificate renewed")

    async def drain(self) -> bool:
        """Lets running transactions finish, within `limits.drain`. Returns False if some did not finish."""
        return await self.listener.drain(max(self.loaded.settings.limits.drain - self._closing_time, 0.0))

    async def close(self) -> None:
        """Ends all parts, each within a limit. The store ends last, so that all acceptances can be written."""
        limit = self._closing_time
        await _close(limit / 2, sessions=self.listener.close(), messages=self.listener.table.messages.cancel())
        await _close(
            limit * 3 / 8,
            claims=self.claims.close(),
            records=self.records.close(),
            upstream=self.upstream.close(),
            http=self._http.close(),
            tasks=self._tasks.cancel(),
        )
        await _close(limit / 8, store=self.store.close())
        logging.root.removeHandler(self._warnings)
        self._executors.close()
        if isinstance(self.authenticator, FileAuthenticator):
            self.authenticator.close()

    @property
    def _closing_time(self) -> float:
        """Seconds of `limits.drain` for `close`, in which the last acceptances are written to a store that may hang."""
        settings = self.loaded.settings
        return max(_LEAST_CLOSING_TIME, min(4 * settings.store.timeout, settings.limits.drain / 2))

    def state(self) -> tuple[bool, Mapping[str, object]]:
        """Returns whether mail can flow, and the state of each part for `/readyz`."""
        draining = self.listener.draining
        parts: dict[str, object] = {
            "listener": "draining" if draining else "listening",
            "upstream": "up" if self._upstream_up else "down",
            "store": "up" if self.store.up else "degraded",
        }
        states = self.upstream.states()
        if len(states) > 1:
            parts["upstreams"] = {name: "up" if used else "down" for name, used in states.items()}
        return self._upstream_up and not draining, parts

    def _set_gauges(self) -> None:
        self.metrics.sessions.set_function(lambda: self.listener.sessions)
        self.metrics.pool_in_use.set_function(lambda: self.upstream.connections_in_use)
        self.metrics.claims.set_function(lambda: self.claims.held)
        self.metrics.waiting_twins.set_function(lambda: self.claims.waiting)
        self.metrics.in_flight_bytes.set_function(lambda: self._memory.used)
        self.metrics.in_flight_limit_bytes.set(self._memory.size)
        for name in self.upstream.states():
            self.metrics.upstream_used.labels(name).set_function(functools.partial(self._is_used, name))

    def _is_used(self, upstream: str) -> bool:
        return self.upstream.states()[upstream]

    def _on_store_change(self, up: bool) -> None:
        self.metrics.set_store(up)
        if up:
            self._use_loop_id(self.store.identity)
            self.claims.store_returned()
            self.records.store_returned()

    def _use_loop_id(self, loop_id: str | None) -> None:
        """Uses the store's id from now on. Messages that left with an earlier id are still recognised as loops."""
        if loop_id and loop_id != self._loop_ids[-1]:
            self._loop_ids[:] = [*(old for old in self._loop_ids if old != loop_id), loop_id][-_MOST_LOOP_IDS:]

    def _set_upstream_up(self, up: bool) -> None:
        if up != self._upstream_up:
            log.info("upstream is %s", "up" if up else "down")
        self._upstream_up = up
        self.metrics.upstream_up.set(up)

    async def _probe_upstream(self) -> None:
        if not self._upstream_up:
            try:
                await self.upstream.probe()
                self._upstream_problem = ""
                self._set_upstream_up(True)
            except UpstreamError as error:
                is_logged = isinstance(error, LoginRefused) or str(error) == self._upstream_problem
                self._upstream_problem = str(error)
                if not is_logged:
                    log.warning("upstream does not answer: %s", error)
        await asyncio.sleep(_PROBE_EVERY)


async def _close(limit: float, **parts: Coroutine[object, object, None]) -> None:
    """Closes parts concurrently. One that fails or hangs does not keep the others open."""
    for part, result in (await run_within(limit, parts)).items():
        if isinstance(result, TimeoutError):
            log.warning("%s did not end within %g s", part, limit)
        elif isinstance(result, BaseException):
            log.error("%s did not end properly", part, exc_info=result)


def _is_due(certificate: ServerCertificate) -> bool:
    try:
        return certificate.is_due()
    except OSError:  # loading it will report this
        return True


def _names_of(sockets: list[socket.socket]) -> str:
    """Returns the addresses of listening sockets, as in the settings."""
    names = []
    for listening in sockets:
        name = listening.getsockname()
        names.append(str(HostPort(*name[:2])) if isinstance(name, tuple) else f"unix:{os.fsdecode(name)}")
    return ", ".join(names)


async def _listen(key: str, address: HostPort | UnixAddress, started: Awaitable[int]) -> str:
    """Returns the address with the port on which a listener has started. Raises `CannotListenError`."""
    try:
        port = await started
    except OSError as error:
        # asyncio wraps the system's message in a sentence; error numbers of the resolver are negative.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise CannotListenError(key, str(address), reason) from error
    return str(HostPort(address.host, port) if isinstance(address, HostPort) else address)
