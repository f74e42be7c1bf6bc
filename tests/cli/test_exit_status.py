"""The exit statuses that every command has: 74 for a result that cannot be written, 130 for Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from parts.store_folder import StoreFolder, record, repeat
from parts.waiting import LONGEST

from relay.core.content import Content
from relay.core.record import SuppressedCopy

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus" / "avideo" / "different"
PAIR = [str(CORPUS / f"avideo-recovery.{letter}.eml") for letter in "ab"]
FULL = "error: the result cannot be written: No space left on device; make room and try again\n"
CLOSED = "error: the result cannot be written: Bad file descriptor; redirect stdout to a file or a pipe\n"
STORE = ("--store", "sqlite:{home}/relay.db")
NO_UPSTREAM = ("--set", "upstream.url=smtp://127.0.0.1:1", "--set", "upstream.patience=0")
RESULTS = {
    "--version": ["--version"],
    "--help": ["--help"],
    "help of a command": ["config", "--help"],
    "config": ["config"],
    "explain": ["explain", *PAIR],
    "explain --json": ["explain", "--json", *PAIR],
    "simulate": ["simulate", str(CORPUS)],
    "suppressed": ["suppressed", *STORE],
    "suppressed --json": ["suppressed", "--json", *STORE],
    "why": ["why", "000000000001", *STORE],
    "forget": ["forget", "--all", *STORE],
    "release": ["release", "000000000001", "--set", "record.keep=maildir:{home}/kept", *NO_UPSTREAM],
    "check": ["check", "--listen", "127.0.0.1:0", "--http", "", "--upstream", "maildir:nowhere", "--store", "memory:"],
}
DONE = {
    "forget": "forgot 0 acceptances; do not repeat the command",
    "release": "the upstream accepted the copy for 0 of 1; not accepted for 1 of 1; "
    "to try again: relay release 000000000001",
}
"""What a command has done whose result cannot be written."""
FEW = ("--help", "config", "explain", "suppressed")


@pytest.fixture
def home(folder: StoreFolder) -> Path:
    """A home with a store that has one record, and with the kept copy of that record."""
    folder.fill(record("000000000001", repeat("h:a")))
    folder.keep.save("000000000001", SuppressedCopy(b"", (b"a@example.test",), Content(b"x\r\n")))
    return folder.path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "relay", *arguments]


def environment(home: Path) -> dict[str, str]:
    """What `env -i PATH=$PATH HOME=$HOME` leaves: Python buffers its output then."""
    return {"PATH": os.environ["PATH"], "HOME": str(home)}


def run_command(home: Path, arguments: list[str], **streams: Any) -> tuple[int, str]:
    """Run a command, and return its exit status and what it wrote to stderr."""
    process = subprocess.run(
        command(*(argument.format(home=home) for argument in arguments)),
        **({"stderr": subprocess.PIPE} | streams),
        env=environment(home),
        cwd=ROOT,
        check=False,
        timeout=LONGEST,
    )
    return process.returncode, (process.stderr or b"").decode()


@pytest.fixture
def full() -> Iterator[int]:
    with Path("/dev/full").open("wb") as device:
        yield device.fileno()


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_on_a_full_disk_ends_with_74(home: Path, name: str, full: int) -> None:
    status, stderr = run_command(home, RESULTS[name], stdout=full)
    expected = FULL.replace("make room and try again", DONE.get(name, "make room and try again"))
    assert (status, stderr.splitlines(keepends=True)[-1]) == (74, expected)
    assert "Traceback" not in stderr
    assert "Exception" not in stderr


@pytest.mark.parametrize("name", FEW)
def test_a_closed_stdout_ends_with_74(home: Path, name: str) -> None:
    status, stderr = run_command(home, RESULTS[name], preexec_fn=lambda: os.close(1))
    assert (status, stderr.splitlines(keepends=True)[-1]) == (74, CLOSED)
    assert "Traceback" not in stderr


@pytest.mark.parametrize("name", FEW)
def test_a_pipe_that_its_reader_has_closed_ends_with_74_and_no_message(home: Path, name: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        status, stderr = run_command(home, RESULTS[name], stdout=writer)
    finally:
        os.close(writer)
    assert status == 74
    assert "error" not in stderr
    assert "Traceback" not in stderr


def test_unbuffered_output_ends_the_same_way(home: Path, full: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "environment", lambda _: os.environ | {"PYTHONUNBUFFERED": "1"})
    assert run_command(home, RESULTS["explain"], stdout=full) == (74, FULL)


def test_a_message_that_cannot_be_written_either_changes_nothing(home: Path, full: int) -> None:
    for arguments in (["config"], ["config", "--window", "soon"]):
        assert run_command(home, arguments, stdout=full, stderr=full) == (74, "")


def test_a_closed_stdout_is_no_obstacle_where_there_is_no_result(home: Path) -> None:
    status, stderr = run_command(home, ["config", "--window", "soon"], preexec_fn=lambda: os.close(1))
    assert status == 78
    assert stderr.startswith("error: dedup.window")


def test_ctrl_c_ends_a_command_with_130(tmp_path: Path) -> None:
    """Status 1 of `relay explain` would say that two messages differ."""
    os.mkfifo(tmp_path / "pipe")
    process = subprocess.Popen(
        command("explain", str(tmp_path / "pipe")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(tmp_path),
        cwd=ROOT,
        text=True,
    )
    # Opened by both sides: the command waits for octets now.
    with process, (tmp_path / "pipe").open("wb"):
        process.send_signal(signal.SIGINT)
        written = process.communicate(timeout=LONGEST)
    assert (process.returncode, *written) == (130, "", "\ninterrupted\n")
