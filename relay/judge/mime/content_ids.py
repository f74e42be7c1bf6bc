"""Content-IDs (RFC 2392): names that a mailer generates anew for each message, by which a page means its images."""

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

# An id that is written in a URL as it is (RFC 2392), whatever a reader makes of escapes and references.
_PLAIN_ID = re.compile(rb"<([A-Za-z0-9._@+-]+)>")


def uses_ids(part: Part) -> bool:
    """Say whether a container has an id, or a parameter names by its id where to begin (RFC 2387 section 3.2)."""
    if any(name == "start" or name.startswith("start*") for name, _ in part.media.parameters):
        return True
    return not isinstance(part, Leaf) and (
        bool(field_values(part.fields, "content-id")) or any(map(uses_ids, part.children))
    )


def ordinals_of(leaves: Sequence[Leaf]) -> Mapping[bytes, int]:
    """Give the Content-IDs that may say nothing but which leaf is meant, with its ordinal; none if one is unclear."""
    ordinals: dict[bytes, int] = {}
    folded: set[bytes] = set()
    for number, leaf in enumerate(leaves):
        if field_values(leaf.fields, "content-id"):
            name = content_id(leaf.fields)
            # Of ids that differ in case only some readers take the first.
            if name is None or name.lower() in folded:
                return NO_ORDINALS
            ordinals[name] = number
            folded.add(name.lower())
    return ordinals


def content_id(fields: Fields) -> bytes | None:
    """Give the id of a part, without its angle brackets; None where it has none, or one that is not plain."""
    found = [_PLAIN_ID.fullmatch(unfold(value).strip()) for value in field_values(fields, "content-id")]
    return found[0][1] if len(found) == 1 and found[0] else None
