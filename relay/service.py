"""The wiring: builds everything from settings, starts it, and ends it in order. It alone knows the concrete classes."""

from __future__ import annotations

import asyncio
import functools
import os
import secrets
import signal
import socket
import ssl
import time
from typing import TYPE_CHECKING

from relay.claims.manager import ClaimManager
from relay.claims.memory import MemoryStore
from relay.claims.redis.store import RedisStore
from relay.claims.sqlite.store import SqliteStore
from relay.claims.store_client import BatchingStoreClient
from relay.core.errors import CannotListenError, SettingsError, UpstreamError
from relay.core.ruling import DEFAULT
from relay.monitor.http import HttpServer
from relay.monitor.logs import MessageLog, log
from relay.monitor.metrics import Metrics
from relay.monitor.reporter import LogAndMetricsReporter
from relay.records.kept_copies import KeptCopies
from relay.records.pseudonyms import Pseudonyms
from relay.records.secret import ensure_secret
from relay.records.writer import RecordWriter
from relay.runtime.tasks import Tasks
from relay.settings.addresses import HostPort
from relay.settings.rules import build_judge
from relay.settings.sources import default_secret_file
from relay.settings.urls import MaildirUrl, MemoryUrl, RedisUrl, Security, SmtpUrl, SqliteUrl
from relay.smtp.listener import Listener
from relay.smtp.session import SessionLimits
from relay.transaction import Dependencies, Policy
from relay.upstream.connect import Target
from relay.upstream.maildir import MaildirUpstream
from relay.upstream.smtp import SmtpUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.core.delivery import Upstream
    from relay.core.store import Store
    from relay.settings import Settings

_MOST_LOOP_IDS = 100
"""Ids of emptied stores that are remembered against mail loops."""
_PROBE_EVERY = 5.0
"""Seconds between two tries to reach an upstream that did not answer, so that readiness returns without mail."""


class Service:
    """A relay: `start`, then `drain` and `close`."""

    def __init__(self, settings: Settings, password: str | None = None) -> None:
        self._settings = settings
        self._judge = build_judge(settings)
        self.metrics = Metrics([*(rule.name for rule in self._judge.rules), DEFAULT])
        store = build_store(settings)
        self.store = BatchingStoreClient(store, limit=settings.store.timeout)
        self.upstream = build_upstream(settings, password, self._upstream_reached)
        self.claims = ClaimManager(
            self.store, lease=settings.dedup.lease, clock=time.monotonic, on_lost=self.metrics.claims_lost.inc
        )
        self.records = RecordWriter(
            self.store,
            settings.record.keep_for,
            KeptCopies(settings.record.keep.path) if settings.record.keep else None,
            on_lost=self.metrics.records_lost.inc,
        )
        self._loop_ids = [secrets.token_hex(8)]
        self.listener = Listener(self._dependencies(), _limits(settings))
        self._http = HttpServer(self.metrics, self.state, store if isinstance(store, MemoryStore) else None)
        self._tasks = Tasks()
        self._upstream_up = False
        self.address = ""
        """Where it listens, once it does."""
        self.http_address = ""

    async def start(self) -> None:
        """Open the store, listen, and begin to look for the upstream. Raises `CannotListenError`."""
        self._observe()
        self.store.subscribe(self._store_changed)
        await self.store.start()
        self._store_changed(self.store.up)
        self.claims.start()
        self.records.start()
        settings = self._settings
        self._tasks.start(self._watch_upstream(), "watch upstream")
        # In this order: whoever is told that the relay lives can send to it.
        self.address = await _listen(self.listener.start, settings.listen.address, "listen.address")
        if settings.http.address is not None:
            self.http_address = await _listen(self._http.start, settings.http.address, "http.address")

    async def drain(self) -> bool:
        """Let running transactions finish. False when some did not, inside `limits.drain`."""
        limit = self._settings.limits.drain
        # The last acceptances are to be written inside the limit too.
        return await self.listener.drain(limit - min(2 * self._settings.store.timeout, limit / 2))

    async def close(self) -> None:
        """End everything, the store last: whatever was accepted is to be written."""
        await self.listener.close()
        await self._tasks.cancel()
        await self.claims.close()
        await self.records.close()
        await self.upstream.close()
        await self._http.close()
        await self.store.close()

    def state(self) -> tuple[bool, Mapping[str, object]]:
        """Give whether mail can flow, and the state of each part."""
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

    def _dependencies(self) -> Dependencies:
        settings = self._settings
        return Dependencies(
            policy=Policy(
                wait=settings.dedup.wait,
                keep_uncertain=settings.dedup.on_uncertain == "keep",
                recipients=settings.limits.recipients,
                hostname=_hostname(),
                received_field=settings.upstream.received_field,
            ),
            upstream=self.upstream,
            claims=self.claims,
            reporter=LogAndMetricsReporter(self.metrics, MessageLog(addresses=settings.log.addresses)),
            judge=self._judge,
            records=self.records,
            pseudonyms=build_pseudonyms(settings),
            loop_ids=self._loop_ids,
            new_id=lambda: secrets.token_hex(6),
            clock=time.monotonic,
            now=time.time,
        )

    def _observe(self) -> None:
        self.metrics.sessions.set_function(lambda: self.listener.sessions)
        self.metrics.claims.set_function(lambda: self.claims.held)
        for name in self.upstream.states():
            self.metrics.upstream_used.labels(name).set_function(functools.partial(self._uses, name))

    def _uses(self, upstream: str) -> bool:
        return self.upstream.states()[upstream]

    def _store_changed(self, up: bool) -> None:
        self.metrics.set_store(up)
        if up:
            self._note_loop_id(self.store.identity)
            self.claims.store_returned()
            self.records.store_returned()

    def _note_loop_id(self, loop_id: str | None) -> None:
        """Go on with the store's id; what left under an earlier one is still ours when it comes round."""
        if loop_id and loop_id != self._loop_ids[-1]:
            self._loop_ids[:] = [*(old for old in self._loop_ids if old != loop_id), loop_id][-_MOST_LOOP_IDS:]

    def _upstream_reached(self, up: bool) -> None:
        if up != self._upstream_up:
            log.info("upstream is %s", "up" if up else "down")
        self._upstream_up = up
        self.metrics.upstream_up.set(up)

    async def _watch_upstream(self) -> None:
        heard = ""
        while True:
            if not self._upstream_up:
                try:
                    await self.upstream.probe()
                    heard = ""
                    self._upstream_reached(True)
                except UpstreamError as error:
                    if str(error) != heard:
                        heard = str(error)
                        log.warning("upstream does not answer: %s", heard)
            await asyncio.sleep(_PROBE_EVERY)


