"""Loads settings. A flag overrides the environment, the environment the file, the file the default."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from relay.core.errors import SettingsError
from relay.settings import errors as problems
from relay.settings.loaded import Loaded
from relay.settings.model import KEYS, PASSWORD, SECTIONS, TABLES, Settings, environment_name, type_name
from relay.settings.passwords import read_text
from relay.settings.places import (
    ADMIN_SOCKET,
    DEFAULT_FILE,
    FILE_VARIABLE,
    default_secret_file,
    default_store_url,
    own_socket,
)
from relay.settings.secret_files import secret_file_warnings
from relay.settings.urls import has_password
from relay.settings.warnings import warnings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


OPTIONS = {
    "--listen": "listen.address",
    "--upstream": "upstream.url",
    "--store": "store.url",
    "--window": "dedup.window",
    "--http": "http.address",
    "--observe": "dedup.mode",
}
"""Flags for single keys."""

_VARIABLES = {environment_name(key): key for key in KEYS}
_LIKE_A_SETTING = re.compile(r"RELAY_.*__.*")
_TABLE_VARIABLE = re.compile(rf"RELAY_({'|'.join(TABLES)})(__.*)?", re.IGNORECASE)
_WITH_UNITS = [key for key in KEYS if type_name(key) in {"duration", "size"}]

# Variables that container tools set for a service named "relay".
_OF_CONTAINER_TOOLS = re.compile(
    r"RELAY_(SERVICE_(HOST|PORT(_.*)?)|PORT_[0-9]+_(TCP|UDP)(_.*)?)=.*|RELAY_PORT=\w+://.*"
)


class _GivenValues:
    """The values from all sources; a later source replaces an earlier one."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[object, str]] = {}
        self.problems: list[str] = []

    def add(self, key: str, value: object, source: str) -> None:
        if key in KEYS:
            self.given[key] = (value, source)
        elif key.partition(".")[0] in TABLES:
            self.problems.append(problems.misplaced_table(key, source))
        else:
            self.problems.append(problems.unknown_key(key, source))


def load(
    config_file: Path | None,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    *,
    default_file: Path = DEFAULT_FILE,
    user_id: int | None = None,
) -> Loaded:
    """Merges all sources into settings.

    `flags` maps a flag of `OPTIONS`, or a dotted key from `--set`, to its text; `--set` wins. `user_id` defaults to
    that of this process. Raises `SettingsError`, which names every wrong value with its source and remedy, but no
    secret.
    """
    found = _GivenValues()
    store_url = default_store_url(environ, os.geteuid() if user_id is None else user_id)
    if store_url:
        found.add("store.url", store_url, "default")
    if socket := own_socket(environ):
        found.add(ADMIN_SOCKET, socket, "default")
    named = environ.get(FILE_VARIABLE)
    path = config_file or (Path(named) if named else _unless_absent(default_file))
    if path:
        _add_file(found, path)
    _add_environment(found, environ)
    _add_flags(found, flags)

    loaded = from_values(found.given, found.problems)
    settings = loaded.settings
    tables_from = next((found.given[name][1] for name in TABLES if name in found.given), "")
    doubts = (
        *_not_read(environ),
        *warnings(settings, tables_from),
        *secret_file_warnings(settings, default_secret_file(settings, environ), _with_store_password(found, path)),
    )
    return replace(loaded, warnings=doubts, file=path)


def from_values(given: Mapping[str, tuple[object, str]], problems_before: Sequence[str] = ()) -> Loaded:
    """Returns settings with these values, each with its source, and defaults. Raises `SettingsError` as `load` does."""
    provenance = {key: given[key][1] if key in given else "default" for key in (*KEYS, *TABLES)}
    written = {key: str(value).strip() for key, (value, _) in given.items() if key in _WITH_UNITS}
    return Loaded(_settings(given, problems_before), provenance, written=written, given=given)


