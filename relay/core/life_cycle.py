"""The life cycle of a claim as a table: the state of a key, a command or event, and what follows.

`MemoryStore` runs on this table. All other stores are tested against it, and `docs/architecture.md` draws it.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, TypeAlias

from relay.core.claim import Claim, Confirm, Done, Free, Held, KeyCommand, Peek, Release, Renew, Sent, Won


class State(Enum):
    """What a store knows about a key."""

    FREE = "free"
    HELD = "held"
    SENT = "sent"


class Event(Enum):
    """What changes a key without a command about it."""

    LEASE_ENDS = "lease ends"
    WINDOW_ENDS = "window ends"
    FORGET = "forget"
    """An operator forgets this acceptance."""


class Condition(Enum):
    """What a row requires of the command and of the key."""

    ALWAYS = ""
    SAME_TOKEN = "same token"  # noqa: S105 - not a password
    OTHER_TOKEN = "other token"  # noqa: S105 - not a password
    SAME_MESSAGE = "same message"
    """The command confirms the acceptance that the key holds."""
    OTHER_MESSAGE = "other message"
    IN_WINDOW = "in window"
    """The acceptance that the key holds, or that the command confirms, is younger than the command's window."""
    PAST_WINDOW = "past window"


Trigger: TypeAlias = type[KeyCommand] | Event


class Row(NamedTuple):
    """One transition."""

    state: State
    trigger: Trigger
    condition: Condition
    new_state: State | None
    """None: the key stays as it is. HELD: for the command's lease. SENT: with the command's acceptance."""
    answer: Won | Free | Done | type[Held | Sent] | None
    """Held and Sent report what the key held before. None: an event has no answer."""


FREE, HELD, SENT = State
ALWAYS, SAME_TOKEN, OTHER_TOKEN, SAME_MESSAGE, OTHER_MESSAGE, IN_WINDOW, PAST_WINDOW = Condition

TABLE = (
    Row(FREE, Claim, ALWAYS, HELD, Won()),
    Row(FREE, Peek, ALWAYS, None, Free()),
    Row(FREE, Confirm, IN_WINDOW, SENT, Done()),
    Row(FREE, Confirm, PAST_WINDOW, None, Done()),
    Row(FREE, Renew, ALWAYS, None, Free()),
    Row(FREE, Release, ALWAYS, None, Done()),
    Row(HELD, Claim, SAME_TOKEN, HELD, Won()),  # the answer to an earlier Claim may have been lost
    Row(HELD, Claim, OTHER_TOKEN, None, Held),
    Row(HELD, Peek, ALWAYS, None, Held),
    # An acceptance is a fact, not a right: it is written whatever the key holds.
    Row(HELD, Confirm, SAME_TOKEN, SENT, Done()),
    Row(HELD, Confirm, OTHER_TOKEN, SENT, Done(claim_lost=True)),
    Row(HELD, Confirm, PAST_WINDOW, None, Done()),
    Row(HELD, Renew, SAME_TOKEN, HELD, Done()),
    Row(HELD, Renew, OTHER_TOKEN, None, Held),
    Row(HELD, Release, SAME_TOKEN, FREE, Done()),
    Row(HELD, Release, OTHER_TOKEN, None, Done()),
    Row(HELD, Event.LEASE_ENDS, ALWAYS, FREE, None),
    Row(HELD, Event.FORGET, ALWAYS, None, None),
    Row(SENT, Claim, IN_WINDOW, None, Sent),
    Row(SENT, Claim, PAST_WINDOW, HELD, Won()),
    Row(SENT, Peek, IN_WINDOW, None, Sent),
    Row(SENT, Peek, PAST_WINDOW, None, Free()),
    Row(SENT, Confirm, SAME_MESSAGE, SENT, Done()),
    Row(SENT, Confirm, OTHER_MESSAGE, SENT, Done(claim_lost=True)),
    Row(SENT, Confirm, PAST_WINDOW, None, Done()),
    Row(SENT, Renew, ALWAYS, None, Sent),
    Row(SENT, Release, ALWAYS, None, Done()),
    Row(SENT, Event.WINDOW_ENDS, ALWAYS, FREE, None),
    Row(SENT, Event.FORGET, ALWAYS, FREE, None),
)
"""For each state and trigger: one row that always applies, or rows of which exactly one condition holds."""
_ROWS = {(row.state, row.trigger, row.condition): row for row in TABLE}


def find_row(state: State, trigger: Trigger, condition: Condition) -> Row:
    """Returns the row that applies. `condition` has no effect where the table requires none."""
    return _ROWS.get((state, trigger, condition)) or _ROWS[state, trigger, ALWAYS]
