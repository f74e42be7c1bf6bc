"""Archives of mail: messages with the fields that a delivery adds, in an mbox, a Maildir or a folder of files."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from dataclasses import dataclass
from email.utils import format_datetime
from typing import TYPE_CHECKING

from parts.avideo import CONTACT, NOW, Sending, notification

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Delivered:
    """A mail that Postfix delivered to one recipient, `after` seconds after `NOW`."""

    mail: bytes
    to: str
    after: float
    sender: str = CONTACT

    @property
    def at(self) -> dt.datetime:
        return NOW + dt.timedelta(seconds=self.after)

    @property
    def content(self) -> bytes:
        """The content of its file in a Maildir, with LF line ends."""
        trace = (
            f"Return-Path: <{self.sender}>\r\nX-Original-To: {self.to}\r\nDelivered-To: local-{self.to}\r\n"
            f"Received: from tube.example.test (tube.example.test [192.0.2.1])\r\n"
            f"\tby mx.example.test (Postfix) with ESMTP id 4F00;\r\n\t{format_datetime(self.at)}\r\n"
        )
        return (trace.encode() + self.mail).replace(b"\r\n", b"\n")


def notices(count: int, *, copies: dict[int, float] | None = None, to: str = "anna@example.test") -> list[Delivered]:
    """Returns notifications of `count` videos, a day apart, shuffled.

    `copies` gives for the numbers of some videos the seconds after which a second copy was sent.
    """
    found = []
    for number in range(count):
        sending = Sending(seed=f"{number}")
        words = {"video": f"{number:08x}", "title": f"Video {number}"}
        found.append(Delivered(notification(**words, sending=sending), to, number * 86400))
        if number in (copies or {}):
            again = notification(
                **words,
                sending=dataclasses.replace(sending, seed=f"{number} again"),
            )
            found.append(Delivered(again, to, number * 86400 + copies[number]))
    random.Random(1).shuffle(found)
    return found


def as_mbox(messages: Iterable[Delivered]) -> bytes:
    """Returns an mbox as Postfix writes it: mboxo, but every quoted line gets one more `>`."""
    return b"".join(
        b"From %b  %b\n%b\n"
        % (message.sender.encode(), message.at.strftime("%a %b %e %H:%M:%S %Y").encode(), _quoted(message.content))
        for message in messages
    )


def _quoted(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in lines)


def write_maildir(path: Path, messages: Iterable[Delivered]) -> None:
    """Writes messages as a delivery does, half of them marked as seen."""
    for folder in ("cur", "new", "tmp"):
        (path / folder).mkdir(parents=True)
    for number, message in enumerate(messages):
        name = f"{message.at.timestamp():.0f}.V1I{number}.mx"
        (path / ("cur" if number % 2 else "new") / (f"{name}:2,S" if number % 2 else name)).write_bytes(message.content)


def write_folder(path: Path, messages: Iterable[Delivered]) -> None:
    """Writes each message to a file, some of them in a subfolder."""
    (path / "below").mkdir(parents=True)
    for number, message in enumerate(messages):
        (path / ("below" if number % 3 else ".") / f"{number}.eml").write_bytes(message.content)
