"""What the story needs of an upstream: one narrow interface, and expected failures as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.content import Content
    from relay.core.envelope import Envelope
    from relay.core.reply import Reply


@dataclass(frozen=True, slots=True)
class Unclear:
    """The connection or the patience ended between the final dot and its reply (RFC 1047)."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """The connection ended before the final dot: nothing was delivered, and `prepare` may be asked again."""

    reason: str


class Delivery(Protocol):
    """One transaction with the upstream. It survives a lost connection as long as no final dot was sent."""

    async def rcpt(self, path: bytes) -> Reply:
        """Pass a recipient on and give the upstream's own reply; opens the transaction at the first one."""

    async def prepare(self, paths: Sequence[bytes]) -> Mapping[bytes, Reply]:
        """Make these the recipients, and ask to send: narrower, reopened or just as it stands.

        Gives a reply for each path. Where one is positive, the upstream waits for the content for exactly those.
        """

    async def send(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        """Send the content below the `received` field, and its final dot, once. Only after a positive `prepare`."""

    async def finish(self) -> None:
        """Give the connection back, or close it where its state is not known. May be called at any time, repeatedly."""


class Upstream(Protocol):
    """The MTA we forward to."""

    def begin(self, envelope: Envelope) -> Delivery:
        """Make a transaction. Nothing is sent before its first recipient."""

    def size_limit(self) -> int | None:
        """Give the largest message that the upstream was heard to take, in bytes (RFC 1870), or None."""

    def offers(self, keyword: str) -> bool:
        """Say whether the upstream was heard to offer an extension, such as `SMTPUTF8`."""

    def states(self) -> Mapping[str, bool]:
        """Give the MTAs in order of preference, by host and port, and whether each is used now."""

    async def probe(self) -> None:
        """Reach the upstream once, to learn what it offers. Raises `UpstreamError`."""

    async def close(self) -> None:
        """Close all connections that are not in use. Never raises."""
