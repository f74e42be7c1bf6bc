"""The URLs of the upstream and of the store.

`parse_upstream` and `parse_store` raise `ValueError` whose text says how to mend the URL and never repeats a password.
"""

from __future__ import annotations

import difflib
import enum
import re
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations of these dataclasses
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from relay.settings.addresses import HostPort, parse_path

if TYPE_CHECKING:
    from collections.abc import Sequence


class Security(enum.StrEnum):
    """How the way to the upstream is protected. The values are the schemes."""

    NONE = "smtp"
    STARTTLS = "smtp+starttls"
    """Required: no mail goes out where the upstream does not offer it."""
    TLS = "smtps"
    """From the first byte on (RFC 8314)."""


@dataclass(frozen=True, slots=True)
class SmtpUrl:
    """An MTA."""

    security: Security
    address: HostPort
    user: str | None = None

    def __str__(self) -> str:
        user = f"{quote(self.user, safe='')}@" if self.user is not None else ""
        return f"{self.security}://{user}{self.address}"


@dataclass(frozen=True, slots=True)
class MaildirUrl:
    """A Maildir that takes accepted mail, for trying out."""

    path: Path

    def __str__(self) -> str:
        return f"maildir:{self.path}"


@dataclass(frozen=True, slots=True)
class SqliteUrl:
    """A database file."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite:{self.path}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A Redis or Valkey server. `url` is whole, with its password; `str()` masks that."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        return mask(self.url)


@dataclass(frozen=True, slots=True)
class MemoryUrl:
    """The memory of one process."""

    def __str__(self) -> str:
        return "memory:"


UpstreamUrl: TypeAlias = SmtpUrl | MaildirUrl
StoreUrl: TypeAlias = SqliteUrl | RedisUrl | MemoryUrl

MASK = "***"
"""Stands for a password wherever settings are shown."""

# Up to the last "@", for a password may hold any character; also where the scheme is missing.
_USERINFO_PASSWORD = re.compile(r"\A((?:[\w+.-]*://)?[^:@/]*):(?!//).*@", re.DOTALL)
_QUERY_PASSWORD = re.compile(r"(password=)[^&#]*", re.IGNORECASE)

_SMTP_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_UPSTREAMS = ("smtp://HOST[:25]", "smtp+starttls://HOST[:587]", "smtps://HOST[:465]", "maildir:PATH")
_STORES = ("sqlite:PATH", "redis://HOST[:6379]", "rediss://HOST[:6379]", "unix:///PATH", "memory:")
_NOT_YET = {"redis+sentinel": "Redis Sentinel", "redis+cluster": "Redis Cluster"}
# The rest of redis-py's options would overrule limits that the relay sets itself.
_REDIS_OPTIONS = frozenset({"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})


def mask(text: str) -> str:
    """Hide the password in a URL, also in one that is written wrongly."""
    return _QUERY_PASSWORD.sub(rf"\1{MASK}", _USERINFO_PASSWORD.sub(rf"\1:{MASK}@", text))


def parse_upstream(value: object) -> UpstreamUrl:
    """Read `smtp://`, `smtp+starttls://` and `smtps://` with `[USER@]HOST[:PORT]`, or `maildir:PATH`."""
    if isinstance(value, SmtpUrl | MaildirUrl):
        return value
    text = str(value).strip()
    scheme, rest = _split_scheme(text, _UPSTREAMS)
    if scheme == "maildir":
        return MaildirUrl(_path(scheme, rest))
    parts = _split(text, _UPSTREAMS)
    if ":" in rest.rpartition("@")[0]:
        raise ValueError(
            "a password does not belong into the URL; "
            f"write {scheme}://USER@HOST and put the password into the file that upstream.password_file names"
        )
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"nothing may follow the host and port; write {scheme}://HOST")
    address = HostPort.parse(parts.netloc.rpartition("@")[2], _SMTP_PORTS[scheme])
    if not address.port:
        raise ValueError(f"port 0 cannot be reached; write {scheme}://{address.host}")
    return SmtpUrl(Security(scheme), address, unquote(parts.username or "") or None)


def parse_store(value: object) -> StoreUrl:
    """Read `sqlite:PATH`, `redis://`, `rediss://`, `unix://` or `memory:`."""
    if isinstance(value, SqliteUrl | RedisUrl | MemoryUrl):
        return value
    text = str(value).strip()
    scheme, rest = _split_scheme(text, _STORES, also=_NOT_YET)
    if scheme in _NOT_YET:
        raise ValueError(f"this version cannot use {_NOT_YET[scheme]} yet; write redis://HOST:PORT of a single server")
    if scheme == "memory":
        if rest:
            raise ValueError('nothing may follow "memory:"; write "memory:"')
        return MemoryUrl()
    if scheme == "sqlite":
        if rest.strip("/") == ":memory:":
            raise ValueError('SQLite in memory is not offered; write "memory:"')
        return SqliteUrl(_path(scheme, rest))
    return _redis(scheme, text)


def _redis(scheme: str, text: str) -> RedisUrl:
    parts = _split(text, _STORES)
    if parts.password == MASK:
        raise ValueError(f'the password is masked; write the real one in place of "{MASK}"')
    if scheme == "unix":
        if not parts.path.strip("/") or parts.netloc.rpartition("@")[2]:
            raise ValueError("the path of the socket is missing; write for example unix:///run/redis/redis.sock")
    else:
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError('"/", "?", "#" and "@" in a password are percent-encoded; write %2F, %3F, %23 and %40')
        HostPort.parse(parts.netloc.rpartition("@")[2], 6379)
        if not re.fullmatch(r"/?[0-9]*", parts.path):
            raise ValueError(f"only the number of a database may follow the host; write for example {scheme}://HOST/0")
    unknown = sorted({name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - _REDIS_OPTIONS)
    if unknown:
        mend = "write the password as :PASSWORD@ before the host" if "password" in unknown else "leave it out"
        raise ValueError(f'option "{unknown[0]}" is not known; {mend} (known: {", ".join(sorted(_REDIS_OPTIONS))})')
    return RedisUrl(text)


def _split_scheme(text: str, forms: Sequence[str], also: Sequence[str] | dict[str, str] = ()) -> tuple[str, str]:
    if not text.isprintable():
        raise ValueError(f"holds a control character; write {_list(forms)}")
    scheme, colon, rest = text.partition(":")
    known = [form.partition(":")[0] for form in forms]
    if colon and scheme in {*known, *also}:
        return scheme, rest
    if not rest.startswith("//"):
        raise ValueError(f"the kind is missing; write {_list(forms)}")
    near = difflib.get_close_matches(scheme.lower(), [*known, *also], 1)
    mend = f"did you mean {near[0]}:? Known: " if near else "write "
    raise ValueError(f'"{scheme}" is not known; {mend}{_list(forms)}')


def _split(text: str, forms: Sequence[str]) -> SplitResult:
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(f"not a URL; write {_list(forms)}") from None
    if not text.startswith(f"{parts.scheme}://"):
        raise ValueError(f'"//" is missing; write {_list(forms)}')
    return parts


def _path(scheme: str, rest: str) -> Path:
    if rest.startswith("//"):
        raise ValueError(f'a path follows without "//"; write {scheme}:/{rest.lstrip("/")}')
    if not rest:
        raise ValueError(f"the path is missing; write {scheme}:PATH")
    return parse_path(rest)


def _list(forms: Sequence[str]) -> str:
    return " or ".join((", ".join(forms[:-1]), forms[-1]))
