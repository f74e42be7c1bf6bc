"""Content-IDs (RFC 2392), by which a page refers to its images. Mailers generate new ones for each message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.judge.mime.headers import field_values, unfold
from relay.judge.mime.message import Leaf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.judge.mime.headers import Fields
    from relay.judge.mime.message import Part

NO_ORDINALS: Mapping[bytes, int] = {}

# An id that needs no escaping in a URL (RFC 2392), whatever a reader makes of escapes and character references.
_PLAIN_ID = re.compile(rb"<([A-Za-z0-9._@+-]+)>")


def uses_ids(part: Part) -> bool:
    """Returns whether a multipart has an id, or a parameter names the first part by its id (RFC 2387 section 3.2)."""
    if any(name == "start" or name.startswith("start*") for name, _ in part.media.parameters):
        return True
    if isinstance(part, Leaf):
        return False
    return bool(field_values(part.fields, "content-id")) or any(map(uses_ids, part.children))


def ordinals_of(leaves: Sequence[Leaf]) -> Mapping[bytes, int]:
    """Returns the ordinal of the leaf of each Content-ID, such as `{b"image1@a": 2}`; nothing if one is unclear."""
    ordinals: dict[bytes, int] = {}
    folded: set[bytes] = set()
    for number, leaf in enumerate(leaves):
        if field_values(leaf.fields, "content-id"):
            name = content_id(leaf.fields)
            # Of ids that differ only in case some readers take the first.
            if name is None or name.lower() in folded:
                return NO_ORDINALS
            ordinals[name] = number
            folded.add(name.lower())
    return ordinals


def content_id(fields: Fields) -> bytes | None:
    """Returns the id of a part without its angle brackets; None if it has none, or one that needs escaping."""
    found = [_PLAIN_ID.fullmatch(unfold(value).strip()) for value in field_values(fields, "content-id")]
    return found[0][1] if len(found) == 1 and found[0] else None
