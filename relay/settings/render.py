"""Writes settings: `config/relay.toml`, `docs/settings.md` and the output of `relay config`.

`python -m relay.settings.render ROOT` writes the two files below the project's root. With `--check` it writes nothing
and names the files that are out of date.
"""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from relay.runtime.generated import run_generator
from relay.settings import effective
from relay.settings.model import KEYS, PASSWORD, SECTIONS, TABLES, Settings, environment_name, type_name
from relay.settings.places import DEFAULT_FILE, FILE_VARIABLE
from relay.settings.reload import RESTART
from relay.settings.sources import OPTIONS
from relay.settings.value_types import ValueType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.fields import FieldInfo

    from relay.settings.loaded import Loaded
    from relay.settings.tables import IgnoreTable, RuleTable

_FLAGS = {key: name for name, key in OPTIONS.items()}
_COMMAND = "python -m relay.settings.render ."
_EXAMPLE_TABLES = r"""

# Your rules come before those of the presets; the first one that matches wins. See docs/rules.md.
# [[rules]]
# name = "invoices"
# subject = '(?i)^invoice '
# action = "exempt"

# What does not count in any message.
# [[ignore]]
# parameter = "utm_campaign"
# url = "link"
""".splitlines()


class EffectiveValue(NamedTuple):
    """The value of a key in force."""

    section: str
    name: str
    value: str
    """As TOML; a password is masked."""
    source: str
    description: str

    @property
    def key(self) -> str:
        """The dotted key."""
        return f"{self.section}.{self.name}"


def effective_values(loaded: Loaded) -> Iterator[EffectiveValue]:
    """Yields the values of all keys. Passwords are masked. A password that is not set is left out."""
    written, defaults = loaded.settings.model_dump(mode="json"), Settings().model_dump(mode="json")
    for section in SECTIONS:
        for name, value in written[section].items():
            key = f"{section}.{name}"
            # "240s" would become "4m": keep what the operator wrote.
            text = loaded.written.get(key, KEYS[key].default if value == defaults[section][name] else value)
            if value is not None or key != PASSWORD:
                yield EffectiveValue(
                    section, name, _toml(text), _one_line(loaded.provenance.get(key, "default")), _description(key)
                )


def effective_toml(loaded: Loaded) -> str:
    """Returns the settings as TOML, each with its source. `load` reads the text back to the same settings.

    Passwords are masked. Values are written as given, defaults as on the reference page.
    """
    lines = ["# Effective settings of smtp-dedup-relay, each with its source."]
    for section, values in itertools.groupby(effective_values(loaded), lambda each: each.section):
        lines += ["", f"[{section}]"]
        for each in values:
            hidden = "# " if each.key == PASSWORD else ""
            lines.append(f"{hidden}{each.name} = {each.value}  # {each.source}")
    return "\n".join([*lines, *_effective_tables(loaded)]) + "\n"


def _effective_tables(loaded: Loaded) -> Iterator[str]:
    """Yields rules and ignores in matching order. Those of presets are comments, because dedup.presets adds them."""
    for kind, found in (("rules", effective.rules(loaded.settings)), ("ignore", effective.ignores(loaded.settings))):
        for each in found:
            source = f"preset {each.preset}" if each.preset else loaded.provenance.get(kind, "")
            source += f", in place of that of preset {each.replaces}" if each.replaces else ""
            lines = [f"[[{kind}]]  # {_one_line(source)}", *table_lines(each.table)]
            yield ""
            yield from (f"# {line}" if each.preset else line for line in lines)


def table_lines(table: RuleTable | IgnoreTable) -> Iterator[str]:
    """Yields the keys of a rule or an ignore as TOML, without the line that begins its table."""
    for key, value in _given(table).items():
        if isinstance(value, dict):
            yield from (f"{key}.{_bare_key(name)} = {_toml_value(texts)}" for name, texts in value.items())
        else:
            yield f"{key} = {_toml_value(value)}"


