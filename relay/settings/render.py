"""The settings written out: `config/relay.toml`, `docs/settings.md` and the output of `relay config`.

`python -m relay.settings.render ROOT` writes the two pages below the project's root; with `--check` it only says which
of them is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from relay.settings.model import KEYS, PASSWORD, SECTIONS, Settings, environment_name, kind_of
from relay.settings.sources import DEFAULT_FILE, FILE_VARIABLE, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.settings.sources import Loaded

_FLAGS = {key: name for name, key in OPTIONS.items()}
_COMMAND = "python -m relay.settings.render ."


def effective_toml(loaded: Loaded) -> str:
    """Write settings as TOML that `load` reads back to the same, each with its source; passwords are masked.

    Values stand as they were given, defaults as on the reference page.
    """
    lines = ["# Effective settings of smtp-dedup-relay, each with its source."]
    written, defaults = loaded.settings.model_dump(mode="json"), Settings().model_dump(mode="json")
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for name, value in written[section].items():
            key = f"{section}.{name}"
            # 240 s are "4m" in one unit, and still may be written "240s".
            text = loaded.written.get(key, KEYS[key].default if value == defaults[section][name] else value)
            line = f"{name} = {_toml(text)}  # {_one_line(loaded.provenance[key])}"
            if key != PASSWORD:
                lines.append(line)
            elif value is not None:
                lines.append(f"# {line}")
    return "\n".join(lines) + "\n"


def example_toml() -> str:
    """Write `config/relay.toml`: every key of a file, commented out, with its default and meaning."""
    lines = [
        f"# Settings of smtp-dedup-relay; the relay reads them from {DEFAULT_FILE}, or from the file",
        "# that -c names. Each key stands here with its default: take the # away to change it.",
        "# Durations: 500ms, 90s, 10m, 1h, 2d. Sizes: 1024, 10MB, 25MiB.",
        "# An environment variable (RELAY_SECTION__KEY) or a flag (--set section.key=value) beats this file.",
        f"# Written by `{_COMMAND}`.",
    ]
    for section, model in SECTIONS.items():
        lines += ["", "", f"# {model.__doc__}", f"[{section}]"]
        for name, field in model.model_fields.items():
            key = f"{section}.{name}"
            if key != PASSWORD:
                lines += ["", *textwrap.wrap(_description(key), 98, initial_indent="# ", subsequent_indent="# ")]
                lines.append(f"#{name} = {_toml(field.default)}")
    return "\n".join(lines) + "\n"


def reference_markdown() -> str:
    """Write `docs/settings.md`: the reference of every key."""
    lines = [
        f"<!-- Written by `{_COMMAND}` from relay/settings/model.py. -->",
        "# Settings",
        "",
        "A flag beats the environment, the environment beats the file, the file beats the default.",
        "",
        f"- **File**: TOML, `{DEFAULT_FILE}` where it exists. `-c FILE` or the variable `{FILE_VARIABLE}` names",
        "  another. [`config/relay.toml`](../config/relay.toml) shows every key.",
        "- **Environment**: `RELAY_SECTION__KEY`. A list has commas between its items, or is written as in TOML.",
        "- **Flag**: `--set section.key=value`; the most common keys have a flag of their own.",
        "- **Durations** carry a unit: `500ms`, `90s`, `10m`, `1h`, `2d`; only 0 needs none.",
        "- **Sizes**: `25MiB` (binary), `10MB` (decimal), `1024` (bytes).",
        "",
        "`relay config` shows what is in force, and where each value came from. A key that is not on this page is an",
        "error, and so is a variable of the form `RELAY_SECTION__KEY` that is not. Any other variable that begins with",
        f"`RELAY_`, except `{FILE_VARIABLE}`, is not read, and a warning says so; there is none for what container",
        "tools make for a service named `relay`, such as `RELAY_SERVICE_HOST` or `RELAY_PORT=tcp://10.0.0.1:2525`.",
    ]
    for section, model in SECTIONS.items():
        lines += ["", f"## {section}", "", f"{model.__doc__}"]
        for name in model.model_fields:
            key = f"{section}.{name}"
            lines += ["", f"### {key}", "", *_facts(key), "", *textwrap.wrap(_description(key), 118)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages, or check them. Exits 1 naming those that are stale."""
    parser = argparse.ArgumentParser(prog="python -m relay.settings.render", description=main.__doc__)
    parser.add_argument("root", type=Path, help="the project's root folder")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a page is stale")
    options = parser.parse_args(arguments)
    stale = []
    for name, text in {"config/relay.toml": example_toml(), "docs/settings.md": reference_markdown()}.items():
        path = options.root / name
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
    if stale:
        sys.exit(f"stale: {', '.join(stale)}; write anew with `{_COMMAND}`")


def _facts(key: str) -> list[str]:
    """Give the lines above a key's description in the reference page."""
    variable = f"Environment `{environment_name(key)}`"
    if key == PASSWORD:
        return [f"{_kind(key)}\\", f"{variable}, nowhere else"]
    flag = f" · flag `{_FLAGS[key]}`" if key in _FLAGS else ""
    return [f"{_kind(key)} · default `{_toml(KEYS[key].default)}`\\", variable + flag]


def _kind(key: str) -> str:
    return kind_of(key) or "one of " + ", ".join(f"`{_toml(choice)}`" for choice in get_args(KEYS[key].annotation))


def _description(key: str) -> str:
    return KEYS[key].description or ""


def _toml(value: object) -> str:
    # JSON's numbers, booleans, lists and printable text are TOML's; no setting takes text that is not printable.
    return json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


if __name__ == "__main__":
    main()
