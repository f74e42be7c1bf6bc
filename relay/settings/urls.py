"""The URLs of the upstream and of the store.

The functions raise `ValueError` with a text that names the remedy and never repeats a password.
"""

from __future__ import annotations

import difflib
import enum
import re
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations of these dataclasses
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from yarl import URL

from relay.claims.redis.servers import Address, RedisServers, Topology
from relay.settings.addresses import HostPort, parse_path
from relay.settings.units import parse_list

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Security(enum.StrEnum):
    """How the connection to the upstream is protected. The values are the URL's schemes."""

    NONE = "smtp"
    STARTTLS = "smtp+starttls"
    """STARTTLS is required: no mail is sent if the upstream does not offer it."""
    TLS = "smtps"
    """TLS from the first byte (RFC 8314)."""


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
    """A Maildir to which accepted mail is written, for trials."""

    path: Path

    def __str__(self) -> str:
        return f"maildir:{self.path}"


@dataclass(frozen=True, slots=True)
class SqliteUrl:
    """An SQLite database file."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite:{self.path}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Redis or Valkey servers. `url` is the URL as it was written, with passwords; `str()` masks them."""

    url: str = field(repr=False)
    servers: RedisServers

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
"""Replaces a password wherever settings are shown."""

# Up to the last "@", because a password may contain any character; also if the scheme is missing.
_USERINFO_PASSWORD = re.compile(r"\A((?:[\w+.-]*://)?[^:@/]*):(?!//).*@", re.DOTALL)
# Any option but those that are known to be harmless: "pass=" and a word without "=" are passwords too.
_QUERY_PASSWORD = re.compile(r"([?&](?!(?:db|ssl_\w+)=)(?:[^=&#]*=)?)[^=&#]+")
_FRAGMENT = re.compile(r"#.+", re.DOTALL)

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
_TOPOLOGIES = {_SENTINEL: Topology.SENTINEL, _CLUSTER: Topology.CLUSTER}
# Other options of redis-py would override limits that the relay sets.
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_REDIS_OPTIONS = {
    "rediss": _TLS_OPTIONS | {"db"},
    _SENTINEL: frozenset({"db", "sentinel_password"}),
    _CLUSTER: frozenset[str](),
}
_CERTIFICATE_REQUIREMENTS = ("required", "optional", "none")
_FALSE = frozenset({"0", "f", "false", "n", "no"})


def mask(text: str) -> str:
    """Returns the URL with its passwords masked, even if it is not a correct URL."""
    if text.startswith(("sqlite:", "maildir:")):
        return text  # a path, which may contain any character
    masked = _USERINFO_PASSWORD.sub(rf"\1:{MASK}@", text)
    return _FRAGMENT.sub(f"#{MASK}", _QUERY_PASSWORD.sub(rf"\1{MASK}", masked))


def has_password(text: str) -> bool:
    """Returns whether a URL of a store contains a password, or what could be one."""
    return MASK not in text and MASK in mask(text)


