"""Mail as its readers see it, and as different mailers write it.

A `Mail` is what a reader sees; a `Mailer` is everything that a mailer is free to choose. The code follows the RFCs and
shares nothing with the parser that it tests.
"""

from __future__ import annotations

import base64
import quopri
from dataclasses import dataclass
from email import policy
from email.header import Header
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
class Mail:
    """What a reader sees."""

    subject: str = "Hello"
    name: str = "Anna"
    plain: str = "Hello"
    html: str = "<p>Hello</p>"
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Mailer:
    """How a mailer writes a mail."""

    encoding: Encoding = "8bit"
    charset: str = "utf-8"
    words: Words = "raw"
    boundary: str = "b1_aaaa"
    newline: str = "\r\n"
    others: tuple[str, ...] = ("Date: Tue, 1 Jul 2025 10:57:00 +0000", "Message-ID: <1@example.org>")
    """Fields that do not count: the first half comes before Subject and From, the second half after them."""
    fold_parameters: bool = False
    width: int = 76
    """Characters in a line of base64."""

    @property
    def gap(self) -> str:
        """The white space before a parameter."""
        return "\n\t" if self.fold_parameters else " "


def write(mail: Mail, mailer: Mailer = Mailer()) -> bytes:
    """Returns the content of a mail with the structure that PHPMailer gives it."""
    outer, inner = mailer.boundary, f"i{mailer.boundary}"
    texts = _multipart(inner, [_text("plain", mail.plain, mailer), _text("html", mail.html, mailer)])
    kind, boundary, body = "alternative", inner, texts
    if mail.files:
        kind, boundary = "mixed", outer
        first = f'Content-Type: multipart/alternative;{mailer.gap}boundary="{inner}"\n\n'.encode() + texts
        body = _multipart(outer, [first, *(_file(file, mailer) for file in mail.files)])
    half = len(mailer.others) // 2
    head = [
        *mailer.others[:half],
        f"Subject: {_header_text(mail.subject, mailer)}",
        f"From: {_header_text(mail.name, mailer, whole=True)} <a@example.org>",
        *mailer.others[half:],
        "MIME-Version: 1.0",
        f'Content-Type: multipart/{kind};{mailer.gap}boundary="{boundary}"',
    ]
    octets = "\n".join(head).encode() + b"\n\n" + PREAMBLE.encode() + b"\n\n" + body
    return octets.replace(b"\n", mailer.newline.encode())


def write_by_email(mail: Mail, encoding: Encoding = "8bit", boundary: str = "==1==") -> bytes:
    """Returns the content of a mail as Python's `email` package writes it."""
    message = EmailMessage(policy=policy.SMTP.clone(utf8=True, refold_source="none"))
    message["Subject"] = mail.subject
    message["From"] = f"{mail.name} <a@example.org>"
    message["Date"] = "Tue, 1 Jul 2025 10:58:00 +0000"
    message.preamble = PREAMBLE + "\n"
    message.set_content(mail.plain, cte=encoding)
    message.add_alternative(mail.html, subtype="html", cte=encoding)
    message.set_boundary(f"i{boundary}")
    for file in mail.files:
        message.add_attachment(file.octets, maintype="application", subtype="pdf", filename=file.name)
    if mail.files:
        inner, *_ = message.iter_parts()
        message.preamble, inner.preamble = PREAMBLE + "\n", None
        message.set_boundary(boundary)
    for part in message.walk():
        if part is not message:
            del part["MIME-Version"]  # Needless there (RFC 2045 section 4), and other libraries write none.
    # The policy that leaves lines as they are writes raw octets. The library's older class writes one encoded word.
    content = message.as_bytes()
    for before, text in ((b"Subject: ", mail.subject), (b"From: ", mail.name)):
        coded = Header(text, "utf-8", maxlinelen=1000).encode().encode()
        content = content.replace(before + text.encode(), before + coded, 1)
    return content


def _multipart(boundary: str, parts: list[bytes]) -> bytes:
    line = f"--{boundary}".encode()
    return b"".join(line + b"\n" + part + b"\n" for part in parts) + line + b"--\n"


def _text(subtype: str, text: str, mailer: Mailer) -> bytes:
    octets = text.encode(mailer.charset)
    head = (
        f"Content-Type: text/{subtype};{mailer.gap}charset={mailer.charset}\n"
        f"Content-Transfer-Encoding: {mailer.encoding}\n\n"
    )
    if mailer.encoding == "base64":
        octets = _base64(text.replace("\n", "\r\n").encode(mailer.charset), mailer)
    elif mailer.encoding == "quoted-printable":
        octets = quopri.encodestring(octets)
    return head.encode() + octets


def _file(file: File, mailer: Mailer) -> bytes:
    head = (
        f"Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n"
        f'Content-Disposition: attachment;{mailer.gap}filename="{file.name}"\n\n'
    )
    return head.encode() + _base64(file.octets, mailer)


def _base64(octets: bytes, mailer: Mailer) -> bytes:
    text = base64.b64encode(octets)
    return b"\n".join(text[at : at + mailer.width] for at in range(0, len(text), mailer.width))


def _header_text(text: str, mailer: Mailer, *, whole: bool = False) -> str:
    """Returns a text as one encoded word if it is `whole`: some readers show a blank between two words in From."""
    if mailer.words == "raw" or not text:
        return text
    pieces = [text[at : at + 3] for at in range(0, len(text), 3)] if mailer.words == "split" and not whole else [text]
    return "\n ".join(_encoded_word(piece, mailer) for piece in pieces)


def _encoded_word(text: str, mailer: Mailer) -> str:
    octets = text.encode(mailer.charset)
    if mailer.words == "B":
        return f"=?{mailer.charset}?B?{base64.b64encode(octets).decode()}?="
    return f"=?{mailer.charset}?Q?{''.join(f'={octet:02X}' for octet in octets)}?="
