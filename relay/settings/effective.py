"""The effective rules and ignores: the operator's, then those of the presets.

An operator's rule or ignore replaces the preset's one of the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from relay.settings.presets import Preset, preset
from relay.settings.tables import IgnoreTable, RuleTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from relay.settings.model import Settings

_Table = TypeVar("_Table", RuleTable, IgnoreTable)


class Effective(NamedTuple, Generic[_Table]):
    """A table, the preset that contains it, and the preset whose table it replaces; "" means none."""

    table: _Table
    preset: str = ""
    replaces: str = ""


def rules(settings: Settings) -> tuple[Effective[RuleTable], ...]:
    """Returns the rules in matching order."""
    return tuple(_effective(settings.rules, [(each.name, each.rules) for each in _presets(settings)]))


def ignores(settings: Settings) -> tuple[Effective[IgnoreTable], ...]:
    """Returns the ignores that apply to every message."""
    return tuple(_effective(settings.ignore, [(each.name, each.ignore) for each in _presets(settings)]))


def _presets(settings: Settings) -> list[Preset]:
    found = [preset(name) for name in settings.dedup.presets]
    if settings.dedup.window:
        return found
    # Who sets the window to 0 wants to suppress nothing that no own rule suppresses.
    return [
        Preset(each.name, tuple(rule for rule in each.rules if rule.action == "exempt"), each.ignore) for each in found
    ]


def _effective(
    own: Sequence[_Table], of_presets: Sequence[tuple[str, Sequence[_Table]]]
) -> Iterator[Effective[_Table]]:
    names = {table.name for table in own}
    origins = {table.name: name for name, tables in of_presets for table in tables}
    yield from (Effective(table, replaces=origins.get(table.name, "")) for table in own)
    for name, tables in of_presets:
        yield from (Effective(table, name) for table in tables if table.name not in names)
