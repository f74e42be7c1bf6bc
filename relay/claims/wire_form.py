"""An acceptance as one line of JSON, and back: its `Original`, and to whom. What cannot be read is no exception."""

from __future__ import annotations

import json
import math
from functools import lru_cache

from relay.core.claim import Original

_write = json.JSONEncoder(separators=(",", ":")).encode


def encode(original: Original, recipient: str = "") -> str:
    """Write it as compact ASCII; a surrogate from an 8-bit reply survives the round trip."""
    text = _encode(original)
    return f'{text[:-1]},"recipient":{_write(recipient)}}}' if recipient else text


@lru_cache(maxsize=16)  # all recipients of a message share one original
def _encode(original: Original) -> str:
    return _write(
        {
            "record": original.id,
            "message_id": original.message_id,
            "reply": original.reply,
            "accepted_at": original.accepted_at,
        }
    )


def decode(text: str | bytes) -> Original | None:
    """Read the original; fields that a later version added are ignored."""
    try:
        fields = json.loads(text)
        original = Original(
            id=fields["record"],
            message_id=fields["message_id"],
            reply=fields["reply"],
            accepted_at=float(fields["accepted_at"]),
        )
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    texts = (original.id, original.message_id, original.reply)
    if not all(isinstance(text, str) for text in texts) or not math.isfinite(original.accepted_at):
        return None
    return original


def decode_recipient(text: str | bytes) -> str:
    """Read to whom it was sent; empty where the entry does not say, as that of an earlier version."""
    try:
        recipient = json.loads(text)["recipient"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
    return recipient if isinstance(recipient, str) else ""
