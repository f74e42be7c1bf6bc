"""`relay user`: what it writes, shows and refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from relay.cli import main
from relay.logins.passwords import matches
from relay.logins.users_file import read_users

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users"


def call(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["user", *arguments], input=stdin)


def test_users_are_added_changed_listed_and_removed(file: Path) -> None:
    added = call("add", "anna", "--file", str(file), "--from", "@example.test", stdin="s3cret\nmore\n")
    assert (added.exit_code, added.stdout) == (0, f"added anna in {file}\n")
    assert matches(read_users(file)["anna"].hashed, b"s3cret")
    assert call("add", "bert", "--file", str(file), stdin=b"\xff\xfe\r\n").exit_code == 0
    assert matches(read_users(file)["bert"].hashed, b"\xff\xfe")
    changed = call("add", "anna", "--file", str(file), stdin="new")
    assert changed.stdout == f"changed anna in {file}\n"
    assert matches(read_users(file)["anna"].hashed, b"new")
    assert call("list", "--file", str(file)).stdout == "anna  @example.test\nbert  any sender\n"
    assert call("list", "bert", "--file", str(file)).stdout == "bert  any sender\n"
    assert call("remove", "anna", "--file", str(file)).stdout == f"removed anna from {file}\n"
    assert list(read_users(file)) == ["bert"]
    assert "s3cret" not in file.read_text() + added.output


def test_the_file_is_that_of_the_settings(file: Path, tmp_path: Path) -> None:
    settings = tmp_path / "relay.toml"
    settings.write_text(f'[auth]\nmode = "file"\nusers_file = "{file}"\n')
    assert call("add", "anna", "-c", str(settings), stdin="x\n").exit_code == 0
    assert list(read_users(file)) == ["anna"]
    of_page = tmp_path / "page"
    settings.write_text(f'[http]\nusers_file = "{of_page}"\n')
    assert call("add", "ada", "--page", "-c", str(settings), stdin="x\n").exit_code == 0
    assert list(read_users(of_page)) == ["ada"]
    settings.write_text("[auth]\nmode = 3\n")
    assert call("list", "-c", str(settings)).exit_code == 78


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "message"),
    [
        (["remove", "anna"], "", 1, "has no user anna; relay user list shows all"),
        (["list", "anna"], "", 1, "No such file or directory"),
        (["add", "anna"], "", 1, "the first line of stdin is no password"),
        (["add", "anna"], "\n", 1, "the first line of stdin is no password"),
        (["add", "anna"], "x" * 4097, 1, "the first line of stdin is no password"),
        (["add", "an:na"], "x\n", 2, 'a name has no ":"'),
        (["add", "anna", "--from", "boss"], "x\n", 2, '"boss" is not a sender'),
        (["add", "anna", "--password", "x"], "", 2, "No such option"),
    ],
)
def test_faults_name_the_remedy(file: Path, arguments: list[str], stdin: str, status: int, message: str) -> None:
    result = call(*arguments, "--file", str(file), stdin=stdin)
    assert result.exit_code == status
    assert message in result.stderr
    assert not file.exists() or arguments[0] == "remove"


def test_without_a_file_the_command_says_what_to_give() -> None:
    result = call("list")
    assert result.exit_code == 2
    assert "give --file FILE, or set auth.users_file" in result.stderr
    assert "give --file FILE, or set http.users_file" in call("list", "--page").stderr


@pytest.mark.parametrize("command", [[], ["add"], ["remove"], ["list"]])
def test_help_shows_an_example(command: list[str]) -> None:
    assert "Example" in call(*command, "--help").stdout
