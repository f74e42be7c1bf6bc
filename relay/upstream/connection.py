"""A connection that is ready for MAIL, and what the upstream counts on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.upstream.excerpt import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.core.login import Credentials
    from relay.core.reply import Reply
    from relay.upstream.wire import Wire

# Postfix counts RSETs between accepted messages as junk commands (limit 100, then each command costs one second), and
# every refusal, 4yz or 5yz, as an error (from the 10th on each command costs one second; at the 20th it closes). On a
# connection near these limits later transactions would be slowed down for no fault of theirs.
MOST_MESSAGES = 100
MOST_RESETS = 50
MOST_REFUSALS = 5
LONGEST_LIFE = 300.0
"""Seconds."""
PENALTY = 0.9
"""Seconds. A reply that takes so long, after refusals and faster replies, is taken for a penalty (1 s in Postfix)."""


class Connection:
    """A connection that is ready for MAIL, and what the upstream has counted on it."""

    def __init__(self, wire: Wire, extensions: Mapping[str, str], opened_at: float) -> None:
        self.wire = wire
        self.extensions = extensions
        self.opened_at = opened_at
        """Seconds of the event loop's clock."""
        self.rank = 0
        """The position of its upstream in the order of preference, from 0."""
        self.upstream = ""
        """Its upstream as `host:port`."""
        self.identity: Credentials | None = None
        """The client's credentials with which it is logged in; None if it is not logged in as a client."""
        self.transactions = 0
        self.messages = 0
        self.resets = 0
        self.refusals = 0
        self.penalty_at: int | None = None
        """The number of refusals from which on the upstream delays its replies, if it was seen to."""
        self._slowest_reply = 0.0
        self._reset_pending = False

    @property
    def penalised(self) -> bool:
        """Whether the upstream would delay a further command, or count it against a later message."""
        return self.refusals >= MOST_REFUSALS or self.resets >= MOST_RESETS

    def reusable(self, now: float) -> bool:
        """Returns whether another transaction may use the connection. `now` in seconds of the event loop's clock."""
        worn_out = self.messages >= MOST_MESSAGES or now - self.opened_at > LONGEST_LIFE
        return not (self.wire.ended or self.penalised or worn_out)

    def count_accepted(self) -> None:
        """Counts an accepted message. The upstream then resets its counts of refusals and RSETs."""
        self.messages += 1
        self.resets = self.refusals = 0

    async def run(self, commands: Sequence[bytes], limit: float) -> list[Reply]:
        """Sends commands, all at once if the upstream offers PIPELINING, and counts the refusals.

        Returns the replies. `limit` in seconds for each reply. Raises `ConnectionEnded`.
        """
        if self._pipelining:
            replies = await self.wire.execute(commands, limit)
        else:
            await self._send_pending_reset(limit)
            replies = [await self.wire.execute_one([command], limit) for command in commands]
        self.refusals += sum(reply.permanent or reply.transient for reply in replies)
        return replies

    def note_reply_time(self, seconds: float) -> None:
        """Notes how long the upstream took to reply to commands, to see whether it penalises refusals."""
        was_fast = self._slowest_reply < PENALTY / 2
        if was_fast and seconds >= PENALTY and self.refusals >= MOST_REFUSALS:
            self.penalty_at = self.refusals
        self._slowest_reply = max(self._slowest_reply, seconds)

    def reset(self) -> None:
        """Leaves the transaction. Without PIPELINING, RSET is sent when the connection is used again."""
        self.resets += 1
        if self._pipelining:
            self.wire.reset()
        else:
            self._reset_pending = True

    @property
    def _pipelining(self) -> bool:
        return "pipelining" in self.extensions

    async def _send_pending_reset(self, limit: float) -> None:
        if self._reset_pending:
            self._reset_pending = False
            reply = await self.wire.execute_one([b"RSET\r\n"], limit)
            if not reply.positive:
                raise self.wire.abort(f"refused RSET: {describe(reply)}")
