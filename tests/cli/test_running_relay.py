"""Commands ask the running relay, and see what it sees: its store, its password, its files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import re
import tomllib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import redis
from click.testing import CliRunner, Result
from parts.admin_sockets import PROCESS, answer_of, listening
from parts.client import send
from parts.ports import HOST, free_port
from parts.redis_server import RedisServer
from parts.shared_relay import SharedRelay

from relay.admin.client import running_relay
from relay.admin.records import AskedRecords
from relay.cli import main
from relay.cli.check import other_user
from relay.core.errors import AdminError
from relay.core.trace import REPEATS, TracePage, TraceQuery
from relay.records.selection import Selection
from relay.settings import sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "a-secret-of-the-service"
ALICE, BOB = b"alice@example.test", b"bob@example.test"


def serving(store: str | None, **environment: str) -> SharedRelay:
    """Returns a relay that delivers into its own folder, keeps copies there, and listens on a socket in it."""
    made = SharedRelay(upstream="maildir:mail", store=store)
    made.arguments[made.arguments.index("maildir:mail")] = f"maildir:{made.state}/mail"
    made.arguments += ["--set", f"record.keep=maildir:{made.state}/kept"]
    made.environment |= {"RUNTIME_DIRECTORY": str(made.state), **environment}
    return made


@pytest.fixture(scope="module")
def service() -> Iterator[SharedRelay]:
    """A relay whose store only its own environment names, with the password."""
    with RedisServer() as server:
        redis.Redis(port=server.port).config_set("requirepass", PASSWORD)
        url = f"redis://:{PASSWORD}@{HOST}:{server.port}"
        with serving(None, RELAY_STORE__URL=url) as started:
            for number in range(4):
                asyncio.run(suppress(started, f"Subject: {number}\r\n\r\nx\r\n".encode()))
            yield started


@pytest.fixture(scope="module")
def in_memory() -> Iterator[SharedRelay]:
    """A relay with its store in memory, and a settings file."""
    relay = serving("memory:")
    file = relay.state / "relay.toml"
    file.write_text('[dedup]\nwindow = "10m"\n')
    relay.arguments += ["-c", str(file)]
    with relay:
        yield relay


async def suppress(relay: SharedRelay, content: bytes) -> None:
    for _ in range(2):
        assert (await send(relay.port, b"s@example.test", [ALICE, BOB], content)).ok


def call(relay: SharedRelay, *arguments: str, **environment: str) -> Result:
    """Runs a command in this process, whose environment names no store."""
    given = {"RUNTIME_DIRECTORY": str(relay.state), **environment}
    return CliRunner().invoke(main, arguments, env=given, prog_name="relay")


def records(relay: SharedRelay) -> list[dict[str, Any]]:
    return [json.loads(line) for line in call(relay, "suppressed", "--json").stdout.splitlines()]


# Its store


def test_suppressed_and_why_see_its_store(service: SharedRelay) -> None:
    shown = call(service, "suppressed")
    assert (shown.exit_code, len(shown.stdout.splitlines())) == (0, 4)
    assert shown.stderr == "4 messages to 8 recipients in the last 24 h\n"
    shown = call(service, "why", records(service)[0]["id"])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "  suppressed for h:" in shown.stdout
    assert "  copy      kept; to deliver it after all: relay release " in shown.stdout


def test_why_finds_an_address_by_the_secret_of_the_service(service: SharedRelay) -> None:
    shown = call(service, "why", "Alice@EXAMPLE.test")
    assert (shown.exit_code, shown.stdout.count("  suppressed for Alice@EXAMPLE.test, h:")) == (0, 4)
    assert call(service, "why", "carol@example.test").exit_code == 1
    assert "traces are kept for 30d" in call(service, "why", "carol@example.test").stderr


def test_forget_frees_acceptances_in_its_store(service: SharedRelay) -> None:
    assert call(service, "forget", "bob@example.test", "--dry-run").stdout == "would forget 4 acceptances\n"
    assert call(service, "forget", records(service)[0]["id"]).stdout == "forgot 2 acceptances\n"
    assert call(service, "forget", "bob@example.test").stdout == "forgot 3 acceptances\n"
    shown = call(service, "forget", "bob@example.test")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert call(service, "forget", "--all").stdout == "forgot 3 acceptances\n"


def test_a_store_in_memory_is_reached_through_the_relay_only(in_memory: SharedRelay, tmp_path: Path) -> None:
    asyncio.run(suppress(in_memory, b"Subject: m\r\n\r\nx\r\n"))
    for flags in ((), ("--store", "memory:")):
        assert len(call(in_memory, "suppressed", *flags).stdout.splitlines()) == 1
    assert call(in_memory, "forget", "--all").stdout == "forgot 2 acceptances\n"
    assert asyncio.run(in_memory.get("/traces"))[0] == 404
    shown = call(in_memory, "suppressed", "--store", "memory:", RUNTIME_DIRECTORY=str(tmp_path))
    assert shown.exit_code == 1
    assert shown.stderr.endswith(
        f"error: store.url memory: is in the memory of a running relay, and none answers on admin.socket {tmp_path}"
        "/admin.sock; start it, or name its socket with --set admin.socket=PATH\n"
    )
    shown = CliRunner().invoke(main, ["suppressed", "--store", "memory:"])
    assert "and admin.socket is empty; start it" in shown.stderr


def test_many_commands_at_once_are_all_answered(service: SharedRelay) -> None:
    async def ask() -> TracePage:
        async with running_relay(service.state / "admin.sock") as found:
            return await AskedRecords(found).find(TraceQuery(outcomes=REPEATS), 10)

    async def ask_often() -> list[TracePage]:
        return await asyncio.gather(*(ask() for _ in range(100)))

    assert {len(page.traces) for page in asyncio.run(ask_often())} == {4}


# Other stores


def test_a_store_that_is_named_is_opened_directly(service: SharedRelay) -> None:
    shown = call(service, "suppressed", "--store", f"sqlite:{service.state}/other.db")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.startswith(f"error: store.url sqlite:{service.state}/other.db: No such file or directory; name")


def test_another_settings_file_means_another_relay(service: SharedRelay, tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f'[store]\nurl = "sqlite:{tmp_path}/other.db"\n[admin]\nsocket = ""\n')
    assert "No such file or directory" in call(service, "suppressed", "-c", str(file)).stderr
    file.write_text(f'[admin]\nsocket = "{service.state}/admin.sock"\n')
    environment = {"RUNTIME_DIRECTORY": ""}
    assert len(call(service, "suppressed", "-c", str(file), **environment).stdout.splitlines()) == 4


@pytest.mark.parametrize("command", ["suppressed", "why 0123456789ab", "forget --all"])
def test_without_a_relay_one_remark_says_that_the_settings_count(tmp_path: Path, command: str) -> None:
    environment = {"RUNTIME_DIRECTORY": "/nowhere", "STATE_DIRECTORY": str(tmp_path)}
    shown = CliRunner().invoke(main, command.split(), env=environment)
    assert (shown.exit_code, shown.stdout) == (1, "")
    remark, error = shown.stderr.splitlines()
    assert remark == (
        "note: no relay listens on admin.socket /nowhere/admin.sock; using the settings that this shell sees"
    )
    assert error == (
        f"error: store.url sqlite:{tmp_path}/relay.db: No such file or directory; name the store of the relay by "
        "-c FILE or --store URL, and run this as a user who may read it"
    )
    assert list(tmp_path.iterdir()) == []


def test_settings_that_only_the_service_can_read_do_not_stop_a_command(
    service: SharedRelay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such as a namespace in the file, and the URL that it belongs to in the environment of the service."""
    monkeypatch.delenv(sources.FILE_VARIABLE)
    monkeypatch.setenv("RELAY_STORE__NAMESPACE", "tube")
    shown = call(service, "suppressed")
    assert (shown.exit_code, len(shown.stdout.splitlines())) == (0, 4)
    shown = call(service, "suppressed", RUNTIME_DIRECTORY=str(tmp_path))
    assert shown.exit_code == 78
    assert "store.namespace is for Redis" in shown.stderr


