"""Suggests a rule that exempts the kind of a message, with exact conditions on what is known of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import ValidationError

from relay.judge.mime.headers import decode_value, field_values, unfold
from relay.judge.mime.parser import parse
from relay.settings.tables import RuleTable

if TYPE_CHECKING:
    from relay.judge.mime.headers import Fields

_LONGEST_NAME = 80
_LONGEST_VALUE = 199
"""Characters of a value that a condition names. A trace cuts subjects to 200."""
_REPLACED = "\ufffd"
"""In place of an octet that is no UTF-8. A condition cannot name the octet."""
_ANY_CASE = {"reverse_path": "(?i)"}
"""Traces hold the sender in lower case, and rules see it as it came."""
_HASHED = re.compile(r"h:[0-9a-f]{16}")
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")


def conditions_of_content(content: bytes) -> dict[str, str]:
    """Returns From and Subject as rules see them. A field that is missing, or there more than once, is left out."""
    fields = parse(content).fields
    found = {name: _value(fields, name) for name in ("from", "subject")}
    return {name: value for name, value in found.items() if value}


def exempting_rule(known: dict[str, str]) -> RuleTable | None:
    """Returns a rule for messages like one of which this is known: values by condition. Pseudonyms are left out.

    None if that would be every message of a sender, or to a recipient.
    """
    usable = {name: value for name, value in known.items() if _is_usable(value)}
    sender = next(({name: usable[name]} for name in ("from", "reverse_path") if name in usable), {})
    rest = next(({name: usable[name]} for name in ("subject", "recipient") if name in usable), {})
    if not sender or not rest:
        return None
    conditions = sender | rest
    keys = {name: f"{_ANY_CASE.get(name, '')}^{_escaped(value)}$" for name, value in conditions.items()}
    name = f"no repeats: {next(iter(rest.values()))}"
    try:
        return RuleTable.model_validate({"name": name[:_LONGEST_NAME], **keys, "action": "exempt"})
    except ValidationError:
        return None


def _is_usable(value: str) -> bool:
    is_exact = value.isprintable() and _REPLACED not in value and len(value) <= _LONGEST_VALUE
    return bool(value) and is_exact and not _HASHED.fullmatch(value)


def _value(fields: Fields, name: str) -> str:
    values = field_values(fields, name)
    if len(values) != 1:
        return ""
    decoded = decode_value(values[0], structured=name == "from")
    return (unfold(values[0]).strip() if decoded is None else decoded).decode("utf-8", "replace")


def _escaped(value: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", value)
