"""Reads the mail of a local program, and completes it as an MTA's `sendmail` does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import format_datetime, formataddr, getaddresses, make_msgid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_MBOX = b"From "
_DROPPED = frozenset((b"bcc", b"resent-bcc"))
_ADDRESSED = (b"to", b"cc", b"bcc")
_MAILBOX = re.compile(
    r'(?:"(?:[^"\\\r\n\ud800-\udfff]|\\[^\r\n\ud800-\udfff])*"|[^\s"<>(),;:\\\x00-\x1f\x7f\ud800-\udfff])+'
    r"(?:@\[[!#-;=?-Z^-~]+\])?"  # an address literal, such as [IPv6:::1] (RFC 5321 section 4.1.3)
)
"""What may be a recipient or a sender: no octets that are not UTF-8, which Python reads as surrogates. Not checked
further: the relay and the mail server do that."""


class UnreadableMail(Exception):  # noqa: N818 - a result of reading
    """The mail cannot be handed over. The argument says why, and the remedy."""


@dataclass(frozen=True, slots=True)
class Mail:
    """An envelope, and a message whose lines end with CRLF. An empty reverse-path is the null reverse-path."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends, for what the message does not say itself."""

    reverse_path: str
    """From `-f`, else `user@host`."""
    address: str
    """For a From field that is missing."""
    full_name: str
    host: str
    """For a Message-ID that is missing."""


def until_lone_dot(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the lines before the first one that is a single dot. `-i` reads on after it."""
    for line in lines:
        if line in (b".\n", b".\r\n", b"."):
            return
        yield line


def complete(
    lines: Iterable[bytes], recipients: Iterable[str], sender: Sender, now: dt.datetime, *, from_fields: bool
) -> Mail:
    """Returns the mail to send. Adds From, Date and Message-ID where they are missing, and removes Bcc.

    With `from_fields` (`-t`) the addresses of To, Cc and Bcc are added to the recipients; those of Resent-To,
    Resent-Cc and Resent-Bcc in their place if there are any (RFC 5322 section 3.6.6). Raises `UnreadableMail`.
    """
    fields, body = _split(lines)
    found = [*recipients, *(_addresses(fields) if from_fields else ())]
    for address in (*found, *filter(None, [sender.reverse_path])):
        check_address(address)
    if not found:
        raise UnreadableMail("no recipient; name one as an argument, or give -t and a To field")
    names = {name for name, _ in fields}
    added = []
    if b"from" not in names:
        added.append(_field("From", _mailbox(sender.full_name, sender.address)))
    if b"date" not in names:
        added.append(_field("Date", format_datetime(now)))
    if b"message-id" not in names:
        added.append(_field("Message-ID", make_msgid(domain=sender.host)))
    kept = [line for name, field in fields if name not in _DROPPED for line in field]
    return Mail(sender.reverse_path, tuple(dict.fromkeys(found)), b"".join([*added, *kept, b"\r\n", body]))


def check_address(address: str) -> None:
    """Raises `UnreadableMail` for what cannot be an address.

    An address that begins with `-` could be an option of the fallback command.
    """
    if address.startswith("-") or not _MAILBOX.fullmatch(address):
        raise UnreadableMail(f"{address!r} is no mail address")


def _split(lines: Iterable[bytes]) -> tuple[list[tuple[bytes, list[bytes]]], bytearray]:
    """Returns the header fields, each with its lower-case name and its lines, and the body."""
    fields: list[tuple[bytes, list[bytes]]] = []
    body = bytearray()
    in_header, is_first = True, True
    for raw in lines:
        line = raw.removesuffix(b"\n").removesuffix(b"\r") + b"\r\n"
        if in_header and is_first and line.startswith(_MBOX):
            continue
        is_first = False
        if not in_header:
            body += line
        elif line == b"\r\n":
            in_header = False
        elif fields and line[:1] in b" \t":
            fields[-1][1].append(line)
        elif found := _FIELD.match(line):
            fields.append((found[1].lower(), [line]))
        else:  # no header field: the body began without an empty line
            in_header = False
            body += line
    return fields, body


def _addresses(fields: list[tuple[bytes, list[bytes]]]) -> Iterator[str]:
    resent = tuple(b"resent-" + name for name in _ADDRESSED)
    wanted = resent if any(name in resent for name, _ in fields) else _ADDRESSED
    for name, lines in fields:
        if name not in wanted:
            continue
        value = b"".join(lines).partition(b":")[2].decode("utf-8", "surrogateescape")
        value = re.sub(r"\r\n(?=[ \t])", "", value).strip()
        addresses = [address for _, address in getaddresses([value]) if address]
        # Some versions of Python return nothing for a field of which they cannot read all.
        if not addresses and "@" in value:
            raise UnreadableMail(f"the {name.decode('ascii').title()} field cannot be read: {value!r}")
        yield from addresses


def _mailbox(name: str, address: str) -> str:
    """Returns what `formataddr` does, and also takes an address beyond ASCII, and any octets in the name."""
    phrase = " ".join(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split())
    return formataddr((phrase, "a")).removesuffix("<a>") + f"<{address}>" if phrase else address


def _field(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("utf-8", "surrogateescape")
