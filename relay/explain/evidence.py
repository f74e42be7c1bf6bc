"""What stands behind a field of the normalised form: octets of which only a digest counts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.explain.tree import file_name, nodes, octets
from relay.judge.mime.message import Leaf, Multipart

if TYPE_CHECKING:
    from relay.explain.field_pairs import PlacedField
    from relay.judge.mime.message import Message

_SAMPLE = 4096
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MANY = 0.05
# A name is looked at from its beginning only: a tag may be one of 50 MB.
_ATTRIBUTE = re.compile(r"(?<![^\s\"'<>/=])([^\s\"'<>/=]++)\s*+=\s*+(?:\"[^\"]*+|'[^']*+|[^\s\"'>]*+)\Z")
_TAG = re.compile(r"<(\w*)")
_RAW_TEXT = (("<!--", "-->", "a comment"), ("<style", "</style", "a style sheet"), ("<script", "</script", "a script"))


class Evidence:
    """One message, by the numbers of its parts."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._parts = {node.number: node.part for node in nodes(message)}

    def octets(self, field: PlacedField) -> bytes:
        """Give what a field stands for."""
        part = self._parts.get(field.part)
        match field.label, part:
            case "raw body" | "raw content", _:
                return self._message.raw
            case "bytes", Leaf():
                return octets(part) or b""
            case "raw", Leaf():
                return part.body
            case "preamble (raw)", Multipart():
                return part.preamble
            case "epilogue (raw)", Multipart():
                return part.epilogue
            case _:
                return field.value

    def kind(self, number: str) -> str:
        """Give the media type of a part."""
        return self._parts[number].media.kind if number in self._parts else ""

    def summary(self, number: str) -> str:
        """Say in a few words what a part is."""
        part = self._parts[number]
        name = file_name(part)
        size = f", {len(part.body):,} bytes" if isinstance(part, Leaf) else ""
        return part.media.kind + (f' "{name}"' if name else "") + size


def is_text(content: bytes) -> bool:
    """Guess whether people can read it."""
    sample = content[:_SAMPLE]
    odd = len(_CONTROL.findall(sample)) + sample.decode("utf-8", "replace").count("\ufffd")
    return odd <= len(sample) * _MANY


def surroundings(text: str, at: int) -> str:
    """Say what stands at an offset of a text: a link, an attribute, a comment, or the text itself."""
    for opening, closing, name in _RAW_TEXT:
        begun = text.rfind(opening, 0, at)
        if begun >= 0 and text.find(closing, begun + len(opening), at) < 0:
            return name
    tag = text.rfind("<", 0, at)
    if tag >= 0 and tag > text.rfind(">", 0, at) and (found := _TAG.match(text, tag)) and (found[1] or at == tag + 1):
        return _of_attribute(found[1].lower(), _ATTRIBUTE.search(text, tag, at))
    word = text[max(0, at - 2048) : at].rsplit(maxsplit=1)
    return "a link" if word and "://" in word[-1] and not text[at - 1].isspace() else "the text"


def _of_attribute(tag: str, found: re.Match[str] | None) -> str:
    if not found:
        return "a tag"
    name = found[1].lower()
    if name == "href":
        return "a link"
    return "the address of an image" if (tag, name) == ("img", "src") else f"the attribute {name}"