async def serve(settings: Settings, password: str | None, ready: Callable[[Service], None]) -> bool:
    """Run until SIGTERM or SIGINT, then drain. A second signal ends at once. False when the drain was cut short."""
    service = Service(settings, password)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await service.start()
        ready(service)
        await stop.wait()
        log.info("draining")
        drained = await service.drain()
    finally:
        await service.close()
    log.info("ended")
    return drained


def build_pseudonyms(settings: Settings) -> Pseudonyms:
    """Give how addresses stand in records. Raises `SettingsError` when the secret's file cannot be used."""
    if settings.record.addresses:
        return Pseudonyms(b"", plain=True)
    secret = ensure_secret(settings.record.secret_file, default_secret_file(settings, os.environ))
    return Pseudonyms(secret, plain=False)


def build_store(settings: Settings) -> Store:
    """Returns the store that the settings name, not opened yet."""
    match settings.store.url:
        case SqliteUrl(path):
            # Shorter than the store's timeout, so that a locked file is reported as such and not as a hang.
            return SqliteStore(path, busy_timeout=settings.store.timeout * 0.8)
        case MemoryUrl():
            return MemoryStore()
        case RedisUrl(_, servers):
            return RedisStore(servers, timeout=settings.store.timeout)


def build_upstream(
    settings: Settings,
    password: str | None,
    report: Callable[[bool], None] = lambda up: None,  # noqa: ARG005
) -> Upstream:
    """Give the upstreams that the settings name. Raises `SettingsError` when certificates cannot be read."""
    upstream = settings.upstream
    if isinstance(upstream.url, MaildirUrl):
        return MaildirUpstream(upstream.url.path)
    return SmtpUpstream(
        [_target(url, settings, password) for url in upstream.smtp_urls],
        connections=upstream.connections,
        reply_timeout=upstream.reply_timeout,
        dot_timeout=upstream.dot_timeout,
        patience=upstream.patience,
        report=report,
    )


def _target(url: SmtpUrl, settings: Settings, password: str | None) -> Target:
    return Target(
        host=url.address.host,
        port=url.address.port,
        starttls=url.security is Security.STARTTLS,
        implicit_tls=url.security is Security.TLS,
        user=url.user or "",
        password=(password or "") if url.user else "",
        tls=None if url.security is Security.NONE else _tls_context(settings),
        helo_name=_hostname(),
        limit=settings.upstream.connect_timeout,
    )


def _tls_context(settings: Settings) -> ssl.SSLContext:
    authorities = settings.upstream.ca_file
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise SettingsError(
            f'upstream.ca_file = "{authorities}": {error.strerror or error}; name a readable PEM file'
        ) from error
    if not settings.upstream.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@functools.cache
def _hostname() -> str:
    """Give this host's full name, asked for once: it may take a look-up."""
    return socket.getfqdn()


def _limits(settings: Settings) -> SessionLimits:
    return SessionLimits(
        networks=settings.listen.networks,
        message_size=settings.limits.message_size,
        sessions=settings.limits.sessions,
        session_idle=settings.limits.session_idle,
    )


async def _listen(start: Callable[[str, int], object], address: HostPort, key: str) -> str:
    try:
        port = await start(address.host, address.port)  # type: ignore[misc]
    except OSError as error:
        # asyncio puts sentences of its own around the system's word; the resolver's numbers are negative.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise CannotListenError(key, str(address), reason) from error
    return str(HostPort(address.host, int(port)))