# Relays that do not answer as they should


def test_another_version_is_named_once(service: SharedRelay) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, answer_of(b'{"lines": [], "next": "", "damaged": 0}'), answer_of(b'{"seconds": 5}')):
        shown = call(service, "suppressed", "--set", f"admin.socket={path}")
    assert shown.exit_code == 0
    assert shown.stderr.count("has version 9.9.9") == 1


@pytest.mark.parametrize("answers", [[b"{}"], [b"[]"], [b'{"number": null}']])
def test_a_wrong_number_is_reported(service: SharedRelay, answers: list[bytes]) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, *map(answer_of, answers)):
        shown = call(service, "forget", "--all", "--set", f"admin.socket={path}")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "does not answer as a relay does" in shown.stderr


async def test_traces_without_an_end_are_cut(service: SharedRelay) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, answer_of(b"", length=10**12), endless=b"x" * 65536):
        async with running_relay(path) as relay:
            with pytest.raises(AdminError, match="answers with more than 16777216 bytes"):
                await AskedRecords(relay).find(TraceQuery(), 10)


async def test_traces_that_break_off_are_no_full_list(service: SharedRelay) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, answer_of(b"{}", length=100), closes=True):
        async with running_relay(path) as relay:
            with pytest.raises(AdminError, match="broke off its answer; try again"):
                await AskedRecords(relay).find(TraceQuery(), 10)


