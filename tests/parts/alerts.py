"""Mails about the state of a machine, in the form of Alertmanager: equal whenever the state is."""

from __future__ import annotations

import datetime as dt
import itertools
from email.utils import format_datetime

from parts.avideo import NOW

_NUMBERS = itertools.count(1)

RULE = r"""
[[rules]]
name = "states"
subject = '^\[(?:FIRING|RESOLVED)'
action = "dedupe"
repeats = "consecutive"
"""

_MAIL = """\
Subject: [{state}] DiskSlow (store3:9100 page)
To: ops@example.test
From: {sender}
Message-Id: <{number}.5f00ba7@alerts.example.test>
Date: {date}
Content-Type: multipart/alternative;  boundary={boundary}
MIME-Version: 1.0

--{boundary}
Content-Transfer-Encoding: quoted-printable
Content-Type: text/html; charset=UTF-8

<!DOCTYPE html><html><head><title>[{state}] DiskSlow (store3:9100 page)</t=
itle></head><body bgcolor=3D"#fafafa"><table><tr><td>1 alert for alertname=
=3DDiskSlow</td></tr><tr><td><strong>{state}</strong></td></tr>
<tr><td>instance =3D store3:9100<br />summary =3D writes of store3 take long<=
br /><a href=3D"http://prometheus.example.test/graph?g0.expr=3Dwrite_seconds=
+%3E+2&amp;g0.tab=3D1">Source</a></td></tr></table></body></html>
--{boundary}--
"""


def alert(state: str, sender: str = "alerts@example.test") -> bytes:
    """Returns a mail about the state. Each one has another Date, Message-ID and boundary."""
    number = next(_NUMBERS)
    boundary = f"{number:060x}"
    date = format_datetime(NOW + dt.timedelta(seconds=number % 60))
    text = _MAIL.format(state=state, sender=sender, number=number, date=date, boundary=boundary)
    return text.replace("\n", "\r\n").encode()


def firing() -> bytes:
    """Returns a mail that says that the alert fires."""
    return alert("FIRING:1")


def resolved() -> bytes:
    """Returns a mail that says that it is over."""
    return alert("RESOLVED")
