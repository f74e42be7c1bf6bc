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

    by_name: Mapping[str, bytes] = field(default_factory=dict)
    envelope: Envelope = field(default_factory=Envelope)
    texts: Mapping[str, str] = field(default_factory=dict)
    """What was pasted, by the name of its field, to show it again."""

    @property
    def contents(self) -> Sequence[bytes]:
        """The messages, the first one first."""
        return [*self.by_name.values()]

    def text(self, name: str) -> str:
        """Returns what was pasted into a field."""
        return self.texts.get(name, "")


def read_pasted(form: MultiMapping[str | bytes | bytearray | FileField], *, least: int = 1) -> Pasted:
    """Returns the messages of a form, of which the first `least` must be there. Raises `PastedError`."""
    found = {name: content for name in NAMES if (content := _content(form, name))}
    if any(name not in found for name in NAMES[:least]):
        raise PastedError("There is no message. Paste its source, with header and body, or choose its file.")
    recipient, sender = (str(form.get(name, "")).strip()[:_LONGEST_ADDRESS] for name in ("recipient", "sender"))
    texts = {name: _LINE_END.sub("\n", text) for name in NAMES if isinstance(text := form.get(name), str)}
    return Pasted(found, Envelope(recipient.removeprefix("<").removesuffix(">"), sender), texts)


def _content(form: MultiMapping[str | bytes | bytearray | FileField], name: str) -> bytes:
    """Returns a message: of its file, or else of its text."""
    file, text = form.get(f"{name}_file"), form.get(name, "")
    if isinstance(file, FileField):
        content = file.file.read(LARGEST + 1)
    else:
        # After an empty line that was selected with it, no header would be read.
        content = _LINE_END.sub("\r\n", text.lstrip("\r\n")).encode() if isinstance(text, str) else b""
    if len(content) > LARGEST:
        raise PastedError(
            f"A message is larger than {LARGEST // 1024**2} MiB. Use relay explain on the relay's host for larger ones."
        )
    return content
