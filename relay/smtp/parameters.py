"""Parses the parameters of MAIL and RCPT, and of XFORWARD. Called by `relay.smtp.session`."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from relay.core import reply as replies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.reply import Reply

# RFC 3461 section 4: xtext. A few senders write "=" unencoded, and RFC 6533 allows UTF-8: the upstream judges both.
_XTEXT = rb"(?:[!-*,-~\x80-\xff]|\+[0-9A-Fa-f]{2})"
_NOTIFY = rb"(?:SUCCESS|FAILURE|DELAY)"

_MAIL = {
    b"BODY": re.compile(rb"7BIT|8BITMIME", re.IGNORECASE),
    b"RET": re.compile(rb"FULL|HDRS", re.IGNORECASE),
    b"ENVID": re.compile(_XTEXT + rb"{1,100}"),
}
"""RFC 6152; RFC 3461 sections 4.3 and 4.4."""
_RCPT = {
    b"NOTIFY": re.compile(rb"NEVER|" + _NOTIFY + rb"(?:," + _NOTIFY + rb")*", re.IGNORECASE),
    b"ORCPT": re.compile(rb"[A-Za-z0-9-]{1,64};" + _XTEXT + rb"{1,500}"),
}
"""RFC 3461 sections 4.1 and 4.2."""
_DSN = {b"RET", b"ENVID", *_RCPT}
_AUTH = re.compile(rb"<>|" + _XTEXT + rb"{1,500}")

_FORWARDED = re.compile(rb"(NAME|ADDR|PORT|PROTO|HELO|IDENT|SOURCE)=(" + _XTEXT + rb"{1,255})", re.IGNORECASE)
FORWARDED_ATTRIBUTES = "NAME ADDR PORT PROTO HELO IDENT SOURCE"
"""The attributes of XFORWARD, in the order of Postfix's XFORWARD_README."""
_UNKNOWN = {b"[UNAVAILABLE]", b"[TEMPUNAVAIL]"}


def declared_size(parameters: Sequence[bytes]) -> int:
    """Returns the bytes of the SIZE parameter of MAIL (RFC 1870 section 6), or 0."""
    for parameter in parameters:
        keyword, _, value = parameter.partition(b"=")
        if keyword.upper() == b"SIZE" and value.isdigit():
            return int(value)
    return 0


def parse_mail_parameters(parameters: Sequence[bytes], size_limit: int) -> tuple[bytes, ...] | Reply:
    """Returns the parameters of MAIL to pass on, or the reply that refuses one.

    `size_limit` in bytes; 0 means no limit. AUTH (RFC 4954 section 5) is accepted and not passed on: a Postfix in front
    passes it unasked, and the relay does not log in as the client's user.
    """
    passed_on = []
    if _repeated(parameters):
        return replies.BAD_SYNTAX
    for parameter in parameters:
        keyword, equals, value = parameter.partition(b"=")
        keyword = keyword.upper()
        if keyword == b"SIZE" and value.isdigit():
            if size_limit and int(value) > size_limit:
                return replies.TOO_LARGE
        elif keyword in _MAIL:
            if not _MAIL[keyword].fullmatch(value):
                return _invalid(keyword)
            passed_on.append(parameter)
        elif keyword == b"SMTPUTF8" and not equals:
            passed_on.append(parameter)
        elif keyword != b"AUTH" or not _AUTH.fullmatch(value):
            return replies.UNKNOWN_PARAMETER
    return tuple(passed_on)


def parse_rcpt_parameters(parameters: Sequence[bytes]) -> tuple[bytes, ...] | Reply:
    """Returns the parameters of RCPT, or the reply that refuses one."""
    if _repeated(parameters):
        return replies.BAD_SYNTAX
    for parameter in parameters:
        keyword, _, value = parameter.partition(b"=")
        keyword = keyword.upper()
        if keyword not in _RCPT:
            return replies.UNKNOWN_PARAMETER
        if not _RCPT[keyword].fullmatch(value):
            return _invalid(keyword)
    return tuple(parameters)


def parse_forwarded(argument: bytes) -> Mapping[bytes, bytes] | Reply:
    """Returns the attributes of XFORWARD by name (Postfix's XFORWARD_README), without those that Postfix does not know.

    Example: `parse_forwarded(b"ADDR=192.0.2.1 NAME=[UNAVAILABLE]")` returns `{b"ADDR": b"192.0.2.1"}`.
    """
    found = {}
    for attribute in argument.split():
        match = _FORWARDED.fullmatch(attribute)
        if not match:
            return replies.BAD_SYNTAX
        name, value = match[1].upper(), re.sub(rb"\+(..)", lambda code: bytes([int(code[1], 16)]), match[2])
        if value.upper() in _UNKNOWN:
            continue
        if name == b"ADDR":
            value = value.upper().removeprefix(b"IPV6:").lower()
            if not _is_address(value):
                return replies.BAD_SYNTAX
        found[name] = value
    return found if argument else replies.BAD_SYNTAX


def _repeated(parameters: Sequence[bytes]) -> bool:
    """Returns whether a keyword appears twice (RFC 5321 section 4.1.1.11)."""
    return len({parameter.partition(b"=")[0].upper() for parameter in parameters}) < len(parameters)


def _invalid(keyword: bytes) -> Reply:
    return replies.BAD_SYNTAX if keyword in _DSN else replies.UNKNOWN_PARAMETER


def _is_address(value: bytes) -> bool:
    try:
        return bool(ip_address(value.decode("ascii", "replace")))
    except ValueError:
        return False
