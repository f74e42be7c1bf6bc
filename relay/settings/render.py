"""The settings written out: `config/relay.toml`, `docs/settings.md` and the output of `relay config`.

`python -m relay.settings.render ROOT` writes the two pages below the project's root; with `--check` it only says which
of them is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from relay.settings import effective as in_force
from relay.settings.model import KEYS, PASSWORD, SECTIONS, TABLES, Settings, environment_name, type_name
from relay.settings.sources import DEFAULT_FILE, FILE_VARIABLE, OPTIONS
from relay.settings.value_types import ValueType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.fields import FieldInfo

    from relay.settings.sources import Loaded
    from relay.settings.tables import IgnoreTable, RuleTable

_FLAGS = {key: name for name, key in OPTIONS.items()}
_COMMAND = "python -m relay.settings.render ."
_EXAMPLE_TABLES = r"""

# Rules of your own come before those of the presets; the first that matches wins. docs/rules.md explains them.
# [[rules]]
# name = "invoices"
# subject = '(?i)^invoice '
# action = "exempt"

# What does not count, in any message.
# [[ignore]]
# parameter = "utm_campaign"
# url = "link"
""".splitlines()


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
    return "\n".join([*lines, *_tables_in_force(loaded)]) + "\n"


def _tables_in_force(loaded: Loaded) -> Iterator[str]:
    """Write rules and ignores in the order of matching; those of presets as comments, for dedup.presets brings them."""
    for kind, found in (("rules", in_force.rules(loaded.settings)), ("ignore", in_force.ignores(loaded.settings))):
        for each in found:
            source = f"preset {each.preset}" if each.preset else loaded.provenance.get(kind, "")
            source += f", in place of that of preset {each.replaces}" if each.replaces else ""
            lines = [f"[[{kind}]]  # {_one_line(source)}", *_table_lines(each.table)]
            yield ""
            yield from (f"# {line}" if each.preset else line for line in lines)


def _table_lines(table: RuleTable | IgnoreTable) -> Iterator[str]:
    for key, value in _given(table).items():
        if key == "header":
            yield from (f"header.{_bare_key(name)} = {_toml_value(texts)}" for name, texts in value.items())
        else:
            yield f"{key} = {_toml_value(value)}"


def _given(table: RuleTable | IgnoreTable) -> dict[str, Any]:
    return table.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _toml_value(value: object) -> str:
    """Write patterns in single quotes, where a backslash is one."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml_value(item)}' for key, item in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return f"'{value}'" if isinstance(value, str) and "\\" in value and "'" not in value else _toml(value)


def _bare_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


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
    return "\n".join([*lines, *_EXAMPLE_TABLES]) + "\n"


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
        "- **Rules** and what they ignore stand in the file only: [rules.md](rules.md).",
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
    for kind, table in TABLES.items():
        lines += ["", f"## {kind}", "", f"`[[{kind}]]`, in the file only, as many as are needed. {table.__doc__}"]
        lines += ["How they work, with examples: [rules.md](rules.md).", "", "| key | | |", "|---|---|---|"]
        lines += [
            f"| `{field.alias or name}` | {_kind_in_table(field)} | {field.description} |"
            for name, field in table.model_fields.items()
        ]
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
    return type_name(key) or "one of " + ", ".join(f"`{_toml(choice)}`" for choice in get_args(KEYS[key].annotation))


def _kind_in_table(field: FieldInfo) -> str:
    named = next((item.name for item in field.metadata if isinstance(item, ValueType)), None)
    return named or ", ".join(f"`{_toml(choice)}`" for choice in get_args(field.annotation))


def _description(key: str) -> str:
    return KEYS[key].description or ""


def _toml(value: object) -> str:
    # JSON's numbers, booleans, lists and printable text are TOML's; no setting takes text that is not printable.
    return json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


if __name__ == "__main__":
    main()
