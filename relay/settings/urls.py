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
from relay.settings.units import parse_list

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
    """Redis or Valkey: a server, a service of Sentinel, a Cluster. `url` holds passwords; `str()` masks them."""

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
_SENTINEL, _CLUSTER = "redis+sentinel", "redis+cluster"
_STORES = (
    "sqlite:PATH",
    "redis://HOST[:6379]",
    "rediss://HOST[:6379]",
    "unix:///PATH",
    f"{_SENTINEL}://HOST[:26379],…/SERVICE",
    f"{_CLUSTER}://HOST[:6379],…",
    "memory:",
)
# The rest of redis-py's options would overrule limits that the relay sets itself.
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_REDIS_OPTIONS = {_SENTINEL: frozenset({"db", "sentinel_password"}), _CLUSTER: frozenset[str]()}


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


def parse_fallbacks(value: object) -> tuple[SmtpUrl, ...]:
    """Read a list of upstreams: a TOML list, or its text, or text with commas between them."""
    urls = tuple(parse_upstream(item) for item in parse_list(value, '["smtp://mail2.example.com"]'))
    smtp = tuple(url for url in urls if isinstance(url, SmtpUrl))
    if len(smtp) < len(urls):
        raise ValueError("a Maildir cannot stand in for a mail server; write smtp://HOST")
    return smtp


def parse_keep_or_none(value: object) -> MaildirUrl | None:
    """Read `maildir:PATH`; empty text is None."""
    if value is None or value == "":
        return None
    if isinstance(value, MaildirUrl):
        return value
    scheme, colon, rest = str(value).strip().partition(":")
    if not colon or scheme != "maildir":
        raise ValueError("only a Maildir can keep messages; write maildir:PATH")
    return MaildirUrl(_path(scheme, rest))


def parse_store(value: object) -> StoreUrl:
    """Read `sqlite:PATH`, `redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://` or `memory:`."""
    if isinstance(value, SqliteUrl | RedisUrl | MemoryUrl):
        return value
    text = str(value).strip()
    scheme, rest = _split_scheme(text, _STORES)
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
    text_of_one, others = (text, []) if scheme == "unix" else _first_host(text)
    parts = _split(text_of_one, _STORES)
    if MASK in (parts.password, dict(parse_qsl(parts.query)).get("sentinel_password")):
        raise ValueError(f'the password is masked; write the real one in place of "{MASK}"')
    hosts = [parts.netloc.rpartition("@")[2], *others]
    if scheme == "unix":
        if not parts.path.strip("/") or hosts[0]:
            raise ValueError("the path of the socket is missing; write for example unix:///run/redis/redis.sock")
    else:
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError('"/", "?", "#" and "@" in a password are percent-encoded; write %2F, %3F, %23 and %40')
        _see_hosts(scheme, hosts)
        _see_path(scheme, parts.path)
    _see_options(scheme, parts.query)
    return RedisUrl(text)


def _first_host(text: str) -> tuple[str, list[str]]:
    """Give the URL with only the first of its hosts, which is all that urlsplit knows, and the others."""
    base, mark, query = text.partition("?")
    login, at, where = base.rpartition("@")
    first, *others = where.split(",")
    if not others:
        return text, []
    last, slash, path = others.pop().partition("/")
    return login + at + first + slash + path + mark + query, [*others, last]


def _see_hosts(scheme: str, hosts: Sequence[str]) -> None:
    if len(hosts) > 1 and scheme not in (_SENTINEL, _CLUSTER):
        raise ValueError(f"{scheme}:// takes one host; write {_SENTINEL}://HOST,HOST/SERVICE or {_CLUSTER}://HOST,HOST")
    for host in hosts:
        if not HostPort.parse(host, 6379).port:
            raise ValueError(f"port 0 cannot be reached; correct {host}")


def _see_path(scheme: str, path: str) -> None:
    if scheme == _SENTINEL:
        if not path.strip("/"):
            raise ValueError(f"the name of the service is missing; write for example {scheme}://HOST:26379/mymaster")
        if "/" in path[1:]:
            raise ValueError(f"only the name of the service may follow the hosts; write {scheme}://HOST/SERVICE?db=0")
    elif scheme == _CLUSTER:
        if path.strip("/"):
            raise ValueError(f"a cluster has no databases; write {scheme}://HOST without anything after it")
    elif not re.fullmatch(r"/?[0-9]*", path):
        raise ValueError(f"only the number of a database may follow the host; write for example {scheme}://HOST/0")


def _see_options(scheme: str, query: str) -> None:
    known = _REDIS_OPTIONS.get(scheme, _TLS_OPTIONS | {"db"})
    given = parse_qsl(query, keep_blank_values=True)
    unknown = sorted({name for name, _ in given} - known)
    if unknown == ["db"]:
        raise ValueError('a cluster has no databases; leave "db" out')
    if unknown:
        mend = "write the password as :PASSWORD@ before the host" if "password" in unknown else "leave it out"
        known_ones = f" (known: {', '.join(sorted(known))})" if known else ""
        raise ValueError(f'option "{unknown[0]}" is not known; {mend}{known_ones}')
    if not dict(given).get("db", "0").isdecimal():
        raise ValueError('the database is a number; write for example "db=0"')


def _split_scheme(text: str, forms: Sequence[str]) -> tuple[str, str]:
    if not text.isprintable():
        raise ValueError(f"holds a control character; write {_list(forms)}")
    scheme, colon, rest = text.partition(":")
    known = [form.partition(":")[0] for form in forms]
    if colon and scheme in known:
        return scheme, rest
    if not rest.startswith("//"):
        raise ValueError(f"the kind is missing; write {_list(forms)}")
    near = difflib.get_close_matches(scheme.lower(), known, 1)
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
