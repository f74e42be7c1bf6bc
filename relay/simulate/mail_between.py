"""Finds repeats with another mail of the same sender between them and the accepted copy, such as on, off, on."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from relay.core.claim import Fingerprint

_MOST_REMEMBERED = 100_000
"""Senders of recipients whose last mails, and fingerprints whose last accepted copies, are remembered."""


class _LastMail(NamedTuple):
    """The number of the last accepted mail, its fingerprint, and the number of the last one with another fingerprint.

    Numbers count calls of `accept`; 0 is none.
    """

    number: int
    fingerprint: Fingerprint
    other: int


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _remember(values: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    values[key] = value
    values.move_to_end(key)
    if len(values) > _MOST_REMEMBERED:
        values.popitem(last=False)


class MailBetween:
    """Remembers accepted mail with bounded memory. Call it in the order of dates."""

    def __init__(self) -> None:
        self._accepted = 0
        self._last: OrderedDict[int, _LastMail] = OrderedDict()
        self._copies: OrderedDict[Fingerprint, int] = OrderedDict()

    def accept(self, sender: Hashable, fingerprint: Fingerprint) -> None:
        """Remembers a mail that was forwarded. `sender` is its From field and the recipient."""
        self._accepted += 1
        key = hash(sender)
        last = self._last.get(key)
        other = 0 if last is None else last.other if last.fingerprint == fingerprint else last.number
        _remember(self._last, key, _LastMail(self._accepted, fingerprint, other))
        _remember(self._copies, fingerprint, self._accepted)

    def is_before(self, sender: Hashable, fingerprint: Fingerprint) -> bool:
        """Returns whether a mail with another fingerprint was accepted since the last copy of this one."""
        last, copy = self._last.get(hash(sender)), self._copies.get(fingerprint)
        if last is None or copy is None:
            return False
        return (last.other if last.fingerprint == fingerprint else last.number) > copy
