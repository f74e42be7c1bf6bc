"""The commands as somebody meets them for the first time: help, mistakes, and where results and messages go."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from parts.ports import HOST, free_port
from parts.relay_process import run_relay
from parts.terminal import on_a_terminal
from parts.waiting import LONGEST

from relay import __version__
from relay.cli import main

ROOT = Path(__file__).parents[2]
PAIR = [str(ROOT / "tests" / "corpus" / "avideo" / "different" / f"avideo-recovery.{letter}.eml") for letter in "ab"]
COMMANDS = ("serve", "check", "config", "explain", "simulate", "suppressed", "why", "release", "forget", "demo")


def call(*arguments: str, **environment: str) -> Result:
    """Run a command in this process, which is quicker."""
    return CliRunner().invoke(main, arguments, env=environment, prog_name="relay")


# Help


def test_help_names_every_command_in_one_line_each() -> None:
    help_page = call("--help")
    assert help_page.exit_code == 0
    found = re.findall(r"^  ([a-z]+)  +(\S.*)$", help_page.output, re.MULTILINE)
    assert [name for name, _ in found] == list(COMMANDS)
    assert not [text for _, text in found if text.endswith("...")]
    assert help_page.output.startswith("Usage: relay [OPTIONS] COMMAND")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example(command: str) -> None:
    help_page = call(command, "--help")
    assert help_page.exit_code == 0
    assert re.search(rf"Examples?:\n    relay {command}", help_page.output)
    assert max(map(len, help_page.output.splitlines())) <= 100


async def test_the_process_itself_tells_its_version() -> None:
    told = await run_relay("--version")
    assert (told.status, told.stdout, told.stderr) == (0, f"smtp-dedup-relay, version {__version__}\n", "")


# Mistakes


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
def test_a_wrong_flag_or_command_is_named_on_stderr(arguments: list[str], hint: str) -> None:
    told = call(*arguments)
    assert told.exit_code == 2
    assert hint in told.stderr
    assert "--help' for help" in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize("command", ["serve", "check", "config"])
@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--window", "soon"], {}, 'dedup.window = "soon" (flag --window): not a duration; write for example "10m"'),
        (["--set", "dedup.windw=1h"], {}, "dedup.windw (flag --set): unknown key; did you mean dedup.window?"),
        (["--set", "windw"], {}, '--set windw: "=" is missing; write --set SECTION.KEY=VALUE'),
        ([], {"RELAY_DEDUP__WINDOW": "-"}, 'dedup.window = "-" (environment RELAY_DEDUP__WINDOW): not a duration'),
        (["--upstream", "host"], {}, 'upstream.url = "host" (flag --upstream): the kind is missing; write smtp://'),
        (["--upstream", "smtp://u@h"], {}, "upstream.password_file, or set RELAY_UPSTREAM__PASSWORD"),
    ],
)
def test_a_wrong_setting_ends_with_78_and_names_source_and_mend(
    command: str, arguments: list[str], environment: dict[str, str], told: str
) -> None:
    answer = call(command, *arguments, **environment)
    assert answer.exit_code == 78
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr


def test_every_wrong_setting_is_told_at_once(tmp_path: Path) -> None:
    settings = tmp_path / "relay.toml"
    settings.write_text('[dedup]\nwindow = "soon"\nmood = "good"\n')
    told = call("check", "-c", str(settings), "--listen", "nowhere").stderr.splitlines()
    assert len(told) == 3
    assert all(line.startswith("error: ") for line in told)
    assert sum(f"(file {settings})" in line for line in told) == 2


@pytest.mark.parametrize("kind", ["missing", "a folder", "not TOML", "not text"])
def test_a_settings_file_that_cannot_be_read_ends_with_78(tmp_path: Path, kind: str) -> None:
    file = tmp_path if kind == "a folder" else tmp_path / "relay.toml"
    if kind.startswith("not"):
        file.write_bytes(b"[dedup\n" if kind == "not TOML" else b"\xff\xfe\x00")
    told = call("serve", "-c", str(file))
    assert told.exit_code == 78
    assert told.stderr.startswith("error: ")
    assert str(file) in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_a_password_file_that_cannot_be_read_ends_with_78(tmp_path: Path) -> None:
    flags = ("--upstream", "smtp://u@127.0.0.1:1", "--http", "", "--set", f"upstream.password_file={tmp_path}/none")
    for command in ("serve", "check"):
        told = call(command, "--listen", f"{HOST}:{free_port()}", *flags)
        assert told.exit_code == 78
        assert f"upstream.password_file {tmp_path}/none: No such file or directory" in told.stderr


# relay config


def test_config_shows_each_setting_its_source_and_no_password() -> None:
    shown = call("config", "--window", "1h", RELAY_STORE__URL="redis://:hunter2@127.0.0.1")
    assert shown.exit_code == 0
    assert tomllib.loads(shown.stdout)["dedup"]["window"] == "1h"
    assert 'window = "1h"  # flag --window' in shown.stdout
    assert 'url = "redis://:***@127.0.0.1"  # environment RELAY_STORE__URL' in shown.stdout
    assert "hunter2" not in shown.output


def test_a_doubtful_setting_is_a_warning_on_stderr_and_no_error() -> None:
    shown = call("config", "--window", "3s")
    assert shown.exit_code == 0
    assert shown.stderr.startswith("warning: dedup.window is 3s: ")
    assert "warning" not in shown.stdout


def test_no_setting_puts_more_than_text_on_the_terminal(tmp_path: Path) -> None:
    settings = tmp_path / "relay.toml"
    settings.write_text('"\\u001b]0;x\\u0007" = 1\n')
    told = call("config", "-c", str(settings))
    assert told.exit_code == 78
    assert "error: \\x1b]0;x\\x07 (file " in told.stderr


# Where the output goes


def test_colours_are_for_those_who_want_them() -> None:
    command = ("check", "--upstream", f"smtp://{HOST}:{free_port()}", "--store", "memory:")
    assert "\x1b[31m\x1b[1mFAIL\x1b[0m  upstream.url" in on_a_terminal(*command)
    assert "\nFAIL  upstream.url" in on_a_terminal(*command, NO_COLOR="1")


async def test_a_terminal_without_unicode_shows_what_it_can() -> None:
    shown = await run_relay("explain", *PAIR, environment={"PYTHONIOENCODING": "latin-1"})
    assert (shown.status, shown.stderr) == (1, "")
    assert "f00dfeed01 \\u2192 \\u2026" in shown.stdout


def test_a_full_disk_below_the_result_is_no_result() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "relay", "explain", *PAIR]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT, check=False, text=True)
    assert ended.returncode == 74
    assert ended.stderr == "error: the result cannot be written: No space left on device; make room and try again\n"


def test_ctrl_c_looks_like_no_result(tmp_path: Path) -> None:
    """Status 1 of `relay explain` would say that two messages differ."""
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "relay", "explain", str(tmp_path / "pipe")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    # Opened by both sides: the command waits for octets now.
    with process, (tmp_path / "pipe").open("wb"):
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=LONGEST)
    assert (process.returncode, *told) == (130, "", "\ninterrupted\n")