def check_namespace(text: str) -> str:
    """Returns a namespace that can be part of a Redis key and of a pattern for keys."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,32}", text):
        raise ValueError('write at most 32 letters, digits, "_" and "-"')
    return text


def parse_upstream(value: object) -> UpstreamUrl:
    """Reads `smtp://`, `smtp+starttls://` and `smtps://` with `[USER@]HOST[:PORT]`, or `maildir:PATH`."""
    if isinstance(value, SmtpUrl | MaildirUrl):
        return value
    text = str(value).strip()
    scheme, rest = _split_scheme(text, _UPSTREAMS)
    if scheme == "maildir":
        return MaildirUrl(_path(scheme, rest))
    url, hosts = _split(text, _UPSTREAMS)
    if ":" in rest.rpartition("@")[0]:
        raise ValueError(
            "a password does not belong into the URL; "
            f"write {scheme}://USER@HOST and put the password into the file that upstream.password_file names"
        )
    if url.path.strip("/") or url.query_string or url.fragment:
        raise ValueError(f"nothing may follow the host and port; write {scheme}://HOST")
    address = HostPort.parse(hosts, _SMTP_PORTS[scheme])
    if not address.port:
        raise ValueError(f"port 0 cannot be reached; write {scheme}://{address.host}")
    return SmtpUrl(Security(scheme), address, url.user)


def parse_fallbacks(value: object) -> tuple[SmtpUrl, ...]:
    """Reads a list of upstreams: a TOML list, the text of one, or text with commas between the URLs."""
    urls = tuple(parse_upstream(item) for item in parse_list(value, '["smtp://mail2.example.com"]'))
    smtp = tuple(url for url in urls if isinstance(url, SmtpUrl))
    if len(smtp) < len(urls):
        raise ValueError("a Maildir cannot replace a mail server; write smtp://HOST")
    return smtp


def parse_keep_or_none(value: object) -> MaildirUrl | None:
    """Reads `maildir:PATH`; returns None for empty text."""
    if value is None or value == "":
        return None
    if isinstance(value, MaildirUrl):
        return value
    scheme, colon, rest = str(value).strip().partition(":")
    if not colon or scheme != "maildir":
        raise ValueError("only a Maildir can keep messages; write maildir:PATH")
    return MaildirUrl(_path(scheme, rest))


def parse_store(value: object) -> StoreUrl:
    """Reads `sqlite:PATH`, `redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://` or `memory:`."""
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
    return RedisUrl(text, _redis_servers(scheme, text))


def _redis_servers(scheme: str, text: str) -> RedisServers:
    url, hosts = _split(text, _STORES)
    if MASK in (url.password, url.query.get("sentinel_password")):
        raise ValueError(f'the password is masked; write the real one in place of "{MASK}"')
    addresses: tuple[Address, ...] = ()
    if scheme == "unix":
        if not url.path.strip("/") or hosts:
            raise ValueError("the path of the socket is missing; write for example unix:///run/redis/redis.sock")
    else:
        if "@" in url.path + url.query_string + url.fragment:
            raise ValueError('"/", "?", "#" and "@" in a password are percent-encoded; write %2F, %3F, %23 and %40')
        addresses = _addresses(scheme, hosts)
        _check_path(scheme, url.raw_path)
    options = _options(scheme, url)
    return RedisServers(
        addresses,
        _TOPOLOGIES.get(scheme, Topology.SINGLE),
        socket=url.path if scheme == "unix" else "",
        service=url.path[1:] if scheme == _SENTINEL else "",
        database=int(options.pop("db", "") or (url.path[1:] if scheme in ("redis", "rediss") else "") or 0),
        user=url.user or "",
        password=url.password or "",
        sentinel_password=options.pop("sentinel_password", ""),
        tls=_tls(options) if scheme == "rediss" else None,
        hosts=hosts,
    )


def _addresses(scheme: str, hosts: str) -> tuple[Address, ...]:
    if "," in hosts and scheme not in _TOPOLOGIES:
        raise ValueError(f"{scheme}:// takes one host; write {_SENTINEL}://HOST,HOST/SERVICE or {_CLUSTER}://HOST,HOST")
    addresses = []
    for host in hosts.split(","):
        address = HostPort.parse(host, 26379 if scheme == _SENTINEL else 6379)
        if not address.port:
            raise ValueError(f"port 0 cannot be reached; correct {host}")
        addresses.append(Address(address.host, address.port))
    return tuple(addresses)


def _check_path(scheme: str, path: str) -> None:
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


def _options(scheme: str, url: URL) -> dict[str, str]:
    options = dict(url.query)
    known = _REDIS_OPTIONS.get(scheme, frozenset({"db"}))
    unknown = sorted(options.keys() - known)
    if unknown == ["db"]:
        raise ValueError('a cluster has no databases; leave "db" out')
    if unknown and unknown[0] in _TLS_OPTIONS and scheme == "redis":
        raise ValueError(f'option "{unknown[0]}" is for TLS; write rediss://HOST')
    if unknown:
        is_password = "pass" in unknown[0] or not options[unknown[0]]
        remedy = "write the password as :PASSWORD@ before the host" if is_password else "leave it out"
        known_ones = f" (known: {', '.join(sorted(known))})" if known else ""
        name = f'option "{unknown[0]}"' if options[unknown[0]] else "an option without a value"
        raise ValueError(f"{name} is not known; {remedy}{known_ones}")
    if not options.get("db", "0").isdecimal():
        raise ValueError('the database is a number; write for example "db=0"')
    return options


def _tls(options: Mapping[str, str]) -> dict[str, str | bool]:
    if options.get("ssl_cert_reqs", "none") not in _CERTIFICATE_REQUIREMENTS:
        raise ValueError(f"ssl_cert_reqs is one of {', '.join(_CERTIFICATE_REQUIREMENTS)}")
    checked = {"ssl_check_hostname": options.get("ssl_check_hostname", "").lower() not in _FALSE}
    return {**options, **(checked if "ssl_check_hostname" in options else {})}


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
    remedy = f"did you mean {near[0]}:? Known: " if near else "write "
    raise ValueError(f'"{scheme}" is not known; {remedy}{_list(forms)}')


def _split(text: str, forms: Sequence[str]) -> tuple[URL, str]:
    """Returns the parsed URL without its hosts, of which it could hold only one, and the hosts as they are written."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        raise ValueError(f'"//" is missing; write {_list(forms)}')
    authority, *tail = re.split(r"(?=[/?#])", rest, maxsplit=1)
    login, at, hosts = authority.rpartition("@")
    if hosts.count("[") != hosts.count("]"):
        raise ValueError(f"not a URL; write {_list(forms)}")
    try:
        return URL(f"{scheme}://{login}{at}{'host' if hosts else ''}{''.join(tail)}"), hosts
    except ValueError:
        raise ValueError(f"not a URL; write {_list(forms)}") from None


def _path(scheme: str, rest: str) -> Path:
    if rest.startswith("//"):
        raise ValueError(f'a path follows without "//"; write {scheme}:/{rest.lstrip("/")}')
    if not rest:
        raise ValueError(f"the path is missing; write {scheme}:PATH")
    return parse_path(rest)


def _list(forms: Sequence[str]) -> str:
    return " or ".join((", ".join(forms[:-1]), forms[-1]))
