"""What `relay suppressed`, `why`, `forget` and `release` share: their flags, and stores that cannot be opened."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from parts.ports import HOST, free_port

from relay.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from parts.store_folder import StoreFolder


COMMANDS = ("suppressed", "why 0123456789ab", "forget 0123456789ab", "forget --all")


@pytest.mark.parametrize("command", [*COMMANDS, "release 000000000001"])
def test_the_store_flag_works_as_for_the_relay(tmp_path: Path, command: str) -> None:
    name, *arguments = command.split()
    result = CliRunner().invoke(main, [name, "--store", "sqlte:x", *arguments])
    assert result.exit_code == 78
    assert 'store.url = "sqlte:x" (flag --store): ' in result.stderr


@pytest.mark.parametrize("command", [*COMMANDS, "release 000000000001"])
def test_doubtful_settings_are_not_reported(folder: StoreFolder, command: str) -> None:
    folder.fill()
    name, *arguments = command.split()
    assert "warning" not in folder.call(name, "--set", "dedup.window=3s", *arguments).stderr


# Stores that cannot be asked


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_file_is_reported_and_not_created(tmp_path: Path, command: str) -> None:
    name, *arguments = command.split()
    url = f"sqlite:{tmp_path}/a/relay.db"
    result = CliRunner().invoke(main, [name, "--set", f"store.url={url}", *arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: store.url {url}: No such file or directory; name the store of the relay")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_no_database_is_reported(tmp_path: Path, command: str) -> None:
    (tmp_path / "relay.db").write_bytes(b"no database at all" * 1000)
    name, *arguments = command.split()
    result = CliRunner().invoke(main, [name, "--set", f"store.url=sqlite:{tmp_path}/relay.db", *arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: store.url sqlite:{tmp_path}/relay.db: it is not a database")
    assert result.stderr.endswith("; repair it, or correct store.url\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_redis_that_is_down_is_reported(command: str) -> None:
    name, *arguments = command.split()
    url = f"redis://{HOST}:{free_port()}"
    result = CliRunner().invoke(main, [name, "--set", f"store.url={url}", *arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: store.url {url}: ")
    assert result.stderr.endswith("; start it, or correct store.url\n")
    assert "Traceback" not in result.stderr


def test_a_redis_that_does_not_answer_is_reported_after_its_timeout() -> None:
    with socket.create_server((HOST, 0)) as silent:
        url = f"redis://{HOST}:{silent.getsockname()[1]}"
        result = CliRunner().invoke(main, ["why", "x@y", "--store", url, "--set", "store.timeout=100ms"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: store.url {url}: no answer within 0.3 s; start it, or correct store.url\n"
