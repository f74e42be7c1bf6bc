"""The value types of settings: how each is parsed, written, and named on the reference page."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import AfterValidator, PlainSerializer, PlainValidator, SecretStr

from relay.settings import addresses, units, urls
from relay.settings.addresses import HostPort, Network, UnixAddress
from relay.settings.urls import SmtpUrl, StoreUrl, UpstreamUrl

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class ValueType:
    """The name of a value type on the reference page."""

    name: str


_NO_KEYS = frozenset(("from", "to", "cc", "subject", "date", "received", "return-path", "mime-version", "user-agent"))
"""Fields that many different messages share, or that no application sets as a key."""


def at_least(minimum: float) -> AfterValidator:
    """Returns a validator that refuses durations under `minimum` seconds."""

    def check(seconds: float) -> float:
        if seconds < minimum:
            raise ValueError(f'too short; write "{units.format_duration(minimum)}" or more')
        return seconds

    return AfterValidator(check)


def size_at_least(minimum: int) -> AfterValidator:
    """Returns a validator that refuses sizes under `minimum` bytes."""

    def check(size: int) -> int:
        if size < minimum:
            raise ValueError(f'too small; write "{units.format_size(minimum)}" or more')
        return size

    return AfterValidator(check)


def _text_or_empty(value: object) -> str:
    return "" if value is None else str(value)


def _texts(values: Sequence[object]) -> list[str]:
    return [str(value) for value in values]


def _texts_or_empty(values: Sequence[object]) -> list[str]:
    return [_text_or_empty(value) for value in values]


def _command(value: object) -> tuple[str, ...]:
    """Returns the words of a TOML list, of its text, or of a command line."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        try:
            value = shlex.split(value)
        except ValueError:
            raise ValueError('a quote is not closed; write for example ["/usr/local/bin/token", "me"]') from None
    words = units.parse_list(value, '["/usr/local/bin/token", "me@example.com"]')
    if not all(isinstance(word, str) and word for word in words):
        raise ValueError('each word is text; write for example ["/usr/local/bin/token", "me@example.com"]')
    return tuple(map(str, words))


def _secret(value: object) -> SecretStr | None:
    if isinstance(value, SecretStr):
        return value
    text = _text_or_empty(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not UTF-8 text; write it in UTF-8") from None
    # Container tools pass an unset variable as an empty one.
    return SecretStr(text) if text else None


def _helo_name(value: object) -> str:
    """Returns the name if it is a domain or an address literal as RFC 5321 section 4.1.2 writes them, or empty."""
    text = str(value)
    if text and not re.fullmatch(
        r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,253}[A-Za-z0-9])?|\[(IPv6:)?[0-9A-Fa-f.:]{2,45}\]", text
    ):
        raise ValueError("write a domain such as mail.example.com, or an address literal such as [192.0.2.1]")
    if text.lower().removesuffix(".localdomain") == "localhost":
        raise ValueError("servers refuse localhost; write the domain of this host, or an address literal")
    return text


def _field_names(value: object) -> tuple[str, ...]:
    """Returns the header field names of a TOML list, of its text, or of comma-separated text, as they are written."""
    names = tuple(str(item) for item in units.parse_list(value, '["X-Idempotency-Key"]'))
    for name in names:
        if not re.fullmatch(r"[!-9;-~]+", name):  # RFC 5322 section 2.2
            raise ValueError(f'"{units.shortened(name)}" is not the name of a header field; write "X-Idempotency-Key"')
        if name.lower() in _NO_KEYS or name.lower().startswith("content-"):
            raise ValueError(
                f"{name} says nothing about repeats; name a field that the application sets for this purpose"
            )
        if [other.lower() for other in names].count(name.lower()) > 1:
            raise ValueError(f"{name} is listed twice; write it once")
    return names


def _file_mode(value: object) -> int:
    """Returns the permission bits of octal text. A number is refused: TOML reads 660 as decimal and 0o660 as 432."""
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('not a file mode; write three octal digits in quotes, for example "660"')
    return int(value, 8)


def _octal(mode: int) -> str:
    return f"{mode:o}"


def _masked(value: SecretStr | None) -> str | None:
    return urls.MASK if value else None


Seconds: TypeAlias = Annotated[
    float,
    ValueType("duration"),
    PlainValidator(units.parse_duration),
    PlainSerializer(units.format_duration, return_type=str),
]
"""A duration in seconds; 0 is allowed."""

Timeout: TypeAlias = Annotated[Seconds, at_least(0.001)]
"""A duration in seconds; 0 is refused."""

Bytes: TypeAlias = Annotated[
    int,
    ValueType("size"),
    PlainValidator(units.parse_size),
    PlainSerializer(units.format_size, return_type=str),
]
"""A size in bytes."""

