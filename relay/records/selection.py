"""Which acceptances are meant: as data, because it also travels to a relay that keeps its claims in memory."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.core.claim import Entry
    from relay.core.store import Store

_SETS = ("records", "message_ids", "recipients", "keys")


@dataclass(frozen=True, slots=True)
class Selection:
    """An acceptance is meant when one of these holds for it."""

    records: frozenset[str] = frozenset()
    """Its own record id is among them."""
    message_ids: frozenset[str] = frozenset()
    """Its Message-ID is, both without angle brackets."""
    recipients: frozenset[str] = frozenset()
    """Its recipient is, as records name him."""
    keys: frozenset[str] = frozenset()
    """Its fingerprint is."""
    within: float = 0.0
    """It is younger than this many seconds; infinity means all."""

    def __call__(self, entry: Entry) -> bool:
        """Say whether this acceptance is meant."""
        return (
            entry.age < self.within
            or entry.original.id in self.records
            or entry.recipient in self.recipients
            or entry.key in self.keys
            or (bool(self.message_ids) and bare(entry.original.message_id) in self.message_ids)
        )

    def encode(self) -> str:
        """Write it as JSON."""
        fields: dict[str, object] = {name: sorted(getattr(self, name)) for name in _SETS}
        return json.dumps(fields | {"within": None if math.isinf(self.within) else self.within})

    @classmethod
    def decode(cls, text: str | bytes) -> Selection:
        """Read it. Raises `ValueError`."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.keys() != {*_SETS, "within"}:
            raise ValueError("not a selection")
        sets = {name: fields[name] for name in _SETS}
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in sets.values()):
            raise ValueError("not a selection")
        within = fields["within"]
        if within is not None and (not isinstance(within, int | float) or not within >= 0):
            raise ValueError("not a duration")
        return cls(
            **{name: frozenset(names) for name, names in sets.items()}, within=math.inf if within is None else within
        )


async def count(selection: Selection, store: Store) -> int:
    """Give how many acceptances of a store are meant. Raises `StoreError`."""
    return len({entry.key async for entry in store.sent() if selection(entry)})


def bare(message_id: str) -> str:
    """Give a Message-ID without its angle brackets."""
    return message_id.strip().removeprefix("<").removesuffix(">")
