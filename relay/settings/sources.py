"""Where settings come from: flag beats environment beats file beats default."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from relay.errors import SettingsError
from relay.settings import problems
from relay.settings.advice import warnings
from relay.settings.model import KEYS, PASSWORD, SECTIONS, Settings, environment_name, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_FILE = Path("/etc/smtp-dedup-relay/relay.toml")
"""Read when it exists and no other file is named."""

FILE_VARIABLE = "RELAY_CONFIG"
"""The environment variable that names a file."""

OPTIONS = {
    "--listen": "listen.address",
    "--upstream": "upstream.url",
    "--store": "store.url",
    "--window": "dedup.window",
    "--http": "http.address",
    "--observe": "dedup.mode",
}
"""The flags that stand for one key."""

_VARIABLES = {environment_name(key): key for key in KEYS}
_A_SETTING = re.compile(r"RELAY_.*__.*")
_MEASURES = [key for key in KEYS if kind_of(key) in {"duration", "size"}]

# Made by container tools for a service of the name "relay".
_OF_CONTAINER_TOOLS = re.compile(
    r"RELAY_(SERVICE_(HOST|PORT(_.*)?)|PORT_[0-9]+_(TCP|UDP)(_.*)?)=.*|RELAY_PORT=\w+://.*"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that can be used, where each came from by its dotted key, and what is doubtful about them."""

    settings: Settings
    provenance: Mapping[str, str]
    warnings: tuple[str, ...]
    written: Mapping[str, str] = field(default_factory=dict)
    """Given durations and sizes as their sources write them, by dotted key."""


class _Found:
    """What the sources say: a later one replaces an earlier one."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[object, str]] = {}
        self.problems: list[str] = []

    def add(self, key: str, value: object, source: str) -> None:
        if key in KEYS:
            self.given[key] = (value, source)
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
    """Merge all sources into settings.

    `flags` maps one of `OPTIONS`, or a dotted key as given to `--set`, to its text; the latter wins. `user_id`
    is that of this process unless given.
    Raises `SettingsError` that names every wrong value, its source and the mend, and shows no secret.
    """
    found = _Found()
    store_url = _store_url(environ, os.geteuid() if user_id is None else user_id)
    if store_url:
        found.add("store.url", store_url, "default")
    named = environ.get(FILE_VARIABLE)
    path = config_file or (Path(named) if named else _unless_absent(default_file))
    if path:
        _add_file(found, path)
    _add_environment(found, environ)
    _add_flags(found, flags)

    nested: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for key, (value, _) in found.given.items():
        section, _, name = key.partition(".")
        nested[section][name] = value
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        found.problems += [problems.wrong_value(details, found.given) for details in error.errors()]
    if found.problems:
        raise SettingsError("\n".join(found.problems))
    provenance = {key: found.given[key][1] if key in found.given else "default" for key in KEYS}
    written = {key: str(value).strip() for key, (value, _) in found.given.items() if key in _MEASURES}
    return Loaded(settings, provenance, (*_not_read(environ), *warnings(settings)), written)


def upstream_password(settings: Settings) -> str | None:
    """Give the password for the upstream from the environment or from the first line of its file, or None.

    Raises `SettingsError` when the file gives none.
    """
    upstream = settings.upstream
    if upstream.password or not upstream.password_file:
        return upstream.password.get_secret_value() if upstream.password else None
    text = _read(upstream.password_file, "upstream.password_file")
    password = text.partition("\n")[0]
    if not password:
        raise SettingsError(f"upstream.password_file {upstream.password_file}: its first line is empty; write it there")
    return password


def _add_file(found: _Found, path: Path) -> None:
    source = f"file {path}"
    try:
        tables = tomllib.loads(_read(path, "settings file"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(
            f'{path}: not TOML: {error}; lines read [section] or key = value, text stands in "quotes"'
        ) from None
    for section, table in tables.items():
        if section in SECTIONS and not isinstance(table, dict):
            found.problems.append(f"{section} ({source}): this is a section; write [{section}] and its keys below it")
        elif section not in SECTIONS and not (isinstance(table, dict) and table):
            found.problems.append(problems.unknown_key(section, source))
        else:
            for name, value in table.items():
                if f"{section}.{name}" == PASSWORD:
                    found.problems.append(problems.misplaced_password(source))
                else:
                    found.add(f"{section}.{name}", value, source)


def _add_environment(found: _Found, environ: Mapping[str, str]) -> None:
    for name, value in environ.items():
        if name in _VARIABLES:
            found.add(_VARIABLES[name], value, f"environment {name}")
        elif _A_SETTING.fullmatch(name):
            found.problems.append(problems.unknown_variable(name))


def _add_flags(found: _Found, flags: Mapping[str, str]) -> None:
    # Those given to --set last, so that they win.
    for name, value in sorted(flags.items(), key=lambda item: item[0] not in OPTIONS):
        if name == PASSWORD:
            found.problems.append(problems.misplaced_password("flag --set"))
        elif name in OPTIONS:
            found.add(OPTIONS[name], value, f"flag {name}")
        else:
            found.add(name, value, "flag --set")


def _unless_absent(path: Path) -> Path | None:
    try:
        path.stat()
    except FileNotFoundError:
        return None
    except OSError:  # not ours to look at: reading it will say so
        return path
    return path


def _store_url(environ: Mapping[str, str], user_id: int) -> str | None:
    """Give the default: what systemd sets, else the user's own folder, else (root, or nobody) that of the model."""
    # systemd separates several folders by colons; the first is the service's own.
    if folder := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return f"sqlite:{folder}/relay.db"
    if user_id == 0:  # looks at the store of the service
        return None
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    if not state.startswith("/"):
        state = f"{home.rstrip('/')}/.local/state" if home else ""
    return f"sqlite:{state}/smtp-dedup-relay/relay.db" if state else None


def _not_read(environ: Mapping[str, str]) -> list[str]:
    # Not errors: a variable without "__" may be somebody else's.
    single = {name.replace("__", "_"): name for name in (*_VARIABLES, FILE_VARIABLE)}
    told = []
    for name, value in environ.items():
        if not name.startswith("RELAY_") or _A_SETTING.fullmatch(name) or name == FILE_VARIABLE:
            continue
        if _OF_CONTAINER_TOOLS.fullmatch(f"{name}={value}"):
            continue
        near = difflib.get_close_matches(name, single, 1, 0.8)
        if name in single:
            told.append(f"{name} is not read; write {single[name]}")
        elif near:
            told.append(f"{name} is not read; did you mean {single[near[0]]}?")
        else:
            told.append(
                f"{name} is not read; settings are called RELAY_SECTION__KEY, the settings file {FILE_VARIABLE}"
            )
    return told


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise SettingsError(
            f"{what} {path}: {error.strerror}; name a file that exists and that this user may read"
        ) from None
    except ValueError:
        raise SettingsError(f"{what} {path}: not UTF-8 text; save it as UTF-8") from None
