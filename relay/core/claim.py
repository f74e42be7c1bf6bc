"""The claim: the exclusive right to deliver one fingerprint. Commands to a store, and its answers.

`relay.core.life_cycle` defines what each command does. A store takes commands in batches and returns one answer for
each. A command is about one key at most, and is safe to repeat: the answer may have been lost.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType, TypeAlias

from relay.core.sequence import SequenceState

if TYPE_CHECKING:
    from relay.core.sequence import SequenceName

Fingerprint = NewType("Fingerprint", str)
"""Versioned digest of a message for one recipient, such as `v1:3f…`: printable ASCII, at most 80 characters."""

RANDOM_NAME = re.compile(r"[0-9a-f]{16}")
"""What the identity and the generation of a store look like: `secrets.token_hex(8)`. Anything else is foreign."""

Token = NewType("Token", str)
"""A random name of one transaction. Only a command with the same token renews or releases a claim."""


@dataclass(frozen=True, slots=True)
class Original:
    """The accepted message that later copies repeat."""

    id: str
    """The id of its transaction, which the log shows."""
    message_id: str
    """Its Message-ID field, or empty."""
    reply: str
    """The text of the upstream's reply. Postfix's contains the queue id."""
    accepted_at: float
    """Seconds since the Unix epoch by the clock of the host that delivered it. For people only, never for ages."""


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """The terms on which a fingerprint is claimed."""

    window: float
    """Seconds."""
    recipient: str = ""
    """The recipient as records name it, by which `relay forget` finds the acceptance."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An acceptance in a store. `age` in seconds, `recipient` as in its `ClaimTerms`."""

    key: Fingerprint
    original: Original
    age: float
    recipient: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Claims the fingerprint for `lease` seconds unless it is held, or was sent less than `window` seconds ago.

    A key that holds the same token is won: the answer to an earlier Claim may have been lost.
    """

    key: Fingerprint
    token: Token
    lease: float
    window: float


@dataclass(frozen=True, slots=True)
class Peek:
    """Reads the state without changing it: `Free`, `Held` or `Sent` (less than `window` seconds ago)."""

    key: Fingerprint
    window: float


@dataclass(frozen=True, slots=True)
class Confirm:
    """Records that the upstream has accepted the message, whatever the key holds.

    `window` is the whole window in seconds, and `age` the seconds of it that have passed. `token` is that of the claim
    under which the message was delivered: the answer reports whether that claim was lost.
    """

    key: Fingerprint
    original: Original
    window: float
    age: float = 0.0
    recipient: str = ""
    token: Token = Token("")


@dataclass(frozen=True, slots=True)
class Renew:
    """Extends the lease to `lease` seconds from now if the key holds this token: `Done`, else the state of the key."""

    key: Fingerprint
    token: Token
    lease: float


@dataclass(frozen=True, slots=True)
class Release:
    """Frees the fingerprint if the key holds this token. `Done` in any case."""

    key: Fingerprint
    token: Token


@dataclass(frozen=True, slots=True)
class Follow:
    """Adds a mail to its sequence (`relay.core.sequence.place`). The answer is the `SequenceState` after it.

    The sequence is kept for `keep_for` seconds from now. A second identical command changes nothing more.
    """

    sequence: SequenceName
    fingerprint: Fingerprint
    epoch: str
    """The epoch that begins if the mail differs from the one before."""
    keep_for: float


@dataclass(frozen=True, slots=True)
class AskGeneration:
    """Reads the store's `Generation`. In front of other commands of a batch, it is not newer than their answers."""


MOST_CLAIMS = 1_000_000
"""Claims and sequences that a store holds, or on Redis that one process writes, about 500 MB. Mail beyond that is
forwarded without a claim. A store may count roughly."""

KeyCommand: TypeAlias = Claim | Peek | Confirm | Renew | Release
"""A command about one key."""
Command: TypeAlias = KeyCommand | Follow | AskGeneration


@dataclass(frozen=True, slots=True)
class Won:
    """The transaction now holds the claim."""


@dataclass(frozen=True, slots=True)
class Free:
    """The key is not held, and no copy was accepted within the window. `Renew` was too late."""


@dataclass(frozen=True, slots=True)
class Held:
    """Another transaction holds the claim. Its lease ends in `remaining` seconds unless it is renewed."""

    remaining: float


@dataclass(frozen=True, slots=True)
class Sent:
    """The upstream accepted a copy `age` seconds ago."""

    original: Original
    age: float
    window: float = field(default=math.inf, compare=False)
    """Seconds. The window of the accepted copy, not that of the command."""


@dataclass(frozen=True, slots=True)
class Done:
    """The command was carried out."""

    claim_lost: bool = False
    """Whether a `Confirm` found the claim of another token, or the acceptance of another message."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A random name that changes when an operator forgets acceptances: what a process has kept itself is void then.

    Empty if nothing was ever forgotten.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store could not answer for this key. In doubt the message is forwarded."""

    reason: str


@dataclass(frozen=True, slots=True)
class Full(Unknown):
    """The store holds `MOST_CLAIMS`, and the command would have added one. It is not to be repeated."""

    reason: str = "the store holds as many claims as it may"


Answer: TypeAlias = Won | Free | Held | Sent | Done | SequenceState | Generation | Unknown
