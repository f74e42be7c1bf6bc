"""Loads presets: rules and ignores for known applications, from the data files in `relay/presets`."""

from __future__ import annotations

import functools
import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from relay.settings.tables import IgnoreTable, RuleTable
from relay.settings.units import parse_list

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_SUFFIX = ".toml"


class Preset(NamedTuple):
    """The rules and ignores of one file, in its order."""

    name: str
    rules: tuple[RuleTable, ...]
    ignore: tuple[IgnoreTable, ...]


def _folder() -> Traversable:
    return files("relay").joinpath("presets")


@functools.cache
def names() -> tuple[str, ...]:
    """Returns the names of all presets."""
    return tuple(sorted(file.name.removesuffix(_SUFFIX) for file in _folder().iterdir() if file.name.endswith(_SUFFIX)))


@functools.cache
def preset(name: str) -> Preset:
    """Returns the preset of this name."""
    tables = tomllib.loads(_folder().joinpath(name + _SUFFIX).read_text("utf-8"))
    return Preset(
        name,
        tuple(map(RuleTable.model_validate, tables.get("rules", ()))),
        tuple(map(IgnoreTable.model_validate, tables.get("ignore", ()))),
    )


def parse_presets(value: object) -> tuple[str, ...]:
    """Returns the preset names of a TOML list, of its text, or of comma-separated text. Raises `ValueError`."""
    chosen = tuple(str(item) for item in parse_list(value, '["avideo"]'))
    known = " or ".join(f'"{name}"' for name in names())
    for name in chosen:
        if name not in names():
            raise ValueError(f'"{name}" is not known; write {known}, or [] for none')
        if chosen.count(name) > 1:
            raise ValueError(f'"{name}" is listed twice; write it once')
    return chosen