def _given(table: RuleTable | IgnoreTable) -> dict[str, Any]:
    return table.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _toml_value(value: object) -> str:
    """Returns a TOML value. Patterns are in single quotes, where a backslash is a backslash."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml_value(item)}' for key, item in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return f"'{value}'" if isinstance(value, str) and "\\" in value and "'" not in value else _toml(value)


def _bare_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def example_toml() -> str:
    """Returns `config/relay.toml`: every key, commented out, with its default and description."""
    lines = [
        f"# Settings of smtp-dedup-relay; the relay reads them from {DEFAULT_FILE}, or from the file",
        "# that -c names. Each key is shown with its default: remove the # to change it.",
        "# Durations: 500ms, 90s, 10m, 1h, 2d. Sizes: 1024, 10MB, 25MiB.",
        "# An environment variable (RELAY_SECTION__KEY) or a flag (--set section.key=value) overrides this file.",
        f"# Written by `{_COMMAND}`.",
    ]
    for section, model in SECTIONS.items():
        lines += ["", "", f"# {model.__doc__}", f"[{section}]"]
        for name, field in model.model_fields.items():
            key = f"{section}.{name}"
            if key != PASSWORD:
                lines += ["", *(f"# {line}" for line in _wrap(_description(key), 96))]
                lines.append(f"#{name} = {_toml(field.default)}")
    return "\n".join([*lines, *_EXAMPLE_TABLES]) + "\n"


def reference_markdown() -> str:
    """Returns `docs/settings.md`, the reference of all keys."""
    lines = [
        f"<!-- Written by `{_COMMAND}` from relay/settings/sections. -->",
        "# Settings",
        "",
        "A flag overrides the environment, the environment overrides the file, the file overrides the default.",
        "",
        f"- **File**: TOML, `{DEFAULT_FILE}` if it exists. `-c FILE` or the variable `{FILE_VARIABLE}` names",
        "  another one. [`config/relay.toml`](../config/relay.toml) shows every key.",
        "- **Environment**: `RELAY_SECTION__KEY`. Separate list items by commas, or write the list as in TOML.",
        "- **Flag**: `--set section.key=value`; the most common keys have a flag of their own. A value after",
        "  `--set key=` has no quotes; `--set http.address=` is the empty text.",
        "- **Rules** and ignores can only be in the file: [rules.md](rules.md).",
        "- **Durations** have a unit: `500ms`, `90s`, `10m`, `1h`, `2d`; only 0 needs none.",
        "- **Sizes**: `25MiB` (binary), `10MB` (decimal), `1024` (bytes).",
        "",
        "`relay config` prints the effective settings and the source of each. A key that is not on this page is an",
        "error, and so is a variable `RELAY_SECTION__KEY` with such a key. The relay warns about any other variable",
        f"that begins with `RELAY_`, except `{FILE_VARIABLE}` and those that container tools set for a service named",
        "`relay`, such as `RELAY_SERVICE_HOST` or `RELAY_PORT=tcp://10.0.0.1:2525`.",
        "",
        "A changed file takes effect with `systemctl reload smtp-dedup-relay` or SIGHUP ([reload](install.md#reload)),",
        "except for the keys marked **restart to change**.",
    ]
    for section, model in SECTIONS.items():
        lines += ["", f"## {section}", "", f"{model.__doc__}"]
        for name in model.model_fields:
            key = f"{section}.{name}"
            lines += ["", f"### {key}", "", *_facts(key), "", *_wrap(_description(key), 118)]
    for kind, table in TABLES.items():
        lines += ["", f"## {kind}", "", f"`[[{kind}]]`, in the file only, any number of them. {table.__doc__}"]
        lines += ["Explanation and examples: [rules.md](rules.md).", "", "| key | | |", "|---|---|---|"]
        lines += [
            f"| `{field.alias or name}` | {_type_in_table(field)} | {field.description} |"
            for name, field in table.model_fields.items()
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the generated files, or checks them. Exits 1 and names those that are out of date."""
    files = {"config/relay.toml": example_toml, "docs/settings.md": reference_markdown}
    run_generator("relay.settings.render", main.__doc__, files, arguments)


def _facts(key: str) -> list[str]:
    """Returns the lines above a key's description on the reference page."""
    variable = f"Environment `{environment_name(key)}`"
    if key == PASSWORD:
        return [f"{_type(key)}\\", f"{variable}, nowhere else"]
    flag = f" · flag `{_FLAGS[key]}`" if key in _FLAGS else ""
    restart = " · **restart to change**" if key in RESTART else ""
    return [f"{_type(key)} · default `{_toml(KEYS[key].default)}`\\", variable + flag + restart]


def _type(key: str) -> str:
    return type_name(key) or "one of " + ", ".join(f"`{_toml(choice)}`" for choice in get_args(KEYS[key].annotation))


def _type_in_table(field: FieldInfo) -> str:
    named = next((item.name for item in field.metadata if isinstance(item, ValueType)), None)
    return named or ", ".join(f"`{_toml(choice)}`" for choice in get_args(field.annotation))


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)  # a path must stay whole


def _description(key: str) -> str:
    return KEYS[key].description or ""


def _toml(value: object) -> str:
    # JSON numbers, booleans, lists and printable text are valid TOML; no setting takes unprintable text.
    return json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


if __name__ == "__main__":
    main()
