"""What is said about a wrong rule or ignore: its number and name, the key, its value, and how to mend it."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, NamedTuple

from relay.settings.model import TABLES
from relay.settings.tables import IgnoreTable, name_twice
from relay.settings.units import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

WORDS = {"rules": "rule", "ignore": "ignore"}
"""What one table of a list is called."""

_OTHERS_SAY = {
    "to": "recipient",
    "rcpt": "recipient",
    "sender": "reverse_path",
    "mail_from": "reverse_path",
    "url": "link",
}
"""What other programs call a key of a rule."""

_IN_IGNORE = IgnoreTable.model_fields.keys() - {"name"}
_MENDS = {
    "action": 'write "exempt", "dedupe" or "observe"',
    "name": 'write for example name = "invoices"',
}


class _Spot(NamedTuple):
    """A place in the lists of tables: the innermost list, what leads to the table, the key in it, and what is there."""

    kind: str
    tables: tuple[str, ...]
    key: str
    value: object


def wrong_tables(kind: str, errors: Sequence[ErrorDetails], tables: object, source: str) -> list[str]:
    """Say what pydantic found in one of `TABLES`, and what it did not look for because of that."""
    told = [_wrong(_spot(kind, details["loc"][1:], tables), details, source) for details in errors]
    if isinstance(tables, list) and any(len(details["loc"]) > 1 for details in errors):
        names = [table.get("name") if isinstance(table, dict) else "" for table in tables]
        twice = name_twice([name if isinstance(name, str) else "" for name in names])
        told += [f"{kind} ({source}): {twice}"] if twice else []
    return told


def nearest_table(name: str) -> str | None:
    """Give how the list of tables that is meant is written, or None."""
    near = difflib.get_close_matches(name, TABLES, 1, 0.75)
    return f"[[{near[0]}]]" if near else None


def _spot(kind: str, path: tuple[int | str, ...], value: object) -> _Spot:
    tables: tuple[str, ...] = ()
    keys: list[str] = []
    for part in path:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list) else None
            kind = keys[-1] if keys else kind  # rules hold lists of ignores
            tables = (*tables, _called(kind, part + 1, value))
            keys = []
        elif part == "[key]":
            value = None
        else:
            value = value.get(part) if isinstance(value, dict) else None
            keys.append(part)
    return _Spot(kind, tables, ".".join(keys), value)


def _called(kind: str, number: int, table: object) -> str:
    name = table.get("name") if isinstance(table, dict) else None
    return f"{WORDS[kind]} {number}" + (
        f" {json.dumps(shortened(name), ensure_ascii=False)}" if isinstance(name, str) else ""
    )


def _wrong(spot: _Spot, details: ErrorDetails, source: str) -> str:
    return (
        f"{', '.join(spot.tables) or spot.kind} ({source}): {_wrong_form(spot, details) or _wrong_value(spot, details)}"
    )


def _wrong_form(spot: _Spot, details: ErrorDetails) -> str | None:
    match details["type"]:
        case "tuple_type" if spot.key:
            return f'{spot.key} is no list of tables; write {spot.key} = [ {{ parameter = "utm_source" }} ]'
        case "tuple_type":
            return f"this is a list of tables; write [[{spot.kind}]] above the keys of each"
        case "model_type":
            return f'this is no table; write {{ parameter = "utm_source" }}, or keys below [[{spot.kind}]]'
        case "extra_forbidden":
            return _unknown(spot.kind, spot.key)
        case "missing":
            return f"{spot.key} is missing; {_MENDS[spot.key]}"
    return None


def _wrong_value(spot: _Spot, details: ErrorDetails) -> str:
    match details["type"]:
        case "literal_error":
            reason = f"not known; write {details['ctx']['expected']}".replace("'", '"')
        case "dict_type":
            reason = "the field's name is missing; write for example header.X-Priority = '^1'"
        case _:
            reason = str(details.get("ctx", {}).get("error", details["msg"]))
    if not spot.key:
        return reason
    return f"{spot.key}{'' if spot.value is None else f' = {shortened(_quote(spot.value))}'}: {reason}"


def _unknown(kind: str, key: str) -> str:
    if kind == "rules" and key in _IN_IGNORE:
        return f"unknown key {key}; it belongs into ignore = [ {{ {key} = ... }} ]"
    names = [field.alias or name for name, field in TABLES[kind].model_fields.items()]
    near = _OTHERS_SAY.get(key.lower()) or next(iter(difflib.get_close_matches(key.lower(), names, 1)), None)
    return f"unknown key {key}; " + (f"did you mean {near}?" if near else f"known are {', '.join(names)}")


def _quote(value: object) -> str:
    """As a pattern stands in a file: in single quotes, where a backslash is one."""
    if isinstance(value, list):
        return f"[{', '.join(map(_quote, value))}]"
    if isinstance(value, dict):
        return "{…}"
    plain = isinstance(value, str) and value.isprintable() and "'" not in value
    return f"'{value}'" if plain else json.dumps(value, ensure_ascii=False, default=str)
