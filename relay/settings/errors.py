"""Error messages about settings. Each names the key, its value, its source and a remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from relay.settings.model import KEYS, PASSWORD, SECTIONS, TABLES, environment_name
from relay.settings.table_errors import WORDS, nearest_table, wrong_tables
from relay.settings.units import shortened
from relay.settings.urls import MASK, mask

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Given: TypeAlias = Mapping[str, tuple[object, str]]
"""Value and source by dotted key."""


def wrong_values(errors: Sequence[ErrorDetails], given: Given) -> list[str]:
    """Returns a message for each of pydantic's errors."""
    messages = [_wrong_value(details, given) for details in errors if not _in_table(details)]
    for kind in TABLES:
        if in_kind := [details for details in errors if details["loc"][:1] == (kind,)]:
            messages += wrong_tables(kind, in_kind, *given[kind])
    return messages


def _in_table(details: ErrorDetails) -> bool:
    return bool(details["loc"]) and details["loc"][0] in TABLES


def _wrong_value(details: ErrorDetails, given: Given) -> str:
    key = ".".join(str(part) for part in details["loc"][:2])
    context = details.get("ctx", {})
    if details["type"] == "literal_error":
        reason = f"not known; write {context['expected']}".replace("'", '"')
    else:
        reason = str(context.get("error", details["msg"]))
    if key not in given:
        return f"{key}: {reason}" if key else reason
    value, source = given[key]
    return f"{key} = {MASK if key == PASSWORD else shortened(_show(value))} ({source}): {reason}"


def unknown_key(key: str, source: str) -> str:
    """Returns the message about an unknown key, with the most similar known key."""
    if key in SECTIONS:
        keys = ", ".join(known for known in KEYS if known.startswith(f"{key}.") and known != PASSWORD)
        return f"{key} ({source}): this is a section; its keys are {keys}"
    near = _table_meant(key) or _nearest(key)
    return f"{key} ({source}): unknown key; " + (f"did you mean {near}?" if near else '"relay config" lists all keys')


def unknown_variable(name: str) -> str:
    """Returns the message about an unknown variable, with the most similar known one."""
    key = name.removeprefix("RELAY_").replace("__", ".").lower()
    near = _nearest(key)
    remedy = f"did you mean {environment_name(near)}?" if near else "unset it"
    return f"{name} (environment): unknown variable; {remedy}"


def misplaced_password(source: str) -> str:
    """Returns the message about a password in the wrong place."""
    return (
        f"{PASSWORD} ({source}): a password cannot be set here; write it to a separate file and name that file in "
        f"upstream.password_file, or set {environment_name(PASSWORD)}"
    )


def visible_password(flag: str) -> str:
    """Returns the message about a password in a flag."""
    return (
        f"store.url (flag {flag}): every user of this host can see a password in a flag; write it to a file and name "
        f"that file in store.password_file, or set {environment_name('store.url')}"
    )


def misplaced_table(name: str, source: str) -> str:
    """Returns the message about a rule or ignore outside the settings file."""
    table = next(table for table in TABLES if table in name.lower())
    return f"{name} ({source}): {WORDS[table]}s can only be in the settings file; write [[{table}]] there"


def _table_meant(key: str) -> str | None:
    section, _, name = key.rpartition(".")
    return nearest_table(name) if section in {"", "dedup"} else None


def _nearest(key: str) -> str | None:
    settable = [known for known in KEYS if known != PASSWORD]
    section, _, name = key.rpartition(".")
    # The section first: of keys with the same name, the one in the most similar section.
    for near_section in difflib.get_close_matches(section, SECTIONS, 1):
        names = [known.partition(".")[2] for known in settable if known.startswith(f"{near_section}.")]
        for near_name in difflib.get_close_matches(name, names, 1):
            return f"{near_section}.{near_name}"
    same_name = [known for known in settable if known.partition(".")[2] == name]
    return next(iter(same_name[:1] or difflib.get_close_matches(key, settable, 1)), None)


def _show(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_show(item) for item in value)}]"
    if isinstance(value, dict):
        return "{…}"
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return json.dumps(mask(value), ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