@pytest.mark.parametrize("answer", [b"{}", b'{"lines": 5}', b'{"lines": [], "next": "", "damaged": "many"}'])
async def test_wrong_traces_are_reported(service: SharedRelay, answer: bytes) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, answer_of(answer)):
        async with running_relay(path) as relay:
            with pytest.raises(AdminError, match="does not answer as a relay does"):
                await AskedRecords(relay).find(TraceQuery(), 10)


async def test_damaged_lines_are_counted(service: SharedRelay) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, answer_of(b'{"lines": ["x", 5, null], "next": "", "damaged": 2}')):
        async with running_relay(path) as relay:
            assert (await AskedRecords(relay).find(TraceQuery(), 10)).damaged == 5


async def status_of(relay: SharedRelay, method: str, path: str, body: bytes = b"") -> int:
    connector = aiohttp.UnixConnector(path=str(relay.state / "admin.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.request(method, f"http://relay{path}", data=body) as answer,
    ):
        return answer.status


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", b'{"within": null}', b"[" * 100_000, Selection().encode().encode()[:-2]]
)
async def test_wrong_requests_are_refused(service: SharedRelay, body: bytes) -> None:
    assert await status_of(service, "POST", "/forget", body) == 400
    assert await status_of(service, "POST", "/names", body) == 400
    assert await status_of(service, "POST", "/traces", body) == 400


async def test_too_large_a_request_is_refused(service: SharedRelay) -> None:
    size = 17 * 1024 * 1024
    reader, writer = await asyncio.open_unix_connection(service.state / "admin.sock")
    writer.write(b"POST /forget HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n" % size + b" " * size)
    assert (await reader.readline()).split()[1] == b"413"
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


# Its files, its upstream, its settings


def test_release_is_done_by_the_relay(service: SharedRelay) -> None:
    record = records(service)[0]["id"]
    shown = call(service, "release", record, "--to", "alice@example.test")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("alice@example.test  250 ")
    shown = call(service, "release", record)
    assert (shown.exit_code, shown.stdout.partition(" ")[0]) == (0, "bob@example.test")
    assert shown.stderr == "note: alice@example.test got it by an earlier release; not sent again\n"
    shown = call(service, "release", record)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == f"error: {record} was released before; relay release {record} --again sends it once more\n"
    assert "kept, and released already" in call(service, "why", record).stdout
    shown = call(service, "release", "0123456789ab")
    assert shown.stderr.startswith(f"error: no copy of 0123456789ab is kept in {service.state}/kept; ")


def test_config_shows_the_settings_in_force_without_passwords(service: SharedRelay) -> None:
    shown = call(service, "config")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("# In force in the running relay, version ")
    assert PASSWORD not in shown.stdout
    store = tomllib.loads(shown.stdout)["store"]["url"]
    assert (store.startswith("redis://"), "# environment RELAY_STORE__URL" in shown.stdout) == (True, True)
    shown = call(service, "config", "--set", "dedup.window=1h")
    assert tomllib.loads(shown.stdout)["store"]["url"].startswith("sqlite:")
    shown = call(service, "config", "--store", "memory:")
    assert tomllib.loads(shown.stdout)["store"]["url"] == "memory:"


def test_check_tests_what_the_relay_uses(service: SharedRelay) -> None:
    shown = call(service, "check")
    assert (shown.exit_code, shown.stderr) == (0, "")
    keys = [line[6:].partition(":")[0] for line in shown.stdout.splitlines() if line[:4].strip() in {"ok", "warn"}]
    assert keys[:3] == ["admin.socket", "listen.address", "http.address"]
    assert {"upstream.url", "store.url", "record.keep", "record.secret_file"} <= {*keys}
    assert f"ok    upstream.url: maildir:{service.state}/mail can be written\n" in shown.stdout
    assert f"ok    listen.address: the running relay listens on {HOST}:{service.port}\n" in shown.stdout
    assert re.search(r"^ok    store.url: redis://\S+ answers$", shown.stdout, re.MULTILINE)
    assert PASSWORD not in shown.stdout


def test_check_without_a_relay_tests_what_this_shell_sees(service: SharedRelay, tmp_path: Path) -> None:
    addresses = {"RELAY_LISTEN__ADDRESS": f"{HOST}:{free_port()}", "RELAY_HTTP__ADDRESS": ""}
    mail = {"RELAY_UPSTREAM__URL": f"maildir:{tmp_path}/mail", "STATE_DIRECTORY": str(tmp_path)}
    shown = call(service, "check", RUNTIME_DIRECTORY=str(tmp_path), **addresses, **mail)
    assert shown.exit_code == 0
    assert shown.stderr.startswith(f"note: no relay listens on admin.socket {tmp_path}/admin.sock; using the settings")
    assert "is free\n" in shown.stdout


def test_check_names_the_user_of_the_service() -> None:
    other = next(user.pw_name for user in pwd.getpwall() if user.pw_uid != os.geteuid())
    own = pwd.getpwuid(os.geteuid()).pw_name
    assert other_user(other) == f"checked as {own}; the service runs as {other}: sudo -u {other} relay check"
    assert other_user(own) == ""
    assert other_user("nobody-of-this-name") == ""


def test_a_settings_file_that_has_changed_is_named(in_memory: SharedRelay) -> None:
    relay, file = in_memory, in_memory.state / "relay.toml"
    assert call(relay, "config").stderr == ""
    file.write_text(f'[dedup]\nwindow = "1h"\n[auth]\nmode = "file"\nusers_file = "{relay.state}/absent"\n')
    changed = f"{file} has changed since the relay read it: auth.mode, auth.users_file, dedup.window"
    shown = call(relay, "config")
    assert shown.stderr == f"note: {changed}; reload (systemctl reload smtp-dedup-relay)\n"
    assert tomllib.loads(shown.stdout)["dedup"]["window"] == "10m"
    shown = call(relay, "check")
    assert shown.exit_code == 1
    assert f"warn  settings: {changed}\n      to fix: reload (systemctl reload smtp-dedup-relay)" in shown.stdout
    assert f"FAIL  auth.users_file: {relay.state}/absent: No such file or directory\n" in shown.stdout
    file.write_text('[store]\ntimeout = "2s"\n[dedup]\nwindow = "1h"\n')
    assert call(relay, "config").stderr.endswith(
        "reload (systemctl reload smtp-dedup-relay), and restart (systemctl restart smtp-dedup-relay) for "
        "store.timeout\n"
    )
    file.write_text("[dedup]\nwindw = 1\n")
    shown = call(relay, "check")
    assert shown.exit_code == 78
    assert f"error: dedup.windw (file {file}): " in shown.stderr
    assert "ok    store.url" in shown.stdout
    assert "note: the settings on disk are wrong, and not in force: dedup.windw" in call(relay, "config").stderr


@pytest.mark.parametrize("path", ["/check", "/release"])
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[" * 100_000, b'{"mail_from": "a> SIZE=1", "rcpt_to": null}'])
async def test_wrong_actions_are_refused(service: SharedRelay, path: str, body: bytes) -> None:
    assert await status_of(service, "POST", path, body) == 400


@pytest.mark.parametrize("command", ["check", "config", "release 0123456789ab"])
def test_a_wrong_answer_to_an_action_is_reported(service: SharedRelay, command: str) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, answer_of(b"{}")):
        shown = call(service, *command.split(), "--set", f"admin.socket={path}")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "does not answer as a relay does" in shown.stderr
