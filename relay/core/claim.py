"""The claim: the exclusive right to deliver one fingerprint, and the words in which a store is asked about it.

A store answers a batch of commands, one answer a command, at most one key a command. Commands are safe to repeat: an
answer that got lost is asked for again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NewType, TypeAlias

Fingerprint = NewType("Fingerprint", str)
"""Versioned digest of a message for one recipient, such as `v1:3f…`: printable ASCII, at most 80 characters."""

Token = NewType("Token", str)
"""A random name of one transaction of one process; who knows it may renew and release the claim."""


@dataclass(frozen=True, slots=True)
class Original:
    """The accepted message that later copies repeat."""

    id: str
    """The id that stood in the log when it was accepted."""
    message_id: str
    """Its Message-ID field, or empty."""
    reply: str
    """What the upstream said when it took it; with Postfix the queue id stands there."""
    accepted_at: float
    """Seconds since the Unix epoch by the accepting host's clock. For people; ages never come from it."""


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """On what terms a fingerprint is claimed."""

    window: float
    """Seconds."""
    recipient: str = ""
    """Whose it is, as records name him: what `relay forget` finds him by."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store holds of an acceptance; `age` in seconds, `recipient` as in its `ClaimTerms`."""

    key: Fingerprint
    original: Original
    age: float
    recipient: str


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

    `window` is the whole window in seconds, `age` how much of it has passed already. `token` is that of the claim by
    which it was delivered; the answer says whether somebody else had the key by then.
    """

    key: Fingerprint
    original: Original
    window: float
    age: float = 0.0
    recipient: str = ""
    token: Token = Token("")


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


@dataclass(frozen=True, slots=True)
class AskGeneration:
    """Ask whether anything was forgotten: `Generation`. Asked before other commands, it is not newer than they are."""


@dataclass(frozen=True, slots=True)
class Note:
    """Keep the record of a suppression for `keep_for` seconds. A second one with the same id takes its place."""

    record_id: str
    text: str
    """One line of ASCII, as `core.record` writes it."""
    keep_for: float

    @property
    def weight(self) -> int:
        """As how many records it counts: one for each KiB begun. That of many recipients is long."""
        return 1 + len(self.text) // 1024


MOST_RECORDS = 100_000
"""Records that a store keeps, by their weight, as near as it can count: some 100 MB. Beyond that the oldest go,
whatever their `keep_for`."""

KeyCommand: TypeAlias = Claim | Peek | Confirm | Renew | Release
"""A command about one key."""
Command: TypeAlias = KeyCommand | AskGeneration | Note


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
    window: float = field(default=math.inf, compare=False)
    """Seconds; with it the copy was settled, whatever the window of whoever asks."""


@dataclass(frozen=True, slots=True)
class Done:
    """The command was carried out."""

    claim_lost: bool = False
    """Whether a `Confirm` found the claim of another token, or the acceptance of another message."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Changes whenever something is forgotten: what a process knows by itself is void then. Empty: never yet."""

    name: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store could not say, for this key. In doubt the message is forwarded."""

    reason: str


Answer: TypeAlias = Won | Free | Held | Sent | Done | Generation | Unknown
