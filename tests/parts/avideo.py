"""Mails in the layout of AVideo and PHPMailer, with a parameter for everything that varies between two sends.

The texts are invented. `Sending` has what differs on every send, and the addresses. The functions return one kind of
mail each.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import html
import quopri
import re
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Literal

SITE = "Example Tube"
HOST = "tube.example.test"
CONTACT = "contact@tube.example.test"
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
"""A Date that is far from the time of receipt counts, so that the mails must be new."""
CSS_LINES = 1000

Encoding = Literal["8bit", "quoted-printable", "base64"]

_MAILER = "X-Mailer: PHPMailer 6.9.1 (https://github.com/PHPMailer/PHPMailer)"
_PREAMBLE = "This is a multi-part message in MIME format."


@dataclass(frozen=True)
class Sending:
    """One call of PHPMailer's `send`."""

    to: str | None = None
    """The only recipient, who is in To; None for a chunk of blind copies."""
    date: dt.datetime = NOW
    seed: str = "1"
    """Determines Message-ID and boundary, which PHPMailer derives from one random id."""
    encoding: Encoding = "8bit"
    sender: str = CONTACT
    name: str = SITE


FIRST = Sending()
AGAIN = Sending(date=NOW + dt.timedelta(minutes=2), seed="2")
"""The same job two minutes later: another Date, Message-ID and boundary."""


def notification(
    *,
    video: str = "9d1f4b7c",
    cache: str = "?cache=17412345671741234567",
    title: str = "Sunrise 🎬 over the lake — part 2",
    user: str = "marta",
    quote: str = "'",
    logo_cache: str = "",
    link_query: str = "",
    sending: Sending = FIRST,
) -> bytes:
    """Returns the notice of a new video. `cache` is the text after `.jpg` in the URL of the thumbnail."""
    address = f"https://{HOST}/video/{video}{link_query}"
    thumbnail = f"https://{HOST}/videos/{video}/{video}_thumbsV2.jpg{cache}"
    body = (
        f"<tr><td><img src={quote}{thumbnail}{quote} width={quote}560{quote} alt={quote}{quote}></td></tr>\n"
        f"<tr><td><b>{html.escape(user)}</b> has uploaded a new video <i>{html.escape(title)}</i></td></tr>\n"
        f'<tr><td class="button"><a href="{address}">Watch it now</a></td></tr>\n'
    )
    return _titled(f"New video: {title}", _page(body, logo_cache), sending)


def going_live(*, user: str = "marta", cache: str = "?cache=1741234567", sending: Sending = FIRST) -> bytes:
    """Returns the notice that a user goes live."""
    body = f"<tr><td><img src='https://{HOST}/photos/{user}.png{cache}'>{user} is live now</td></tr>\n"
    return _titled(f"{user} is live", _page(body), sending)


def recovery(token: str, *, user: str = "marta", sending: Sending = FIRST) -> bytes:
    """Returns a mail to set a new password. Only the link contains the token."""
    link = f"https://{HOST}/recoverPass?user={user}&recoverpass={token}"
    return _linked("Password help", "Somebody asked for a new password for you.", link, sending)


def verification(code: str, *, sending: Sending = FIRST) -> bytes:
    """Returns a mail to verify an address."""
    link = f"https://{HOST}/objects/userVerifyEmail.php?code={code}"
    return _linked("Please confirm your address", "One click, and your channel is open.", link, sending)


def two_factor(token: str, *, sending: Sending = FIRST) -> bytes:
    """Returns a mail to confirm a login."""
    link = f"https://{HOST}/plugin/LoginControl/confirm.php?confirmation={token}"
    return _linked("Is it you?", "Somebody logs in with your name on a new device.", link, sending)


def comment(text: str, *, video: str = "9d1f4b7c", sending: Sending = FIRST) -> bytes:
    """Returns the notice of a new comment on a video."""
    body = (
        f'<tr><td>{html.escape(text)}</td></tr>\n<tr><td><a href="https://{HOST}/video/{video}">Reply</a></td></tr>\n'
    )
    return _titled("New comment", _page(body), sending)


def receipt(amount: str, *, sending: Sending = FIRST) -> bytes:
    """Returns the receipt of a purchase."""
    return _titled("Thank you", _page(f"<tr><td>We have received {amount} from you.</td></tr>\n"), sending)


def contact_form(visitor: str, *, text: str = "When does the next part come?", sending: Sending = FIRST) -> bytes:
    """Returns the message of a visitor. The visitor is in From, to which readers reply."""
    changed = Sending(CONTACT, sending.date, sending.seed, sending.encoding, visitor, "A visitor")
    return _mail(f"Message From Site {SITE} (A visitor)", _page(f"<tr><td>{html.escape(text)}</td></tr>\n"), changed)


