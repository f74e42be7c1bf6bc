"""Pairs of messages that were equal once and that some reader shows differently, by the kind of difference."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = b"From: %b\r\nTo: v@example.org\r\nSubject: %b\r\nMIME-Version: 1.0\r\n"
_CODED = base64.b64encode(b"Pay 100 to Alice")
_EURO = "Zoë €5".encode()


def _mail(
    fields: bytes, body: bytes, subject: bytes = b"Statement", sender: bytes = b"Shop <shop@example.com>"
) -> bytes:
    return _HEAD % (sender, subject) + fields + b"\r\n" + body + b"\r\n"


def _text(kind: bytes, body: bytes, encoding: bytes = b"") -> bytes:
    label = b"Content-Transfer-Encoding:%b\r\n" % encoding if encoding else b""
    return _mail(b"Content-Type: %b\r\n%b" % (kind, label), body)


def _multipart(boundary: bytes, body: bytes, after: bytes = b"", before: bytes = b"") -> bytes:
    part = b"--%b\r\nContent-Type: text/plain\r\n\r\n%b\r\n--%b--\r\n" % (boundary, body, boundary)
    return _mail(b'Content-Type: multipart/mixed; boundary="%b"\r\n' % boundary, before + part + after)


def _html(source: bytes) -> bytes:
    return _text(b"text/html; charset=utf-8", source)


def _file(parameters: bytes) -> bytes:
    return _mail(b"Content-Type: application/pdf\r\nContent-Disposition: attachment; %b\r\n" % parameters, b"PDF")


def _word(octets: bytes) -> bytes:
    return b"=?utf-8?B?%b?=" % base64.b64encode(octets)


def _pairs() -> Iterator[tuple[str, bytes, bytes]]:  # noqa: C901 - a loop for each kind
    for label in (b" base64\v", b" base64\f", b" \vbase64", b" base64 ", b"\r\n base64", b"\tbase64", b" base64\x1c"):
        yield f"encoding {label!r}", _text(b"text/plain", b"Pay 100 to Alice"), _text(b"text/plain", _CODED, label)
    for label in (b" quoted-printable ", b" quoted-printable\f"):
        coded = _text(b"text/plain", b"Pay 100 to =41lice", label)
        yield f"encoding {label!r}", _text(b"text/plain", b"Pay 100 to Alice"), coded
    for boundary in (
        *(b"X\t", b"X\v", b"X\f", b"X\xc2\xa0", b"X\x85", "Xé".encode(), b"X\0Y", b"<X>", b"=?utf-8?Q?X?=", b"X\x1f"),
        *(b" X", b"X ", b"X%41", b"X\x7f", b"X*", b"X;", b"{X}", b"X" * 71),
    ):
        yield f"boundary {boundary[:20]!r}", _multipart(b"Z", b"Hello"), _multipart(boundary, b"Hello")
    for name, inside in {
        "in a part": {"body": b"Hello\r\n--x\r\n\r\nPay Mallory"},
        "in the preamble": {"body": b"Hello", "before": b"--x\r\n\r\nPay Mallory\r\n"},
        "in the epilogue": {"body": b"Hello", "after": b"--x\r\n\r\nPay Mallory\r\n--x--\r\n"},
    }.items():
        yield f"boundary in another case {name}", _multipart(b"Z", **inside), _multipart(b"X", **inside)
    again = b"--X\r\nContent-Type: text/plain\r\n\r\nPay 900 to Mallory\r\n--X--\r\n"
    yield "boundary in the epilogue", _multipart(b"Z", b"Hello", again), _multipart(b"X", b"Hello", again)
    for charset, octets in {"big5": b"\xc7\xe9 \xc6\xe7\xc7\xf3 \xa1\x45", "euc-kr": b"\xa2\xe6 \xa2\xe7"}.items():
        for code in octets.split():
            label, text = charset.encode(), code.decode(charset).encode()
            coded, plain = _text(b"text/plain; charset=" + label, code), _text(b"text/plain; charset=utf-8", text)
            yield f"{charset} {code.hex()}", coded, plain
    whole = _mail(b"", b"x", _word(_EURO))
    yield "split character", whole, _mail(b"", b"x", _word(_EURO[:3]) + b" " + _word(_EURO[3:]))
    yield (
        "split character in both encodings",
        _mail(b"", b"x", _word(_EURO[:4])),
        _mail(b"", b"x", _word(_EURO[:3]) + b" =?utf-8?Q?=AB?="),
    )
    yield "raw octets", whole, _mail(b"", b"x", _EURO)
    for control in (b"\f", b"\x1c", b"\v", b"\0", b"\x7f"):
        yield f"Subject with {control!r}", _mail(b"", b"x", b"a b"), _mail(b"", b"x", b"a%bb" % control)
        words = b"=?utf-8?Q?a?=%b=?utf-8?Q?b?="
        yield f"words and {control!r}", _mail(b"", b"x", words % b" "), _mail(b"", b"x", words % control)
        sender = b"Shop%bB <shop@example.com>"
        spaced, controlled = (_mail(b"", b"x", b"x", sender % between) for between in (b" ", control))
        yield f"From with {control!r}", spaced, controlled
        yield f"file name with {control!r}", _file(b'filename="a b"'), _file(b'filename="a%bb"' % control)
    yield (
        "words in From",
        *(
            _mail(b"", b"x", b"x", name + b" <a@example.com>")
            for name in (_word(b"Shop"), _word(b"Sh") + b" " + _word(b"op"))
        ),
    )
    for segments in (
        b"filename*1=ice.pdf; filename*0=invo",
        b"filename*0=invo; filename*1*=%69ce.pdf",
        b"filename*0*=utf-8''invo; filename*1=ice.pdf",
    ):
        yield f"segments {segments!r}", _file(b"filename=invoice.pdf"), _file(segments)
    for value in (
        b'<a href="http://x/?<\r\ny">',
        b'<a href="x?a=<\tb">',
        b"<a href='x?>\r\ny'>",
        b'<a title="a < \r\n b">',
    ):
        folded = value.replace(b"\r\n", b" ").replace(b"\t", b" ")
        yield f"value {value!r}", _html(value), _html(folded)
    for style in (
        b'<body><!-- x --><style>p{content:"a\r\n";display:none}</style>',
        b'<style>a{}</style><style>/**/\r\n@import "x\r\n";p{display:none}</style>',
        b"<p style=\"font-family:'a\r\n';display:none\">",
    ):
        yield f"style {style!r}", _html(style + b"<p>Pay</p>"), _html(style.replace(b"\r\n", b" ") + b"<p>Pay</p>")


CRAFTED = list(_pairs())
"""Name, and two messages with different fingerprints."""