Count: TypeAlias = Annotated[int, ValueType("whole number"), PlainValidator(units.parse_count)]
"""A whole number of at least 1."""

Limit: TypeAlias = Annotated[int, ValueType("whole number"), PlainValidator(units.parse_limit)]
"""A whole number; 0 means no limit."""

Switch: TypeAlias = Annotated[bool, ValueType("true or false"), PlainValidator(units.parse_switch)]

Namespace: TypeAlias = Annotated[
    str, ValueType("text of at most 32 letters, digits, _ and -"), AfterValidator(urls.check_namespace)
]

HeloName: TypeAlias = Annotated[str, ValueType("domain or address literal"), PlainValidator(_helo_name)]

FieldNames: TypeAlias = Annotated[
    tuple[str, ...],
    ValueType("list of header fields"),
    PlainValidator(_field_names),
    PlainSerializer(list, return_type=list[str]),
]

Address: TypeAlias = Annotated[
    HostPort,
    ValueType("HOST:PORT"),
    PlainValidator(HostPort.parse),
    PlainSerializer(str, return_type=str),
]

ListenAddress: TypeAlias = Annotated[
    HostPort | UnixAddress,
    ValueType("HOST:PORT or unix:PATH"),
    PlainValidator(addresses.parse_listen_address),
    PlainSerializer(str, return_type=str),
]

GroupName: TypeAlias = Annotated[str, ValueType('group or ""'), PlainValidator(_text_or_empty)]

FileMode: TypeAlias = Annotated[
    int,
    ValueType("file mode"),
    PlainValidator(_file_mode),
    PlainSerializer(_octal, return_type=str),
]
"""Permission bits, written in octal."""

AddressOrNone: TypeAlias = Annotated[
    HostPort | None,
    ValueType('HOST:PORT or ""'),
    PlainValidator(addresses.parse_http_address),
    PlainSerializer(_text_or_empty, return_type=str),
]

Networks: TypeAlias = Annotated[
    tuple[Network, ...],
    ValueType("list of networks"),
    PlainValidator(addresses.parse_networks),
    PlainSerializer(_texts, return_type=list[str]),
]

HostNames: TypeAlias = Annotated[
    tuple[str, ...],
    ValueType("list of host names"),
    PlainValidator(addresses.parse_host_names),
    PlainSerializer(list, return_type=list[str]),
]
"""Folded."""

OpenPaths: TypeAlias = Annotated[
    tuple[str, ...],
    ValueType("list of paths"),
    PlainValidator(addresses.parse_open_paths),
    PlainSerializer(list, return_type=list[str]),
]

PathOrNone: TypeAlias = Annotated[
    Path | None,
    ValueType('path or ""'),
    PlainValidator(addresses.parse_path_or_none),
    PlainSerializer(_text_or_empty, return_type=str),
]

SocketOrNone: TypeAlias = Annotated[
    Path | None,
    ValueType('path or ""'),
    PlainValidator(addresses.parse_socket_or_none),
    PlainSerializer(_text_or_empty, return_type=str),
]

Paths: TypeAlias = Annotated[
    tuple[Path | None, ...],
    ValueType("list of paths"),
    PlainValidator(addresses.parse_paths),
    PlainSerializer(_texts_or_empty, return_type=list[str]),
]

Command: TypeAlias = Annotated[
    tuple[str, ...],
    ValueType("program and arguments"),
    PlainValidator(_command),
    PlainSerializer(list, return_type=list[str]),
]
"""Words that are executed without a shell."""

KeepOrNone: TypeAlias = Annotated[
    urls.MaildirUrl | None,
    ValueType('maildir:PATH or ""'),
    PlainValidator(urls.parse_keep_or_none),
    PlainSerializer(_text_or_empty, return_type=str),
]

Upstream: TypeAlias = Annotated[
    UpstreamUrl,
    ValueType("URL"),
    PlainValidator(urls.parse_upstream),
    PlainSerializer(str, return_type=str),
]

Upstreams: TypeAlias = Annotated[
    tuple[SmtpUrl, ...],
    ValueType("list of URLs"),
    PlainValidator(urls.parse_fallbacks),
    PlainSerializer(_texts, return_type=list[str]),
]

Store: TypeAlias = Annotated[
    StoreUrl,
    ValueType("URL"),
    PlainValidator(urls.parse_store),
    PlainSerializer(str, return_type=str),
]
"""Written with a masked password."""

Secret: TypeAlias = Annotated[
    SecretStr | None,
    ValueType("secret"),
    PlainValidator(_secret),
    PlainSerializer(_masked, return_type=str | None),
]
"""Text that is always masked."""
