"""The claim: the exclusive right to deliver one fingerprint, and the words in which a store is asked about it.

    free ──Claim(token, lease)──▶ held ──Confirm──▶ sent ──window ends──▶ free
     ▲                             │ Release (same token only), or the lease runs out
     └─────────────────────────────┘

A store answers a batch of commands, one answer a command, one key a command. Commands are safe to repeat: an answer
that got lost is asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Fingerprint = NewType("Fingerprint", str)
"""Versioned digest of a message for one recipient, such as `v1:3f…`: printable ASCII, at most 80 characters."""

Token = NewType("Token", str)
"""A random name of one transaction of one process; who knows it may renew and release the claim."""


@dataclass(frozen=True, slots=True)
class Original:
    """The accepted message that later copies repeat."""

    record: str
    """The id that stood in the log when it was accepted."""
    message_id: str
    """Its Message-ID field, or empty."""
    reply: str
    """What the upstream said when it took it; with Postfix the queue id stands there."""
    accepted_at: float
    """Seconds since the Unix epoch by the accepting host's clock. For people; ages never come from it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the fingerprint for `lease` seconds unless it is held, or was sent less than `window` seconds ago.

    A key that holds this very token is won: the answer to an earlier Claim may have been lost.
    """

    key: Fingerprint
    token: Token
    lease: float
    window: float


@dataclass(frozen=True, slots=True)
class Peek:
    """Ask for the state without changing it: `Free`, `Held` or `Sent` (younger than `window` seconds)."""

    key: Fingerprint
    window: float


@dataclass(frozen=True, slots=True)
class Confirm:
    """Write that the upstream has accepted it, whatever the key holds: acceptance is a fact, not a right.

    `window` is the whole window in seconds, `age` how much of it has passed already.
    """

    key: Fingerprint
    original: Original
    window: float
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Renew:
    """Hold the fingerprint for `lease` more seconds if it still holds this token. `Done`, or else what it holds."""

    key: Fingerprint
    token: Token
    lease: float


@dataclass(frozen=True, slots=True)
class Release:
    """Free the fingerprint if it still holds this token. `Done` in any case."""

    key: Fingerprint
    token: Token


Command: TypeAlias = Claim | Peek | Confirm | Renew | Release


@dataclass(frozen=True, slots=True)
class Won:
    """The claim is ours."""


@dataclass(frozen=True, slots=True)
class Free:
    """Nobody holds it and no copy was accepted inside the window. Also a `Renew` that came too late."""


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else is delivering it; his lease ends in `remaining` seconds unless he renews it."""

    remaining: float


@dataclass(frozen=True, slots=True)
class Sent:
    """The upstream took a copy `age` seconds ago."""

    original: Original
    age: float


@dataclass(frozen=True, slots=True)
class Done:
    """The command was carried out."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store could not say, for this key. In doubt the message is forwarded."""

    reason: str


Answer: TypeAlias = Won | Free | Held | Sent | Done | Unknown


class Store(Protocol):
    """What arbitrates between processes and remembers over restarts.

    A store is asked by one caller at a time, and never again before it has answered. Only the guard calls it.
    """

    async def open(self) -> None:
        """Make ready. Raises `StoreError`; may be called again after that."""

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        """Carry out all commands in one round trip. Raises `StoreError` when none could be answered."""

    async def identity(self) -> str:
        """Give the random id of this store, made by whoever asks first: the mark against mail loops."""

    async def close(self) -> None:
        """Let go of everything. Never raises."""
