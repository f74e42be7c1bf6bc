"""What the packages are built from. `make test-packages` builds and installs the Debian package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import relay.cli
from relay.settings.model import KEYS, environment_name

_TREE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The man pages, without their escapes."""
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, _TREE / "packaging" / "man.py", folder], check=True, cwd=_TREE)
    return {path.name: path.read_text().replace("\\-", "-") for path in folder.iterdir()}


def unit() -> dict[str, str]:
    text = (_TREE / "systemd" / "smtp-dedup-relay.service").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def pinned(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (_TREE / "requirements" / name).read_text(), re.MULTILINE))


def test_the_manual_describes_every_command_and_its_options(pages: dict[str, str]) -> None:
    headings = re.findall(r"^\.SS relay (\w+)", pages["relay.1"], re.MULTILINE)
    assert set(headings) == set(relay.cli._COMMANDS)
    assert ".TP\n.B --rcpt-to ADDRESS\n" in pages["relay.1"]
    assert ".SS relay user add [OPTIONS] NAME\n" in pages["relay.1"]


def test_the_manual_describes_every_setting(pages: dict[str, str]) -> None:
    headings = re.findall(r"^\.SS (.+)$", pages["relay.toml.5"], re.MULTILINE)
    assert headings == list(KEYS)


def test_the_manual_has_no_line_that_roff_takes_for_a_macro(pages: dict[str, str]) -> None:
    known = {"TH", "nh", "ad", "SH", "SS", "TP", "PP", "IP", "B", "I", "BR", "RI", "IR", "nf", "fi", "br"}
    for text in pages.values():
        assert {match[1] for match in re.finditer(r"^[.'](\w*)", text, re.MULTILINE)} <= known
        assert "\n\n" not in text


def test_the_service_runs_as_the_user_that_sysusers_creates() -> None:
    line = (_TREE / "systemd" / "smtp-dedup-relay.sysusers").read_text().splitlines()[-1]
    kind, name, _ = line.split(maxsplit=2)
    assert (kind, unit()["User"], unit()["Group"]) == ("u", name, name)
    assert line.endswith(f" /var/lib/{unit()['StateDirectory']}")


def test_the_example_of_passwords_names_settings() -> None:
    names = re.findall(r"^#(RELAY_\w+)=", (_TREE / "packaging" / "environment").read_text(), re.MULTILINE)
    assert names
    assert set(names) <= {environment_name(key) for key in KEYS}


def test_what_a_package_contains_has_no_build_tools() -> None:
    assert {"hatchling", "editables"} <= pinned("build.txt")
    assert not {"hatchling", "editables", "uv", "pytest"} & pinned("run.txt")


def test_the_installation_by_hand_installs_files_that_exist() -> None:
    text = (_TREE / "docs" / "install.md").read_text()
    files = re.findall(r"^ +install (?:-D )?-m \d+ (\S+) ", text, re.MULTILINE) + re.findall(r"-r (\S+)", text)
    assert len(files) >= 5
    assert [name for name in files if not (_TREE / name).is_file()] == []
