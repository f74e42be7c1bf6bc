"""What the packages are built from. `make test-packages` builds and installs the Debian package."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import relay.cli
from relay.settings import load
from relay.settings.model import KEYS, environment_name
from relay.settings.warnings import LONG_DRAIN

_TREE = Path(__file__).parents[2]
_DOCKERFILE = (_TREE / "Dockerfile").read_text()
_COMPOSE_FILES = ["compose.yaml", "config/compose/avideo.yaml"]


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
    assert [name for name in files if not list(_TREE.glob(name))] == []


def test_the_image_lets_clients_of_container_networks_send() -> None:
    environ = dict(re.findall(r"(RELAY_\w+)=(\S+)", _DOCKERFILE))
    listen = load(_TREE / "packaging" / "container.toml", {}, environ).settings.listen
    assert str(listen.address) == "0.0.0.0:2525"
    for client in ("127.0.0.1", "172.17.0.2", "172.18.0.3", "172.21.1.5", "10.88.0.5", "192.168.16.3", "fd00::2"):
        assert any(ipaddress.ip_address(client) in network for network in listen.networks)
    for client in ("198.51.100.1", "100.64.0.1", "2001:db8::1"):
        assert not any(ipaddress.ip_address(client) in network for network in listen.networks)


def test_the_image_runs_as_a_number_on_a_base_of_choice() -> None:
    assert re.findall(r"^FROM (\S+)", _DOCKERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]
    user = re.search(r"^USER (\d+):\1$", _DOCKERFILE, re.MULTILINE)
    assert user is not None
    assert f"--uid {user[1]} " in _DOCKERFILE


def test_the_health_check_is_the_form_that_every_engine_reads() -> None:
    written = re.search(r"^HEALTHCHECK .*? CMD (\[.*?\])$", _DOCKERFILE.replace("\\\n", ""), re.MULTILINE)
    assert written is not None
    assert json.loads(written[1])[:2] == ["python", "-c"]
    assert "/livez" in written[1]


def test_the_build_gets_every_file_that_the_image_copies() -> None:
    context = set(re.findall(r"^!(\S+)$", (_TREE / ".dockerignore").read_text(), re.MULTILINE))
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", _DOCKERFILE, re.MULTILINE)
    assert {name for line in copied for name in line.split()} == context
    assert all((_TREE / name).exists() for name in context)


@pytest.mark.parametrize("name", _COMPOSE_FILES)
def test_containers_get_longer_to_end_than_the_drain(name: str) -> None:
    grace = re.search(r"^    stop_grace_period: (\d+)s$", (_TREE / name).read_text(), re.MULTILINE)
    assert grace is not None
    assert int(grace[1]) > LONG_DRAIN


def test_compose_publishes_every_port_on_loopback_only() -> None:
    ports = re.findall(r"^      - (\S+:\d+)$", (_TREE / "compose.yaml").read_text(), re.MULTILINE)
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports:" not in (_TREE / "config/compose/avideo.yaml").read_text()


def test_compose_mounts_files_that_exist() -> None:
    files = re.findall(r"^      - \./(\S+?):", (_TREE / "compose.yaml").read_text(), re.MULTILINE)
    assert len(files) == 5
    assert all((_TREE / name).is_file() for name in files)


def test_the_changelog_begins_with_the_version() -> None:
    headings = re.findall(
        r"^## \[(\S+)\] - (?:not released|\d{4}-\d\d-\d\d)$", (_TREE / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert headings[0] == relay.__version__


def test_every_script_of_the_packages_is_valid_shell() -> None:
    scripts = [*(_TREE / "packaging").rglob("*.sh"), *(_TREE / "packaging" / "debian").glob("*.p[or]*")]
    assert len(scripts) == 9
    for script in scripts:
        subprocess.run(["sh", "-n", script], check=True)
