"""What all commands share: help, wrong arguments and settings, and where results and messages go."""

from __future__ import annotations

import asyncio
import re
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from parts.ports import HOST, free_port
from parts.relay_process import run_relay
from parts.terminal import on_a_terminal

from relay import __version__
from relay.cli import main

ROOT = Path(__file__).parents[2]
PAIR = [str(ROOT / "tests" / "corpus" / "avideo" / "different" / f"avideo-recovery.{letter}.eml") for letter in "ab"]
COMMANDS = (
    *(
        "serve",
        "check",
        "config",
        "status",
        "explain",
        "simulate",
        "log",
        "why",
        "suppressed",
        "release",
        "forget",
        "user",
        "sendmail",
    ),
    "demo",
)


def call(*arguments: str, **environment: str) -> Result:
    """Run a command in this process, which is faster."""
    return CliRunner().invoke(main, arguments, env=environment, prog_name="relay")


# Help


def test_help_names_every_command_in_one_line_each() -> None:
    result = call("--help")
    assert result.exit_code == 0
    found = re.findall(r"^  ([a-z]+)  +(\S.*)$", result.output, re.MULTILINE)
    assert [name for name, _ in found] == list(COMMANDS)
    assert not [text for _, text in found if text.endswith("...")]
    assert result.output.startswith("Usage: relay [OPTIONS] COMMAND")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n    relay {command}", result.output)
    assert max(map(len, result.output.splitlines())) <= 100


async def test_a_process_shows_its_version() -> None:
    result = await run_relay("--version")
    assert (result.status, result.stdout, result.stderr) == (0, f"smtp-dedup-relay, version {__version__}\n", "")


# Wrong arguments and settings


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["serve", "--windw", "10m"], "Did you mean '--window'?"),
        (["serv"], "No such command 'serv'. Did you mean 'serve'?"),
        (["qqq"], "No such command 'qqq'"),
        (["check", "more"], "Got unexpected extra argument (more)"),
        (["explain"], "Missing argument 'A.eml'."),
    ],
)
def test_a_wrong_flag_or_command_is_reported_on_stderr(arguments: list[str], hint: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert "--help' for help" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["serve", "check", "config"])
@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--window", "soon"], {}, 'dedup.window = "soon" (flag --window): not a duration; write for example "10m"'),
        (["--set", "dedup.windw=1h"], {}, "dedup.windw (flag --set): unknown key; did you mean dedup.window?"),
        (["--set", "windw"], {}, '--set windw: "=" is missing; write --set SECTION.KEY=VALUE'),
        ([], {"RELAY_DEDUP__WINDOW": "-"}, 'dedup.window = "-" (environment RELAY_DEDUP__WINDOW): not a duration'),
        (["--upstream", "host"], {}, 'upstream.url = "host" (flag --upstream): the kind is missing; write smtp://'),
        (["--upstream", "smtp://u@h"], {}, "upstream.password_file, or set RELAY_UPSTREAM__PASSWORD"),
    ],
)
def test_a_wrong_setting_ends_with_78_and_names_source_and_remedy(
    command: str, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    result = call(command, *arguments, **environment)
    assert result.exit_code == 78
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_every_wrong_setting_is_reported_at_once(tmp_path: Path) -> None:
    settings = tmp_path / "relay.toml"
    settings.write_text('[dedup]\nwindow = "soon"\nmood = "good"\n')
    result = call("check", "-c", str(settings), "--listen", "nowhere").stderr.splitlines()
    assert len(result) == 3
    assert all(line.startswith("error: ") for line in result)
    assert sum(f"(file {settings})" in line for line in result) == 2


@pytest.mark.parametrize("kind", ["missing", "a folder", "not TOML", "not text"])
def test_a_settings_file_that_cannot_be_read_ends_with_78(tmp_path: Path, kind: str) -> None:
    file = tmp_path if kind == "a folder" else tmp_path / "relay.toml"
    if kind.startswith("not"):
        file.write_bytes(b"[dedup\n" if kind == "not TOML" else b"\xff\xfe\x00")
    result = call("serve", "-c", str(file))
    assert result.exit_code == 78
    assert result.stderr.startswith("error: ")
    assert str(file) in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_password_file_that_cannot_be_read_ends_with_78(tmp_path: Path) -> None:
    flags = ("--upstream", "smtp://u@127.0.0.1:1", "--http", "", "--set", f"upstream.password_file={tmp_path}/none")
    for command in ("serve", "check"):
        result = call(command, "--listen", f"{HOST}:{free_port()}", *flags)
        assert result.exit_code == 78
        assert f"upstream.password_file {tmp_path}/none: No such file or directory" in result.stderr


# relay config


def test_config_shows_each_setting_with_its_source_and_no_password() -> None:
    result = call("config", "--window", "1h", RELAY_STORE__URL="redis://:hunter2@127.0.0.1")
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout)["dedup"]["window"] == "1h"
    assert 'window = "1h"  # flag --window' in result.stdout
    assert 'url = "redis://:***@127.0.0.1"  # environment RELAY_STORE__URL' in result.stdout
    assert "hunter2" not in result.output


def test_a_doubtful_setting_is_a_warning_on_stderr_and_no_error() -> None:
    result = call("config", "--window", "3s")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: dedup.window is 3s: ")
    assert "warning" not in result.stdout


def test_control_characters_in_settings_are_escaped(tmp_path: Path) -> None:
    settings = tmp_path / "relay.toml"
    settings.write_text('"\\u001b]0;x\\u0007" = 1\n')
    result = call("config", "-c", str(settings))
    assert result.exit_code == 78
    assert "error: \\x1b]0;x\\x07 (file " in result.stderr


# Output


def test_colours_are_shown_on_a_terminal_unless_no_color_is_set() -> None:
    command = ("check", "--upstream", f"smtp://{HOST}:{free_port()}", "--store", "memory:")
    assert "\x1b[31m\x1b[1mFAIL\x1b[0m  upstream.url" in on_a_terminal(*command)
    assert "\nFAIL  upstream.url" in on_a_terminal(*command, NO_COLOR="1")


async def test_a_terminal_without_utf8_shows_escapes() -> None:
    result = await run_relay("explain", *PAIR, environment={"PYTHONIOENCODING": "latin-1"})
    assert (result.status, result.stderr) == (1, "")
    assert "f00dfeed01 \\u2192 \\u2026" in result.stdout


async def test_commands_start_without_what_only_the_page_needs() -> None:
    code = (
        "import sys; import relay.cli, relay.cli.serve, relay.cli.check, relay.settings; print('jinja2' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    stdout, _ = await process.communicate()
    assert stdout == b"False\n"
