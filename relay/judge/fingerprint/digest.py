"""The digest: turns a normal form and a recipient into a fingerprint."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from relay.judge.fingerprint.decoded import STYLE_SHEET

if TYPE_CHECKING:
    from relay.core.claim import Fingerprint
    from relay.core.envelope import Recipient
    from relay.judge.fingerprint.normal_form import NormalForm

VERSION = 4
"""Part of every fingerprint. Raise it with any change that alters a digest of the test corpus."""

PREFIX = f"v{VERSION}:"
DIGEST_SIZE = 20
"""Bytes."""
PERSON = b"smtp-dedup-relay"
"""Keeps these digests apart from those of other programs."""
_CACHED_STYLE_SHEETS = 16


def begin_digest(form: NormalForm) -> hashlib.blake2b:
    """Returns the state of the digest after the part that all recipients share."""
    labels = [label for label, _ in form.fields]
    hashed = [_style_digest(value) if label == STYLE_SHEET else value for label, value in form.fields]
    # All lengths come first, so that moving bytes between two fields changes the digest.
    encoded = b"%a%a%b" % (labels, list(map(len, hashed)), b"".join(hashed))
    return hashlib.blake2b(encoded, digest_size=DIGEST_SIZE, person=PERSON)


def fingerprint(shared: hashlib.blake2b, recipient: Recipient) -> Fingerprint:
    """Returns the fingerprint for one recipient: `v4:` and 40 hexadecimal digits. `shared` stays unchanged."""
    state = shared.copy()
    state.update(recipient.encode("utf-8", "surrogatepass"))
    # `Fingerprint(...)` is a call without effect, and this runs for each recipient.
    return PREFIX + state.hexdigest()  # type: ignore[return-value]


# One site's mails share a style sheet, which is four fifths of a notification. Without this cache a twin or the next
# mail of a bulk takes 5 to 9 % longer, a body never seen 3 % (medians of `make bench` runs in pairs).
@lru_cache(_CACHED_STYLE_SHEETS)
def _style_digest(style: bytes) -> bytes:
    return hashlib.blake2b(style).digest()
