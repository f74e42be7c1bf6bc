"""Builds the stores of claims and of traces, and what writes to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from relay.claims.memory import MemoryStore
from relay.claims.redis.store import RedisStore
from relay.claims.sqlite.store import SqliteStore
from relay.records.copy_keeper import CopyKeeper
from relay.records.kept_copies import KeptCopies
from relay.settings.passwords import store_password
from relay.settings.urls import MemoryUrl, RedisUrl, SqliteUrl
from relay.trace.memory import MemoryTraceStore
from relay.trace.redis import RedisTraceStore
from relay.trace.segments import Limits
from relay.trace.sqlite import SqliteTraceStore
from relay.trace.writer import TraceWriter

if TYPE_CHECKING:
    from relay.claims.redis.servers import RedisServers
    from relay.core.store import OldRecords, Store
    from relay.core.trace import TraceStore
    from relay.monitor.metrics import Metrics
    from relay.settings import Settings


def build_store(settings: Settings) -> Store:
    """Returns the store, not opened yet. Raises `SettingsError` if its password cannot be read."""
    return _build_lasting_store(settings) or MemoryStore()


def build_old_records(settings: Settings) -> OldRecords | None:
    """Returns the store as the reader of what version 0.1 recorded, or None if nothing survives a restart."""
    return _build_lasting_store(settings)


def _build_lasting_store(settings: Settings) -> SqliteStore | RedisStore | None:
    match settings.store.url:
        case SqliteUrl(path):
            # Shorter than the store client's limit, so that a locked file is reported as locked and not as hanging.
            return SqliteStore(path, busy_timeout=settings.store.timeout * 0.8)
        case MemoryUrl():
            return None
        case RedisUrl() as url:
            return RedisStore(_redis_servers(settings, url), timeout=settings.store.timeout)


def build_trace_store(settings: Settings) -> TraceStore | None:
    """Returns the store of traces, not opened yet; None if none are kept. Raises `SettingsError` as `build_store`."""
    if not settings.record.keep_for:
        return None
    limits = Limits(settings.record.keep_for, settings.record.size)
    match settings.store.url:
        case SqliteUrl(path):
            file = path.with_name(f"{path.stem}.trace.db")
            return SqliteTraceStore(file, limits, busy_timeout=settings.store.timeout * 0.8)
        case MemoryUrl():
            return MemoryTraceStore(limits)
        case RedisUrl() as url:
            return RedisTraceStore(_redis_servers(settings, url), limits, timeout=settings.store.timeout)


def _redis_servers(settings: Settings, url: RedisUrl) -> RedisServers:
    """Returns the servers of a URL with what other settings say of them."""
    password = store_password(settings) or url.servers.password
    return replace(url.servers, password=password, namespace=settings.store.namespace)


def build_trace_writer(settings: Settings, store: TraceStore | None, metrics: Metrics) -> TraceWriter | None:
    """Returns what writes traces to `store`, or None if none are kept."""
    if store is None:
        return None
    return TraceWriter(
        store,
        limit=settings.store.timeout,
        on_lost=metrics.records_lost.inc,
        on_skipped=metrics.traces_skipped.inc,
    )


def build_copy_keeper(settings: Settings, metrics: Metrics) -> CopyKeeper | None:
    """Returns what keeps suppressed copies, or None if none are kept."""
    record = settings.record
    if record.keep is None or not record.keep_for:
        return None
    return CopyKeeper(KeptCopies(record.keep.path), record.keep_for, on_lost=metrics.records_lost.inc)
