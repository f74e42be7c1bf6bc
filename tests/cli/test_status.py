"""`relay status`: what the running relay says about itself."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from parts.admin_sockets import PROCESS, answer_of, listening
from parts.client import send
from parts.shared_relay import SharedRelay

from relay import __version__
from relay.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def relay() -> Iterator[SharedRelay]:
    relay = SharedRelay(upstream="maildir:mail")
    relay.environment["RUNTIME_DIRECTORY"] = str(relay.state)
    relay.arguments[relay.arguments.index("maildir:mail")] = f"maildir:{relay.state}/mail"
    with relay:
        yield relay


def status(relay: SharedRelay, *flags: str, **environment: str) -> Result:
    given = {"RUNTIME_DIRECTORY": str(relay.state), **environment}
    return CliRunner().invoke(main, ["status", *flags], env=given, prog_name="relay")


def test_it_shows_the_state_of_the_running_relay(relay: SharedRelay) -> None:
    asyncio.run(send(relay.port, b"s@example.test", [b"a@example.test"], b"Subject: x\r\n\r\n1\r\n"))
    shown = status(relay)
    assert (shown.exit_code, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0].startswith(f"relay {__version__}, pid ")
    assert [line for line in lines if line.startswith("  mail ")] == ["  mail         can flow"]
    assert f"  listens on   smtp 127.0.0.1:{relay.port}, http 127.0.0.1:{relay.http_port}, admin " in shown.stdout
    assert "  last minute  messages: 1 2xx; recipients: 1 forwarded" in lines
    assert "  mode         enforce, window 10 min" in lines
    assert lines[-1] == "  warnings     none"


def test_for_programs_it_is_one_object(relay: SharedRelay) -> None:
    shown = status(relay, "--json")
    found = json.loads(shown.stdout)
    assert (shown.exit_code, found["ready"], found["store"]) == (0, True, "memory:")
    assert found["memory_limit_bytes"] > 0
    assert found["parts"] == {"listener": "listening", "upstream": "up", "store": "up", "trace": "up"}


def test_it_names_a_reload_that_failed_and_what_needs_a_restart(relay: SharedRelay) -> None:
    found = json.loads(status(relay, "--json").stdout)
    assert (found["reload_problem"], found["restart_to_change"]) == ("", [])
    changed = {"reload_problem": "dedup.window: no unit", "restart_to_change": ["store.url", "http.address"]}
    path = relay.state / "other.sock"
    with listening(path, PROCESS, answer_of(json.dumps(found | changed).encode())):
        shown = status(relay, "--set", f"admin.socket={path}").stdout
    assert "  reload       failed: dedup.window: no unit\n" in shown
    assert "  restart      to change: store.url, http.address\n" in shown


def test_only_user_and_group_of_the_service_may_connect(relay: SharedRelay) -> None:
    found = Path(relay.state, "admin.sock").stat()
    assert stat.S_IMODE(found.st_mode) == 0o660


def test_without_a_relay_it_ends_with_69(relay: SharedRelay) -> None:
    shown = status(relay, RUNTIME_DIRECTORY="/nowhere")
    assert (shown.exit_code, shown.stdout) == (69, "")
    assert shown.stderr == (
        "error: no relay listens on admin.socket /nowhere/admin.sock; start it, or name the socket of a running one: "
        "--set admin.socket=PATH\n"
    )
    shown = status(relay, "--set", "admin.socket=")
    assert shown.exit_code == 69
    assert shown.stderr.startswith("error: these settings name no running relay: admin.socket is empty")


def test_a_relay_through_which_no_mail_can_flow_ends_it_with_1(relay: SharedRelay) -> None:
    body = json.loads(status(relay, "--json").stdout) | {"ready": False}
    path = relay.state / "other.sock"
    with listening(path, PROCESS, answer_of(json.dumps(body).encode())):
        shown = status(relay, "--set", f"admin.socket={path}")
    assert shown.exit_code == 1
    assert "  mail         cannot flow\n" in shown.stdout


def test_an_answer_without_what_is_shown_is_reported(relay: SharedRelay) -> None:
    path = relay.state / "other.sock"
    with listening(path, PROCESS, answer_of(b'{"ready": true}')):
        shown = status(relay, "--set", f"admin.socket={path}")
    assert (shown.exit_code, shown.stdout) == (69, "")
    assert "answers what this command does not understand" in shown.stderr


def test_what_it_shows_cannot_move_the_cursor(relay: SharedRelay) -> None:
    body = json.loads(status(relay, "--json").stdout) | {"warnings": ["\x1b]0;x\x07"]}
    path = relay.state / "other.sock"
    with listening(path, PROCESS, answer_of(json.dumps(body).encode())):
        shown = status(relay, "--set", f"admin.socket={path}")
    assert "\x1b" not in shown.stdout


def test_many_commands_at_once_are_all_answered(relay: SharedRelay) -> None:
    from relay.admin.client import running_relay

    async def ask() -> bool:
        async with running_relay(relay.state / "admin.sock") as found:
            return bool((await found.json("GET", "/status", 10.0))["ready"])

    async def ask_often() -> list[bool]:
        return await asyncio.gather(*(ask() for _ in range(100)))

    assert asyncio.run(ask_often()) == [True] * 100
