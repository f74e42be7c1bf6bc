"""The rules and ignores in force: an operator's own, then those of the presets.

One of his own replaces the one of a preset that has the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from relay.settings.presets import preset
from relay.settings.tables import IgnoreTable, RuleTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.settings.model import Settings
    from relay.settings.presets import Preset

_Table = TypeVar("_Table", RuleTable, IgnoreTable)


class InForce(NamedTuple, Generic[_Table]):
    """A table with the preset that it comes from, or whose table it replaces; "" is none."""

    table: _Table
    preset: str = ""
    replaces: str = ""


def rules(settings: Settings) -> tuple[InForce[RuleTable], ...]:
    """Give the rules in the order of matching."""
    return tuple(_in_force(settings.rules, [(each.name, each.rules) for each in _presets(settings)]))


def ignores(settings: Settings) -> tuple[InForce[IgnoreTable], ...]:
    """Give what does not count in any message."""
    return tuple(_in_force(settings.ignore, [(each.name, each.ignore) for each in _presets(settings)]))


def _presets(settings: Settings) -> list[Preset]:
    return [preset(name) for name in settings.dedup.presets]


def _in_force(own: Sequence[_Table], of_presets: Sequence[tuple[str, Sequence[_Table]]]) -> Iterator[InForce[_Table]]:
    names = {table.name for table in own}
    origins = {table.name: name for name, tables in of_presets for table in tables}
    yield from (InForce(table, replaces=origins.get(table.name, "")) for table in own)
    for name, tables in of_presets:
        yield from (InForce(table, name) for table in tables if table.name not in names)
