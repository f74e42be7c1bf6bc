"""An `Original` as one line of JSON, and back. What cannot be read is None, never an exception."""

from __future__ import annotations

import json
import math
from functools import lru_cache

from relay.core.claim import Original

_write = json.JSONEncoder(separators=(",", ":")).encode


@lru_cache(maxsize=16)  # all recipients of a message share one original
def encode(original: Original) -> str:
    """Write it as compact ASCII; a surrogate from an 8-bit reply survives the round trip."""
    return _write(
        {
            "record": original.record,
            "message_id": original.message_id,
            "reply": original.reply,
            "accepted_at": original.accepted_at,
        }
    )


def decode(text: str | bytes) -> Original | None:
    """Read it; fields that a later version added are ignored."""
    try:
        fields = json.loads(text)
        original = Original(
            record=fields["record"],
            message_id=fields["message_id"],
            reply=fields["reply"],
            accepted_at=float(fields["accepted_at"]),
        )
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    texts = (original.record, original.message_id, original.reply)
    if not all(isinstance(text, str) for text in texts) or not math.isfinite(original.accepted_at):
        return None
    return original
