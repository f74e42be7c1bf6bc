"""The interface to the upstream that `relay.transaction` uses. Expected failures are values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.content import Content
    from relay.core.envelope import Envelope
    from relay.core.login import Credentials
    from relay.core.reply import Reply


@dataclass(frozen=True, slots=True)
class Unclear:
    """The connection or its time limit ended between the final dot and the reply (RFC 1047)."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """The connection ended before the final dot: nothing was delivered, and `prepare` may be called again."""

    reason: str


class Delivery(Protocol):
    """One transaction with the upstream. Before the final dot it survives the loss of its connection."""

    dot_sent: bool
    """Whether the final dot of the last `send` may have left. Without it nothing was delivered."""
    upstream: str
    """The MTA that the last `send` went to, as `Upstream.states` names it; empty before that."""

    async def rcpt(self, path: bytes) -> Reply:
        """Passes a recipient on and returns the upstream's reply. The first recipient opens the transaction."""

    async def prepare(self, paths: Sequence[bytes]) -> Mapping[bytes, Reply]:
        """Makes `paths` the recipients, reopening the transaction if they have changed, and sends DATA.

        Returns a reply for each path. If any is positive, the upstream waits for the content for exactly those paths.
        """

    async def send(self, received: bytes, content: Content) -> Reply | Unclear | NotSent:
        """Sends `received`, the content and the final dot, once. Call it only after a positive `prepare`."""

    async def finish(self) -> None:
        """Returns the connection to the pool, or closes it. May be called at any time, repeatedly."""


class Upstream(Protocol):
    """The MTA or MTAs to which the relay forwards."""

    @property
    def connections_in_use(self) -> int:
        """The number of connections that transactions use now."""

    def begin(self, envelope: Envelope, client: str = "", identity: Credentials | None = None) -> Delivery:
        """Returns a delivery for a client (`relay.core.client.client_of`). Nothing is sent before its first recipient.

        With an `identity` the relay logs in with it in place of its own user.
        """

    def size_limit(self) -> int | None:
        """Returns the largest message size in bytes that the upstream has offered (RFC 1870), or None."""

    def offers(self, keyword: str) -> bool:
        """Returns whether the upstream has offered an extension, such as `SMTPUTF8`."""

    def states(self) -> Mapping[str, bool]:
        """Returns the MTAs in order of preference, as `host:port`, and whether each is used now."""

    async def probe(self) -> None:
        """Connects once, to learn what the upstream offers. Raises `UpstreamError`."""

    async def close(self) -> None:
        """Closes all connections that are not in use. Never raises."""
