"""Where settings come from: flag beats environment beats file beats default."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from relay.errors import SettingsError
from relay.settings.advice import warnings
from relay.settings.model import KEYS, PASSWORD, SECTIONS, Settings, environment_name
from relay.settings.urls import mask

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

_ENVIRONMENT = {environment_name(key): key for key in KEYS}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that can be used, where each came from by its dotted key, and what is doubtful about them."""

    settings: Settings
    provenance: Mapping[str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    source: str


def load(config_file: Path | None, flags: Mapping[str, str], environ: Mapping[str, str]) -> Loaded:
    """Merge all sources into settings.

    `flags` maps one of `OPTIONS`, or a dotted key as given to `--set`, to its text; the latter wins.
    Raises `SettingsError` that names every wrong value, its source and the mend, and shows no secret.
    """
    problems: list[str] = []
    given: dict[str, _Given] = {}
    given |= _from_file(config_file, environ, problems)
    given |= _from_environment(environ, problems)
    given |= _from_flags(flags, problems)
    store_url = _store_url(environ)
    if store_url:
        given.setdefault("store.url", _Given(store_url, "default"))

    nested: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for key, item in given.items():
        section, _, name = key.partition(".")
        nested[section][name] = item.value
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        problems += [_problem(details, given) for details in error.errors(include_url=False)]
    if problems:
        # The chain would show what was put in, secrets included.
        raise SettingsError("\n".join(problems)) from None
    provenance = {key: given[key].source if key in given else "default" for key in KEYS}
    return Loaded(settings, provenance, (*_near_misses(environ), *warnings(settings)))


def upstream_password(settings: Settings) -> str | None:
    """Give the password for the upstream from the environment or from the first line of its file, or None.

    Raises `SettingsError` when the file gives none.
    """
    upstream = settings.upstream
    if upstream.password or not upstream.password_file:
        return upstream.password.get_secret_value() if upstream.password else None
    text = _read(upstream.password_file, "upstream.password_file")
    password = text.partition("\n")[0].rstrip("\r")
    if not password:
        raise SettingsError(f"upstream.password_file {upstream.password_file}: its first line is empty; write it there")
    return password


def _from_file(config_file: Path | None, environ: Mapping[str, str], problems: list[str]) -> dict[str, _Given]:
    named = environ.get(FILE_VARIABLE)
    path = config_file or (Path(named) if named else None)
    if path is None:
        try:
            if not DEFAULT_FILE.exists():
                return {}
        except OSError:
            pass  # not ours to look at: reading it says so
        path = DEFAULT_FILE
    text = _read(path, "settings file")
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(
            f'{path}: not TOML: {error}; lines read [section] or key = value, text stands in "quotes"'
        ) from None
    given = {}
    for section, table in tables.items():
        if section in SECTIONS and not isinstance(table, dict):
            problems.append(f"{section} (file {path}): this is a section; write [{section}] and its keys below")
            continue
        keys = [f"{section}.{name}" for name in table] if isinstance(table, dict) and table else [section]
        for key in keys:
            if key == PASSWORD:
                problems.append(_misplaced_password(f"file {path}"))
            elif key in KEYS:
                given[key] = _Given(table[key.partition(".")[2]], f"file {path}")
            elif key not in SECTIONS:
                problems.append(f"{key} (file {path}): unknown key; {_did_you_mean(key)}")
    return given


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Given]:
    given = {}
    for name, value in environ.items():
        if name in _ENVIRONMENT:
            given[_ENVIRONMENT[name]] = _Given(value, f"environment {name}")
        elif re.fullmatch(r"RELAY_.*__.*", name):
            key = name.removeprefix("RELAY_").replace("__", ".").lower()
            near = _nearest(key)
            mend = f"did you mean {environment_name(near)}?" if near else "unset it"
            problems.append(f"{name} (environment): unknown variable; {mend}")
    return given


def _from_flags(flags: Mapping[str, str], problems: list[str]) -> dict[str, _Given]:
    given = {OPTIONS[name]: _Given(value, f"flag {name}") for name, value in flags.items() if name in OPTIONS}
    for key, value in flags.items():
        if key == PASSWORD:
            problems.append(_misplaced_password("flag --set"))
        elif key in KEYS:
            given[key] = _Given(value, "flag --set")
        elif key not in OPTIONS:
            problems.append(f"{key} (flag --set): unknown key; {_did_you_mean(key)}")
    return given


def _store_url(environ: Mapping[str, str]) -> str | None:
    """Give the default: what systemd sets, else the user's own folder, else (nobody's process) that of the model."""
    # systemd separates several folders by colons; the first is the service's own.
    if folder := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return f"sqlite:{folder}/relay.db"
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    if not state.startswith("/"):
        state = f"{home}/.local/state" if home else ""
    return f"sqlite:{state}/smtp-dedup-relay/relay.db" if state else None


def _near_misses(environ: Mapping[str, str]) -> list[str]:
    # Not errors: container tools make variables such as RELAY_PORT for a service of this name.
    single = {name.replace("__", "_"): name for name in _ENVIRONMENT}
    return [f"{name} is not read; write {single[name]}" for name in environ if name in single]


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise SettingsError(
            f"{what} {path}: {error.strerror}; name a file that exists and that this user may read"
        ) from None
    except ValueError:
        raise SettingsError(f"{what} {path}: not UTF-8 text; save it as UTF-8") from None


def _misplaced_password(source: str) -> str:
    return (
        f"{PASSWORD} ({source}): a password is not taken from here; write it to a file of its own and name that in "
        f"upstream.password_file, or set {environment_name(PASSWORD)}"
    )


def _did_you_mean(key: str) -> str:
    near = _nearest(key)
    return f"did you mean {near}?" if near else '"relay config" lists all keys'


def _nearest(key: str) -> str | None:
    settable = [known for known in KEYS if known != PASSWORD]
    same_name = [known for known in settable if known.partition(".")[2] == key.rpartition(".")[2]]
    return next(iter(same_name[:1] or difflib.get_close_matches(key, settable, 1)), None)


def _problem(details: ErrorDetails, given: Mapping[str, _Given]) -> str:
    key = ".".join(str(part) for part in details["loc"][:2])
    reason = str(details["ctx"]["error"]) if details["type"] == "value_error" else details["msg"]
    if details["type"] == "literal_error":
        reason = f"not known; write {details['ctx']['expected']}".replace("'", '"')
    if key not in given:
        return f"{key}: {reason}"
    item = given[key]
    shown = "" if key == PASSWORD else f" = {_show(item.value)}"
    return f"{key}{shown} ({item.source}): {reason}"


def _show(value: object) -> str:
    if not isinstance(value, str | int | float | list):
        return str(value)
    shown = json.dumps(mask(value) if isinstance(value, str) else value, ensure_ascii=False, default=str)
    return shown.encode("utf-8", "backslashreplace").decode()
