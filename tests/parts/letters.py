"""Letters as their readers see them, and the many ways to write one down.

A `Letter` is what is seen; a `Way` is all that a mailer is free to choose. The writing is our own, from the RFCs, and
knows nothing of the parser that it tests.
"""

from __future__ import annotations

import base64
import quopri
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from typing import Literal

Encoding = Literal["8bit", "quoted-printable", "base64"]
Words = Literal["raw", "Q", "B", "split"]
PREAMBLE = "This is a multi-part message in MIME format."


@dataclass(frozen=True)
class File:
    """An attachment."""

    name: str
    octets: bytes


@dataclass(frozen=True)
class Letter:
    """What a reader sees."""

    subject: str = "Hello"
    name: str = "Anna"
    plain: str = "Hello"
    html: str = "<p>Hello</p>"
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Way:
    """How it is written down."""

    encoding: Encoding = "8bit"
    charset: str = "utf-8"
    words: Words = "raw"
    boundary: str = "b1_aaaa"
    newline: str = "\r\n"
    others: tuple[str, ...] = ("Date: Tue, 1 Jul 2025 10:57:00 +0000", "Message-ID: <1@example.org>")
    """Fields that do not count, in their order; the last one half behind the fields that do."""
    fold_parameters: bool = False
    width: int = 76
    """Characters of a line of base64."""


def write(letter: Letter, way: Way = Way()) -> bytes:
    """Write a letter as PHPMailer lays it out."""
    outer, inner = way.boundary, f"i{way.boundary}"
    texts = _multipart(inner, [_text("plain", letter.plain, way), _text("html", letter.html, way)])
    kind, boundary, body = "alternative", inner, texts
    if letter.files:
        kind, boundary = "mixed", outer
        first = f'Content-Type: multipart/alternative;{_gap(way)}boundary="{inner}"\n\n'.encode() + texts
        body = _multipart(outer, [first, *(_file(file, way) for file in letter.files)])
    half = len(way.others) // 2
    head = [
        *way.others[:half],
        f"Subject: {_words(letter.subject, way)}",
        f"From: {_words(letter.name, way)} <a@example.org>",
        *way.others[half:],
        "MIME-Version: 1.0",
        f'Content-Type: multipart/{kind};{_gap(way)}boundary="{boundary}"',
    ]
    octets = "\n".join(head).encode() + b"\n\n" + PREAMBLE.encode() + b"\n\n" + body
    return octets.replace(b"\n", way.newline.encode())


def write_by_email(letter: Letter, encoding: Encoding = "8bit", boundary: str = "==1==") -> bytes:
    """Write a letter by Python's own package."""
    mail = EmailMessage(policy=policy.SMTP.clone(utf8=True, refold_source="none"))
    mail["Subject"] = letter.subject
    mail["From"] = f"{letter.name} <a@example.org>"
    mail.preamble = PREAMBLE + "\n"
    mail.set_content(letter.plain, cte=encoding)
    mail.add_alternative(letter.html, subtype="html", cte=encoding)
    mail.set_boundary(f"i{boundary}")
    for file in letter.files:
        mail.add_attachment(file.octets, maintype="application", subtype="pdf", filename=file.name)
    if letter.files:
        inner, *_ = mail.iter_parts()
        mail.preamble, inner.preamble = PREAMBLE + "\n", None
        mail.set_boundary(boundary)
    for part in mail.walk():
        if part is not mail:
            del part["MIME-Version"]  # Needless there (RFC 2045 section 4), and other libraries write none.
    return mail.as_bytes()


def _gap(way: Way) -> str:
    return "\n\t" if way.fold_parameters else " "


def _multipart(boundary: str, parts: list[bytes]) -> bytes:
    line = f"--{boundary}".encode()
    return b"".join(line + b"\n" + part + b"\n" for part in parts) + line + b"--\n"


def _text(subtype: str, text: str, way: Way) -> bytes:
    octets = text.encode(way.charset)
    head = (
        f"Content-Type: text/{subtype};{_gap(way)}charset={way.charset}\nContent-Transfer-Encoding: {way.encoding}\n\n"
    )
    if way.encoding == "base64":
        octets = _base64(text.replace("\n", "\r\n").encode(way.charset), way)
    elif way.encoding == "quoted-printable":
        octets = quopri.encodestring(octets)
    return head.encode() + octets


def _file(file: File, way: Way) -> bytes:
    head = (
        f"Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n"
        f'Content-Disposition: attachment;{_gap(way)}filename="{file.name}"\n\n'
    )
    return head.encode() + _base64(file.octets, way)


def _base64(octets: bytes, way: Way) -> bytes:
    text = base64.b64encode(octets)
    return b"\n".join(text[at : at + way.width] for at in range(0, len(text), way.width))


def _words(text: str, way: Way) -> str:
    if way.words == "raw" or not text:
        return text
    pieces = [text[at : at + 3] for at in range(0, len(text), 3)] if way.words == "split" else [text]
    return "\n ".join(_word(piece, way) for piece in pieces)


def _word(text: str, way: Way) -> str:
    octets = text.encode(way.charset)
    if way.words == "B":
        return f"=?{way.charset}?B?{base64.b64encode(octets).decode()}?="
    return f"=?{way.charset}?Q?{''.join(f'={octet:02X}' for octet in octets)}?="
