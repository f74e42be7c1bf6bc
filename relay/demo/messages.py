"""Mails like those of AVideo. The parameters are what differs between two copies."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

SITE = "contact@videos.example"


def notification(title: str, *, cache: str, now: datetime) -> bytes:
    """Returns a notice of a new video to many (BCC only). The thumbnail's address contains a cache value."""
    page = f"""<html><head><title>{title}</title></head><body>
<table><tr><td><img src="https://videos.example/logo.png" alt="Example Videos"></td></tr>
<tr><td><img src='https://videos.example/videos/{_slug(title)}.jpg?cache={cache}' alt=""></td></tr>
<tr><td>alice has uploaded a new video <b>{title}</b></td></tr>
<tr><td><a href="https://videos.example/video/{_slug(title)}">Watch it</a></td></tr></table></body></html>"""
    return _mail(f"New video: {title}", f"alice has uploaded a new video {title}", page, now)


def recovery(token: str, *, now: datetime) -> bytes:
    """Returns a password recovery mail. Two of them differ only in the link of the HTML part."""
    link = f"https://videos.example/recoverPass?user=bob&amp;recoverpass={token}"
    page = f'<html><body><p>You asked for a new password.</p><a href="{link}">Choose it here</a></body></html>'
    return _mail("Recover password", "You asked for a new password. Choose it here", page, now)


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def _mail(subject: str, text: str, page: str, now: datetime) -> bytes:
    mail = EmailMessage()
    mail["Date"] = format_datetime(now)
    mail["To"] = "undisclosed-recipients:;"
    mail["From"] = f"Example Videos <{SITE}>"
    mail["Subject"] = f"{subject} - Example Videos"
    mail["Message-ID"] = make_msgid(domain="videos.example")
    mail.set_content(text)
    mail.add_alternative(page, subtype="html")
    return mail.as_bytes(policy=SMTP)
