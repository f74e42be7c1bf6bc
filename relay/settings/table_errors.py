"""Error messages about rules and ignores. Each names the table, the key, its value and a remedy."""

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
"""The word for one table of a list."""

_SYNONYMS = {
    "to": "recipient",
    "rcpt": "recipient",
    "sender": "reverse_path",
    "mail_from": "reverse_path",
    "url": "link",
}
"""Names that other programs use for a key of a rule."""

_IN_IGNORE = IgnoreTable.model_fields.keys() - {"name"}
_REMEDIES = {
    "action": 'write "exempt", "dedupe" or "observe"',
    "name": 'write for example name = "invoices"',
}


class _Location(NamedTuple):
    """A location in the lists of tables: the innermost list, the path to the table, the key in it, and its value."""

    kind: str
    tables: tuple[str, ...]
    key: str
    value: object


def wrong_tables(kind: str, errors: Sequence[ErrorDetails], tables: object, source: str) -> list[str]:
    """Returns a message for each of pydantic's errors in one of `TABLES`, and for duplicate names.

    Pydantic does not check for duplicate names if there are other errors.
    """
    messages = [_wrong(_location(kind, details["loc"][1:], tables), details, source) for details in errors]
    if isinstance(tables, list) and any(len(details["loc"]) > 1 for details in errors):
        names = [table.get("name") if isinstance(table, dict) else "" for table in tables]
        twice = name_twice([name if isinstance(name, str) else "" for name in names])
        messages += [f"{kind} ({source}): {twice}"] if twice else []
    return messages


def nearest_table(name: str) -> str | None:
    """Returns the most similar table header, such as `[[rules]]`, or None."""
    near = difflib.get_close_matches(name, TABLES, 1, 0.75)
    return f"[[{near[0]}]]" if near else None


def _location(kind: str, path: tuple[int | str, ...], value: object) -> _Location:
    tables: tuple[str, ...] = ()
    keys: list[str] = []
    for part in path:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list) else None
            kind = keys[-1] if keys else kind  # rules contain lists of ignores
            tables = (*tables, _called(kind, part + 1, value))
            keys = []
        elif part == "[key]":
            value = None
        else:
            value = value.get(part) if isinstance(value, dict) else None
            keys.append(part)
    return _Location(kind, tables, ".".join(keys), value)


def _called(kind: str, number: int, table: object) -> str:
    name = table.get("name") if isinstance(table, dict) else None
    return f"{WORDS[kind]} {number}" + (
        f" {json.dumps(shortened(name), ensure_ascii=False)}" if isinstance(name, str) else ""
    )


def _wrong(location: _Location, details: ErrorDetails, source: str) -> str:
    table = ", ".join(location.tables) or location.kind
    return f"{table} ({source}): {_wrong_form(location, details) or _wrong_value(location, details)}"


def _wrong_form(location: _Location, details: ErrorDetails) -> str | None:
    match details["type"]:
        case "tuple_type" if location.key:
            return f'{location.key} is not a list of tables; write {location.key} = [ {{ parameter = "utm_source" }} ]'
        case "tuple_type":
            return f"this is a list of tables; write [[{location.kind}]] above the keys of each"
        case "model_type":
            return f'this is not a table; write {{ parameter = "utm_source" }}, or keys below [[{location.kind}]]'
        case "extra_forbidden":
            return _unknown(location.kind, location.key)
        case "missing":
            return f"{location.key} is missing; {_REMEDIES[location.key]}"
    return None


def _wrong_value(location: _Location, details: ErrorDetails) -> str:
    match details["type"]:
        case "literal_error":
            reason = f"not known; write {details['ctx']['expected']}".replace("'", '"')
        case "dict_type":
            reason = "the field's name is missing; write for example header.X-Priority = '^1'"
        case _:
            reason = str(details.get("ctx", {}).get("error", details["msg"]))
    if not location.key:
        return reason
    return f"{location.key}{'' if location.value is None else f' = {shortened(_quote(location.value))}'}: {reason}"


def _unknown(kind: str, key: str) -> str:
    if kind == "rules" and key in _IN_IGNORE:
        return f"unknown key {key}; it belongs into ignore = [ {{ {key} = ... }} ]"
    names = [field.alias or name for name, field in TABLES[kind].model_fields.items()]
    near = _SYNONYMS.get(key.lower()) or next(iter(difflib.get_close_matches(key.lower(), names, 1)), None)
    return f"unknown key {key}; " + (f"did you mean {near}?" if near else f"known are {', '.join(names)}")


def _quote(value: object) -> str:
    """Returns the value as it would be written in the file: patterns in single quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_quote, value))}]"
    if isinstance(value, dict):
        return "{…}"
    plain = isinstance(value, str) and value.isprintable() and "'" not in value
    return f"'{value}'" if plain else json.dumps(value, ensure_ascii=False, default=str)
