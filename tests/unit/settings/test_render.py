"""The pages that follow from the model, and the settings in force written out."""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from relay.core.errors import SettingsError
from relay.settings import Loaded, Settings, sources
from relay.settings.model import KEYS, PASSWORD, SECTIONS, environment_name
from relay.settings.presets import preset
from relay.settings.render import effective_toml, example_toml, main, reference_markdown
from relay.settings.units import format_duration, format_size

_ROOT = Path(__file__).parents[3]

load = functools.partial(sources.load, default_file=Path("/nowhere/relay.toml"))
"""As on a machine that has no file of its own."""


def _flags(toml: str) -> dict[str, str]:
    """Turn what `effective_toml` wrote into flags, to be loaded without a file."""
    return {
        f"{section}.{name}": ",".join(value) if isinstance(value, list) else str(value)
        for section, table in tomllib.loads(toml).items()
        if section in SECTIONS
        for name, value in table.items()
    }


def test_the_generated_pages_are_up_to_date() -> None:
    main([str(_ROOT), "--check"])


def test_a_stale_page_is_named(tmp_path: Path) -> None:
    main([str(tmp_path)])
    main([str(tmp_path), "--check"])
    (tmp_path / "docs" / "settings.md").write_text("old")
    with pytest.raises(SystemExit, match=r"out of date: docs/settings.md; run `python -m relay.settings.render"):
        main([str(tmp_path), "--check"])
    (tmp_path / "config" / "relay.toml").unlink()
    with pytest.raises(SystemExit, match=r"out of date: config/relay.toml, docs/settings.md"):
        main([str(tmp_path), "--check"])


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_is_described_with_its_environment_variable(key: str) -> None:
    section = reference_markdown().partition(f"### {key}\n")[2].partition("\n#")[0]
    assert environment_name(key) in section
    assert len(section.split("\n\n")[1]) > 20, "a description"
    assert ("default `" in section) == (key != PASSWORD)


def test_every_section_says_what_it_is_about() -> None:
    assert all(model.__doc__ and f"# {model.__doc__}\n[{name}]" in example_toml() for name, model in SECTIONS.items())


def test_the_example_holds_the_defaults_and_changes_nothing(tmp_path: Path) -> None:
    example = example_toml()
    assert not any(tomllib.loads(example).values())
    assert "\n# [[rules]]\n" in example
    file = tmp_path / "relay.toml"
    file.write_text(re.sub(r"^#(\w+ = )", r"\1", example, flags=re.MULTILINE))
    loaded = load(file, {}, {"HOME": "/home/somebody"})
    assert loaded.settings == Settings()
    assert {key for key in KEYS if loaded.provenance[key] == "default"} == {PASSWORD}


def test_the_pages_hold_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = example_toml(), reference_markdown()
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("STATE_DIRECTORY", "/state")
    assert (example_toml(), reference_markdown()) == before
    assert str(Path.home()) not in "".join(before)