def _with_store_password(found: _GivenValues, path: Path | None) -> Path | None:
    """Returns the settings file if the effective `store.url` is in it and contains a password, else None."""
    url, source = found.given.get("store.url", ("", ""))
    return path if path and source == _file_source(path) and has_password(str(url)) else None


def _file_source(path: Path) -> str:
    return f"file {path}"


def _settings(given: Mapping[str, tuple[object, str]], problems_before: Sequence[str]) -> Settings:
    """Returns valid settings. Raises `SettingsError` with all problems, including those of the sources."""
    found = list(problems_before)
    nested: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    tables: dict[str, object] = {}
    for key, (value, _) in given.items():
        section, _, name = key.partition(".")
        if name:
            nested[section][name] = value
        else:
            tables[section] = value
    try:
        settings = Settings.model_validate(nested | tables)
    except ValidationError as error:
        found += problems.wrong_values(error.errors(), given)
    if found:
        raise SettingsError("\n".join(found))
    return settings


def _add_file(found: _GivenValues, path: Path) -> None:
    source = _file_source(path)
    try:
        tables = tomllib.loads(read_text(path, "settings file"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        quotes = "patterns in 'single quotes'" if "\\" in str(error) else 'text in "quotes"'
        raise SettingsError(f"{path}: not TOML: {error}; lines read [section] or key = value, {quotes}") from None
    for section, table in tables.items():
        if section in TABLES:
            found.given[section] = (table, source)
        elif section in SECTIONS and not isinstance(table, dict):
            found.problems.append(f"{section} ({source}): this is a section; write [{section}] and its keys below it")
        elif section not in SECTIONS and not (isinstance(table, dict) and table):
            found.problems.append(problems.unknown_key(section, source))
        else:
            for name, value in table.items():
                if f"{section}.{name}" == PASSWORD:
                    found.problems.append(problems.misplaced_password(source))
                else:
                    found.add(f"{section}.{name}", value, source)


def _add_environment(found: _GivenValues, environ: Mapping[str, str]) -> None:
    for name, value in environ.items():
        if name in _VARIABLES:
            found.add(_VARIABLES[name], value, f"environment {name}")
        elif _TABLE_VARIABLE.fullmatch(name):
            found.problems.append(problems.misplaced_table(name, "environment"))
        elif _LIKE_A_SETTING.fullmatch(name):
            found.problems.append(problems.unknown_variable(name))


def _add_flags(found: _GivenValues, flags: Mapping[str, str]) -> None:
    # Values from --set come last, so they win.
    for name, value in sorted(flags.items(), key=lambda item: item[0] not in OPTIONS):
        if name == PASSWORD:
            found.problems.append(problems.misplaced_password("flag --set"))
        elif OPTIONS.get(name, name) == "store.url" and has_password(value):
            found.problems.append(problems.visible_password(name if name in OPTIONS else "--set"))
        elif name in OPTIONS:
            found.add(OPTIONS[name], value, f"flag {name}")
        else:
            found.add(name, value, "flag --set")


def _unless_absent(path: Path) -> Path | None:
    try:
        path.stat()
    except FileNotFoundError:
        return None
    except OSError:  # reading the file will report this
        return path
    return path


def _not_read(environ: Mapping[str, str]) -> list[str]:
    # These are warnings, not errors: a variable without "__" may belong to another program.
    single = {name.replace("__", "_"): name for name in (*_VARIABLES, FILE_VARIABLE)}
    messages = []
    for name, value in environ.items():
        if not name.startswith("RELAY_") or _LIKE_A_SETTING.fullmatch(name) or name == FILE_VARIABLE:
            continue
        if _OF_CONTAINER_TOOLS.fullmatch(f"{name}={value}"):
            continue
        near = difflib.get_close_matches(name, single, 1, 0.8)
        if name in single:
            messages.append(f"{name} is not read; write {single[name]}")
        elif near:
            messages.append(f"{name} is not read; did you mean {single[near[0]]}?")
        else:
            messages.append(
                f"{name} is not read; settings are called RELAY_SECTION__KEY, the settings file {FILE_VARIABLE}"
            )
    return messages
