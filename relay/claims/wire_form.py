"""What stores hold, as text: acceptances and sequences. Reading raises nothing on damaged text.

An acceptance is one line of JSON: its `Original` and its recipient. A sequence is words: its epoch, then its
fingerprints.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from relay.core.claim import RANDOM_NAME, Fingerprint, Original
from relay.core.sequence import MOST_FINGERPRINTS, SequenceState

_LONGEST_TEXT = 1000
"""Characters of one value: longer than a Message-ID that fits into a line (RFC 5322), a recipient or a reply is."""
_LATEST = 1e11
"""Seconds since the Unix epoch: a moment that every calendar function can show."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What could end a line or command a terminal."""

_SEQUENCE = re.compile(rf"{RANDOM_NAME.pattern}( [!-~]{{1,80}}){{1,{MOST_FINGERPRINTS}}}")

_write = json.JSONEncoder(separators=(",", ":")).encode


def encode(original: Original, recipient: str = "") -> str:
    """Returns compact ASCII, such as `{"record":"4f1d","message_id":"<1@example.org>","reply":"2.0.0 Ok",…}`.

    A surrogate from an 8-bit reply is preserved.
    """
    text = _encode(original)
    return f'{text[:-1]},"recipient":{_write(recipient)}}}' if recipient else text


@lru_cache(maxsize=16)  # all recipients of a message share one original
def _encode(original: Original) -> str:
    return _write(
        {
            "record": original.id,
            "message_id": _printable(original.message_id),
            "reply": _printable(original.reply),
            "accepted_at": original.accepted_at,
        }
    )


def _printable(text: str) -> str:
    return _CONTROL.sub("?", text[:_LONGEST_TEXT])


def decode(text: str | bytes) -> Original | None:
    """Returns the original, or None if the text is damaged. Ignores fields that a later version may have added."""
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
    if not all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts):
        return None
    if any(map(_CONTROL.search, texts)) or not 0 <= original.accepted_at < _LATEST:
        return None
    return original


def decode_recipient(text: str | bytes) -> str:
    """Returns the recipient. Empty if the text has none, as that of an earlier version."""
    try:
        recipient = json.loads(text)["recipient"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
    is_ours = isinstance(recipient, str) and len(recipient) <= _LONGEST_TEXT and not _CONTROL.search(recipient)
    return recipient if is_ours else ""


def encode_sequence(state: SequenceState) -> str:
    """Returns ASCII, such as `0f3a5d77c2b1e946 v4:3f… v4:a0…`."""
    return " ".join((state.epoch, *state.fingerprints))


def decode_sequence(text: object) -> SequenceState | None:
    """Returns the state of a sequence, or None if the text is damaged."""
    if not isinstance(text, str) or not _SEQUENCE.fullmatch(text):
        return None
    epoch, *fingerprints = text.split(" ")
    return SequenceState(epoch, tuple(map(Fingerprint, fingerprints)))
