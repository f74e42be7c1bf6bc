"""The test of the store: connects, claims a trial key as the relay does, and releases it."""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from relay.check.files import trial_path
from relay.check.finding import Finding
from relay.check.port import ask_port
from relay.check.redis_servers import findings
from relay.check.store_remedies import FIRST_COMMAND, store_remedy, store_step
from relay.core.claim import Claim, Done, Fingerprint, Held, Release, Renew, Token, Unknown, Won
from relay.core.errors import StoreError
from relay.settings.urls import SqliteUrl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.claims.redis.server_info import ServerInfo
    from relay.core.claim import Answer, Command
    from relay.core.store import Store
    from relay.settings import Settings
    from relay.settings.urls import StoreUrl

_KEY = "store.url"
_FILE_REMEDY = "name a file in a folder that this user may write, or correct store.url"
_FILE_REMEDIES = (
    (r"locked|busy", "see which program holds its lock (fuser FILE shows it): relays hold it for milliseconds only"),
    (r"\bfull\b|No space|quota", "make room on its disk"),
    (r"readonly|read-only|Read-only", "let this user write the file and its folder, or correct store.url"),
)
"""Patterns of SQLite's messages."""
_LEASE = 5.0
"""Seconds after which the trial claim ends by itself if it cannot be released."""
_REDIS_PORT = 6379


async def check_store(settings: Settings) -> list[Finding]:
    """Tests the store of the settings, and reports what its Redis servers say about themselves."""
    url = settings.store.url
    if isinstance(url, SqliteUrl):
        return [await _check_sqlite(settings, url)]
    try:
        servers = await _try_store(settings)
    except StoreError as error:
        words = await _greeting_of(url, str(error))
        text = f"{url}: {error}" + (f" (the port says: {words})" if words else "")
        fault = f"{error} {words}"
        return [Finding(_KEY, text, store_remedy(error, fault), store_step(fault))]
    return [Finding(_KEY, f"{url} answers"), *findings(servers, str(url))]


async def _check_sqlite(settings: Settings, url: SqliteUrl) -> Finding:
    try:
        with trial_path(url.path) as path:
            changed = settings.store.model_copy(update={"url": replace(url, path=path)})
            try:
                await _try_store(settings.model_copy(update={"store": changed}))
            except StoreError as error:
                words = str(error).removeprefix(f"{path}: ")
                remedy = next((fix for pattern, fix in _FILE_REMEDIES if re.search(pattern, words)), _FILE_REMEDY)
                return Finding(_KEY, f"{url}: {words}", remedy)
    except OSError as error:
        return Finding(_KEY, f"{url}: cannot be made: {error.strerror or error}", _FILE_REMEDY)
    return Finding(_KEY, f"{url} answers" if path == url.path else f"{url} is not there yet and can be made")


async def _try_store(settings: Settings) -> Sequence[ServerInfo]:
    """Opens the store, writes, and returns what its Redis servers say about themselves. Raises `StoreError`."""
    from relay.claims.redis.store import RedisStore
    from relay.service import build_store

    store = build_store(settings)
    limit = settings.store.timeout * 3
    try:
        async with asyncio.timeout(limit):
            await store.open()
            await store.identity()
        async with asyncio.timeout(limit):
            servers = await store.survey() if isinstance(store, RedisStore) else ()
            try:
                await _try_claim(store)
            except StoreError as error:
                # The trial key may belong to a node of a Cluster that is down. The survey reports that node.
                if not any(server.away and server.away in str(error) for server in servers):
                    raise
            else:
                await _try_permissions(store)
            return servers
    except TimeoutError:
        raise StoreError(f"no answer within {limit:g} s") from None
    finally:
        await store.close()


async def _try_claim(store: Store) -> None:
    """Claims a random key, looks at it while it is held, renews it and releases it. Raises `StoreError`."""
    key = Fingerprint(f"check:{secrets.token_hex(8)}")
    own, other = Token(secrets.token_hex(8)), Token(secrets.token_hex(8))
    steps: tuple[tuple[str, Command, type[Answer]], ...] = (
        ("claims a key", Claim(key, own, _LEASE, _LEASE), Won),
        ("reads a held key", Claim(key, other, _LEASE, _LEASE), Held),
        ("renews a claim", Renew(key, own, _LEASE), Done),
        ("releases a claim", Release(key, own), Done),
    )
    for what, command, expected in steps:
        try:
            [answer] = await store.execute([command])
        except StoreError as error:
            raise StoreError(f"{error} (a trial that {what})") from error
        if not isinstance(answer, expected):
            words = answer.reason if isinstance(answer, Unknown) else f"unexpected answer {answer}"
            raise StoreError(f"{words} (a trial that {what})")


async def _try_permissions(store: Store) -> None:
    """Tries each Redis command that the relay uses. Raises `StoreError` with those that the user may not call."""
    from relay.claims.redis.store import RedisStore

    if isinstance(store, RedisStore) and (refused := await store.refused_commands()):
        raise StoreError(f"NOPERM this user may not run {', '.join(refused)} on the relay's keys")


async def _greeting_of(url: StoreUrl, error: str) -> str:
    """Returns what the port of a single Redis says if the library's error does not tell.

    A Redis in protected mode says why it refuses and closes, before the library can read that.
    """
    if store_step(error) not in {"", FIRST_COMMAND} or urlsplit(str(url)).scheme not in {"redis", "rediss"}:
        return ""
    parts = urlsplit(str(url))
    if not parts.hostname:
        return ""
    answer = await ask_port(parts.hostname, parts.port or _REDIS_PORT, b"PING\r\n")
    if parts.scheme == "rediss":
        return "Redis without TLS" if answer.said.startswith(("+", "-")) else ""
    if answer.said.startswith("-"):
        return answer.said
    return "a TLS handshake is expected" if answer.tls else ""
