"""Presets: rules and ignores for known applications, as data files beside the code."""

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
    """What one file holds, in its order."""

    name: str
    rules: tuple[RuleTable, ...]
    ignore: tuple[IgnoreTable, ...]


def _folder() -> Traversable:
    return files("relay").joinpath("presets")


@functools.cache
def names() -> tuple[str, ...]:
    """Name all presets."""
    return tuple(sorted(file.name.removesuffix(_SUFFIX) for file in _folder().iterdir() if file.name.endswith(_SUFFIX)))


@functools.cache
def preset(name: str) -> Preset:
    """Read one of `names`."""
    tables = tomllib.loads(_folder().joinpath(name + _SUFFIX).read_text("utf-8"))
    return Preset(
        name,
        tuple(map(RuleTable.model_validate, tables.get("rules", ()))),
        tuple(map(IgnoreTable.model_validate, tables.get("ignore", ()))),
    )


def parse_presets(value: object) -> tuple[str, ...]:
    """Read a list of presets: a TOML list, or its text, or text with commas between them."""
    chosen = tuple(str(item) for item in parse_list(value, '["avideo"]'))
    known = " or ".join(f'"{name}"' for name in names())
    for name in chosen:
        if name not in names():
            raise ValueError(f'"{name}" is not known; write {known}, or [] for none')
        if chosen.count(name) > 1:
            raise ValueError(f'"{name}" stands there twice; write it once')
    return chosen