def smtp_test(*, sending: Sending = FIRST) -> bytes:
    """Returns the admin's test mail."""
    return _mail(f"Message From Site {SITE} (Your Site test)", _page("<tr><td>This is a test</td></tr>\n"), sending)


def with_attachment(data: bytes, *, name: str = "list.csv", sending: Sending = FIRST) -> bytes:
    """Returns a report with an attachment."""
    page = _page("<tr><td>Your report is attached.</td></tr>\n")
    return _titled("Report", page, sending, _attachment(name, data))


def _linked(subject: str, text: str, link: str, sending: Sending) -> bytes:
    body = f'<tr><td>{text}</td></tr>\n<tr><td class="button"><a href="{html.escape(link)}">Go on</a></td></tr>\n'
    return _titled(subject, _page(body), sending)


def _page(rows: str, logo_cache: str = "") -> str:
    lines = [line for n in range(CSS_LINES // 4) for line in (f".r{n}", "{", "margin: 0 auto;", "}")]
    style = "\n".join(lines)
    return (
        f'<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n<style>\n{style}\n</style>\n</head>\n<body>\n'
        "<table width='100%'><tr><td align='center'>\n<table class='r1' width='600'>\n"
        f'<tr><td><img src="https://{HOST}/images/logo.png{logo_cache}" alt="{SITE}"></td></tr>\n'
        f"<tr><td><table class='r2'>\n{rows}</table></td></tr>\n"
        f"<tr><td class='footer'>You get this because you follow a channel on {SITE}</td></tr>\n"
        "</table>\n</td></tr></table>\n</body>\n</html>\n"
    )


def _plain(page: str) -> str:
    """Returns the text without tags, as `html2text` of PHPMailer does: without the URLs of links and images."""
    bare = re.sub(r"<(head|style).*?</\1>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", "", bare)).strip() + "\n"


def _titled(subject: str, page: str, sending: Sending, attachment: str = "") -> bytes:
    return _mail(f"{subject} - {SITE}", page, sending, attachment)


def _mail(subject: str, page: str, sending: Sending, attachment: str = "") -> bytes:
    unique = hashlib.sha256(sending.seed.encode()).hexdigest()[:43]
    kind = "alternative"
    parts = [_part("text/plain", _plain(page), sending.encoding), _part("text/html", page, sending.encoding)]
    body = _multipart(f"b1={unique}", parts)
    boundary = f"b1={unique}"
    if attachment:
        kind, boundary = "mixed", f"b2={unique}"
        inner = f'Content-Type: multipart/alternative;\n boundary="b1={unique}"\n\n{body}'
        body = _multipart(boundary, [inner, attachment])
    head = [
        f"Date: {format_datetime(sending.date)}",
        f"To: {sending.to or 'undisclosed-recipients:;'}",
        f"From: {_words(sending.name)} <{sending.sender}>",
        f"Subject: {_words(subject)}",
        f"Message-ID: <{unique}@{HOST}>",
        _MAILER,
        "MIME-Version: 1.0",
        f'Content-Type: multipart/{kind};\n boundary="{boundary}"',
    ]
    if sending.encoding == "8bit" and not page.isascii():
        head.append("Content-Transfer-Encoding: 8bit")
    text = "\n".join(head) + f"\n\n{_PREAMBLE}\n\n{body}"
    return text.replace("\n", "\r\n").encode()


def _multipart(boundary: str, parts: list[str]) -> str:
    return "".join(f"--{boundary}\n{part}\n" for part in parts) + f"\n--{boundary}--\n"


def _part(kind: str, text: str, encoding: Encoding) -> str:
    if encoding == "8bit" and text.isascii():
        return f"Content-Type: {kind}; charset=us-ascii\n\n{text}"
    return f"Content-Type: {kind}; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n\n{_encode(text, encoding)}"


def _encode(text: str, encoding: Encoding) -> str:
    if encoding == "quoted-printable":
        return quopri.encodestring(text.encode()).decode()
    if encoding == "base64":
        return base64.encodebytes(text.replace("\n", "\r\n").encode()).decode()
    return text


def _attachment(name: str, data: bytes) -> str:
    return (
        f"Content-Type: text/csv; name={name}\nContent-Transfer-Encoding: base64\n"
        f"Content-Disposition: attachment; filename={name}\n\n{base64.encodebytes(data).decode()}"
    )


def _words(text: str) -> str:
    """Returns RFC 2047 Q words of at most 75 characters. Like PHPMailer, it never splits a character."""
    if text.isascii():
        return text
    words = [""]
    for character in text:
        safe = character.isascii() and character.isalnum()
        coded = character if safe else "".join(f"={octet:02X}" for octet in character.encode()).replace("=20", "_")
        if len(words[-1]) + len(coded) > 60:
            words.append("")
        words[-1] += coded
    return "\n ".join(f"=?utf-8?Q?{word}?=" for word in words)