def test_the_settings_in_force_carry_their_source(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('[dedup]\nlease = "45s"\n')
    loaded = load(file, {"--window": "1h"}, {"RELAY_LOG__LEVEL": "debug"})
    lines = effective_toml(loaded).splitlines()
    assert 'window = "1h"  # flag --window' in lines
    assert 'level = "debug"  # environment RELAY_LOG__LEVEL' in lines
    assert f'lease = "45s"  # file {file}' in lines
    assert 'mode = "enforce"  # default' in lines


def test_durations_and_sizes_stand_as_they_were_given(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('[dedup]\nwindow = 0\nlease = "60s"\n')
    text = effective_toml(load(file, {"limits.message_size": "1024KiB"}, {"RELAY_STORE__TIMEOUT": " 1000ms "}))
    tables = tomllib.loads(text)
    assert (tables["dedup"]["window"], tables["dedup"]["lease"]) == ("0", "60s")
    assert (tables["limits"]["message_size"], tables["store"]["timeout"]) == ("1024KiB", "1000ms")
    assert (tables["dedup"]["wait"], tables["limits"]["session_idle"]) == ("240s", "300s")


def test_a_source_with_a_line_end_stays_a_comment() -> None:
    loaded = Loaded(Settings(), dict.fromkeys(KEYS, "file a\nb = 1"), ())
    assert "b" not in tomllib.loads(effective_toml(loaded))["log"]


def test_secrets_are_masked() -> None:
    environ = {"RELAY_UPSTREAM__PASSWORD": "sesame", "RELAY_STORE__URL": "redis://relay:sesame@h/0"}
    text = effective_toml(load(None, {"--upstream": "smtps://user@mail"}, environ))
    assert "sesame" not in text
    assert '# password = "***"  # environment RELAY_UPSTREAM__PASSWORD' in text.splitlines()
    assert 'url = "redis://relay:***@h/0"  # environment RELAY_STORE__URL' in text.splitlines()
    assert "password" not in tomllib.loads(text)["upstream"]
    with pytest.raises(SettingsError, match="the password is masked; write the real one"):
        load(None, {"store.url": _flags(text)["store.url"]}, {})


_RULES = r"""
[dedup]
presets = ["wordpress"]

[[rules]]
name = "first \"one\""
subject = ['^(?i)Probe\d', "it's \\d"]
header.X-Priority = '^1'
header."X.Y" = ['^2', '3']
attachment = false
action = "observe"
window = "90s"
ignore = [ { parameter = "utm", url = "link", value = '[a-z]' }, { text = '\d+' } ]

[[rules]]
name = "wordpress: recovery mode"
from = '@shop\.example'
action = "dedupe"

[[ignore]]
comment = 'build \d+'
"""


def test_rules_are_shown_in_the_order_of_matching_with_their_source(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(_RULES)
    text = effective_toml(load(file, {}, {}))
    heads = [line for line in text.splitlines() if "[[" in line]
    assert heads[:2] == [
        f"[[rules]]  # file {file}",
        f"[[rules]]  # file {file}, in place of that of preset wordpress",
    ]
    assert set(heads[2:-1]) == {"# [[rules]]  # preset wordpress"}
    assert heads[-1] == f"[[ignore]]  # file {file}"
    shown = re.findall(r'^# name = "(.*)"$', text, re.MULTILINE)
    assert shown == [rule.name for rule in preset("wordpress").rules if rule.name != "wordpress: recovery mode"]


def test_rules_that_are_shown_are_a_settings_file(tmp_path: Path) -> None:
    file, again = tmp_path / "relay.toml", tmp_path / "again.toml"
    file.write_text(_RULES)
    loaded = load(file, {}, {})
    again.write_text(effective_toml(loaded))
    assert load(again, {}, {}).settings == loaded.settings
    assert len(loaded.settings.rules) == 2


def test_the_rules_of_presets_are_whole_when_their_comment_signs_are_taken_away(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    text = effective_toml(load(None, {"dedup.presets": "avideo,wordpress"}, {}))
    file.write_text(re.sub(r"^# (.*[]\[=])", r"\1", text, flags=re.MULTILINE))
    settings = load(file, {}, {}).settings
    assert settings.rules == preset("avideo").rules + preset("wordpress").rules
    assert settings.ignore == preset("avideo").ignore


_durations = st.integers(1000, 10**9).map(lambda milliseconds: format_duration(milliseconds / 1000))
_paths = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1).map(lambda name: f"/{name.lstrip('/')}")
_values: dict[str, st.SearchStrategy[str]] = {
    "listen.address": st.integers(0, 999).map(lambda port: f"[::]:{port}"),
    "listen.networks": st.lists(st.ip_addresses().map(str)).map(",".join),
    "upstream.url": st.one_of(
        _paths.map(lambda path: f"maildir:{path}"),
        st.integers(1000, 65535).map(lambda port: f"smtps://[::1]:{port}"),
    ),
    "upstream.password_file": _paths,
    "upstream.verify_certificate": st.sampled_from(["yes", "no"]),
    "upstream.dot_timeout": _durations,
    "dedup.window": _durations | st.just("0"),
    "dedup.presets": st.sampled_from(["", "avideo", "wordpress,avideo"]),
    "record.keep": st.just("") | _paths.map(lambda path: f"maildir:/kept{path}"),
    "dedup.mode": st.sampled_from(["enforce", "observe"]),
    "dedup.lease": _durations,
    "store.url": _paths.map(lambda path: f"sqlite:/folder{path}") | st.just("memory:"),
    "http.address": st.sampled_from(["", "localhost:1"]),
    "limits.message_size": st.integers(0, 10**12).map(format_size),
    "limits.sessions": st.integers(1, 10**9 - 1).map(str),
}


@hypothesis_settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=_values))
def test_the_settings_in_force_load_to_the_same_settings(flags: dict[str, str]) -> None:
    loaded = load(None, flags, {})
    assert load(None, _flags(effective_toml(loaded)), {}).settings == loaded.settings


def test_the_settings_in_force_are_a_settings_file(tmp_path: Path) -> None:
    flags = {"listen.networks": "10.0.0.0/8", "upstream.ca_file": '/a "b"\\c', "limits.message_size": "1000"}
    loaded = load(None, flags, {})
    file = tmp_path / "relay.toml"
    file.write_text(effective_toml(loaded))
    assert load(file, {}, {}).settings == loaded.settings
