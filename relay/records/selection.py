"""Selects acceptances for `relay forget`. A selection is data, because it is also sent to the running relay."""

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
    """Selects an acceptance if one of these criteria matches."""

    records: frozenset[str] = frozenset()
    """Record ids."""
    message_ids: frozenset[str] = frozenset()
    """Message-IDs without angle brackets."""
    recipients: frozenset[str] = frozenset()
    """Recipients as records name them: pseudonyms or addresses."""
    keys: frozenset[str] = frozenset()
    """Fingerprints."""
    within: float = 0.0
    """Age in seconds below which an acceptance is selected; infinity selects all."""

    def __call__(self, entry: Entry) -> bool:
        """Returns whether the acceptance is selected."""
        return (
            entry.age < self.within
            or entry.original.id in self.records
            or entry.recipient in self.recipients
            or entry.key in self.keys
            or (bool(self.message_ids) and bare(entry.original.message_id) in self.message_ids)
        )

    def encode(self) -> str:
        """Returns the selection as JSON."""
        fields: dict[str, object] = {name: sorted(getattr(self, name)) for name in _SETS}
        return json.dumps(fields | {"within": None if math.isinf(self.within) else self.within})

    @classmethod
    def decode(cls, text: str | bytes) -> Selection:
        """Returns the selection that the JSON text describes. Raises `ValueError`."""
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
    """Returns the number of selected acceptances in a store. Raises `StoreError`."""
    return len({entry.key async for entry in store.sent() if selection(entry)})


def bare(message_id: str) -> str:
    """Returns a Message-ID without angle brackets."""
    return message_id.strip().removeprefix("<").removesuffix(">")
