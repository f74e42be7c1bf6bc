"""One message file as `relay explain` sees it: read, taken apart and judged."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relay.core.envelope import NULL_REVERSE_PATH, Recipient, fold
from relay.core.ruling import Ruling
from relay.judge.mime.headers import field_values, unfold
from relay.judge.mime.parser import parse
from relay.settings.units import format_size

if TYPE_CHECKING:
    from relay.judge.fingerprint.normal_form import NormalForm
    from relay.judge.judge import Judge, MessageAnalysis
    from relay.judge.mime.message import Message
    from relay.judge.rules.rule import Rule

STDIN = Path("-")
_SEVERAL = re.compile(rb"From .*?\n\r?\nFrom ", re.DOTALL)


class UnreadableError(Exception):
    """The file gives no message. Says why, and what to do."""


@dataclass(frozen=True, slots=True)
class ExplainedMessage:
    """A message and what was found out about it. An address that nobody gave is None."""

    path: Path
    content: bytes
    local_line_ends: bool
    message: Message
    judged: MessageAnalysis
    recipient: str | None
    reverse_path: bytes | None

    @property
    def folded(self) -> Recipient:
        """The recipient as rules and fingerprint see it."""
        return fold((self.recipient or "").encode("utf-8", "surrogateescape"))

    @property
    def rule(self) -> Rule:
        """The rule that wins."""
        return self.judged.rule(self.folded)

    @property
    def ruling(self) -> Ruling:
        """What it comes to."""
        if self.reverse_path == NULL_REVERSE_PATH:
            return Ruling.exempt("null reverse-path")
        return self.judged.ruling(self.folded)

    @property
    def form(self) -> NormalForm:
        """What counts under that rule."""
        return self.judged.normal_form(self.rule)


def read(
    path: Path, judge: Judge, *, recipient: str | None, reverse_path: bytes | None, limit: int
) -> ExplainedMessage:
    """Read and judge a file of at most `limit` bytes; without a reverse-path its Return-Path field says it.

    Raises `UnreadableError`.
    """
    content = _content(path, limit)
    local = b"\r\n" not in content and b"\n" in content
    if local:
        # A file of this system; on the wire lines end with CRLF.
        content = content.replace(b"\n", b"\r\n")
    message = parse(content)
    if reverse_path is None:
        reverse_path = _return_path(message)
    return ExplainedMessage(path, content, local, message, judge(content, reverse_path or b""), recipient, reverse_path)


def _content(path: Path, limit: int) -> bytes:
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(limit + 1)
        else:
            with path.open("rb") as file:
                content = file.read(limit + 1)
    except IsADirectoryError:
        raise UnreadableError("a folder; name one message file, or see what `relay simulate` says of all") from None
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from None
    if len(content) > limit:
        raise UnreadableError(
            f"larger than limits.message_size ({format_size(limit)}), so the relay refuses it; "
            "look at it all the same with --set limits.message_size=…"
        )
    if _SEVERAL.match(content):
        raise UnreadableError("an mbox with several messages; name a file with one, or use `relay simulate` for all")
    return content


def _return_path(message: Message) -> bytes | None:
    """Where mail is stored the reverse-path becomes a field (RFC 5321 section 4.4)."""
    found = [unfold(value).strip() for value in field_values(message.fields, "return-path")]
    if len(found) == 1 and found[0][:1] == b"<" and found[0][-1:] == b">":
        return found[0][1:-1]
    return None
