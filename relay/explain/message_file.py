"""Reads one message file for `relay explain`, parses it and analyses it."""

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
from relay.runtime.files import read_error
from relay.settings.units import format_size

if TYPE_CHECKING:
    from relay.core.claim import Fingerprint
    from relay.judge.fingerprint.normal_form import NormalForm
    from relay.judge.judge import Judge, MessageAnalysis
    from relay.judge.mime.message import Message
    from relay.judge.rules.rule import Rule

STDIN = Path("-")
_SEVERAL_MESSAGES = re.compile(rb"From .*?\n\r?\nFrom ", re.DOTALL)


class UnreadableError(Exception):
    """The file cannot be read as one message. The text gives the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class ExplainedMessage:
    """A parsed message and its analysis. `recipient` and `reverse_path` are None if they are unknown."""

    path: Path
    content: bytes
    has_lf_line_ends: bool
    parsed: Message
    analysis: MessageAnalysis
    recipient: str | None
    reverse_path: bytes | None

    @property
    def folded_recipient(self) -> Recipient:
        """The recipient as rules and fingerprints use it; empty if it is unknown."""
        return fold((self.recipient or "").encode("utf-8", "surrogateescape"))

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint for the recipient."""
        return self.analysis.fingerprint(self.folded_recipient)

    @property
    def rule(self) -> Rule:
        """The rule that applies to the recipient."""
        return self.analysis.rule(self.folded_recipient)

    @property
    def ruling(self) -> Ruling:
        """The action and the window for the recipient."""
        if self.reverse_path == NULL_REVERSE_PATH:
            return Ruling.exempt("null reverse-path")
        return self.analysis.ruling(self.folded_recipient)

    @property
    def normal_form(self) -> NormalForm:
        """The normalised form under that rule."""
        return self.analysis.normal_form(self.rule)


def read_message(
    path: Path, judge: Judge, *, recipient: str | None, reverse_path: bytes | None, limit: int
) -> ExplainedMessage:
    """Reads and analyses a file of at most `limit` bytes (0: any size).

    If `reverse_path` is None, the Return-Path field gives it. Raises `UnreadableError`.
    """
    return analyse_content(path, _read_content(path, limit), judge, recipient=recipient, reverse_path=reverse_path)


def analyse_content(
    path: Path, content: bytes, judge: Judge, *, recipient: str | None, reverse_path: bytes | None
) -> ExplainedMessage:
    """Analyses the content of a message, which is called `path`.

    If `reverse_path` is None, the Return-Path field gives it.
    """
    has_lf_line_ends = b"\r\n" not in content and b"\n" in content
    if has_lf_line_ends:
        # A file with local line ends; on the wire lines end with CRLF.
        content = content.replace(b"\n", b"\r\n")
    parsed = parse(content)
    if reverse_path is None:
        reverse_path = _return_path(parsed)
    analysis = judge(content, reverse_path or b"")
    return ExplainedMessage(path, content, has_lf_line_ends, parsed, analysis, recipient, reverse_path)


def _read_content(path: Path, limit: int) -> bytes:
    most = limit + 1 if limit else -1
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(most)
        else:
            with path.open("rb") as file:
                content = file.read(most)
    except IsADirectoryError:
        raise UnreadableError("a folder; name one message file, or use `relay simulate` for the whole folder") from None
    except OSError as error:
        raise UnreadableError(read_error(error)) from None
    if limit and len(content) > limit:
        raise UnreadableError(
            f"larger than limits.message_size ({format_size(limit)}), so the relay refuses it; "
            "to look at it all the same, use --set limits.message_size=…"
        )
    if _SEVERAL_MESSAGES.match(content):
        raise UnreadableError("an mbox with several messages; name a file with one, or use `relay simulate` for all")
    return content


def _return_path(parsed: Message) -> bytes | None:
    """Returns the reverse-path, which final delivery stores as a field (RFC 5321 section 4.4), or None."""
    found = [unfold(value).strip() for value in field_values(parsed.fields, "return-path")]
    if len(found) == 1 and found[0][:1] == b"<" and found[0][-1:] == b">":
        return found[0][1:-1]
    return None
