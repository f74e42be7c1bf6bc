"""The messages of a form: pasted as text, or uploaded as files, which keep every byte."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp.web import FileField

from relay.page.trial import LARGEST, Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multidict import MultiMapping

NAMES = ("first", "second")
_LONGEST_ADDRESS = 320
_LINE_END = re.compile(r"\r\n|\r|\n")


class PastedError(Exception):
    """The form cannot be used. The text says why, and the remedy."""


@dataclass(frozen=True, slots=True)
class Pasted:
    """What a form holds: up to two messages, and the addresses of their envelope."""

    contents: Sequence[bytes] = ()
    envelope: Envelope = field(default_factory=Envelope)
    texts: Mapping[str, str] = field(default_factory=dict)
    """What was pasted, by the name of its field, to show it again."""

    def text(self, name: str) -> str:
        """Returns what was pasted into a field."""
        return self.texts.get(name, "")


def read_pasted(form: MultiMapping[str | bytes | bytearray | FileField], *, least: int = 1) -> Pasted:
    """Returns the messages of a form with `least` messages. Raises `PastedError`."""
    found = {name: _content(form, name) for name in NAMES}
    contents = [content for content in found.values() if content]
    if not found["first"] or len(contents) < least:
        raise PastedError(
            "There is no message. Paste its source, with header and body, or choose its file."
            if least == 1
            else "Two messages are needed. Paste the source of each, with header and body, or choose its file."
        )
    recipient, sender = (str(form.get(name, "")).strip()[:_LONGEST_ADDRESS] for name in ("recipient", "sender"))
    texts = {name: _LINE_END.sub("\n", text) for name in NAMES if isinstance(text := form.get(name), str)}
    return Pasted(contents, Envelope(recipient.removeprefix("<").removesuffix(">"), sender), texts)


def _content(form: MultiMapping[str | bytes | bytearray | FileField], name: str) -> bytes:
    """Returns a message: of its file, or else of its text."""
    file, text = form.get(f"{name}_file"), form.get(name, "")
    if isinstance(file, FileField):
        content = file.file.read(LARGEST + 1)
    else:
        content = _LINE_END.sub("\r\n", text).encode() if isinstance(text, str) else b""
    if len(content) > LARGEST:
        raise PastedError(
            f"A message is larger than {LARGEST // 1024**2} MiB. Use relay explain on the relay's host for larger ones."
        )
    return content
