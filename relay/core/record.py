"""A suppressed message that is kept, so that `relay release` can send it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.core.content import Content


@dataclass(frozen=True, slots=True)
class SuppressedCopy:
    """A suppressed copy with the envelope that is needed to send it later."""

    reverse_path: bytes
    paths: tuple[bytes, ...]
    """The forward-paths that it was suppressed for, as the client wrote them, without brackets."""
    content: Content
    parameters: tuple[bytes, ...] = ()
    """Parameters of MAIL, such as `BODY=8BITMIME`."""
